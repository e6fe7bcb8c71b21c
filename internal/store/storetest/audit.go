package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// record audits one entry, each in a transaction of its own.
func (f *fixture) record(e audit.Entry) {
	f.t.Helper()
	f.update(func(tx *store.Tx) error { return tx.Audit(e) })
}

func (f *fixture) entries(filter store.AuditFilter) []store.Record {
	f.t.Helper()
	return must(f.db.AuditEntries(f.ctx(), filter)).or(f.t)
}

func testAudit(t *testing.T, f *fixture) {
	ctx := t.Context()
	var want []audit.Entry
	for n := range 5 {
		e := audit.Entry{
			Action: "order.create", Actor: "account:x", Peer: "192.0.2.1", Directory: "servers", Object: fmt.Sprint("order", n),
			Denied: awkward, Detail: map[string]any{"n": float64(n), "text": awkward},
		}
		f.update(func(tx *store.Tx) error {
			e.At = tx.Now()
			want = append(want, e)
			e.At = time.Time{} // it is the transaction's whatever it says
			return tx.Audit(e)
		})
	}
	// What is rolled back leaves no gap.
	no := errors.New("no")
	wantError(t, f.db.Update(ctx, func(tx *store.Tx) error {
		return errors.Join(tx.Audit(audit.Entry{Action: "never"}), no)
	}), no)
	f.update(func(tx *store.Tx) error {
		for n := range 3 {
			e := audit.Entry{At: tx.Now(), Action: "several", Actor: "job", Object: fmt.Sprint(n)}
			want = append(want, e)
			if err := tx.Audit(e); err != nil {
				return err
			}
		}
		return nil
	})
	f.sequence()
	records := f.entries(store.AuditFilter{})
	previous := audit.Hash{}
	for n, r := range records {
		equal(t, r.Entry, want[n])
		equal(t, r.Sequence, int64(n+1))
		equal(t, r.Hash, audit.Link(previous, r.Sequence, want[n].Canonical()))
		previous = r.Hash
	}
	equal(t, len(records), len(want))
	equal(t, must(f.db.VerifyAudit(ctx)).or(t), int64(len(want)))
}

func testAuditSearch(t *testing.T, f *fixture) {
	start := f.Now()
	order := protocol.NewID[protocol.OrderID](start)
	twin := string(order[:20]) + "000000" // the same first 12 characters
	for n := range 30 {
		e := audit.Entry{Action: "a.b", Actor: "one", Object: fmt.Sprint(n)}
		if n%3 == 0 {
			e.Action = "a.c"
		}
		if n%5 == 0 {
			e.Actor, e.Object = "two", string(order)
		}
		if n == 7 {
			e.Object = twin
		}
		f.record(e)
		f.Add(time.Minute)
	}
	f.sequence()
	count := func(want int, filter store.AuditFilter) []store.Record {
		t.Helper()
		got := f.entries(filter)
		if len(got) != want {
			t.Fatalf("%+v: %d entries, want %d", filter, len(got), want)
		}
		return got
	}
	count(30, store.AuditFilter{})
	equal(t, count(4, store.AuditFilter{After: 3, Limit: 4})[0].Sequence, int64(4))
	count(6, store.AuditFilter{Object: string(order)})
	count(1, store.AuditFilter{Object: twin})
	count(0, store.AuditFilter{Object: string(order[:12])})
	count(10, store.AuditFilter{Action: "a.c"})
	count(6, store.AuditFilter{Actor: "two"})
	count(2, store.AuditFilter{Actor: "two", Action: "a.c"})
	count(0, store.AuditFilter{Action: "a"})
	third := f.entries(store.AuditFilter{After: 2, Limit: 1})[0].Entry.At
	count(28, store.AuditFilter{From: third})
	count(2, store.AuditFilter{To: third})
	count(1, store.AuditFilter{From: third, To: third.Add(time.Second)})
	equal(t, count(3, store.AuditFilter{From: start.Add(20 * time.Minute), Limit: 3})[0].Entry.At.Before(start.Add(20*time.Minute)), false)
	count(0, store.AuditFilter{From: start.Add(time.Hour)})
	count(0, store.AuditFilter{To: start.Add(-time.Hour)})
}

func testAuditClock(t *testing.T, f *fixture) {
	ctx := t.Context()
	f.record(audit.Entry{Action: "now", Actor: "one"})
	f.sequence()
	f.Add(-59 * time.Second)
	f.record(audit.Entry{Action: "a little early", Actor: "one"})
	f.Add(-2 * time.Minute)
	f.sequence()
	early := func(tx *store.Tx) error { return tx.Audit(audit.Entry{Action: "early", Actor: "one"}) }
	wantError(t, f.db.Update(ctx, early), store.ErrClockBehind)
	// Not even for a caller that doesn't look.
	wantError(t, f.db.Update(ctx, func(tx *store.Tx) error {
		early(tx)
		return nil
	}), store.ErrClockBehind)
	f.Add(3 * time.Minute)
	f.record(audit.Entry{Action: "in time", Actor: "one"})
	f.sequence()
	equal(t, must(f.db.VerifyAudit(ctx)).or(t), int64(3))
}

func testSweepAudit(t *testing.T, f *fixture) {
	ctx := t.Context()
	for n := range 25 {
		f.record(audit.Entry{Action: "a.b", Actor: "one", Object: fmt.Sprint(n)})
		f.Add(time.Minute)
	}
	f.sequence()
	sweep := func(before time.Time, limit, want int) {
		t.Helper()
		f.update(func(tx *store.Tx) error {
			n, err := tx.SweepAudit(before, limit)
			equal(t, n, want)
			return err
		})
		f.sequence()
	}
	now := f.Now()
	sweep(now.Add(-time.Hour), 10, 0)
	sweep(now, 10, 10)
	equal(t, must(f.db.VerifyAudit(ctx)).or(t), int64(15))
	equal(t, f.entries(store.AuditFilter{Limit: 1})[0].Sequence, int64(11))
	sweep(now, 10, 10)
	sweep(now, 10, 5)
	sweep(now, 10, 0)
	equal(t, must(f.db.VerifyAudit(ctx)).or(t), int64(0))
	// The chain goes on where it was.
	f.record(audit.Entry{Action: "a.b", Actor: "one", Object: "after"})
	f.sequence()
	equal(t, must(f.db.VerifyAudit(ctx)).or(t), int64(1))
	equal(t, f.entries(store.AuditFilter{})[0].Sequence, int64(26))
}
