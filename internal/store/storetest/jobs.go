package storetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

func testUpdate(t *testing.T, f *fixture) {
	ctx := t.Context()
	a := f.account("servers", "thumb")
	no := errors.New("no")
	wantError(t, f.db.Update(ctx, func(tx *store.Tx) error {
		if err := tx.InsertAccount(a); err != nil {
			return err
		}
		if _, err := tx.Account(ctx, a.ID); err != nil { // sees its own writes
			return err
		}
		_, err := f.db.Account(ctx, a.ID) // which others don't
		wantError(t, err, store.ErrNotFound)
		equal(t, tx.Now(), tx.Now())
		return no
	}), no)
	_, err := f.db.Account(ctx, a.ID)
	wantError(t, err, store.ErrNotFound)

	var kept *store.Tx
	f.update(func(tx *store.Tx) error { kept = tx; return nil })
	if kept.InsertAccount(a) == nil {
		t.Fatal("a transaction was used after its end")
	}
	func() {
		defer func() { equal(t, recover(), any("oh")) }()
		f.db.Update(ctx, func(tx *store.Tx) error {
			tx.InsertAccount(a)
			panic("oh")
		})
	}()
	_, err = f.db.Account(ctx, a.ID)
	wantError(t, err, store.ErrNotFound)
	before := f.db.Stats()
	f.insertAccount(a) // and the writer goes on
	after := f.db.Stats()
	if after.Commits != before.Commits+1 || after.Callers != before.Callers+1 || after.CommitTime <= before.CommitTime || after.Waiting != 0 {
		t.Fatalf("statistics: %+v, then %+v", before, after)
	}
	wantError(t, f.db.Ping(ctx), nil)
}

func testUpdateCancelled(t *testing.T, f *fixture) {
	ctx, cancel := context.WithCancel(t.Context())
	a := f.account("servers", "thumb")
	// Cancelled while it runs: it goes on, and the answer is the truth.
	err := f.db.Update(ctx, func(tx *store.Tx) error {
		cancel()
		return tx.InsertAccount(a)
	})
	wantError(t, err, nil)
	equal(t, must(f.db.Account(t.Context(), a.ID)).or(t).ID, a.ID)
	_, err = f.db.Account(ctx, a.ID)
	wantError(t, err, context.Canceled)
	for range 10 {
		err := f.db.Update(ctx, func(tx *store.Tx) error { return tx.InsertAccount(f.account("servers", "x")) })
		if err != nil {
			wantError(t, err, context.Canceled)
			_, err := f.db.AccountByKey(t.Context(), "servers", "x")
			wantError(t, err, store.ErrNotFound)
		} else {
			break // it was taken before the context was looked at
		}
	}
}

func testLeases(t *testing.T, f *fixture) {
	lease := func(holder string) func(*store.Tx) (bool, error) {
		return func(tx *store.Tx) (bool, error) { return tx.Lease("job", holder, tx.Now().Add(time.Minute)) }
	}
	f.changed(true, lease("a"))
	f.changed(false, lease("b"))
	f.Add(50 * time.Second)
	f.changed(true, lease("a")) // extended
	f.Add(50 * time.Second)
	f.changed(false, lease("b"))
	f.changed(true, func(tx *store.Tx) (bool, error) { return tx.Lease("other job", "b", tx.Now()) })
	f.Add(20 * time.Second)
	f.changed(true, lease("b"))
	f.changed(false, lease("a"))
}

func testLimits(t *testing.T, f *fixture) {
	limit := store.Limit{Count: 3, Per: time.Minute}
	take := func(key string) (wait, said time.Duration) {
		f.update(func(tx *store.Tx) (err error) {
			if said, err = tx.LimitWait(f.ctx(), key, limit); err != nil {
				return err
			}
			wait, err = tx.Take(key, limit)
			return err
		})
		return wait, said
	}
	allowed := func(key string, want bool) {
		t.Helper()
		wait, said := take(key)
		if (wait == 0) != want || wait != said {
			t.Fatalf("wait = %v, said %v, want allowed = %v", wait, said, want)
		}
		if !want && (wait > 20*time.Second || wait < 19*time.Second) {
			t.Fatalf("wait = %v, want 20 s", wait)
		}
	}
	for range 3 {
		allowed("a", true) // all at once
	}
	allowed("a", false)
	allowed("a", false) // refused ones cost nothing
	allowed("b", true)
	f.Add(20 * time.Second)
	allowed("a", true)
	allowed("a", false)
	f.Add(time.Hour) // no more than Count is ever saved up
	for range 3 {
		allowed("a", true)
	}
	allowed("a", false)
	for _, l := range []store.Limit{{}, {Count: 1}, {Per: time.Second}, {Count: -1, Per: time.Second}} {
		if err := f.db.Update(t.Context(), func(tx *store.Tx) error { _, err := tx.Take("a", l); return err }); err == nil {
			t.Fatalf("%+v was taken for a limit", l)
		}
	}
	f.Add(time.Hour)
	f.update(func(tx *store.Tx) error {
		n, err := tx.SweepLimits(tx.Now(), 10)
		equal(t, n, 2)
		return err
	})
}

