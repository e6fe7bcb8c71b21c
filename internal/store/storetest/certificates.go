package storetest

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

const issuerKey = "a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1"

func (f *fixture) certificate(names ...string) cert.Certificate {
	c := cert.Certificate{
		Format: cert.X509,
		Serial: cert.NewSerial(), State: cert.Planned, Order: "someorder", Account: "someaccount", Directory: "servers", Profile: "server",
		Issuer: "issuing", IssuerKeyID: issuerKey, DER: []byte{0x30, 0, 255}, KeyHash: strings.Repeat("0a", 32),
		NotBefore: f.Now(), NotAfter: f.Now().Add(24 * time.Hour), PlannedAt: f.Now(),
	}
	for _, n := range names {
		c.Names = append(c.Names, dns(n))
	}
	return c
}

func (f *fixture) insertCertificate(c cert.Certificate) cert.Certificate {
	f.t.Helper()
	f.update(func(tx *store.Tx) error { return tx.InsertCertificate(c, time.Time{}) })
	return c
}

func (f *fixture) serials(filter store.CertificateFilter) (list []cert.Serial) {
	f.t.Helper()
	for _, c := range must(f.db.Certificates(f.ctx(), filter)).or(f.t) {
		list = append(list, c.Serial)
	}
	return list
}

func testCertificates(t *testing.T, f *fixture) {
	ctx := t.Context()
	c := f.certificate("a.example", "*.a.example", "a.example")
	c.Names = append(c.Names, protocol.Identifier{Type: protocol.IP, Value: "2001:db8::1"})
	f.insertCertificate(c)
	equal(t, must(f.db.Certificate(ctx, c.Serial)).or(t), c)
	_, err := f.db.Certificate(ctx, "00")
	wantError(t, err, store.ErrNotFound)
	f.update(func(tx *store.Tx) error {
		wantError(t, tx.InsertCertificate(c, time.Time{}), store.ErrConflict)
		return nil
	})
	issue := func(tx *store.Tx) (bool, error) { return tx.IssueCertificate(c.Serial, []byte("signed")) }
	f.changed(true, issue)
	f.changed(false, issue) // the slower of two
	f.changed(false, func(tx *store.Tx) (bool, error) { return tx.DropPlan(c.Serial) })
	c.State, c.DER = cert.Issued, []byte("signed")
	equal(t, must(f.db.Certificate(ctx, c.Serial)).or(t), c)

	replace := func(order protocol.OrderID) func(*store.Tx) (bool, error) {
		return func(tx *store.Tx) (bool, error) { return tx.ReplaceCertificate(c.Serial, order) }
	}
	f.changed(true, replace("first"))
	f.changed(false, replace("second")) // RFC 9773 section 5: alreadyReplaced
	equal(t, must(f.db.Certificate(ctx, c.Serial)).or(t).ReplacedBy, protocol.OrderID("first"))

	odd := f.certificate("b.example")
	odd.Serial = "not hexadecimal"
	if err := f.db.Update(ctx, func(tx *store.Tx) error { return tx.InsertCertificate(odd, time.Time{}) }); err == nil {
		t.Fatal("a serial that isn't one was stored")
	}
}

