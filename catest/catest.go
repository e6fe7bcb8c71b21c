package catest

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/acmeserver"
	authority "github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/ca/operator"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// CA is a certificate authority that lives as long as a test. Its methods are
// safe for concurrent use; those that say that they fail the test must be
// called from its goroutine, as testing.TB.FailNow must.
type CA struct {
	t         testing.TB
	clock     *Clock
	db        *store.DB
	authority *authority.Authority
	console   *operator.Console
	directory *authority.Directory
	handler   http.Handler // ACME
	keys      *keys
	eab       *acme.ExternalAccount
	proven    bool // by challenges, so that Config has no key in it
	front     *front
	account   account // of Issue
}

// Option changes what New makes.
type Option interface{ apply(*settings) }

type settings struct {
	clock      *Clock
	memory     bool
	revocation bool
	challenges *Challenges
}

type option func(*settings)

func (o option) apply(s *settings) { o(s) }

// InMemory makes a CA that can be reached by [CA.Client] only, without the
// network: for bubbles of testing/synctest, which real connections never let rest.
func InMemory() Option { return option(func(s *settings) { s.memory = true }) }

// WithRevocation makes certificates that point to a CRL and to an OCSP
// responder, and serves both over plain HTTP. What they say is made for each
// request, valid for an hour of the CA's clock. Without it certificates are of
// the kind that has no revocation (RFC 9608).
func WithRevocation() Option { return option(func(s *settings) { s.revocation = true }) }

// New starts a CA, which ends with the test. It takes some milliseconds, and
// fails the test where it can't.
func New(t testing.TB, options ...Option) *CA {
	t.Helper()
	var s settings
	for _, o := range options {
		o.apply(&s)
	}
	if s.clock == nil {
		s.clock = newClock()
	}
	ca := &CA{t: t, clock: s.clock, proven: s.challenges != nil}
	if err := ca.start(s); err != nil {
		t.Fatalf("catest: %v", err)
	}
	return ca
}

// start makes everything, from the keys to the listener.
func (ca *CA) start(s settings) (err error) {
	folder := ca.t.TempDir() // first, so that its removal is the last thing
	log := newTestLog(ca.t)
	if ca.front, err = newFront(ca.clock, s); err != nil {
		return err
	}
	ca.t.Cleanup(func() { ca.front.close(); log.end() })
	if ca.keys, err = newKeys(ca.front.published); err != nil {
		return err
	}
	if ca.directory, err = ca.newDirectory(s); err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ca.db, err = store.Open(context.Background(), store.Options{
		DSN: filepath.Join(folder, "ca.db"), UnsafeSync: true, Logger: logger, Clock: ca.clock.Now,
	})
	if err != nil {
		return err
	}
	ca.front.last = ca.db.Close
	nonces, err := ca.db.Nonces(context.Background())
	if err != nil {
		return err
	}
	issuers, err := ca.keys.issuers(ca.clock.Now())
	if err != nil {
		return err
	}
	ca.authority = authority.New(authority.Options{
		DB: ca.db, Directories: ca.directories(), Issuers: issuers, Logger: logger, Clock: ca.clock.Now,
		Hold: answerIn, RetryDelays: []time.Duration{}, // nobody calls Run, which would do what is left for later
	})
	ca.console = operator.New(ca.authority, ca.db, ca.clock.Now)
	ca.handler = (&acmeserver.Server{
		Authority: ca.authority, Nonces: nonces, BaseURL: ca.front.base, Logger: logger,
		Directories: map[string]acmeserver.Meta{directoryName: {Profiles: ca.directory.Policy.Profiles, ExternalAccountRequired: !ca.proven}},
	}).Handler()
	if err := ca.makeEAB(); err != nil {
		return err
	}
	return ca.front.serve(ca)
}

// answerIn is how long a request waits for what it asked for: so that a client need
// never ask again, longer than any validation takes.
const answerIn = time.Minute

// caller is who acts for the test.
var caller = operator.Caller{Name: "catest", Role: operator.Administrator}

// makeEAB makes the key that approves every name.
func (ca *CA) makeEAB() error {
	k, err := ca.console.CreateEABKey(context.Background(), caller, protocol.EABKey{
		Directory: directoryName, Label: "catest", Names: []string{"*"}, PreApproved: true,
	})
	ca.eab = &acme.ExternalAccount{KeyID: string(k.ID), MACKey: k.MACKey}
	return err
}

