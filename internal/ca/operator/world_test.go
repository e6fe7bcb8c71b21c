package operator

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/jws"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/storetest"
)

// postgres is the server of all tests here, if PostgreSQL is wanted.
var postgres *storetest.Postgres

func TestMain(m *testing.M) {
	storetest.Main(m, func(p *storetest.Postgres) { postgres = p })
}

// each runs a test in a world of its own on each engine.
func each(t *testing.T, run func(t *testing.T, w *world)) {
	t.Helper()
	for _, engine := range storetest.Engines() {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			run(t, newWorld(t, engine))
		})
	}
}

// world is a console of a real authority and a real store.
type world struct {
	*Console
	ahead atomic.Int64 // of the real clock
	rules Enrolment
}

// chains is an issuer that only knows what stands above its certificates.
type chains struct{ ca.Issuer }

func (chains) Chain(string, int) ([][]byte, int, error) { return [][]byte{[]byte("issuing")}, 1, nil }

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

func newWorld(t *testing.T, engine string) *world {
	t.Helper()
	w := new(world)
	dsn := filepath.Join(t.TempDir(), "ca.db")
	if engine == "postgres" {
		dsn = postgres.Database(t)
	}
	db, err := storetest.Open(t.Context(), store.Options{DSN: dsn, UnsafeSync: true, Clock: w.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	directories := map[string]*ca.Directory{}
	for _, name := range []string{"main", "eab"} {
		directories[name] = &ca.Directory{Policy: policy.Directory{Name: name, Profiles: []cert.Profile{{Name: "server"}}, DefaultProfile: "server"}}
	}
	authority := ca.New(ca.Options{DB: db, Directories: directories, Issuers: map[string]ca.Issuer{"issuing": chains{}}, Clock: w.now})
	w.Console = New(authority, db, w.now)
	w.Enrolment = func() Enrolment { return w.rules }
	return w
}

// registered is an account with a certificate that its owner got.
func (w *world) registered(t *testing.T) (protocol.Account, *storetest.Issuance) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := jws.KeyFromPublic(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	account, _, err := w.authority.Register(t.Context(), ca.Registration{Directory: "main", Key: key, Peer: netip.MustParseAddrPort("192.0.2.7:4711")})
	if err != nil {
		t.Fatal(err)
	}
	i := storetest.NewIssuance(1, w.now())
	i.Certificate.Account, i.Order.Account, i.Authorization.Account = account.ID, account.ID, account.ID
	for _, step := range i.Steps()[1:] {
		if err := w.db.Update(t.Context(), step); err != nil {
			t.Fatal(err)
		}
	}
	return account, i
}

// entries reads the whole audit log, in its order.
func (w *world) entries(t *testing.T, f store.AuditFilter) []store.Record {
	t.Helper()
	err := w.db.Update(t.Context(), func(tx *store.Tx) error {
		if !w.db.AuditNeedsSequencing() {
			return nil
		}
		_, err := tx.SequenceAudit(tx.Now(), "test", 1000)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Limit = 1000
	list, err := w.db.AuditEntries(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// wants checks that err is a problem of that type whose text says so.
func wants(t *testing.T, err error, typ protocol.ProblemType, says string) {
	t.Helper()
	p, ok := errors.AsType[*protocol.Problem](err)
	if !ok || p.Type != typ || !strings.Contains(p.Error(), says) {
		t.Fatalf("got %v, want %s with %q", err, typ, says)
	}
}

// each kind of caller: administrators do everything, auditors look.
var (
	administrator = Caller{Name: "uid:0", Role: Administrator}
	auditor       = Caller{Name: "uid:7", Role: Auditor}
	nobody        = Caller{Name: "uid:8"}
)

// eab makes an EAB key.
func (w *world) eab(ctx context.Context, t *testing.T, k protocol.EABKey) protocol.EABKey {
	t.Helper()
	k, err := w.CreateEABKey(ctx, administrator, k)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
