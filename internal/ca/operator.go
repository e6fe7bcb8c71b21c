package ca

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// Role is what an operator may do.
type Role string

// The roles. An auditor sees everything but secrets; an operator acts too.
const (
	Auditor       Role = "auditor"
	Administrator Role = "administrator"
)

// Operator is a person or program that runs the CA, authenticated by the
// admin API: "uid:0" over the unix socket.
type Operator struct {
	Name string
	Role Role
}

// operate authorises and audits one call before it does anything: what can't
// be recorded doesn't happen. Reads are recorded too. The work of a change
// runs in the transaction of its record.
func (a *Authority) operate(ctx context.Context, who Operator, action, object string, change func(*store.Tx, *audit.Entry) error) error {
	e := audit.Entry{At: a.clock(), Action: action, Actor: "operator:" + who.Name, Object: object, Detail: map[string]any{}}
	allowed := who.Role == Administrator || who.Role == Auditor && change == nil
	if !allowed {
		return a.deny(ctx, e, protocol.NewProblem(protocol.Unauthorized, "role %q may not do %s", who.Role, action))
	}
	return a.db.Update(ctx, func(tx *store.Tx) error {
		if change != nil {
			if err := change(tx, &e); err != nil {
				return err
			}
		}
		return tx.Audit(e)
	})
}

// CreateEABKey makes an external account key from the template's directory,
// label, profiles, names and bounds; the ID and the MAC key are chosen here.
// This is the only time the MAC key is shown.
func (a *Authority) CreateEABKey(ctx context.Context, who Operator, k protocol.EABKey) (protocol.EABKey, error) {
	now := a.clock()
	k.ID, k.CreatedAt, k.Accounts, k.RevokedAt = protocol.NewID[protocol.EABKeyID](now), now, 0, time.Time{}
	k.MACKey = make([]byte, 32) // RFC 7518 section 3.2: as long as the hash
	rand.Read(k.MACKey)         // never fails (crypto/rand)
	k.MACKey[0] &= 0x7f         // no '-' first in base64url: certbot takes it for a flag; 255 bits are left
	err := a.operate(ctx, who, "eab.create", string(k.ID), func(tx *store.Tx, e *audit.Entry) error {
		d, err := a.directory(k.Directory)
		switch {
		case err != nil:
			return protocol.NewProblem(protocol.Malformed, "there is no directory %q; there are %v", k.Directory, a.DirectoryNames())
		case !k.ExpiresAt.IsZero() && !k.ExpiresAt.After(now):
			return protocol.NewProblem(protocol.Malformed, "the key would have expired already")
		case k.MaxAccounts < 0:
			return protocol.NewProblem(protocol.Malformed, "a key can't open %d accounts; 0 is for any number", k.MaxAccounts)
		}
		if err := d.Policy.CheckEABKey(k); err != nil {
			return err
		}
		e.Directory = k.Directory
		e.Detail = map[string]any{"label": k.Label, "profiles": k.Profiles, "names": k.Names, "pre_approved": k.PreApproved, "accounts": k.MaxAccounts}
		return tx.InsertEABKey(k)
	})
	if err != nil {
		return protocol.EABKey{}, err
	}
	return k, nil
}

// EABKeys lists the keys of a directory ("": of all), without their MAC keys.
func (a *Authority) EABKeys(ctx context.Context, who Operator, directory string, after protocol.EABKeyID, limit int) ([]protocol.EABKey, error) {
	if err := a.operate(ctx, who, "eab.list", directory, nil); err != nil {
		return nil, err
	}
	keys, err := a.db.EABKeys(ctx, directory, after, limit)
	for i := range keys {
		keys[i].MACKey = nil
	}
	return keys, err
}

// RevokeEABKey withdraws a key: it opens no more accounts, and those it
// opened get no more certificates.
func (a *Authority) RevokeEABKey(ctx context.Context, who Operator, id protocol.EABKeyID) error {
	return a.operate(ctx, who, "eab.revoke", string(id), func(tx *store.Tx, _ *audit.Entry) error {
		ok, err := tx.RevokeEABKey(id)
		if err == nil && !ok {
			return protocol.NewProblem(protocol.Malformed, "there is no such key, or it was revoked already").WithStatus(404)
		}
		return err
	})
}

// Live counts the certificates alive by issuing key ID (hex of the
// SubjectKeyId). With a million it takes some tenths of a second.
func (a *Authority) Live(ctx context.Context, who Operator) (map[string]store.Live, error) {
	if err := a.operate(ctx, who, "signing.show", "", nil); err != nil {
		return nil, err
	}
	if err := a.countLive(ctx); err != nil {
		return nil, err
	}
	return *a.live.Load(), nil
}

// Accounts lists accounts.
func (a *Authority) Accounts(ctx context.Context, who Operator, f store.AccountFilter) ([]protocol.Account, error) {
	if err := a.operate(ctx, who, "account.list", "", nil); err != nil {
		return nil, err
	}
	return a.db.Accounts(ctx, f)
}

