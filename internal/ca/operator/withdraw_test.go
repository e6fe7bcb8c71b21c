package operator

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// held puts a certificate of a device's into the database.
func (w *world) held(t *testing.T, d Device, edit func(*cert.Certificate)) cert.Certificate {
	t.Helper()
	now := w.now().Truncate(time.Microsecond)
	c := cert.Certificate{
		Serial: cert.NewSerial(), Format: cert.X509, State: cert.Issued, Directory: "main", Profile: "server", Issuer: "issuing",
		IssuerKeyID: "0a", Names: []protocol.Identifier{{Type: protocol.DNS, Value: "alice.example"}}, Subject: d.Subject(),
		DER: leafDER, KeyHash: hashOf(t, p256()), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), PlannedAt: now,
	}
	if edit != nil {
		edit(&c)
	}
	if err := w.db.Update(t.Context(), func(tx *store.Tx) error { return tx.InsertCertificate(c, time.Time{}) }); err != nil {
		t.Fatal(err)
	}
	return c
}

// leafDER and shortDER are certificates with a CRL, and with nothing.
var leafDER, shortDER = leaf("http://ca.example/crl"), leaf()

func leaf(crl ...string) []byte {
	k := p256()
	template := &x509.Certificate{SerialNumber: cert.NewSerial().Big(), NotAfter: time.Now().Add(time.Hour), CRLDistributionPoints: crl}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		panic(err)
	}
	return der
}

func serials(list []cert.Certificate) (all []cert.Serial) {
	for _, c := range list {
		all = append(all, c.Serial)
	}
	slices.Sort(all)
	return all
}

func sorted(list ...cert.Certificate) []cert.Serial { return serials(list) }

// A lost YubiKey's certificates are revoked at once, TLS and SSH, those of its
// other slots too; what nobody can revoke is told; and nothing of it is ever
// enrolled again.
func TestLost(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		m, ctx := w.trusting(t), t.Context()
		s, other := m.stick(4711), m.stick(4711)
		other.slot = "9c"
		d, second, bobs := w.enroll(t, s, "alice", named("alice.example")), w.enroll(t, other, "alice", named("alice.example")), w.enroll(t, m.stick(4712), "bob", named("bob.example"))
		own := w.held(t, d, func(c *cert.Certificate) { c.KeyHash = d.KeyHash })
		vouched := w.held(t, d, nil)
		ssh := w.held(t, d, func(c *cert.Certificate) {
			c.Format, c.Serial, c.DER = cert.OpenSSH, "00000000000000aa", []byte("wire")
		})
		short := w.held(t, d, func(c *cert.Certificate) { c.DER = shortDER })
		slot := w.held(t, second, nil)
		ended := w.held(t, d, func(c *cert.Certificate) { c.NotAfter = w.now().Add(-time.Second) })
		revoked := w.held(t, d, nil)
		bob := w.held(t, bobs, nil)
		if err := w.RevokeCertificate(ctx, administrator, revoked.Serial, cert.Superseded); err != nil {
			t.Fatal(err)
		}

		got, err := w.Lost(ctx, administrator, string(d.ID))
		if err != nil || len(got.Devices) != 2 || got.Devices[0].State != protocol.DeviceLost || got.Devices[0].EndedAt.IsZero() {
			t.Fatalf("%+v, %v", got, err)
		}
		if want := sorted(own, vouched, ssh, slot); !slices.Equal(serials(got.Revoked), want) || !slices.Equal(serials(got.Irrevocable), sorted(short)) {
			t.Errorf("revoked %v, want %v; irrevocable %v, want %v", serials(got.Revoked), want, serials(got.Irrevocable), short.Serial)
		}
		for serial, reason := range map[cert.Serial]cert.Reason{
			own.Serial: cert.KeyCompromise, vouched.Serial: cert.PrivilegeWithdrawn, ssh.Serial: cert.PrivilegeWithdrawn, slot.Serial: cert.PrivilegeWithdrawn,
			short.Serial: cert.PrivilegeWithdrawn, revoked.Serial: cert.Superseded, bob.Serial: -1, ended.Serial: -1,
		} {
			c, err := w.db.Certificate(ctx, serial)
			if err != nil || c.Revoked.At.IsZero() != (reason < 0) || reason >= 0 && c.Revoked.Reason != reason {
				t.Errorf("%s: %+v, %v; want reason %d", serial, c.Revoked, err, reason)
			}
		}
		for _, hash := range []string{d.KeyHash, second.KeyHash} {
			if blocked, err := w.db.KeyBlocked(ctx, hash); err != nil || !blocked {
				t.Errorf("a device's key isn't blocked: %v", err)
			}
		}
		var lost []string
		if err := w.db.LostKeys(ctx, func(d protocol.Device) error { lost = append(lost, d.KeyHash); return nil }); err != nil || len(lost) != 2 {
			t.Errorf("%v, %v", lost, err)
		}
		if all := w.entries(t, store.AuditFilter{Action: "device.lost"}); len(all) != 1 || all[0].Entry.Object != string(d.ID) {
			t.Errorf("%+v", all)
		}
		entry := w.entries(t, store.AuditFilter{Action: "certificate.revoke", Object: string(own.Serial)})
		if len(entry) != 1 || entry[0].Entry.Actor != "operator:uid:0" || entry[0].Entry.Detail["by"] != "device.lost" || entry[0].Entry.Detail["subject"] != d.Subject() {
			t.Errorf("%+v", entry)
		}

		// Once more, by the serial number: nothing changes, and what can't be
		// revoked is told again.
		again, err := w.Lost(ctx, administrator, "4711")
		if err != nil || len(again.Devices)+len(again.Revoked) != 0 || !slices.Equal(serials(again.Irrevocable), sorted(short)) {
			t.Errorf("%+v, %v", again, err)
		}
		_, err = w.Retire(ctx, administrator, string(d.ID), false)
		wants(t, err, protocol.Malformed, "for good")
		_, err = w.Enroll(ctx, administrator, s.request("alice", w.now(), named("alice.example")))
		wants(t, err, protocol.Malformed, "which is lost")
		for _, id := range []string{"nope", "4713", "0"} {
			_, err = w.Lost(ctx, administrator, id)
			wants(t, err, protocol.Malformed, "no such device")
		}
	})
}

