package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/ca/sshorder"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/jws"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// KeyHolder is who signed a revocation with the certificate's own key (RFC
// 8555 section 7.6).
type KeyHolder struct {
	Directory string
	Key       *jws.JWK
	Peer      netip.AddrPort
}

// Revoke withdraws a certificate for the account that got it, or for one that
// holds valid authorizations for all its names (RFC 8555 section 7.6).
func (a *Authority) Revoke(ctx context.Context, who Requester, der []byte, reason *int) error {
	c, r, err := a.revocable(ctx, who.Directory, der, reason)
	if err != nil {
		return err
	}
	e := a.entry(who, "certificate.revoke", string(c.Serial))
	if c.Account != who.Account.ID {
		ok, err := a.holdsAll(ctx, who, c)
		if err != nil {
			return err
		}
		if !ok {
			return a.deny(ctx, e, protocol.NewProblem(protocol.Unauthorized,
				"the certificate is another account's: sign with its key, with the account that got it, or hold valid authorizations for all its names"))
		}
	}
	return a.revoke(ctx, c, r, e)
}

// RevokeByKey withdraws a certificate for the holder of its key.
func (a *Authority) RevokeByKey(ctx context.Context, who KeyHolder, der []byte, reason *int) error {
	c, r, err := a.revocable(ctx, who.Directory, der, reason)
	if err != nil {
		return err
	}
	e := audit.Entry{
		At: a.clock(), Action: "certificate.revoke", Actor: "key:" + who.Key.Thumbprint, Peer: protocol.Address(who.Peer),
		Directory: who.Directory, Object: string(c.Serial),
	}
	spki, err := x509.MarshalPKIXPublicKey(who.Key.Key)
	if err != nil {
		return err
	}
	if hash := sha256.Sum256(spki); hex.EncodeToString(hash[:]) != c.KeyHash {
		return a.denyStranger(ctx, who, e, protocol.NewProblem(protocol.Unauthorized, "the request is not signed by the certificate's key"))
	}
	return a.revoke(ctx, c, r, e)
}

// denyStranger is deny for one without an account, whom the limit on new
// accounts keeps from filling the log at will.
func (a *Authority) denyStranger(ctx context.Context, who KeyHolder, e audit.Entry, p *protocol.Problem) error {
	d, err := a.directory(who.Directory)
	if err != nil {
		return err
	}
	e.Denied = p.Error()
	err = a.db.Update(ctx, func(tx *store.Tx) error {
		if err := take(tx, d.Limits.AccountsPerAddress, "refused requests from this address", "accounts", who.Directory, protocol.Network(who.Peer)); err != nil {
			return err
		}
		return tx.Audit(e)
	})
	if err != nil {
		return err
	}
	return p
}

// maxCertificate bounds what is looked at in a revocation request; ours are
// below 10 KiB even with a hundred names.
const maxCertificate = 64 << 10

// revocable finds the certificate, which must be ours to the last byte, and
// checks the reason.
func (a *Authority) revocable(ctx context.Context, directory string, der []byte, reason *int) (cert.Certificate, cert.Reason, error) {
	var none cert.Certificate
	r := cert.Unspecified
	if reason != nil {
		r = cert.Reason(*reason)
	}
	if !r.Valid() {
		return none, r, protocol.NewProblem(protocol.BadRevocationReason, "reason %d may not be given here; use 0, 1, 3, 4, 5 or 9 (RFC 5280 section 5.3.1)", int(r))
	}
	if len(der) > maxCertificate {
		return none, r, protocol.NewProblem(protocol.Malformed, "the certificate is longer than %d bytes", maxCertificate)
	}
	serial, err := sshorder.SerialOf(der)
	if err != nil {
		return none, r, err
	}
	c, err := a.db.Certificate(ctx, serial)
	if errors.Is(err, store.ErrNotFound) || err == nil &&
		(c.State != cert.Issued || c.Directory != directory || !bytes.Equal(c.DER, der)) {
		return none, r, protocol.NewProblem(protocol.Malformed, "this directory issued no such certificate").WithStatus(404)
	}
	if err != nil {
		return none, r, err
	}
	return c, r, nil
}

// holdsAll reports whether the account holds authorizations for every name of
// the certificate, of types that count for its profile.
func (a *Authority) holdsAll(ctx context.Context, who Requester, c cert.Certificate) (bool, error) {
	d, err := a.directory(who.Directory)
	if err != nil {
		return false, err
	}
	if _, err := a.eabKey(ctx, who); err != nil {
		return false, err // withdrawn: its authorizations count no more
	}
	p, err := d.Policy.PickProfile(c.Profile, nil, nil)
	if err != nil {
		return false, nil // the profile is gone: only its owner or key may revoke
	}
	held, err := a.db.ReusableAuthorizations(ctx, who.Account.ID, c.Names, a.clock())
	return err == nil && policy.HoldsAll(held, c.Names, p), err
}

// revoke records the revocation on a client's behalf.
func (a *Authority) revoke(ctx context.Context, c cert.Certificate, r cert.Reason, e audit.Entry) error {
	e.Detail = map[string]any{"reason": int(r), "names": protocol.Values(c.Names)}
	return a.db.Update(ctx, func(tx *store.Tx) error {
		if err := a.Withdraw(tx, c, r); err != nil {
			return err
		}
		return tx.Audit(e)
	})
}

// Withdraw revokes in a transaction of the caller's, who has authorised it and
// audits it there; a second time is alreadyRevoked. A key said to be
// compromised is blocked for good.
func (a *Authority) Withdraw(tx *store.Tx, c cert.Certificate, r cert.Reason) error {
	ok, err := tx.RevokeCertificate(c.Serial, cert.Revoked{At: tx.Now(), Reason: r})
	if err != nil {
		return err
	}
	if !ok {
		return protocol.NewProblem(protocol.AlreadyRevoked, "the certificate was revoked already")
	}
	for _, shard := range slices.Compact([]int{0, c.CRLShard}) { // the full list, and its own
		if _, err := tx.NextNumber(store.RevisionName(c.IssuerKeyID, shard), 1); err != nil {
			return err
		}
	}
	if r == cert.KeyCompromise {
		return tx.BlockKey(c.KeyHash, "revoked as compromised: "+string(c.Serial))
	}
	return nil
}
