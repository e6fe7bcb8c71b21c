package operator

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// Every call is authorised below the API and audited, reads and refusals too.
func TestOperators(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		account, i := w.registered(t)
		id, serial, name := account.ID, i.Certificate.Serial, i.Certificate.Names[0].Value
		eab := w.eab(t.Context(), t, protocol.EABKey{Directory: "eab"})
		for _, c := range []struct {
			action string
			change bool
			do     func(context.Context, Caller) error
		}{
			{"eab.list", false, func(ctx context.Context, o Caller) error {
				keys, err := w.EABKeys(ctx, o, "", "", 10)
				if err == nil && (len(keys) != 1 || keys[0].MACKey != nil) {
					t.Errorf("%+v", keys)
				}
				return err
			}},
			{"account.list", false, func(ctx context.Context, o Caller) error {
				_, err := w.Accounts(ctx, o, store.AccountFilter{})
				return err
			}},
			{"account.show", false, func(ctx context.Context, o Caller) error { _, err := w.ShowAccount(ctx, o, id); return err }},
			{"certificate.list", false, func(ctx context.Context, o Caller) error {
				found, err := w.Certificates(ctx, o, store.CertificateFilter{Name: name}, true)
				if err == nil && (len(found) != 1 || len(found[0].Chain.Certificates) != 2) {
					t.Errorf("%+v", found)
				}
				return err
			}},
			{"certificate.show", false, func(ctx context.Context, o Caller) error {
				row, err := w.ShowCertificate(ctx, o, serial)
				if err == nil && (row.Serial != serial || len(row.Chain.Certificates) != 2) {
					t.Errorf("%+v", row)
				}
				return err
			}},
			{"audit.list", false, func(ctx context.Context, o Caller) error {
				_, err := w.AuditEntries(ctx, o, store.AuditFilter{})
				return err
			}},
			{"signing.show", false, func(ctx context.Context, o Caller) error {
				live, err := w.Live(ctx, o)
				if err == nil && live[i.Certificate.IssuerKeyID].Count != 1 {
					t.Errorf("%+v", live)
				}
				return err
			}},
			{"audit.verify", false, func(ctx context.Context, o Caller) error { _, err := w.VerifyAudit(ctx, o); return err }},
			{"status.show", false, func(ctx context.Context, o Caller) error {
				s, err := w.Status(ctx, o)
				if err == nil && (len(s.Directories) != 2 || s.Engine != w.db.Engine() || s.Replica == "") {
					t.Errorf("%+v", s)
				}
				return err
			}},
			{"eab.create", true, func(ctx context.Context, o Caller) error {
				_, err := w.CreateEABKey(ctx, o, protocol.EABKey{Directory: "main"})
				return err
			}},
			{"eab.revoke", true, func(ctx context.Context, o Caller) error { return w.RevokeEABKey(ctx, o, eab.ID) }},
			{"certificate.revoke", true, func(ctx context.Context, o Caller) error {
				return w.RevokeCertificate(ctx, o, serial, cert.Unspecified)
			}},
			{"account.revoke", true, func(ctx context.Context, o Caller) error { return w.RevokeAccount(ctx, o, id) }},
			{"backup.write", true, func(ctx context.Context, o Caller) error { return w.Backup(ctx, o, new(bytes.Buffer)) }},
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

// What no database could hold is refused and recorded like all else.
func TestStrangeObjects(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, object := range []string{"a\x00b", "a\xffb", strings.Repeat("x", 300)} {
			_, err := w.ShowDevice(t.Context(), nobody, object)
			wants(t, err, protocol.Unauthorized, "may not")
			_, err = w.Lost(t.Context(), administrator, object)
			wants(t, err, protocol.Malformed, "called")
			wants(t, w.Report(t.Context(), Caller{Name: "host", Role: Reporter}, object, Sighting{}), protocol.Malformed, "called")
			wants(t, w.Forget(t.Context(), administrator, object), protocol.Malformed, "called")
			wants(t, w.WithdrawAdvisory(t.Context(), administrator, object), protocol.Malformed, "called")
		}
		if shown, lost := w.entries(t, store.AuditFilter{Action: "device.show"}), w.entries(t, store.AuditFilter{Action: "device.lost"}); len(shown) != 3 || len(lost) != 3 {
			t.Errorf("%d and %d entries", len(shown), len(lost))
		}
	})
}