// More certificates than a transaction takes.
func TestLostWithMany(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d := w.enroll(t, w.trusting(t).stick(1), "alice", named("alice.example"))
		const many = 2*batch + 10
		c := w.held(t, d, nil)
		err := w.db.Update(t.Context(), func(tx *store.Tx) error {
			for range many - 1 {
				c.Serial = cert.NewSerial()
				if err := tx.InsertCertificate(c, time.Time{}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := w.Lost(t.Context(), administrator, string(d.ID))
		if err != nil || len(slices.Compact(serials(got.Revoked))) != many || len(got.Devices) != 1 {
			t.Errorf("%d revoked, %v", len(got.Revoked), err)
		}
		left, err := w.db.Certificates(t.Context(), store.CertificateFilter{Subject: d.Subject(), Revoked: new(false)})
		if err != nil || len(left) != 0 {
			t.Errorf("%d are left, %v", len(left), err)
		}
	})
}

func TestRetire(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		m, ctx := w.trusting(t), t.Context()
		first, second := w.enroll(t, m.stick(1), "alice", named("alice.example")), w.enroll(t, m.stick(2), "alice", named("alice.example"))
		stays, goes := w.held(t, first, nil), w.held(t, second, nil)
		for id, revoke := range map[string]bool{string(first.ID): false, "2": true} {
			for range 2 { // the second time changes nothing
				if d, err := w.Retire(ctx, administrator, id, revoke); err != nil || d.State != protocol.DeviceRetired || d.EndedAt.IsZero() {
					t.Errorf("%+v, %v", d, err)
				}
			}
		}
		if c, err := w.db.Certificate(ctx, stays.Serial); err != nil || !c.Revoked.At.IsZero() {
			t.Errorf("%+v, %v", c.Revoked, err)
		}
		if c, err := w.db.Certificate(ctx, goes.Serial); err != nil || c.Revoked.At.IsZero() || c.Revoked.Reason != cert.CessationOfOperation {
			t.Errorf("%+v, %v", c.Revoked, err)
		}
		if blocked, err := w.db.KeyBlocked(ctx, second.KeyHash); err != nil || blocked {
			t.Error("a retired key is blocked", err)
		}
		// Lost after all: its certificates go.
		if got, err := w.Lost(ctx, administrator, string(first.ID)); err != nil || len(got.Revoked) != 1 || len(got.Devices) != 1 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// A serial number stands for a device where that is clear.
func TestBySerial(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		m, ctx := w.trusting(t), t.Context()
		s := m.stick(1)
		first := w.enroll(t, s, "alice", named("alice.example"))
		if _, err := w.Retire(ctx, administrator, "1", false); err != nil {
			t.Fatal(err)
		}
		if d, err := w.ShowDevice(ctx, auditor, "1"); err != nil || d.ID != first.ID {
			t.Errorf("%+v, %v", d, err)
		}
		second := w.enroll(t, m.stick(1), "alice", named("alice.example")) // the slot has another key
		if d, err := w.ShowDevice(ctx, auditor, "1"); err != nil || d.ID != second.ID {
			t.Errorf("%+v, %v", d, err)
		}
		s = m.stick(1)
		s.slot = "9c"
		third := w.enroll(t, s, "alice", named("alice.example"))
		_, err := w.ShowDevice(ctx, auditor, "1")
		wants(t, err, protocol.Malformed, string(third.ID)+" (slot 9c, active)")
		_, err = w.ShowDevice(ctx, auditor, "2")
		wants(t, err, protocol.Malformed, "no such device")
	})
}

// Everything a person has, whichever device it rests on, is revoked; what is
// only planned is never signed.
func TestRevokePerson(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		m, ctx := w.trusting(t), t.Context()
		first, second, bobs := w.enroll(t, m.stick(1), "alice", named("alice.example")), w.enroll(t, m.stick(2), "alice", named("alice.example")), w.enroll(t, m.stick(3), "bob", named("bob.example"))
		if _, err := w.Retire(ctx, administrator, "2", false); err != nil {
			t.Fatal(err)
		}
		a, b, bob := w.held(t, first, nil), w.held(t, second, nil), w.held(t, bobs, nil)
		i := storetest.NewIssuance(1, w.now())
		i.Certificate.Subject = first.Subject()
		for _, step := range i.Steps()[:4] {
			if err := w.db.Update(ctx, step); err != nil {
				t.Fatal(err)
			}
		}
		got, err := w.RevokePerson(ctx, administrator, "Alice", cert.AffiliationChanged)
		if err != nil || len(got.Devices) != 0 || !slices.Equal(serials(got.Revoked), sorted(a, b)) {
			t.Errorf("%+v, %v", got, err)
		}
		if c, err := w.db.Certificate(ctx, a.Serial); err != nil || c.Revoked.Reason != cert.AffiliationChanged {
			t.Errorf("%+v, %v", c.Revoked, err)
		}
		if c, err := w.db.Certificate(ctx, bob.Serial); err != nil || !c.Revoked.At.IsZero() {
			t.Errorf("another person's: %+v, %v", c.Revoked, err)
		}
		if _, err := w.db.Certificate(ctx, i.Certificate.Serial); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the plan: %v", err)
		}
		if o, err := w.db.Order(ctx, i.Order.ID); err != nil || o.Status != protocol.OrderInvalid {
			t.Errorf("%+v, %v", o, err)
		}
		if d, err := w.db.Device(ctx, first.ID); err != nil || d.State != protocol.DeviceActive {
			t.Errorf("%+v, %v", d, err)
		}
		_, err = w.RevokePerson(ctx, administrator, "carol", 0)
		wants(t, err, protocol.Malformed, "no device of")
		_, err = w.RevokePerson(ctx, administrator, "alice", 2)
		wants(t, err, protocol.BadRevocationReason, "use 0, 1")
		_, err = w.RevokePerson(ctx, administrator, "a b", 0)
		wants(t, err, protocol.Malformed, "not a person's name")
	})
}

