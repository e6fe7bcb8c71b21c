package fakeca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
)

// Fault is a way to misbehave.
type Fault string

// The faults. None is a CA as it should be.
const (
	None       Fault = ""
	Away       Fault = "away"        // no connection
	Hang       Fault = "hang"        // newOrder never answers
	Slow       Fault = "slow"        // each answer takes 20 s
	Garbage    Fault = "garbage"     // newOrder answers nonsense
	Endless    Fault = "endless"     // the certificate's body never ends
	Trickle    Fault = "trickle"     // nor does this one, a byte a second
	Limited    Fault = "limited"     // 429 with Retry-After
	Refuses    Fault = "refuses"     // rejectedIdentifier
	Internal   Fault = "internal"    // 500
	Processing Fault = "processing"  // the order is never finished
	WrongKey   Fault = "wrong key"   // a certificate for another key
	WrongNames Fault = "wrong names" // for other names
	MoreNames  Fault = "more names"  // for one more name
	WrongUsage Fault = "wrong usage" // for the other usage
	Expired    Fault = "expired"     // one that ended
	IsCA       Fault = "is CA"       // a CA's
	WrongRoot  Fault = "wrong root"  // signed by a stranger
)

// CA is the server. Fill in what is exported before the first request;
// afterwards it is changed by Set and Change.
type CA struct {
	Name        string // its host, "ca.test" by default
	Now         func() time.Time
	Life        time.Duration // of leaves; 24 h by default
	Both        bool          // leaves are for both usages
	PreApproved bool          // authorizations are valid from the start
	Challenges  []string      // types offered; "fake-01" by default
	NoInfo      bool          // no renewal information
	OCSP        string        // the responder's URL in leaves
	Alternate   bool          // a second chain, to Other
	RetryAfter  time.Duration // of Limited, of ARI and of Processing
	NoProfile   string        // a profile that it refuses
	NoReplaces  bool          // refuses orders that replace
	OtherLeaf   bool          // the alternate chain has another leaf
	EAB         map[string][]byte
	EABAccounts int // how many an EAB key opens; 0: as many as come

	// Validate looks at a challenge's proof; nil believes all.
	Validate func(id acme.Identifier, ch acme.Challenge, keyAuthorization string, payload json.RawMessage) error
	// Window is the renewal window of a certificate; nil: two thirds of its
	// life.
	Window func(leaf *x509.Certificate) acme.Window

	Root, Other *x509.Certificate // Other is the root of the alternate chain
	rootKey     *ecdsa.PrivateKey
	issuer      *x509.Certificate
	cross       *x509.Certificate // the issuer, signed by Other
	issuerKey   *ecdsa.PrivateKey

	mu       sync.Mutex
	fault    Fault
	count    int
	nonces   map[string]bool
	accounts map[string]*account // by URL
	orders   map[string]*order   // by number
	byKID    map[string]int
	replaces int // orders with replaces
	issued   []Issued
	requests int
	listener *pipes
}

// Issued is a certificate that left.
type Issued struct {
	Leaf     *x509.Certificate
	Account  string
	Replaces string
	Profile  string
	CSR      *x509.CertificateRequest
	NotAfter time.Time // as asked
	At       time.Time
	Agent    string
}

type account struct {
	key   crypto.PublicKey
	thumb string
}

type order struct {
	acme.Order
	authz   []acme.Authorization
	account string
	chain   []byte
	other   []byte
}

// New makes a CA whose certificates are valid from a day before now.
func New(now func() time.Time) *CA {
	ca := &CA{Name: "ca.test", Now: now, Life: 24 * time.Hour, Challenges: []string{"fake-01"}, RetryAfter: time.Hour,
		nonces: map[string]bool{}, accounts: map[string]*account{}, orders: map[string]*order{}, byKID: map[string]int{}}
	ca.rootKey, ca.issuerKey = newKey(), newKey()
	ca.Root = ca.authority("fake root", ca.rootKey, nil, nil)
	ca.issuer = ca.authority("fake issuer", ca.issuerKey, ca.Root, ca.rootKey)
	otherKey := newKey()
	ca.Other = ca.authority("other root", otherKey, nil, nil)
	ca.cross = ca.authority("fake issuer", ca.issuerKey, ca.Other, otherKey)
	return ca
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // in tests only
	}
	return key
}

func (ca *CA) authority(name string, key *ecdsa.PrivateKey, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	template := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, NotBefore: ca.Now().Add(-24 * time.Hour), NotAfter: ca.Now().AddDate(10, 0, 0)}
	if parent == nil {
		parent, parentKey = template, key
	}
	return sign(template, parent, key.Public(), parentKey)
}

