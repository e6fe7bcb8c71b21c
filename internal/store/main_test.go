package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// postgres is the server of all tests here, if PostgreSQL is wanted.
var postgres *storetest.Postgres

func TestMain(m *testing.M) {
	if !storetest.WantPostgres() {
		os.Exit(m.Run())
	}
	// Nothing here ends the machine, so that the disk needn't be waited for;
	// and an unsafe server is what one test wants.
	p, err := storetest.StartPostgres("fsync=off", "full_page_writes=off")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	postgres = p
	code := m.Run()
	if err := p.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// engines are the databases that the tests run on.
func engines() []string {
	if storetest.WantPostgres() {
		return []string{"sqlite", "postgres"}
	}
	return []string{"sqlite"}
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
	db, err := store.Open(t.Context(), o)
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
	for _, engine := range engines() {
		t.Run(engine, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T, o store.Options) *store.DB {
				o.DSN = dsn(t, engine)
				return open(t, o)
			})
		})
	}
}