// Config is all that mtls.New needs to be certified by this CA for the names,
// at once and without a challenge; with [WithChallenges], by challenges. Change in
// it what the test is about. For an identity with several CAs, append the CAs
// of another's Config.
func (ca *CA) Config(names ...string) mtls.Config {
	entry := mtls.CA{Directory: ca.Directory(), Roots: ca.Roots(), EAB: ca.EAB(), HTTPClient: ca.Client()}
	if ca.proven {
		entry.EAB = nil
	}
	return mtls.Config{CAs: []mtls.CA{entry}, Names: names, Trust: ca.trust(), Clock: ca.clock}
}

// trust believes this CA's certificates, of servers and clients alike, by the
// roots of now. It ends with the test.
func (ca *CA) trust() *mtls.Trust {
	ca.t.Helper()
	roots := []mtls.Roots{mtls.RootsPool(ca.Roots())}
	trust, err := mtls.NewTrust(mtls.TrustConfig{Servers: roots, Clients: roots, Clock: ca.clock})
	if err != nil {
		ca.t.Fatalf("catest: %v", err)
	}
	ca.t.Cleanup(func() { trust.Close() })
	return trust
}

// Directory is the URL of the ACME directory. It is https, and its certificate
// is under the first of Roots.
func (ca *CA) Directory() string { return ca.front.base + "/acme/" + directoryName + "/directory" }

// EAB is a key that may open any number of accounts, and for which every name
// is approved already, addresses and wildcards too.
func (ca *CA) EAB() *acme.ExternalAccount {
	k := *ca.eab
	return &k
}

// Client speaks to the CA: it trusts the directory's certificate, and knows the
// way to a CA in memory. It has no timeout.
func (ca *CA) Client() *http.Client { return &http.Client{Transport: ca.front.transport} }

// Roots is a new pool of all roots so far, more than one after RotateRoot.
func (ca *CA) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, root := range ca.keys.rootCertificates() {
		pool.AddCert(root)
	}
	return pool
}

// RootPEM is the certificates of Roots, for programs that want a file.
func (ca *CA) RootPEM() (text []byte) {
	for _, root := range ca.keys.rootCertificates() {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})...)
	}
	return text
}

// Clock is the CA's time, for whoever must agree with it.
func (ca *CA) Clock() *Clock { return ca.clock }

// Advance moves the CA's clock on; see [Clock.Advance].
func (ca *CA) Advance(d time.Duration) { ca.clock.Advance(d) }

// Issuer is the issuing CA of today, with its key and the chain up to its root,
// which is left out: for a certificate with a fault that no CA would issue, made
// by x509.CreateCertificate, and for one who shows a CA's certificate as his own.
func (ca *CA) Issuer() tls.Certificate {
	i := ca.keys.newest()
	chain := i.chains[0]
	c := tls.Certificate{PrivateKey: crypto.PrivateKey(i.key), Leaf: i.certificate()}
	for _, above := range chain[:len(chain)-1] {
		c.Certificate = append(c.Certificate, above.Raw)
	}
	return c
}

// Rotate makes a new issuing CA under the newest root. Certificates come from
// it from now on; the old ones stay good.
func (ca *CA) Rotate() { ca.rotate(ca.keys.addIssuing) }

// RotateRoot makes a new root, certified by the one before too, and a new
// issuing CA under it. Certificates then come with two chains: to the new root,
// and by an alternate (RFC 8555 section 7.4.2) to the old one, for peers who
// trust no other yet, as those do who took Roots before.
func (ca *CA) RotateRoot() {
	ca.rotate(func() error {
		if err := ca.keys.addRoot(); err != nil {
			return err
		}
		return ca.keys.addIssuing()
	})
}

func (ca *CA) rotate(add func() error) {
	ca.t.Helper()
	if err := add(); err != nil {
		ca.t.Fatalf("catest: %v", err)
	}
	issuers, err := ca.keys.issuers(ca.clock.Now())
	if err != nil {
		ca.t.Fatalf("catest: %v", err)
	}
	ca.authority.Reload(ca.directories(), issuers, nil)
}

// Down cuts all connections, and every new one at once, until Up.
func (ca *CA) Down() { ca.front.wire.set(true) }

// Up ends Down.
func (ca *CA) Up() { ca.front.wire.set(false) }

// Slow makes each request wait for d by the CA's clock before it is looked at,
// from now on. 0 ends that, and lets go on those who wait.
func (ca *CA) Slow(d time.Duration) { ca.front.trouble.slow(d) }

// Answer puts a handler before the CA, which is next: it may spoil what goes
// in and what comes out, or answer by itself. nil takes it away.
func (ca *CA) Answer(with func(next http.Handler) http.Handler) { ca.front.trouble.answer(with) }
