package sweep

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// newSweeper is one of an empty database, and what moves its clock.
func newSweeper(t *testing.T) (*Sweeper, *atomic.Int64) {
	t.Helper()
	ahead := new(atomic.Int64)
	clock := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	db, err := store.Open(t.Context(), store.Options{DSN: filepath.Join(t.TempDir(), "ca.db"), Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &Sweeper{DB: db, Replica: "a", Keep: Keep{}.WithDefaults(), Clock: clock, Swept: func(string, int) {}}, ahead
}

// More than fits one transaction goes too, and is told once.
func TestBatches(t *testing.T) {
	s, ahead := newSweeper(t)
	if err := storetest.Fill(t.Context(), s.DB, 2*most+1); err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(30 * 24 * time.Hour))
	told := map[string]int{}
	s.Swept = func(what string, rows int) { told[what] += rows }
	first := 0
	for range 2 {
		if err := s.Sweep(t.Context(), func(context.Context) error { first++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for _, what := range []string{"accounts", "orders", "authorizations", "certificates"} {
		if told[what] != 2*most+1 {
			t.Errorf("%d %s", told[what], what)
		}
	}
	if told["audit"] != 0 || first != 2 {
		t.Errorf("%v, first was done %d times", told, first)
	}
	list, err := s.DB.Accounts(t.Context(), store.AccountFilter{})
	if err != nil || len(list) != 0 {
		t.Errorf("%d accounts are left, %v", len(list), err)
	}
}

// One that lost its lease stops; one whose first duty fails doesn't begin.
func TestStops(t *testing.T) {
	s, ahead := newSweeper(t)
	if err := storetest.Fill(t.Context(), s.DB, 1); err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(30 * 24 * time.Hour))
	s.Swept = func(what string, rows int) { t.Errorf("%d %s were swept", rows, what) }
	trouble := errors.New("trouble")
	if err := s.Sweep(t.Context(), func(context.Context) error { return trouble }); !errors.Is(err, trouble) {
		t.Error(err)
	}
	lost := func(ctx context.Context) error { // another replica takes this one for dead
		ahead.Add(int64(Lease + time.Second))
		return s.DB.Update(ctx, func(tx *store.Tx) error {
			mine, err := tx.Lease("sweep", "b", tx.Now().Add(Lease))
			if err == nil && !mine {
				err = errors.New("no lease")
			}
			return err
		})
	}
	if err := s.Sweep(t.Context(), lost); err != nil {
		t.Error(err)
	}
	if err := s.Sweep(t.Context(), func(context.Context) error { t.Error("another has the lease"); return nil }); err != nil {
		t.Error(err)
	}
}