// Two replicas that call one device lost at once: both say so, one did it, and
// each certificate is revoked once.
func TestLostRaces(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d := w.enroll(t, w.trusting(t).stick(1), "alice", named("alice.example"))
		for range 20 {
			w.held(t, d, nil)
		}
		var all sync.WaitGroup
		var changed, revoked atomic.Int64
		for range 4 {
			all.Go(func() {
				got, err := New(w.authority, w.db, w.now).Lost(t.Context(), administrator, string(d.ID))
				if err != nil {
					t.Error(err)
				}
				changed.Add(int64(len(got.Devices)))
				revoked.Add(int64(len(got.Revoked)))
			})
		}
		all.Wait()
		if changed.Load() != 1 || revoked.Load() != 20 {
			t.Errorf("%d devices, %d certificates", changed.Load(), revoked.Load())
		}
		if n := len(w.entries(t, store.AuditFilter{Action: "certificate.revoke"})); n != 20 {
			t.Errorf("%d entries", n)
		}
	})
}

// A call that can't end says so, and can be repeated.
func TestLostIsNeverHalfTold(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		d := w.enroll(t, w.trusting(t).stick(1), "alice", named("alice.example"))
		for range 3 {
			w.held(t, d, nil)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got, err := w.Lost(ctx, administrator, string(d.ID)); err == nil {
			t.Errorf("%+v", got)
		}
		if d, err := w.db.Device(t.Context(), d.ID); err != nil || d.State != protocol.DeviceActive {
			t.Errorf("%+v, %v", d, err)
		}
		if got, err := w.Lost(t.Context(), administrator, string(d.ID)); err != nil || len(got.Revoked) != 3 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// Certificates are found by who holds them, and exported with their chains.
func TestCertificatesOfPeople(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		m, ctx := w.trusting(t), t.Context()
		d := w.enroll(t, m.stick(1), "alice", named("alice.example"))
		tls := w.held(t, d, nil)
		ssh := w.held(t, d, func(c *cert.Certificate) { c.Format, c.DER, c.Issuer = cert.OpenSSH, []byte("wire"), "gone" })
		w.registered(t)
		for name, test := range map[string]struct {
			filter store.CertificateFilter
			want   []cert.Serial
		}{
			"owner":  {store.CertificateFilter{Owner: "alice"}, sorted(tls, ssh)},
			"device": {store.CertificateFilter{Subject: d.Subject()}, sorted(tls, ssh)},
			"format": {store.CertificateFilter{Format: cert.OpenSSH}, sorted(ssh)},
			"nobody": {store.CertificateFilter{Owner: "bob"}, nil},
		} {
			got, err := w.Certificates(ctx, auditor, test.filter, true)
			var found []cert.Certificate
			for _, c := range got {
				found = append(found, c.Certificate)
				chain := map[bool]int{true: 1, false: 2}[c.Format == cert.OpenSSH]
				if c.Owner != "alice" || len(c.Chain.Certificates) != chain || !bytes.Equal(c.Chain.Certificates[0], c.DER) {
					t.Errorf("%s: %+v", name, c)
				}
			}
			if err != nil || !slices.Equal(serials(found), test.want) {
				t.Errorf("%s: %v, %v", name, serials(found), err)
			}
		}
		all, err := w.Certificates(ctx, auditor, store.CertificateFilter{}, false)
		if err != nil || len(all) != 3 || all[0].Chain.Certificates != nil {
			t.Errorf("%d, %v", len(all), err)
		}
		if c, err := w.ShowCertificate(ctx, auditor, tls.Serial); err != nil || c.Owner != "alice" || len(c.Chain.Certificates) != 2 {
			t.Errorf("%+v, %v", c, err)
		}
	})
}
