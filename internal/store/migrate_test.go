package store_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/engine"
	pg "github.com/chancery-pki/chancery/internal/store/engine/postgres"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// openFirst opens a database as the first version did.
func openFirst(t *testing.T, name, dsn string) engine.Engine {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("migrations", name, "0001_first.sql"))
	if err != nil {
		t.Fatal(err)
	}
	c := engine.Config{
		Clock: time.Now, Logger: slog.New(slog.DiscardHandler), Counters: new(engine.Counters), UnsafeSync: true,
		Migrations: fstest.MapFS{"0001_first.sql": {Data: text}}, Mark: func() func() { return func() {} },
	}
	var e engine.Engine
	if name == "postgres" {
		e, err = pg.Open(t.Context(), dsn, c)
	} else {
		e, err = engine.OpenSQLite(t.Context(), dsn, c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// insertAsFirst inserts a planned certificate and an authorization by the first
// version's statements.
func insertAsFirst(t *testing.T, e engine.Engine, serial byte, notAfter time.Time) {
	t.Helper()
	err := e.Update(t.Context(), func(tx *engine.Tx) error {
		_, err := tx.Exec(`INSERT INTO certificates (serial, state, order_id, account, directory, profile, issuer, issuer_key_id, names, der, key_hash,
			not_before, not_after, planned_at, revoked_at, revoked_reason, replaced_by, claimed_until)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) ON CONFLICT DO NOTHING`,
			[]any{[]byte{serial}, "planned", "order", "account", "servers", "server", "issuing", []byte{0xab}, "dns:a.example", []byte{0x30}, []byte{1},
				int64(1), notAfter.UnixMicro(), int64(1), int64(0), int64(0), "", int64(0)})
		if err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT INTO authorizations (id, account, directory, identifier, wildcard, status, expires_at, token, offered, created_at,
			attempt_type, processing, tries, next_at, problem, validated_at, response, claimed_until)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, 0) ON CONFLICT DO NOTHING`,
			[]any{fmt.Sprint("authorization", serial), "account", "servers", "dns:a.example", false, "valid", notAfter.UnixMicro(), "token", "http-01", int64(1),
				"http-01", false, int64(1), int64(0), "", int64(1), []byte{}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What the first version stored is there for this one, and on PostgreSQL that
// version's replicas go on beside it while they are updated one by one.
func TestMigrateFromFirst(t *testing.T) {
	for _, name := range storetest.Engines() {
		t.Run(name, func(t *testing.T) {
			dsn, notAfter := dsn(t, name), time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
			first := openFirst(t, name, dsn)
			insertAsFirst(t, first, 1, notAfter)
			serials := []cert.Serial{"01"}
			if name == "sqlite" { // has one process at a time
				first.Close()
			} else {
				defer first.Close()
			}
			db := open(t, store.Options{DSN: dsn})
			if name == "postgres" {
				insertAsFirst(t, first, 2, notAfter)
				serials = append(serials, "02")
			}
			for n := range serials {
				z, err := db.Authorization(t.Context(), protocol.AuthorizationID(fmt.Sprint("authorization", n+1)))
				if err != nil || z.Subject != "" || z.Status != protocol.AuthorizationValid {
					t.Errorf("authorization %d: %+v, %v", n+1, z, err)
				}
			}
			for _, serial := range serials {
				c, err := db.Certificate(t.Context(), serial)
				if err != nil || c.CRLShard != 0 || c.Client != "" || !c.NotAfter.Equal(notAfter) || c.State != cert.Planned {
					t.Errorf("%s: %+v, %v", serial, c, err)
				}
			}
			update(t, db, func(tx *store.Tx) error {
				plans, err := tx.ClaimPlans(tx.Now(), time.Minute, 10, []string{"ab"})
				if len(plans) != len(serials) {
					t.Errorf("claimed %d plans, want %d", len(plans), len(serials))
				}
				for _, c := range plans {
					if ok, err := tx.IssueCertificate(c.Serial, []byte("signed")); !ok || err != nil {
						t.Errorf("issuing %s: %v, %v", c.Serial, ok, err)
					}
				}
				return err
			})
		})
	}
}
