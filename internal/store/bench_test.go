package store_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// openBench opens a database as the server does, with fsync.
func openBench(b *testing.B, dsn string) *store.DB {
	b.Helper()
	db, err := storetest.Open(b.Context(), store.Options{DSN: dsn})
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

// database is a file to add to, such as one that storetest/fill has filled;
// without it the benchmark makes one with 2,000 certificates.
var database = flag.String("database", "", "SQLite file for BenchmarkIssuanceWrites")

func BenchmarkIssuanceWrites(b *testing.B) {
	var db *store.DB
	if *database != "" {
		db = openBench(b, *database)
	} else {
		db = openBench(b, dsn(b, "sqlite"))
		if err := storetest.Fill(b.Context(), db, 2000); err != nil {
			b.Fatal(err)
		}
	}
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
	b.ReportMetric(resident(b), "MiB-resident")
}

// resident is the process's resident memory in MiB.
func resident(b *testing.B) float64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	var size, pages int
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		b.Fatal(err)
	}
	return float64(pages*os.Getpagesize()) / (1 << 20)
}

// BenchmarkUpdateParallel has 32 clients per processor write, so that they
// share commits.
func BenchmarkUpdateParallel(b *testing.B) {
	db := openBench(b, dsn(b, "sqlite"))
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
