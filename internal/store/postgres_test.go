package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/nonce"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// onPostgres runs a test that only PostgreSQL can pass, where it is wanted.
func onPostgres(t *testing.T, fn func(t *testing.T)) {
	if storetest.WantPostgres() {
		t.Run("postgres", fn)
	}
}

// A server that may lose commits is refused, unless the operator said so; the
// tests' server is such a one.
func TestPostgresUnsafe(t *testing.T) {
	onPostgres(t, func(t *testing.T) {
		dsn := dsn(t, "postgres")
		_, err := storetest.Open(t.Context(), store.Options{DSN: dsn})
		if err == nil || !strings.Contains(err.Error(), "fsync is off") {
			t.Errorf("an unsafe server: %v", err)
		}
		_, err = storetest.Open(t.Context(), store.Options{DSN: dsn + "&options=-csynchronous_commit%3Doff"})
		if err == nil {
			t.Error("an unsafe session was taken")
		}
		for _, bad := range []string{"postgres://", "postgres://ca:secret@127.0.0.1:1/x?connect_timeout=1", "postgres://ca:secret@x:99999/"} {
			_, err := storetest.Open(t.Context(), store.Options{DSN: bad})
			if err == nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: %v", bad, err)
			}
		}
	})
}

// Replicas that start together migrate once.
func TestPostgresMigratesOnce(t *testing.T) {
	onPostgres(t, func(t *testing.T) {
		dsn := dsn(t, "postgres")
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				db, err := storetest.Open(t.Context(), store.Options{DSN: dsn, UnsafeSync: true})
				if err != nil {
					t.Error(err)
					return
				}
				db.Close()
			})
		}
		all.Wait()
	})
}

// replicas are two handles on one database.
func replicas(t *testing.T, clock func() time.Time) (a, b *store.DB) {
	dsn := dsn(t, "postgres")
	o := store.Options{DSN: dsn, Clock: clock}
	return open(t, o), open(t, o)
}

func nonces(t testing.TB, db *store.DB) *store.Nonces {
	t.Helper()
	n, err := db.Nonces(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func use(t testing.TB, n *store.Nonces, nonce string, want bool) {
	t.Helper()
	got, err := n.Use(t.Context(), nonce)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("Use = %v, want %v", got, want)
	}
}

// Every replica takes what any handed out, each nonce once.
func TestPostgresNonces(t *testing.T) {
	onPostgres(t, func(t *testing.T) {
		var mu sync.Mutex
		now := time.Now()
		clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
		move := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
		dbA, dbB := replicas(t, clock)
		a, b := nonces(t, dbA), nonces(t, dbB)
		for range 20 {
			n := a.New()
			if n == b.New() {
				t.Fatal("two replicas made the same nonce")
			}
			use(t, b, n, true)
			use(t, a, n, false)
			use(t, b, n, false)
		}
		// One nonce, both replicas, many at once.
		n := a.New()
		var wins, losses int
		var all sync.WaitGroup
		for i := range 32 {
			all.Go(func() {
				ok, err := []*store.Nonces{a, b}[i%2].Use(t.Context(), n)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				} else if ok {
					wins++
				} else {
					losses++
				}
			})
		}
		all.Wait()
		if wins != 1 || losses != 31 {
			t.Errorf("%d wins, %d losses", wins, losses)
		}
		// An epoch later, old ones are taken still; two later, no more.
		first := a.New()
		move(nonce.EpochLife)
		second := a.New()
		use(t, b, second, true)
		use(t, b, first, true)
		third := b.New()
		move(nonce.EpochLife)
		use(t, a, a.New(), true)
		use(t, b, third, true)
		use(t, a, first, false)
		move(time.Second)
		use(t, b, b.New(), true)
		use(t, b, second, false)
	})
}

// When the server dies, callers are told so, and all goes on when it is back:
// what was committed is there, and nonces begin a new epoch.
func TestPostgresCrash(t *testing.T) {
	onPostgres(t, func(t *testing.T) {
		var mu sync.Mutex
		now := time.Now()
		clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
		a, b := replicas(t, clock)
		na, nb := nonces(t, a), nonces(t, b)
		old := na.New()
		update(t, a, func(tx *store.Tx) error { return tx.PutSecret("s", []byte{1}) })
		if err := postgres.Kill(); err != nil {
			t.Fatal(err)
		}
		err := a.Update(t.Context(), func(tx *store.Tx) error { return tx.PutSecret("s", []byte{2}) })
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("Update without a server: %v", err)
		}
		if _, err := b.Secret(t.Context(), "s"); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("a read without a server: %v", err)
		}
		if _, err := na.Use(t.Context(), old); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("a nonce without a server: %v", err)
		}
		if err := a.Ping(t.Context()); err == nil {
			t.Error("Ping without a server")
		}
		if err := postgres.Start(); err != nil {
			t.Fatal(err)
		}
		update(t, a, func(tx *store.Tx) error { return tx.PutSecret("after", []byte{3}) })
		if s, err := b.Secret(t.Context(), "s"); err != nil || s[0] != 1 {
			t.Errorf("after the crash: %v, %v", s, err)
		}
		mu.Lock()
		now = now.Add(2 * time.Second) // the epochs are looked at again
		mu.Unlock()
		use(t, nb, old, false)
		use(t, na, old, false)
		use(t, na, nb.New(), true)
		use(t, nb, na.New(), true)
	})
}