func testCertificateSearch(t *testing.T, f *fixture) {
	key := protocol.EABKeyID("somekey")
	account := f.account("servers", "thumb")
	account.EABKey = key
	f.insertAccount(account)
	a, b, c := f.certificate("a.example", "shared.example"), f.certificate("b.example", "shared.example"), f.certificate("*.c.example")
	a.Serial, b.Serial, c.Serial = "01", "02", "03ff"
	a.Account, b.Directory, c.Issuer, c.KeyHash = account.ID, "clients", "other", "ff"
	b.NotAfter = a.NotAfter.Add(time.Hour)
	for _, x := range []cert.Certificate{c, b, a} {
		f.insertCertificate(x)
	}
	f.changed(true, func(tx *store.Tx) (bool, error) {
		return tx.RevokeCertificate(b.Serial, cert.Revoked{At: tx.Now(), Reason: cert.Superseded})
	})
	list := func(s ...cert.Serial) []cert.Serial { return s }
	for name, test := range map[string]struct {
		filter store.CertificateFilter
		want   []cert.Serial
	}{
		"all":           {store.CertificateFilter{}, list("01", "02", "03ff")},
		"page":          {store.CertificateFilter{After: "01", Limit: 1}, list("02")},
		"name":          {store.CertificateFilter{Name: "shared.example"}, list("01", "02")},
		"name, page":    {store.CertificateFilter{Name: "shared.example", After: "01"}, list("02")},
		"wildcard":      {store.CertificateFilter{Name: "*.c.example"}, list("03ff")},
		"no such name":  {store.CertificateFilter{Name: "c.example"}, nil},
		"account":       {store.CertificateFilter{Account: account.ID}, list("01")},
		"EAB key":       {store.CertificateFilter{EABKey: key}, list("01")},
		"directory":     {store.CertificateFilter{Directory: "clients"}, list("02")},
		"issuing key":   {store.CertificateFilter{IssuerKeyID: "0a0b0c"}, nil},
		"issuer":        {store.CertificateFilter{Issuer: "other"}, list("03ff")},
		"key":           {store.CertificateFilter{KeyHash: "ff"}, list("03ff")},
		"revoked":       {store.CertificateFilter{Revoked: new(true)}, list("02")},
		"not revoked":   {store.CertificateFilter{Revoked: new(false)}, list("01", "03ff")},
		"end, from":     {store.CertificateFilter{NotAfterFrom: b.NotAfter}, list("02")},
		"end, to":       {store.CertificateFilter{NotAfterTo: b.NotAfter}, list("01", "03ff")},
		"contradictory": {store.CertificateFilter{Name: "a.example", Directory: "clients"}, nil},
	} {
		if got := f.serials(test.filter); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func testPlans(t *testing.T, f *fixture) {
	ctx := t.Context()
	o, _ := f.order("someaccount", dns("a.example"))
	f.insertOrder(o)
	c := f.certificate("a.example")
	c.Order = o.ID
	f.changed(true, func(tx *store.Tx) (bool, error) { return tx.PlanOrder(o.ID, c.Serial, "server") })
	f.update(func(tx *store.Tx) error { return tx.InsertCertificate(c, tx.Now().Add(time.Minute)) })

	claim := func(want ...cert.Serial) {
		t.Helper()
		var got []cert.Serial
		equal(t, must(f.db.PlansDue(ctx, f.Now(), nil)).or(t), len(want) > 0)
		f.update(func(tx *store.Tx) error {
			list, err := tx.ClaimPlans(tx.Now(), time.Minute, 10, nil)
			for _, c := range list {
				got = append(got, c.Serial)
			}
			return err
		})
		if !slices.Equal(got, want) {
			t.Fatalf("claimed %v, want %v", got, want)
		}
	}
	hold := func(tx *store.Tx) (bool, error) { return tx.HoldPlan(c.Serial, tx.Now().Add(time.Minute)) }
	claim() // the planner's own
	f.Add(50 * time.Second)
	f.changed(true, hold)
	f.Add(50 * time.Second)
	claim() // held
	f.Add(20 * time.Second)
	f.changed(false, hold) // too late: it may be another's by now
	claim(c.Serial)
	claim()

	fresh := f.certificate("b.example")
	fresh.Order = o.ID
	replan := func(tx *store.Tx) (bool, error) {
		return tx.ReplanCertificate(c.Serial, fresh, tx.Now().Add(time.Minute))
	}
	f.changed(true, replan)
	f.changed(false, replan)
	_, err := f.db.Certificate(ctx, c.Serial)
	wantError(t, err, store.ErrNotFound)
	equal(t, must(f.db.Certificate(ctx, fresh.Serial)).or(t), fresh)
	equal(t, must(f.db.Order(ctx, o.ID)).or(t).Certificate, string(fresh.Serial))
	equal(t, f.serials(store.CertificateFilter{Name: "a.example"}), nil)
	equal(t, f.serials(store.CertificateFilter{Name: "b.example"}), []cert.Serial{fresh.Serial})

	drop := func(tx *store.Tx) (bool, error) { return tx.DropPlan(fresh.Serial) }
	f.changed(true, drop)
	f.changed(false, drop)
	f.changed(false, func(tx *store.Tx) (bool, error) { return tx.IssueCertificate(fresh.Serial, []byte("late")) })
	f.changed(false, hold)
	f.Add(time.Hour)
	claim()
	equal(t, f.serials(store.CertificateFilter{Name: "b.example"}), nil)
}

func testRevocation(t *testing.T, f *fixture) {
	ctx := t.Context()
	c, other, old := f.certificate("a.example"), f.certificate("b.example"), f.certificate("c.example")
	other.IssuerKeyID = strings.Repeat("00", 20)
	old.NotAfter = f.Now()
	at := f.Now()
	for _, x := range []cert.Certificate{c, other, old, f.certificate("good.example")} {
		f.insertCertificate(x)
	}
	revoke := func(serial cert.Serial, reason cert.Reason) func(*store.Tx) (bool, error) {
		return func(tx *store.Tx) (bool, error) {
			return tx.RevokeCertificate(serial, cert.Revoked{At: at, Reason: reason})
		}
	}
	f.changed(true, revoke(c.Serial, cert.KeyCompromise))
	f.changed(false, revoke(c.Serial, cert.Unspecified)) // RFC 8555 section 7.6: alreadyRevoked
	f.changed(true, revoke(other.Serial, cert.Unspecified))
	f.changed(true, revoke(old.Serial, cert.Unspecified))
	f.changed(false, revoke("00", cert.Unspecified))
	equal(t, must(f.db.Certificate(ctx, c.Serial)).or(t).Revoked, cert.Revoked{At: at, Reason: cert.KeyCompromise})

	list := func(fail error) (serials []cert.Serial, err error) {
		err = f.db.RevokedCertificates(ctx, issuerKey, store.AllShards, f.Now(), func(s cert.Serial, revoked time.Time, reason cert.Reason, notAfter time.Time) error {
			if s == c.Serial && (!revoked.Equal(at) || reason != cert.KeyCompromise || !notAfter.Equal(c.NotAfter)) {
				t.Errorf("revoked %v for %v until %v", revoked, reason, notAfter)
			}
			serials = append(serials, s)
			return fail
		})
		return serials, err
	}
	equal(t, must(list(nil)).or(t), []cert.Serial{c.Serial}) // not the other issuer's, not what has ended
	enough := errors.New("enough")
	_, err := list(enough)
	wantError(t, err, enough)

	// More than the page it reads by.
	f.update(func(tx *store.Tx) error {
		for range 1100 {
			x := f.certificate("many.example")
			x.Revoked = cert.Revoked{At: at, Reason: cert.Unspecified}
			if err := tx.InsertCertificate(x, time.Time{}); err != nil {
				return err
			}
		}
		return nil
	})
	all := must(list(nil)).or(t)
	if len(all) != 1101 || !slices.IsSorted(all) || len(slices.Compact(all)) != 1101 {
		t.Fatalf("%d revoked certificates, want 1101, sorted, each once", len(all))
	}

	equal(t, must(f.db.KeyBlocked(ctx, c.KeyHash)).or(t), false)
	f.update(func(tx *store.Tx) error {
		return errors.Join(tx.BlockKey(c.KeyHash, awkward), tx.BlockKey(c.KeyHash, "again"))
	})
	equal(t, must(f.db.KeyBlocked(ctx, c.KeyHash)).or(t), true)
	equal(t, must(f.db.KeyBlocked(ctx, strings.Repeat("0b", 32))).or(t), false)
}
