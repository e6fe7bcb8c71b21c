package store_test

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// openBench opens a fresh database on a real file system, with fsync.
func openBench(b *testing.B) *store.DB {
	b.Helper()
	db, err := store.Open(b.Context(), store.Options{DSN: filepath.Join(b.TempDir(), "bench.db")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	return db
}

// cpuTime is what this process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// issue does what one issuance does to the database: five transactions, each
// after the reads by which the authority prepares it.
func issue(ctx context.Context, db *store.DB, i *storetest.Issuance) error {
	account := func() error { _, err := db.Account(ctx, i.Account.ID); return err }
	order := func() error { _, _, err := db.OrderWithAuthorizations(ctx, i.Order.ID); return err }
	reads := [][]func() error{
		{
			func() error { _, err := db.KeyRetired(ctx, "servers", i.Account.Thumbprint); return err },
		}, {
			account,
			func() error {
				_, err := db.ReusableAuthorizations(ctx, i.Account.ID, i.Order.Identifiers, i.Order.CreatedAt)
				return err
			},
		}, {
			account,
			func() error { _, err := db.Authorization(ctx, i.Authorization.ID); return err },
		}, {
			account, order,
			func() error { _, err := db.KeyBlocked(ctx, i.Certificate.KeyHash); return err },
		}, {
			func() error { _, err := db.StillStands(ctx, i.Order.ID, i.Order.CreatedAt); return err },
		},
	}
	for n, step := range i.Steps() {
		for _, read := range reads[n] {
			if err := read(); err != nil {
				return err
			}
		}
		if err := db.Update(ctx, step); err != nil {
			return err
		}
	}
	if err := account(); err != nil { // the certificate is fetched
		return err
	}
	_, err := db.Certificate(ctx, i.Certificate.Serial)
	return err
}

func BenchmarkIssuanceWrites(b *testing.B) {
	db := openBench(b)
	if err := storetest.Fill(b.Context(), db, 2000); err != nil {
		b.Fatal(err)
	}
	benchmarkIssuance(b, db)
}

func benchmarkIssuance(b *testing.B, db *store.DB) {
	n := 1 << 30
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		n++
		if err := issue(b.Context(), db, storetest.NewIssuance(n, time.Now())); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// BenchmarkUpdateParallel has 32 clients per processor write, so that they
// share commits.
func BenchmarkUpdateParallel(b *testing.B) {
	db := openBench(b)
	var n atomic.Int64
	b.SetParallelism(32)
	b.ReportAllocs()
	before := db.Stats()
	start := cpuTime(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			a := storetest.NewIssuance(int(n.Add(1)), time.Now()).Account
			if err := db.Update(b.Context(), func(tx *store.Tx) error { return tx.InsertAccount(a) }); err != nil {
				b.Error(err)
				return
			}
		}
	})
	after := db.Stats()
	b.ReportMetric(float64(after.Callers-before.Callers)/float64(after.Commits-before.Commits), "callers/commit")
	b.ReportMetric(float64((cpuTime(b)-start).Microseconds())/float64(b.N), "cpu-µs/op")
}