// Those who may not act can't find out what there is; those who may are told
// what is wrong.
func TestMistakes(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		for _, o := range []Caller{nobody, auditor} {
			wants(t, w.RevokeCertificate(ctx, o, cert.NewSerial(), 99), protocol.Unauthorized, "may not")
			_, err := w.CreateEABKey(ctx, o, protocol.EABKey{Directory: "nope"})
			wants(t, err, protocol.Unauthorized, "may not")
		}
		for _, c := range []struct {
			k    protocol.EABKey
			says string
		}{
			{protocol.EABKey{Directory: "nope"}, "there are [eab main]"},
			{protocol.EABKey{Directory: "main", Profiles: []string{"nope"}}, "no profile"},
			{protocol.EABKey{Directory: "main", Names: []string{"a..b"}}, "a..b"},
			{protocol.EABKey{Directory: "main", PreApproved: true}, "list the names"},
			{protocol.EABKey{Directory: "main", ExpiresAt: w.now().Add(-time.Second)}, "expired already"},
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
		_, err = w.ShowCertificate(ctx, administrator, cert.NewSerial())
		wants(t, err, protocol.Malformed, "no such certificate")
		if keys, err := w.db.EABKeys(ctx, "", "", 10); len(keys) != 0 || err != nil {
			t.Errorf("%d EAB keys, %v", len(keys), err)
		}
	})
}

// An operator revokes any certificate, and ends any account.
func TestRevokes(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		account, i := w.registered(t)
		if err := w.RevokeCertificate(t.Context(), administrator, i.Certificate.Serial, cert.KeyCompromise); err != nil {
			t.Fatal(err)
		}
		wants(t, w.RevokeCertificate(t.Context(), administrator, i.Certificate.Serial, 0), protocol.AlreadyRevoked, "")
		if blocked, err := w.db.KeyBlocked(t.Context(), i.Certificate.KeyHash); err != nil || !blocked {
			t.Error("the key isn't blocked", err)
		}
		// The authority remembers accounts, and forgets this one.
		if _, _, err := w.authority.Account(t.Context(), "main", account.ID); err != nil {
			t.Fatal(err)
		}
		if err := w.RevokeAccount(t.Context(), administrator, account.ID); err != nil {
			t.Fatal(err)
		}
		_, _, err := w.authority.Account(t.Context(), "main", account.ID)
		wants(t, err, protocol.Unauthorized, "revoked")
		wants(t, w.RevokeAccount(t.Context(), administrator, account.ID), protocol.Malformed, "ended already")
		_, err = w.authority.UpdateAccount(t.Context(), ca.Requester{Directory: "main", Account: account}, &[]string{}, false)
		wants(t, err, protocol.Unauthorized, "revoked")
	})
}

// The backup is that of the store, and the chain of the audit log holds.
func TestBackup(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.registered(t)
		var b bytes.Buffer
		if err := w.Backup(t.Context(), administrator, &b); err != nil || !strings.Contains(b.String(), "chancery dump") {
			t.Errorf("%d bytes, %v", b.Len(), err)
		}
		full := errors.New("disk full")
		if err := w.Backup(t.Context(), administrator, fails{full}); !errors.Is(err, full) {
			t.Errorf("%v", err)
		}
		did := len(w.entries(t, store.AuditFilter{}))
		if made := len(w.entries(t, store.AuditFilter{Action: "backup.write"})); made != 2 {
			t.Errorf("%d entries of two backups", made)
		}
		if n, err := w.VerifyAudit(t.Context(), auditor); err != nil || n < int64(did) {
			t.Errorf("%d entries, %v", n, err)
		}
	})
}

// What can't be recorded doesn't happen.
func TestClockBehind(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		eab := w.eab(t.Context(), t, protocol.EABKey{Directory: "eab"})
		w.entries(t, store.AuditFilter{})
		w.ahead.Store(int64(-2 * time.Minute))
		if _, err := w.Status(t.Context(), administrator); !errors.Is(err, store.ErrClockBehind) {
			t.Errorf("a look: %v", err)
		}
		if err := w.RevokeEABKey(t.Context(), administrator, eab.ID); !errors.Is(err, store.ErrClockBehind) {
			t.Errorf("a change: %v", err)
		}
		w.ahead.Store(0)
		if k, err := w.db.EABKey(t.Context(), eab.ID); err != nil || !k.RevokedAt.IsZero() {
			t.Errorf("revoked at %v, %v", k.RevokedAt, err)
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
