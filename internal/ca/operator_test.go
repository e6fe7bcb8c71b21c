package ca

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

var (
	auditor = Operator{Name: "uid:7", Role: Auditor}
	nobody  = Operator{Name: "uid:8"}
)

// Every call is authorised below the API and audited, reads and refusals too.
func TestOperators(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		_, serial := a.issue("a.example")
		eab := w.eab(t, protocol.EABKey{Directory: "eab"})
		id := a.Requester.Account.ID
		for _, c := range []struct {
			action string
			change bool
			do     func(context.Context, Operator) error
		}{
			{"eab.list", false, func(ctx context.Context, o Operator) error {
				keys, err := w.EABKeys(ctx, o, "", "", 10)
				if err == nil && (len(keys) != 1 || keys[0].MACKey != nil) {
					t.Errorf("%+v", keys)
				}
				return err
			}},
			{"account.list", false, func(ctx context.Context, o Operator) error {
				_, err := w.Accounts(ctx, o, store.AccountFilter{})
				return err
			}},
			{"account.show", false, func(ctx context.Context, o Operator) error { _, err := w.ShowAccount(ctx, o, id); return err }},
			{"certificate.list", false, func(ctx context.Context, o Operator) error {
				_, err := w.Certificates(ctx, o, store.CertificateFilter{Name: "a.example"})
				return err
			}},
			{"certificate.show", false, func(ctx context.Context, o Operator) error {
				row, chain, err := w.ShowCertificate(ctx, o, serial)
				if err == nil && (row.Serial != serial || len(chain.Certificates) != 2) {
					t.Errorf("%+v", row)
				}
				return err
			}},
			{"audit.list", false, func(ctx context.Context, o Operator) error {
				_, err := w.AuditEntries(ctx, o, store.AuditFilter{})
				return err
			}},
			{"audit.verify", false, func(ctx context.Context, o Operator) error { _, err := w.VerifyAudit(ctx, o); return err }},
			{"status.show", false, func(ctx context.Context, o Operator) error {
				s, err := w.Status(ctx, o)
				if err == nil && (len(s.Directories) != len(w.options.Directories) || s.Engine != w.db.Engine() || s.Replica == "") {
					t.Errorf("%+v", s)
				}
				return err
			}},
			{"eab.create", true, func(ctx context.Context, o Operator) error {
				_, err := w.CreateEABKey(ctx, o, protocol.EABKey{Directory: "main"})
				return err
			}},
			{"eab.revoke", true, func(ctx context.Context, o Operator) error { return w.RevokeEABKey(ctx, o, eab.ID) }},
			{"certificate.revoke", true, func(ctx context.Context, o Operator) error {
				return w.RevokeCertificate(ctx, o, serial, cert.Unspecified)
			}},
			{"account.revoke", true, func(ctx context.Context, o Operator) error { return w.RevokeAccount(ctx, o, id) }},
			{"backup.write", true, func(ctx context.Context, o Operator) error { return w.Backup(ctx, o, new(bytes.Buffer)) }},
		} {
			wants(t, c.do(t.Context(), nobody), protocol.Unauthorized, "may not")
			err := c.do(t.Context(), auditor)
			if c.change {
				wants(t, err, protocol.Unauthorized, "may not")
			} else if err != nil {
				t.Errorf("%s: %v", c.action, err)
			}
			if err := c.do(t.Context(), administrator); err != nil {
				t.Errorf("%s: %v", c.action, err)
			}
			by := map[string]string{}
			for _, r := range w.entries(t, store.AuditFilter{Action: c.action}) {
				by[r.Entry.Actor] = r.Entry.Denied
			}
			if by["operator:uid:8"] == "" || (by["operator:uid:7"] != "") != c.change || by["operator:uid:0"] != "" || len(by) != 3 {
				t.Errorf("%s: the audit log says %v", c.action, by)
			}
		}
	})
}

