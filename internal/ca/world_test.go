package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/jws"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
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

// clock is the real one, moved.
type clock struct{ ahead atomic.Int64 }

func (c *clock) Now() time.Time      { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) Add(d time.Duration) { c.ahead.Add(int64(d)) }

// world is an authority with the real store and the real issuer. Only what
// looks at the world outside is told what to see.
type world struct {
	*Authority
	*clock
	key     *key
	looks   *looks
	caa     *caa
	options Options
}

// looks is every validator: see judges, calls counts.
type looks struct {
	mu    sync.Mutex
	see   func(context.Context, protocol.Validation) (protocol.Evidence, error)
	calls map[string]int // by name
}

func (l *looks) Validate(ctx context.Context, v protocol.Validation) (protocol.Evidence, error) {
	l.mu.Lock()
	l.calls[v.Identifier.Value]++
	see := l.see
	l.mu.Unlock()
	if see != nil {
		return see(ctx, v)
	}
	return protocol.Evidence{Type: v.Type, Target: "here", SeenAt: time.Now()}, nil
}

func (l *looks) to(see func(context.Context, protocol.Validation) (protocol.Evidence, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.see = see
}

func (l *looks) count(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls[name]
}

// caa is every CAA checker: it forbids some names, and remembers who asked.
type caa struct {
	mu      sync.Mutex
	forbids map[string]bool
	asked   []string
}

func (c *caa) Check(_ context.Context, id protocol.Identifier, wildcard bool, account string, method protocol.ChallengeType) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, fmt.Sprintf("%s %v %s", id.Value, wildcard, method))
	if c.forbids[id.Value] || !strings.HasPrefix(account, "https://ca.test/account/") {
		return &protocol.ValidationError{Problem: protocol.NewProblem(protocol.CAAForbids, "no")}
	}
	return nil
}

func (c *caa) forbid(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forbids[name] = true
}

// key is the issuer, whose key can be made to wait and to fail: before runs
// ahead of each signature, and its error is the key's.
type key struct {
	*issuer.Local
	mu      sync.Mutex
	before  func(context.Context) error
	planned func() // after each Prepare
	signed  [][]byte
}

func (k *key) Prepare(ctx context.Context, r issuer.Request) (*issuer.Prepared, error) {
	p, err := k.Local.Prepare(ctx, r)
	k.mu.Lock()
	after := k.planned
	k.mu.Unlock()
	if after != nil {
		after()
	}
	return p, err
}

func (k *key) Issue(ctx context.Context, p *issuer.Prepared) ([]byte, error) {
	k.mu.Lock()
	before := k.before
	k.mu.Unlock()
	if before != nil {
		if err := before(ctx); err != nil {
			return nil, err
		}
	}
	k.mu.Lock()
	k.signed = append(k.signed, p.TBS)
	k.mu.Unlock()
	return k.Local.Issue(ctx, p)
}

func (k *key) wait(before func(context.Context) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.before = before
}

// signatures are the to-be-signed bytes that the key was given so far.
func (k *key) signatures() [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([][]byte(nil), k.signed...)
}

const day = 24 * time.Hour