func testNumbers(t *testing.T, f *fixture) {
	for _, step := range []struct{ atLeast, want int64 }{{0, 0}, {0, 1}, {1, 2}, {10, 10}, {5, 11}, {1 << 40, 1 << 40}, {0, 1<<40 + 1}} {
		f.update(func(tx *store.Tx) error {
			n, err := tx.NextNumber("crl", step.atLeast)
			equal(t, n, step.want)
			return err
		})
	}
	f.update(func(tx *store.Tx) error {
		n, err := tx.NextNumber("other", 7)
		equal(t, n, int64(7))
		return err
	})
	for _, step := range []struct{ atLeast, want int64 }{{3, 3}, {2, 3}, {3, 3}, {1 << 40, 1 << 40}, {0, 1 << 40}} {
		f.update(func(tx *store.Tx) error { return tx.RaiseNumber("highest", step.atLeast) })
		equal(t, must(f.db.Number(t.Context(), "highest")).or(t), step.want)
	}

	_, err := f.db.Secret(t.Context(), "s")
	wantError(t, err, store.ErrNotFound)
	for _, value := range [][]byte{{0, 255, 1}, {}, []byte(awkward)} {
		f.update(func(tx *store.Tx) error { return tx.PutSecret("s", value) })
		equal(t, string(must(f.db.Secret(t.Context(), "s")).or(t)), string(value))
	}
}

// testSweeps fills, waits, and sweeps in batches: nothing may be left, and
// nothing alive may go.
func testSweeps(t *testing.T, f *fixture) {
	ctx := t.Context()
	var dead []*Issuance
	for n := range 23 {
		dead = append(dead, f.issuance(n, 5))
	}
	bound := f.account("servers", "eab")
	bound.EABKey, bound.KeepUntil = "k", time.Time{}
	f.insertAccount(bound)
	f.Add(30 * 24 * time.Hour)
	alive := f.issuance(100, 5)
	stuck := f.issuance(101, 4)
	f.Add(time.Hour)

	now := f.Now()
	for name, sweep := range map[string]func(tx *store.Tx) (int, error){
		"accounts":       func(tx *store.Tx) (int, error) { return tx.SweepAccounts(now, 10) },
		"orders":         func(tx *store.Tx) (int, error) { return tx.SweepOrders(now, 10) },
		"authorizations": func(tx *store.Tx) (int, error) { return tx.SweepAuthorizations(now, 10) },
		"certificates":   func(tx *store.Tx) (int, error) { return tx.SweepCertificates(now, 10) },
	} {
		var counts []int
		for len(counts) == 0 || counts[len(counts)-1] > 0 {
			f.update(func(tx *store.Tx) error {
				n, err := sweep(tx)
				counts = append(counts, n)
				return err
			})
		}
		if !slices.Equal(counts, []int{10, 10, 3, 0}) {
			t.Fatalf("%s: swept %v", name, counts)
		}
	}
	for _, i := range dead {
		_, a := f.db.Account(ctx, i.Account.ID)
		_, o := f.db.Order(ctx, i.Order.ID)
		_, z := f.db.Authorization(ctx, i.Authorization.ID)
		_, c := f.db.Certificate(ctx, i.Certificate.Serial)
		for _, err := range []error{a, o, z, c} {
			wantError(t, err, store.ErrNotFound)
		}
		equal(t, f.serials(store.CertificateFilter{Name: i.Certificate.Names[0].Value}), nil)
	}
	for _, i := range []*Issuance{alive, stuck} {
		must(f.db.Account(ctx, i.Account.ID)).or(t)
		must(f.db.Order(ctx, i.Order.ID)).or(t)
		must(f.db.Authorization(ctx, i.Authorization.ID)).or(t)
		must(f.db.Certificate(ctx, i.Certificate.Serial)).or(t)
	}
	must(f.db.Account(ctx, bound.ID)).or(t)

	// An order whose certificate is being made outlives its date.
	f.Add(7 * 24 * time.Hour)
	f.update(func(tx *store.Tx) error {
		n, err := tx.SweepOrders(tx.Now(), 10)
		equal(t, n, 1)
		return err
	})
	equal(t, must(f.db.Order(ctx, stuck.Order.ID)).or(t).Status, protocol.OrderProcessing)
}

func testNonces(t *testing.T, f *fixture) {
	ctx := t.Context()
	nonces := must(f.db.Nonces(ctx)).or(t)
	use := func(nonce string, want bool) {
		t.Helper()
		if got := must(nonces.Use(ctx, nonce)).or(t); got != want {
			t.Fatalf("Use(%q) = %v, want %v", nonce, got, want)
		}
	}
	seen := map[string]bool{}
	for range 100 {
		n := nonces.New()
		if len(n) != 43 || strings.Trim(n, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" || seen[n] {
			t.Fatalf("nonce %q: not base64url, or not new", n) // RFC 8555 section 6.5.1
		}
		seen[n] = true
	}
	for n := range seen {
		use(n, true)
		use(n, false)
	}
	n := nonces.New()
	for i := range len(n) { // any character changed: the counter's, the MAC's, the epoch's
		b := []byte(n)
		if b[i]++; b[i] == 'Z'+1 || b[i] == 'z'+1 || b[i] == '9'+1 || b[i] == '_'+1 || b[i] == '-'+1 {
			b[i] = 'A'
		}
		use(string(b), false)
	}
	for _, bad := range []string{"", "x", n + "=", n + "A", n[1:], " " + n[1:], strings.Repeat("A", 43), strings.Repeat("A", 1<<20)} {
		use(bad, false)
	}
	f.Add(59 * time.Minute)
	use(n, true)
	use(n, false)
	use(nonces.New(), true)
}
