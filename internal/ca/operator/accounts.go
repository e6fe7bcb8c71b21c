package operator

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// CreateEABKey makes an external account key from the template's directory,
// label, profiles, names and bounds; the ID and the MAC key are chosen here.
// This is the only time the MAC key is shown.
func (o *Console) CreateEABKey(ctx context.Context, who Caller, k protocol.EABKey) (protocol.EABKey, error) {
	now := o.clock()
	k.ID, k.CreatedAt, k.Accounts, k.RevokedAt = protocol.NewID[protocol.EABKeyID](now), now, 0, time.Time{}
	k.MACKey = make([]byte, 32) // RFC 7518 section 3.2: as long as the hash
	rand.Read(k.MACKey)         // never fails (crypto/rand)
	k.MACKey[0] &= 0x7f         // no '-' first in base64url: certbot takes it for a flag; 255 bits are left
	err := o.operate(ctx, who, "eab.create", string(k.ID), func(tx *store.Tx, e *audit.Entry) error {
		d, ok := o.authority.Directory(k.Directory)
		switch {
		case !ok:
			return protocol.NewProblem(protocol.Malformed, "there is no directory %q; there are %v", k.Directory, o.authority.DirectoryNames())
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
func (o *Console) EABKeys(ctx context.Context, who Caller, directory string, after protocol.EABKeyID, limit int) ([]protocol.EABKey, error) {
	if err := o.operate(ctx, who, "eab.list", directory, nil); err != nil {
		return nil, err
	}
	keys, err := o.db.EABKeys(ctx, directory, after, limit)
	for i := range keys {
		keys[i].MACKey = nil
	}
	return keys, err
}

// RevokeEABKey withdraws a key: it opens no more accounts, and those it
// opened get no more certificates.
func (o *Console) RevokeEABKey(ctx context.Context, who Caller, id protocol.EABKeyID) error {
	return o.operate(ctx, who, "eab.revoke", string(id), func(tx *store.Tx, _ *audit.Entry) error {
		ok, err := tx.RevokeEABKey(id)
		if err == nil && !ok {
			return protocol.NewProblem(protocol.Malformed, "there is no such key, or it was revoked already").WithStatus(404)
		}
		return err
	})
}

// Accounts lists accounts.
func (o *Console) Accounts(ctx context.Context, who Caller, f store.AccountFilter) ([]protocol.Account, error) {
	if err := o.operate(ctx, who, "account.list", "", nil); err != nil {
		return nil, err
	}
	return o.db.Accounts(ctx, f)
}

// ShowAccount returns one account.
func (o *Console) ShowAccount(ctx context.Context, who Caller, id protocol.AccountID) (protocol.Account, error) {
	if err := o.operate(ctx, who, "account.show", string(id), nil); err != nil {
		return protocol.Account{}, err
	}
	account, err := o.db.Account(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return account, noSuch("account")
	}
	return account, err
}

// RevokeAccount ends an account against its will (RFC 8555 section 7.1.2). Its
// certificates stay; revoke them one by one where they must go too.
func (o *Console) RevokeAccount(ctx context.Context, who Caller, id protocol.AccountID) error {
	defer o.authority.ForgetAccount(id)
	return o.operate(ctx, who, "account.revoke", string(id), func(tx *store.Tx, _ *audit.Entry) error {
		ok, err := tx.EndAccount(id, protocol.AccountRevoked)
		if err == nil && !ok {
			return protocol.NewProblem(protocol.Malformed, "there is no such account, or it has ended already").WithStatus(404)
		}
		return err
	})
}