func newWorld(t testing.TB, engine string) *world {
	t.Helper()
	w := &world{clock: &clock{}, looks: &looks{calls: map[string]int{}}, caa: &caa{forbids: map[string]bool{}}}
	dsn := filepath.Join(t.TempDir(), "ca.db")
	if engine == "postgres" {
		dsn = postgres.Database(t)
	}
	db, err := storetest.Open(t.Context(), store.Options{DSN: dsn, UnsafeSync: true, Clock: w.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	w.key = &key{Local: newIssuer(t)}
	w.options = Options{
		DB: db, Directories: w.directories(t), Issuers: map[string]Issuer{"local": w.key}, Clock: w.Now,
		Hold: 5 * time.Second, RetryDelays: []time.Duration{0, time.Minute}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	w.Authority = New(w.options)
	t.Cleanup(func() { // jobs end before the database does
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		w.validations.Idle(ctx)
		w.issuances.Idle(ctx)
	})
	return w
}

// replica is another authority on the same database.
func (w *world) replica() *Authority { return New(w.options) }

// limit sets rate limits in directory main.
func (w *world) limit(set func(*Limits)) {
	set(&w.options.Directories["main"].Limits)
	w.Reload(w.options.Directories, w.options.Issuers, nil)
}

func (w *world) directories(t testing.TB) map[string]*Directory {
	t.Helper()
	all, err := policy.NewNameSet("*.example", "10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	denied, err := policy.NewNameSet("denied.example")
	if err != nil {
		t.Fatal(err)
	}
	classic := []protocol.ChallengeType{protocol.HTTP01, protocol.DNS01, protocol.DNSPersist01}
	profile := func(name string, usage cert.Usage, proofs ...protocol.ChallengeType) cert.Profile {
		return cert.Profile{
			Name: name, Usages: []cert.Usage{usage}, Challenges: proofs, Lifetime: day, MaxLifetime: 7 * day, Backdate: time.Minute,
			KeyTypes: []cert.KeyType{cert.P256, cert.RSA2048}, Revocation: cert.RevocationNone, Issuer: "local",
		}
	}
	server, dns, client := profile("server", cert.Server, classic...), profile("dns", cert.Server, protocol.DNS01), profile("client", cert.Client)
	month := profile("month", cert.Server, classic...)
	month.Lifetime, month.MaxLifetime = 30*day, 30*day
	validators := map[protocol.ChallengeType]Validator{}
	for _, typ := range classic {
		validators[typ] = w.looks
	}
	directories := map[string]*Directory{}
	for name, profiles := range map[string][]cert.Profile{
		"main": {server, dns, month}, "other": {server}, "eab": {server, client}, "mixed": {server, client}, "caa": {server},
	} {
		directories[name] = &Directory{
			Policy: policy.Directory{
				Name: name, Profiles: profiles, DefaultProfile: "server", Challenges: classic,
				Names: policy.Names{Allow: all, Deny: denied, Wildcards: true}, EABRequired: name == "eab", EKUFromCSR: name == "mixed",
			},
			Validators: validators,
			AccountURL: func(id protocol.AccountID) string { return "https://ca.test/account/" + string(id) },
		}
	}
	directories["caa"].CAA = w.caa
	return directories
}

// newIssuer makes an issuing CA under two roots: one default chain and one
// alternate.
func newIssuer(t testing.TB) *issuer.Local {
	t.Helper()
	ca := newKey(t)
	var chains [][]*x509.Certificate
	for _, name := range []string{"Root A", "Root B"} {
		rootKey := newKey(t)
		root, err := issuer.NewRoot(rootKey, issuer.CA{CommonName: name, Now: time.Now().Add(-day)})
		if err != nil {
			t.Fatal(err)
		}
		c, err := issuer.NewIntermediate(root, rootKey, ca.Public(), issuer.CA{CommonName: "Issuing", Now: time.Now().Add(-day)})
		if err != nil {
			t.Fatal(err)
		}
		chains = append(chains, []*x509.Certificate{c, root})
	}
	queue, err := signer.NewQueue(signer.QueueOptions{}, &signer.Signer{Signer: ca, URI: "test", Parallel: 4})
	if err != nil {
		t.Fatal(err)
	}
	local, err := issuer.New(issuer.Config{Name: "local", Authorities: []issuer.Authority{{Queue: queue, Chains: chains}}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return local
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func jwk(t testing.TB, k crypto.Signer) *jws.JWK {
	t.Helper()
	j, err := jws.KeyFromPublic(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return j
}

var peer = netip.MustParseAddrPort("192.0.2.7:4711")

// wants checks that err is a problem of that type whose text says so.
func wants(t testing.TB, err error, typ protocol.ProblemType, says string) *protocol.Problem {
	t.Helper()
	p, ok := errors.AsType[*protocol.Problem](err)
	if !ok || p.Type != typ || !strings.Contains(p.Error(), says) {
		t.Fatalf("got %v, want %s with %q", err, typ, says)
	}
	return p
}

// What operators do (ca/operator), as far as it matters here.

// eab makes an EAB key of the directory.
func (w *world) eab(t testing.TB, k protocol.EABKey) protocol.EABKey {
	t.Helper()
	k.ID, k.CreatedAt, k.MACKey = protocol.NewID[protocol.EABKeyID](w.Now()), w.Now(), make([]byte, 32)
	rand.Read(k.MACKey)
	if err := w.db.Update(t.Context(), func(tx *store.Tx) error { return tx.InsertEABKey(k) }); err != nil {
		t.Fatal(err)
	}
	return k
}

func (w *world) revokeEABKey(ctx context.Context, id protocol.EABKeyID) error {
	return w.db.Update(ctx, func(tx *store.Tx) error { return done(tx.RevokeEABKey(id)) })
}

func (w *world) endAccount(ctx context.Context, id protocol.AccountID) error {
	defer w.ForgetAccount(id)
	return w.db.Update(ctx, func(tx *store.Tx) error { return done(tx.EndAccount(id, protocol.AccountRevoked)) })
}

func (w *world) revokeSerial(ctx context.Context, serial cert.Serial, r cert.Reason) error {
	return w.db.Update(ctx, func(tx *store.Tx) error {
		c, err := tx.Certificate(ctx, serial)
		if err != nil {
			return err
		}
		return w.Withdraw(tx, c, r)
	})
}

// done is for a compare-and-swap that must find its row.
func done(ok bool, err error) error {
	if err == nil && !ok {
		err = errors.New("there is no such row, or it has changed already")
	}
	return err
}

// rows counts what is in the database, by table.
func (w *world) rows(t testing.TB) map[string]int {
	t.Helper()
	var dump bytes.Buffer
	if err := w.db.Dump(t.Context(), &dump); err != nil {
		t.Fatal(err)
	}
	counts, table := map[string]int{}, ""
	for line := range bytes.Lines(dump.Bytes()) {
		if line[0] == '[' {
			counts[table]++
			continue
		}
		var section struct{ Table string }
		if err := json.Unmarshal(line, &section); err != nil {
			t.Fatal(err)
		}
		table = section.Table
	}
	return counts
}

// entries reads the whole audit log, in its order.
func (w *world) entries(t testing.TB, f store.AuditFilter) []store.Record {
	t.Helper()
	if err := w.sweeper.SequenceAudit(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.Limit = 1000
	list, err := w.db.AuditEntries(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// until waits for something that happens in the background.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("waited in vain: %s", what)
}

// parallel does the same n times at once.
func parallel(n int, do func(i int)) {
	var all sync.WaitGroup
	gate := make(chan struct{})
	for i := range n {
		all.Go(func() { <-gate; do(i) })
	}
	close(gate)
	all.Wait()
}