func sign(template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}

func serial() *big.Int {
	n, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return n
}

// Pool holds the root, and Other where there is an alternate chain.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Root)
	if ca.Alternate {
		pool.AddCert(ca.Other)
	}
	return pool
}

// Set has it misbehave from now on.
func (ca *CA) Set(f Fault) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.fault = f
}

// Change changes its fields while it runs.
func (ca *CA) Change(f func()) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	f()
}

// Issued returns what it has issued so far.
func (ca *CA) Issued() []Issued {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return slices.Clone(ca.issued)
}

// Requests counts those so far.
func (ca *CA) Requests() int {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.requests
}

// Replaces counts the orders that said what they replace.
func (ca *CA) Replaces() int {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.replaces
}

// Accounts counts those there are.
func (ca *CA) Accounts() int {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return len(ca.accounts)
}

// Forget drops all accounts, as a server does after a while.
func (ca *CA) Forget() {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	clear(ca.accounts)
}

// Directory is the URL of the in-memory server.
func (ca *CA) Directory() string { return "https://" + ca.Name + "/directory" }

// Client speaks to the CA in memory, without TLS though the URLs say https.
// stop ends the server behind it.
func (ca *CA) Client() (client *http.Client, stop func()) {
	ca.listener = &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	var running sync.WaitGroup
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Done()
		ca.ServeHTTP(w, r)
	})}
	running.Go(func() { srv.Serve(ca.listener) })
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		ca.mu.Lock()
		away := ca.fault == Away
		ca.mu.Unlock()
		if away {
			return nil, fmt.Errorf("dial %s: connection refused", ca.Name)
		}
		ours, theirs := net.Pipe()
		select {
		case ca.listener.conns <- theirs:
			return ours, nil
		case <-ca.listener.closed:
			return nil, net.ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &http.Client{Transport: &http.Transport{DialTLSContext: dial, DisableKeepAlives: true}}, func() {
		srv.Close()
		running.Wait()
	}
}

// pipes is a listener of net.Pipes.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Accept waits for a connection.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close ends it.
func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// Addr is nowhere.
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "pipe"} }

func problem(w http.ResponseWriter, status int, typ, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(acme.Problem{Type: typ, Detail: detail, Status: status})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// ServeHTTP answers ACME requests.
func (ca *CA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ca.mu.Lock()
	fault := ca.fault
	ca.requests++
	nonce := rand.Text()
	ca.nonces[nonce] = true
	ca.mu.Unlock()
	w.Header().Set("Replay-Nonce", nonce)
	if misbehaves(w, r, fault, ca.RetryAfter) {
		return
	}
	var req *signed
	if r.Method == http.MethodPost {
		var err error
		if req, err = ca.open(r); err != nil {
			typ := acme.ErrMalformed
			if err == errUnknownAccount {
				typ = acme.ErrAccountDoesNotExist
			}
			problem(w, 400, typ, err.Error())
			return
		}
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.route(w, r, req)
}

// misbehaves answers by itself where the fault is one of the transport.
func misbehaves(w http.ResponseWriter, r *http.Request, fault Fault, after time.Duration) bool {
	order := r.URL.Path == "/new-order"
	cert := strings.HasPrefix(r.URL.Path, "/certificate/")
	switch {
	case fault == Hang && order:
		io.Copy(io.Discard, r.Body) // else net/http doesn't look whether the client is there
		<-r.Context().Done()
	case fault == Slow:
		select {
		case <-r.Context().Done():
		case <-time.After(20 * time.Second):
		}
		return false
	case fault == Garbage && order:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Location", "https://x.test/")
		w.Write([]byte(`{"status":7,`))
	case fault == Endless && cert:
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				break
			}
		}
	case fault == Trickle && cert:
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		for r.Context().Err() == nil {
			if _, err := w.Write([]byte("\n")); err != nil {
				break
			}
			w.(http.Flusher).Flush()
			time.Sleep(time.Second)
		}
	case fault == Limited && order:
		w.Header().Set("Retry-After", fmt.Sprint(int(after.Seconds())))
		problem(w, 429, acme.ErrRateLimited, "too many orders")
	case fault == Refuses && order:
		problem(w, 403, acme.ErrRejectedIdentifier, "not these names")
	case fault == Internal && order:
		problem(w, 500, acme.ErrServerInternal, "the database is away")
	default:
		return false
	}
	return true
}
