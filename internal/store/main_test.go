package store_test

import (
	"path/filepath"
	"testing"

	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// postgres is the server of all tests here, if PostgreSQL is wanted.
var postgres *storetest.Postgres

func TestMain(m *testing.M) {
	// An unsafe server is what one test wants.
	storetest.Main(m, func(p *storetest.Postgres) { postgres = p })
}

// dsn is that of an empty database.
func dsn(t testing.TB, engine string) string {
	if engine == "postgres" {
		return postgres.Database(t)
	}
	return filepath.Join(t.TempDir(), "ca.db")
}

func open(t testing.TB, o store.Options) *store.DB {
	t.Helper()
	o.UnsafeSync = true // see TestMain
	db, err := storetest.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestConformance(t *testing.T) {
	for _, engine := range storetest.Engines() {
		t.Run(engine, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T, o store.Options) *store.DB {
				o.DSN = dsn(t, engine)
				return open(t, o)
			})
		})
	}
}
