package ca

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// by revokes with a reason, none if negative.
func (a *account) by(der []byte, reason int) error {
	if reason < 0 {
		return a.Revoke(a.t.Context(), a.Requester, der, nil)
	}
	return a.Revoke(a.t.Context(), a.Requester, der, &reason)
}

// issueWithKey gets a certificate for a key that is known.
func (a *account) issueWithKey(names ...string) ([]byte, *ecdsa.PrivateKey) {
	a.t.Helper()
	k := newKey(a.t)
	o, err := a.Finalize(a.t.Context(), a.Requester, a.ready(names...).ID, FinalizeRequest{CSR: csr(a.t, k, names...)})
	if err != nil {
		a.t.Fatal(err)
	}
	c, _ := a.fetch(o)
	return c.Raw, k
}

// RFC 8555 section 7.6: the account that got it revokes it.
func TestRevoke(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		c, serial := a.issue("a.example")
		keyID := hex.EncodeToString(c.AuthorityKeyId)
		before, err := w.db.Number(t.Context(), store.RevisionName(keyID, 0))
		if err != nil {
			t.Fatal(err)
		}
		for _, reason := range []int{2, 6, 7, 8, 10, 11, 255} {
			if p := wants(t, a.by(c.Raw, reason), protocol.BadRevocationReason, "use 0, 1"); p.HTTPStatus() != 400 {
				t.Error(p.HTTPStatus())
			}
		}
		wants(t, a.by([]byte("no certificate"), -1), protocol.Malformed, "DER")
		wants(t, a.by(make([]byte, maxCertificate+1), -1), protocol.Malformed, "longer")
		forged := bytes.Clone(c.Raw)
		forged[len(forged)-1] ^= 1
		wants(t, a.by(forged, -1), protocol.Malformed, "no such certificate")
		wants(t, w.account(t, "other").by(c.Raw, -1), protocol.Malformed, "no such certificate")

		if err := a.by(c.Raw, 4); err != nil {
			t.Fatal(err)
		}
		row, err := w.db.Certificate(t.Context(), serial)
		if err != nil || row.Revoked.Reason != cert.Superseded || row.Revoked.At.IsZero() {
			t.Errorf("%+v, %v", row.Revoked, err)
		}
		wants(t, a.by(c.Raw, -1), protocol.AlreadyRevoked, "")
		after, err := w.db.Number(t.Context(), store.RevisionName(keyID, 0))
		if err != nil || after <= before {
			t.Errorf("revision %d, then %d, %v", before, after, err)
		}
		var revoked []cert.Serial
		err = w.db.RevokedCertificates(t.Context(), keyID, -1, w.Now(), func(s cert.Serial, _ time.Time, _ cert.Reason, _ time.Time) error {
			revoked = append(revoked, s)
			return nil
		})
		if err != nil || len(revoked) != 1 || revoked[0] != serial {
			t.Errorf("%v, %v", revoked, err)
		}
	})
}

// Of many at once, one revokes.
func TestRevokeAtOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		c, serial := a.issue("a.example")
		errs := make([]error, 20)
		parallel(len(errs), func(i int) { errs[i] = a.by(c.Raw, -1) })
		good := 0
		for _, err := range errs {
			if err == nil {
				good++
			} else {
				wants(t, err, protocol.AlreadyRevoked, "")
			}
		}
		if n := len(w.entries(t, store.AuditFilter{Object: string(serial), Action: "certificate.revoke"})); good != 1 || n != 1 {
			t.Errorf("%d revoked, %d audit entries", good, n)
		}
	})
}

// RFC 8555 section 7.6: whoever holds the certificate's key may revoke, in
// the directory that issued it.
func TestRevokeByKey(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		der, k := a.issueWithKey("a.example")
		holder := KeyHolder{Directory: "main", Key: jwk(t, newKey(t)), Peer: peer}
		wants(t, w.RevokeByKey(t.Context(), holder, der, nil), protocol.Unauthorized, "certificate's key")
		holder.Key = jwk(t, k)
		holder.Directory = "other"
		wants(t, w.RevokeByKey(t.Context(), holder, der, nil), protocol.Malformed, "no such certificate")
		holder.Directory = "main"
		compromised := int(cert.KeyCompromise)
		if err := w.RevokeByKey(t.Context(), holder, der, &compromised); err != nil {
			t.Fatal(err)
		}
		wants(t, w.RevokeByKey(t.Context(), holder, der, nil), protocol.AlreadyRevoked, "")
		// keyCompromise blocks the key for good, for everybody.
		b := w.account(t, "other")
		_, err := b.Finalize(t.Context(), b.Requester, b.ready("b.example").ID, FinalizeRequest{CSR: csr(t, k, "b.example")})
		wants(t, err, protocol.BadCSR, "compromised")
	})
}