// Those who may not act can't find out what there is; those who may are told
// what is wrong.
func TestOperatorMistakes(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		for _, o := range []Operator{nobody, auditor} {
			wants(t, w.RevokeCertificate(ctx, o, cert.NewSerial(), 99), protocol.Unauthorized, "may not")
			_, err := w.CreateEABKey(ctx, o, protocol.EABKey{Directory: "nope"})
			wants(t, err, protocol.Unauthorized, "may not")
		}
		for _, c := range []struct {
			k    protocol.EABKey
			says string
		}{
			{protocol.EABKey{Directory: "nope"}, "there are [caa eab main mixed other]"},
			{protocol.EABKey{Directory: "main", Profiles: []string{"nope"}}, "no profile"},
			{protocol.EABKey{Directory: "main", Names: []string{"a..b"}}, "a..b"},
			{protocol.EABKey{Directory: "main", PreApproved: true}, "list the names"},
			{protocol.EABKey{Directory: "main", ExpiresAt: w.Now().Add(-time.Second)}, "expired already"},
			{protocol.EABKey{Directory: "main", MaxAccounts: -1}, "-1 accounts"},
		} {
			k, err := w.CreateEABKey(ctx, administrator, c.k)
			wants(t, err, protocol.Malformed, c.says)
			if k.MACKey != nil {
				t.Error("a key that wasn't made is handed out")
			}
		}
		wants(t, w.RevokeEABKey(ctx, administrator, "nope"), protocol.Malformed, "no such key")
		wants(t, w.RevokeAccount(ctx, administrator, "nope"), protocol.Malformed, "no such account")
		wants(t, w.RevokeCertificate(ctx, administrator, cert.NewSerial(), 0), protocol.Malformed, "no such certificate")
		wants(t, w.RevokeCertificate(ctx, administrator, cert.NewSerial(), 2), protocol.BadRevocationReason, "use 0, 1")
		_, err := w.ShowAccount(ctx, administrator, "nope")
		wants(t, err, protocol.Malformed, "no such account")
		_, _, err = w.ShowCertificate(ctx, administrator, cert.NewSerial())
		wants(t, err, protocol.Malformed, "no such certificate")
		if n := w.rows(t)["eab_keys"]; n != 0 {
			t.Errorf("%d EAB keys", n)
		}
	})
}

// An operator revokes any certificate, and ends any account.
func TestOperatorRevokes(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		c, serial := a.issue("a.example")
		if err := w.RevokeCertificate(t.Context(), administrator, serial, cert.KeyCompromise); err != nil {
			t.Fatal(err)
		}
		wants(t, w.RevokeCertificate(t.Context(), administrator, serial, 0), protocol.AlreadyRevoked, "")
		wants(t, a.by(c.Raw, -1), protocol.AlreadyRevoked, "")
		if blocked, err := w.db.KeyBlocked(t.Context(), hashOf(t, c.PublicKey)); err != nil || !blocked {
			t.Error("the key isn't blocked", err)
		}
		if err := w.RevokeAccount(t.Context(), administrator, a.Requester.Account.ID); err != nil {
			t.Fatal(err)
		}
		_, _, err := w.Authority.Account(t.Context(), "main", a.Requester.Account.ID)
		wants(t, err, protocol.Unauthorized, "revoked")
		wants(t, w.RevokeAccount(t.Context(), administrator, a.Requester.Account.ID), protocol.Malformed, "ended already")
		_, err = a.UpdateAccount(t.Context(), a.Requester, &[]string{}, false)
		wants(t, err, protocol.Unauthorized, "revoked")
	})
}

// The backup is that of the store, and the chain of the audit log holds after
// all that was done.
func TestBackupAndAudit(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		c, _ := a.issue("a.example")
		if err := a.by(c.Raw, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := a.DeactivateAccount(t.Context(), a.Requester); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := w.Backup(t.Context(), administrator, &b); err != nil || !strings.Contains(b.String(), "chancery dump") {
			t.Errorf("%d bytes, %v", b.Len(), err)
		}
		full := errors.New("disk full")
		if err := w.Backup(t.Context(), administrator, fails{full}); !errors.Is(err, full) {
			t.Errorf("%v", err)
		}
		want := "account.create order.create authorization.valid certificate.issue certificate.revoke account.deactivate backup.write backup.write"
		var did []string
		for _, r := range w.entries(t, store.AuditFilter{}) {
			did = append(did, r.Entry.Action)
		}
		if strings.Join(did, " ") != want {
			t.Errorf("audit: %v", did)
		}
		if n, err := w.VerifyAudit(t.Context(), auditor); err != nil || n < int64(len(did)) {
			t.Errorf("%d entries, %v", n, err)
		}
	})
}

type fails struct{ err error }

func (f fails) Write([]byte) (int, error) { return 0, f.err }

// An EAB key's text is a flag's value with certbot, which takes one that begins
// with "-" for another flag.
func TestEABKeyIsNoFlag(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for range 300 { // one in 64 would, so that all don't by chance once in a hundred
			k, err := w.CreateEABKey(t.Context(), administrator, protocol.EABKey{Directory: "main"})
			if err != nil || len(k.MACKey) != 32 || base64.RawURLEncoding.EncodeToString(k.MACKey)[0] == '-' {
				t.Fatalf("%d bytes, %v", len(k.MACKey), err)
			}
		}
	})
}
