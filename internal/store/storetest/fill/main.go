// Command fill puts many certificates into a database through the store's own
// code, for benchmarks of a database that isn't empty.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

func main() {
	database := flag.String("database", "", "the SQLite file or PostgreSQL DSN")
	certificates := flag.Int("certificates", 1_000_000, "how many to add")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := fill(ctx, *database, *certificates); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func fill(ctx context.Context, database string, certificates int) error {
	db, err := storetest.Open(ctx, store.Options{DSN: database, UnsafeSync: true})
	if err != nil {
		return err
	}
	defer db.Close()
	return storetest.Fill(ctx, db, certificates)
}