// After a crash a client needs one nonce more, and no more: the badNonce that
// tells him of the lost epoch brings a nonce of the new one. The clock stands
// still, so that nothing rests on waiting; whoever asked while the server was
// away changes nothing.
func TestPostgresNoncesAfterCrash(t *testing.T) {
	onPostgres(t, func(t *testing.T) {
		now := time.Now()
		a, b := replicas(t, func() time.Time { return now })
		na, nb := nonces(t, a), nonces(t, b)
		lost := nb.New()
		if err := postgres.Kill(); err != nil {
			t.Fatal(err)
		}
		for _, nonce := range []string{na.New(), "AAAA" + na.New()[4:]} {
			if _, err := na.Use(t.Context(), nonce); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("a nonce without a server: %v", err)
			}
		}
		if err := postgres.Start(); err != nil {
			t.Fatal(err)
		}
		update(t, a, func(tx *store.Tx) error { return tx.PutSecret("s", nil) }) // connections are made anew
		var used bool
		var err error
		for range 20 { // each of the pool's four may have died
			if used, err = na.Use(t.Context(), na.New()); err == nil {
				break
			}
		}
		if used || err != nil {
			t.Fatalf("a nonce of the lost epoch: %v, %v", used, err)
		}
		use(t, na, na.New(), true)
		// The other replica learns of the new epoch from its first nonce.
		use(t, nb, na.New(), true)
		use(t, nb, nb.New(), true)
		use(t, nb, lost, false)
		use(t, na, lost, false)
	})
}

// Two transactions that hinder each other: PostgreSQL ends one, which runs
// again.
func TestPostgresDeadlock(t *testing.T) {
	onPostgres(t, func(t *testing.T) {
		a, b := replicas(t, nil)
		update(t, a, func(tx *store.Tx) error {
			return errors.Join(tx.PutSecret("x", nil), tx.PutSecret("y", nil))
		})
		var meet sync.WaitGroup
		meet.Add(2)
		var runs sync.Map
		both := func(db *store.DB, first, second string) error {
			n := 0
			return db.Update(t.Context(), func(tx *store.Tx) error {
				n++
				runs.Store(first, n)
				if err := tx.PutSecret(first, []byte(first)); err != nil {
					return err
				}
				if n == 1 {
					meet.Done()
					meet.Wait()
				}
				return tx.PutSecret(second, []byte(first))
			})
		}
		var all sync.WaitGroup
		all.Go(func() {
			if err := both(a, "x", "y"); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if err := both(b, "y", "x"); err != nil {
				t.Error(err)
			}
		})
		all.Wait()
		total := 0
		runs.Range(func(_, n any) bool { total += n.(int); return true })
		if total < 3 {
			t.Errorf("%d runs: nothing was tried again", total)
		}
		x, err1 := a.Secret(t.Context(), "x")
		y, err2 := a.Secret(t.Context(), "y")
		if err1 != nil || err2 != nil || string(x) != string(y) {
			t.Errorf("x = %q, y = %q: halves of two transactions", x, y)
		}
	})
}

// Replicas that sequence together give every entry one place.
func TestPostgresSequencing(t *testing.T) {
	onPostgres(t, func(t *testing.T) {
		a, b := replicas(t, nil)
		var all sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for i, db := range []*store.DB{a, b} {
			for range 4 {
				all.Go(func() {
					for n := range 50 {
						if err := db.Update(t.Context(), func(tx *store.Tx) error {
							return tx.Audit(audit.Entry{Action: "x", Actor: "y", Object: fmt.Sprint(n)})
						}); err != nil {
							t.Error(err)
						}
					}
				})
			}
			go func() {
				for ctx.Err() == nil {
					db.Update(ctx, func(tx *store.Tx) error {
						_, err := tx.SequenceAudit(tx.Now(), fmt.Sprint("replica", i), 7)
						return err
					})
				}
			}()
		}
		all.Wait()
		deadline := time.Now().Add(20 * time.Second)
		for {
			n, err := a.VerifyAudit(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if n == 400 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d of 400 entries sequenced", n)
			}
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	})
}

// Callers who give up while all connections are busy get their context's
// error, and nothing of theirs is written.
func TestPostgresPoolWait(t *testing.T) {
	onPostgres(t, func(t *testing.T) {
		db := open(t, store.Options{DSN: dsn(t, "postgres")})
		hold := make(chan struct{})
		var started, all sync.WaitGroup
		for range 16 {
			started.Add(1)
			all.Go(func() {
				db.Update(t.Context(), func(tx *store.Tx) error { started.Done(); <-hold; return nil })
			})
		}
		started.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		err := db.Update(ctx, func(tx *store.Tx) error { return tx.PutSecret("s", nil) })
		close(hold)
		all.Wait()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the context's", err)
		}
		if _, err := db.Secret(t.Context(), "s"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("its row: %v", err)
		}
	})
}