// ShowAccount returns one account.
func (a *Authority) ShowAccount(ctx context.Context, who Operator, id protocol.AccountID) (protocol.Account, error) {
	if err := a.operate(ctx, who, "account.show", string(id), nil); err != nil {
		return protocol.Account{}, err
	}
	account, err := a.db.Account(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return account, errNoSuch("account")
	}
	return account, err
}

// RevokeAccount ends an account against its will (RFC 8555 section 7.1.2). Its
// certificates stay; revoke them one by one where they must go too.
func (a *Authority) RevokeAccount(ctx context.Context, who Operator, id protocol.AccountID) error {
	defer a.known.Forget(id)
	return a.operate(ctx, who, "account.revoke", string(id), func(tx *store.Tx, _ *audit.Entry) error {
		ok, err := tx.EndAccount(id, protocol.AccountRevoked)
		if err == nil && !ok {
			return protocol.NewProblem(protocol.Malformed, "there is no such account, or it has ended already").WithStatus(404)
		}
		return err
	})
}

// Certificates searches certificates.
func (a *Authority) Certificates(ctx context.Context, who Operator, f store.CertificateFilter) ([]cert.Certificate, error) {
	if err := a.operate(ctx, who, "certificate.list", f.Name, nil); err != nil {
		return nil, err
	}
	return a.db.Certificates(ctx, f)
}

// ShowCertificate returns the record of one certificate and its chain.
func (a *Authority) ShowCertificate(ctx context.Context, who Operator, serial cert.Serial) (cert.Certificate, ChainView, error) {
	if err := a.operate(ctx, who, "certificate.show", string(serial), nil); err != nil {
		return cert.Certificate{}, ChainView{}, err
	}
	c, err := a.db.Certificate(ctx, serial)
	if errors.Is(err, store.ErrNotFound) {
		return c, ChainView{}, errNoSuch("certificate")
	}
	if err != nil || c.State != cert.Issued {
		return c, ChainView{}, err
	}
	v, err := a.chain(c, 0)
	return c, v, err
}

// RevokeCertificate withdraws any certificate.
func (a *Authority) RevokeCertificate(ctx context.Context, who Operator, serial cert.Serial, reason cert.Reason) error {
	return a.operate(ctx, who, "certificate.revoke", string(serial), func(tx *store.Tx, e *audit.Entry) error {
		if !reason.Valid() {
			return protocol.NewProblem(protocol.BadRevocationReason, "reason %d may not be given; use 0, 1, 3, 4, 5 or 9", int(reason))
		}
		c, err := tx.Certificate(ctx, serial)
		if errors.Is(err, store.ErrNotFound) || err == nil && c.State != cert.Issued {
			return errNoSuch("certificate")
		}
		if err != nil {
			return err
		}
		e.Directory, e.Detail = c.Directory, map[string]any{"reason": int(reason), "names": protocol.Values(c.Names)}
		return a.withdraw(tx, c, reason)
	})
}

// AuditEntries reads the audit log.
func (a *Authority) AuditEntries(ctx context.Context, who Operator, f store.AuditFilter) ([]store.Record, error) {
	if err := a.operate(ctx, who, "audit.list", "", nil); err != nil {
		return nil, err
	}
	return a.db.AuditEntries(ctx, f)
}

// VerifyAudit walks the whole chain of the audit log and returns how many
// entries it has; an error names the first that doesn't fit.
func (a *Authority) VerifyAudit(ctx context.Context, who Operator) (int64, error) {
	if err := a.operate(ctx, who, "audit.verify", "", nil); err != nil {
		return 0, err
	}
	return a.db.VerifyAudit(ctx)
}

// Status is what an operator sees at a glance.
type Status struct {
	Replica     string
	Engine      string
	Directories []string
	Validations int // running in this process
	Issuances   int // likewise
	Store       store.Stats
}

// Status describes this process.
func (a *Authority) Status(ctx context.Context, who Operator) (Status, error) {
	if err := a.operate(ctx, who, "status.show", "", nil); err != nil {
		return Status{}, err
	}
	return Status{
		Replica: a.replica, Engine: a.db.Engine(), Directories: a.DirectoryNames(),
		Validations: a.validations.Count(), Issuances: a.issuances.Count(), Store: a.db.Stats(),
	}, nil
}

// Running reports how many validations and issuances run in this process, for
// metrics.
func (a *Authority) Running() (validations, issuances int) {
	return a.validations.Count(), a.issuances.Count()
}

// Backup writes everything in the database, as of one moment, while others
// go on writing.
func (a *Authority) Backup(ctx context.Context, who Operator, w io.Writer) error {
	if who.Role != Administrator { // it holds EAB keys
		return a.operate(ctx, who, "backup.write", "", func(*store.Tx, *audit.Entry) error { return nil })
	}
	if err := a.operate(ctx, who, "backup.write", "", nil); err != nil {
		return err
	}
	return a.db.Dump(ctx, w)
}
