package storetest

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// racers is how many try at once.
const racers = 32

// race runs fn in many goroutines at the same moment and returns how many
// said that they won.
func race(fn func(n int) bool) int {
	var wins atomic.Int64
	var ready, all sync.WaitGroup
	ready.Add(racers)
	for n := range racers {
		all.Go(func() {
			ready.Done()
			ready.Wait()
			if fn(n) {
				wins.Add(1)
			}
		})
	}
	all.Wait()
	return int(wins.Load())
}

// testRaces lets many do what only one may.
func testRaces(t *testing.T, f *fixture) {
	ctx := t.Context()
	i := f.issuance(0, 4)
	key := protocol.EABKey{ID: "somekey", MaxAccounts: 5}
	f.update(func(tx *store.Tx) error { return tx.InsertEABKey(key) })
	pending, _ := f.order(i.Account.ID, dns("a.example"))
	f.insertOrder(pending)
	nonces := must(f.db.Nonces(ctx)).or(t)
	nonce := nonces.New()

	in := func(fn func(tx *store.Tx) (bool, error)) func(int) bool {
		return func(int) (won bool) {
			if err := f.db.Update(ctx, func(tx *store.Tx) (err error) {
				won, err = fn(tx)
				return err
			}); err != nil {
				t.Error(err)
			}
			return won
		}
	}
	for _, test := range []struct {
		name string
		wins int
		try  func(n int) bool
	}{
		{"nonce", 1, func(int) bool {
			ok, err := nonces.Use(ctx, nonce)
			if err != nil {
				t.Error(err)
			}
			return ok
		}},
		{"account of a key", 1, func(int) bool {
			err := f.db.Update(ctx, func(tx *store.Tx) error { return tx.InsertAccount(f.account("servers", "same")) })
			if err != nil {
				wantError(t, err, store.ErrConflict)
			}
			return err == nil
		}},
		{"accounts of an EAB key", 5, in(func(tx *store.Tx) (bool, error) { return tx.TakeEABAccount(key.ID) })},
		{"plan", 1, in(func(tx *store.Tx) (bool, error) { return tx.PlanOrder(pending.ID, "00", "server") })},
		{"certificate", 1, in(func(tx *store.Tx) (bool, error) { return tx.IssueCertificate(i.Certificate.Serial, i.DER) })},
		{"limit", 7, in(func(tx *store.Tx) (bool, error) {
			wait, err := tx.Take("key", store.Limit{Count: 7, Per: time.Hour})
			return wait == 0, err
		})},
		{"lease", 1, func(n int) bool {
			return in(func(tx *store.Tx) (bool, error) {
				return tx.Lease("job", string(rune('a'+n)), tx.Now().Add(time.Hour))
			})(n)
		}},
		{"end", 1, in(func(tx *store.Tx) (bool, error) { return tx.EndAccount(i.Account.ID, protocol.AccountDeactivated) })},
		{"audit", racers, in(func(tx *store.Tx) (bool, error) { return true, tx.Audit(audit.Entry{Action: "race", Actor: "x"}) })},
	} {
		if wins := race(test.try); wins != test.wins {
			t.Errorf("%s: %d of %d won, want %d", test.name, wins, racers, test.wins)
		}
	}
	f.sequence()
	equal(t, must(f.db.VerifyAudit(ctx)).or(t), int64(4+racers))
	numbers := make(chan int64, racers)
	race(in(func(tx *store.Tx) (bool, error) {
		n, err := tx.NextNumber("crl", 1)
		numbers <- n
		return true, err
	}))
	seen := map[int64]bool{}
	for range racers {
		n := <-numbers
		if seen[n] {
			t.Errorf("number %d was given twice", n)
		}
		seen[n] = true
	}
}

// testRacedClaims has workers empty a queue: no job may be claimed twice.
func testRacedClaims(t *testing.T, f *fixture) {
	const jobs = 150
	now := f.Now()
	f.update(func(tx *store.Tx) error {
		for range jobs {
			a := f.authorization("someaccount", dns("a.example"))
			a.Attempt = protocol.Attempt{Type: protocol.HTTP01, Processing: true, NextAt: now}
			if err := tx.InsertAuthorization(a); err != nil {
				return err
			}
			if err := tx.InsertCertificate(f.certificate("a.example"), time.Time{}); err != nil {
				return err
			}
		}
		return nil
	})
	now = f.Now()
	var mu sync.Mutex
	claimed := map[string]int{}
	race(func(int) bool {
		for range 10 * jobs { // ends long before, when nothing is left
			var got []string
			if err := f.db.Update(t.Context(), func(tx *store.Tx) error {
				got = got[:0] // it may run again
				validations, err := tx.ClaimValidations(now, time.Hour, 7)
				if err != nil {
					return err
				}
				for _, a := range validations {
					got = append(got, string(a.ID))
				}
				plans, err := tx.ClaimPlans(now, time.Hour, 7, nil)
				for _, c := range plans {
					got = append(got, string(c.Serial))
				}
				return err
			}); err != nil {
				t.Error(err)
				return false
			}
			mu.Lock()
			for _, id := range got {
				claimed[id]++
			}
			done := len(claimed) >= 2*jobs
			mu.Unlock()
			if done {
				return true
			}
		}
		return false
	})
	equal(t, len(claimed), 2*jobs)
	for id, n := range claimed {
		if n != 1 {
			t.Errorf("%s was claimed %d times", id, n)
		}
	}
}