// RFC 8555 section 7.6: an account that holds authorizations for all names,
// of types that count for the certificate.
func TestRevokeByAnother(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a, b := w.account(t, "main"), w.account(t, "main")
		c, serial := a.issue("a.example", "*.b.example")
		b.ready("a.example", "b.example") // not the wildcard
		refused := wants(t, b.by(c.Raw, -1), protocol.Unauthorized, "hold valid authorizations")
		if refused.HTTPStatus() != 403 {
			t.Error(refused.HTTPStatus())
		}
		entries := w.entries(t, store.AuditFilter{Object: string(serial), Action: "certificate.revoke"})
		if len(entries) != 1 || entries[0].Entry.Denied == "" {
			t.Errorf("the refusal is not in the audit log: %+v", entries)
		}
		z := b.ready("*.b.example").Authorizations[0]
		if _, err := b.DeactivateAuthorization(t.Context(), b.Requester, z); err != nil {
			t.Fatal(err)
		}
		wants(t, b.by(c.Raw, -1), protocol.Unauthorized, "")
		b.ready("*.b.example")
		if err := b.by(c.Raw, -1); err != nil {
			t.Error(err)
		}

		// dns-01 counts for profile dns, http-01 doesn't.
		o := a.prove(a.orderAs(OrderRequest{Identifiers: ids("c.example"), Profile: "dns"}), protocol.DNS01)
		c, _ = a.fetch(a.finalize(o))
		b.prove(b.order("c.example"), protocol.HTTP01)
		wants(t, b.by(c.Raw, -1), protocol.Unauthorized, "")
		b.prove(b.orderAs(OrderRequest{Identifiers: ids("c.example"), Profile: "dns"}), protocol.DNS01)
		if err := b.by(c.Raw, -1); err != nil {
			t.Error(err)
		}
	})
}

// An account whose EAB key was withdrawn revokes its own certificates, and
// nobody else's.
func TestRevokeAfterBinding(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		var accounts []*account
		var keys []protocol.EABKey
		for range 2 {
			eab := w.eab(t, protocol.EABKey{Directory: "eab"})
			k := newKey(t)
			accounts = append(accounts, w.register(t, k, Registration{Directory: "eab", EAB: bind(t, k, string(eab.ID), eab.MACKey)}))
			keys = append(keys, eab)
		}
		theirs, _ := accounts[0].issue("a.example")
		own, _ := accounts[1].issue("a.example")
		if err := w.revokeEABKey(t.Context(), keys[1].ID); err != nil {
			t.Fatal(err)
		}
		wants(t, accounts[1].by(theirs.Raw, -1), protocol.Unauthorized, "withdrawn")
		if err := accounts[1].by(own.Raw, -1); err != nil {
			t.Error(err)
		}
	})
}

// What a client does stands in the audit log, in its order, and the log's chain
// holds.
func TestAuditOfALife(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		c, _ := a.issue("a.example")
		if err := a.by(c.Raw, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := a.DeactivateAccount(t.Context(), a.Requester); err != nil {
			t.Fatal(err)
		}
		want := "account.create order.create authorization.valid certificate.issue certificate.revoke account.deactivate"
		var did []string
		for _, r := range w.entries(t, store.AuditFilter{}) {
			did = append(did, r.Entry.Action)
		}
		if strings.Join(did, " ") != want {
			t.Errorf("audit: %v", did)
		}
		if n, err := w.db.VerifyAudit(t.Context()); err != nil || n != int64(len(did)) {
			t.Errorf("%d entries, %v", n, err)
		}
	})
}
