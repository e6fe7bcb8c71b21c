package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

func testKeyStates(t *testing.T, f *fixture) {
	ctx := t.Context()
	state := func(key, replica, text string) store.KeyState {
		return store.KeyState{KeyID: key, Replica: replica, At: f.Now(), State: text}
	}
	put := func(states ...store.KeyState) {
		t.Helper()
		f.update(func(tx *store.Tx) error { return tx.PutKeyStates(states) })
	}
	a, b, c := state(issuerKey, "a", awkward), state(issuerKey, "b", "{}"), state(otherKey, "a", "1")
	put(b, c)
	put(a)
	put()
	equal(t, must(f.db.KeyStates(ctx, time.Time{})).or(t), []store.KeyState{c, a, b})
	equal(t, must(f.db.KeyStates(ctx, c.At)).or(t), []store.KeyState{c})
	f.Add(time.Minute)
	b = state(issuerKey, "b", "new")
	put(b)
	equal(t, must(f.db.KeyStates(ctx, time.Time{})).or(t), []store.KeyState{c, a, b})
	f.Add(59*time.Minute + 30*time.Second)
	put(a) // says what it said an hour ago
	equal(t, must(f.db.KeyStates(ctx, time.Time{})).or(t), []store.KeyState{b})
}

func testLiveCertificates(t *testing.T, f *fixture) {
	equal(t, len(must(f.db.LiveCertificates(t.Context(), f.Now())).or(t)), 0)
	now := f.Now()
	for n := range 5 {
		c := f.certificate("a.example")
		c.NotAfter = now.Add(time.Duration(n) * time.Hour)
		if n == 4 {
			c.IssuerKeyID = otherKey
		}
		f.insertCertificate(c)
	}
	live := must(f.db.LiveCertificates(t.Context(), now.Add(time.Hour))).or(t)
	equal(t, live, map[string]store.Live{issuerKey: {Count: 2, LastEnd: now.Add(3 * time.Hour)}, otherKey: {Count: 1, LastEnd: now.Add(4 * time.Hour)}})
}

// testNewestOfNames: what a client renews when it doesn't say so.
func testNewestOfNames(t *testing.T, f *fixture) {
	ctx, now := t.Context(), f.Now()
	add := func(change func(*cert.Certificate), names ...string) cert.Certificate {
		c := f.certificate(names...)
		c.State, c.Account = cert.Issued, "mine"
		change(&c)
		return f.insertCertificate(c)
	}
	asIs := func(*cert.Certificate) {}
	look := func(want *cert.Certificate, names ...protocol.Identifier) {
		t.Helper()
		serial, ends, err := f.db.NewestOfNames(ctx, "mine", names, now)
		if want == nil {
			wantError(t, err, store.ErrNotFound)
			return
		}
		wantError(t, err, nil)
		equal(t, serial, want.Serial)
		equal(t, ends, want.NotAfter)
	}
	a, b := dns("a.example"), dns("longer.example")
	look(nil, a)
	look(nil)
	add(func(c *cert.Certificate) { c.Account = "another" }, "a.example")
	add(func(c *cert.Certificate) { c.State = cert.Planned }, "a.example")
	add(func(c *cert.Certificate) { c.NotAfter = now }, "a.example")
	add(func(c *cert.Certificate) { c.Revoked.At = now }, "a.example")
	add(asIs, "a.example", "b.example")
	add(asIs, "b.example")
	look(nil, a)
	old := add(func(c *cert.Certificate) { c.NotAfter = now.Add(time.Hour) }, "a.example")
	look(&old, a)
	newer := add(func(c *cert.Certificate) { c.NotAfter = now.Add(2 * time.Hour) }, "a.example")
	look(&newer, a)
	look(&newer, a, a)
	two := add(asIs, "longer.example", "a.example")
	look(&two, a, b)
	look(&two, b, a)
	look(nil, b)
	look(nil, protocol.Identifier{Type: protocol.IP, Value: "a.example"})

	// Many others share the name.
	for n := range 100 {
		add(func(c *cert.Certificate) {
			c.Account, c.NotAfter = protocol.AccountID(fmt.Sprint("account", n)), now.Add(3*time.Hour)
		}, "a.example")
	}
	look(&newer, a)
	// An account with many certificates.
	for n := range 100 {
		add(asIs, fmt.Sprintf("host-%d.example", n))
	}
	latest := add(asIs, "host-with-a-long-name.example")
	look(&latest, dns("host-with-a-long-name.example"))
}

// testPlansOfKeys: each replica signs by the keys it holds.
func testPlansOfKeys(t *testing.T, f *fixture) {
	ctx := t.Context()
	keys := map[string][]cert.Serial{}
	for n := range 6 {
		c := f.certificate("a.example")
		c.IssuerKeyID, c.CRLShard, c.Client = []string{issuerKey, otherKey}[n%2], n, "namespace "+awkward
		keys[c.IssuerKeyID] = append(keys[c.IssuerKeyID], f.insertCertificate(c).Serial)
		equal(t, must(f.db.Certificate(ctx, c.Serial)).or(t), c)
	}
	claim := func(limit int, of []string) (serials []cert.Serial) {
		t.Helper()
		due := must(f.db.PlansDue(ctx, f.Now(), of)).or(t)
		f.update(func(tx *store.Tx) error {
			serials = nil
			plans, err := tx.ClaimPlans(tx.Now(), time.Minute, limit, of)
			for _, c := range plans {
				serials = append(serials, c.Serial)
			}
			return err
		})
		equal(t, due, len(serials) > 0)
		slices.Sort(serials)
		return serials
	}
	equal(t, claim(10, []string{}), nil)
	equal(t, claim(10, []string{"00"}), nil)
	mine := slices.Sorted(slices.Values(keys[otherKey]))
	equal(t, claim(10, []string{"00", otherKey, "01"}), mine)
	equal(t, claim(10, []string{otherKey}), nil)
	equal(t, len(claim(2, []string{otherKey, issuerKey})), 2)
	equal(t, len(claim(10, nil)), 1)
	equal(t, claim(10, nil), nil)

	// Nobody waits for what is issued.
	f.changed(true, func(tx *store.Tx) (bool, error) { return tx.IssueCertificate(mine[0], []byte("signed")) })
	c := must(f.db.Certificate(ctx, mine[0])).or(t)
	if c.Client != "" || c.CRLShard == 0 {
		t.Errorf("issued: %+v", c)
	}
}
