package storetest

import (
	"context"
	"testing"

	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/engine/postgres"
	"github.com/chancery-pki/chancery/internal/store/storetest/cluster"
)

// Postgres is a PostgreSQL server for tests.
type Postgres = cluster.Postgres

// WantPostgres reports whether tests are to use PostgreSQL; see
// [cluster.Variable].
func WantPostgres() bool { return cluster.Want() }

// Engines are the databases that tests run on: SQLite, and PostgreSQL where it
// is wanted.
func Engines() []string {
	if WantPostgres() {
		return []string{"sqlite", "postgres"}
	}
	return []string{"sqlite"}
}

// Main is a package's TestMain; see [cluster.Main].
func Main(m *testing.M, use func(*Postgres)) { cluster.Main(m, use) }

// Open is store.Open of a program that has both engines.
func Open(ctx context.Context, o store.Options) (*store.DB, error) {
	o.Postgres = postgres.Open
	return store.Open(ctx, o)
}
