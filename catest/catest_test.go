package catest_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/catest"
	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acme"
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// register is an ACME client with an account, as a Config says.
func register(t testing.TB, c mtls.Config) (*acme.Client, error) {
	t.Helper()
	entry := c.CAs[0]
	client := &acme.Client{DirectoryURL: entry.Directory, HTTPClient: entry.HTTPClient, Key: newKey(t)}
	_, err := client.Register(t.Context(), acme.Registration{TermsAgreed: true, EAB: entry.EAB})
	return client, err
}

// obtain goes the whole way that an identity goes.
func obtain(t testing.TB, c mtls.Config, solvers ...acme.Solver) (*x509.Certificate, acme.Chain, error) {
	t.Helper()
	client, err := register(t, c)
	if err != nil {
		return nil, acme.Chain{}, err
	}
	order := acme.OrderRequest{Identifiers: acme.Identifiers(c.Names...)}
	chain, err := client.Obtain(t.Context(), acme.ObtainRequest{Order: order, Key: newKey(t), Solvers: solvers})
	if err != nil {
		return nil, chain, err
	}
	leaf, err := x509.ParseCertificate(chain.DER[0])
	return leaf, chain, err
}

func mustObtain(t testing.TB, c mtls.Config, solvers ...acme.Solver) (*x509.Certificate, acme.Chain) {
	t.Helper()
	leaf, chain, err := obtain(t, c, solvers...)
	if err != nil {
		t.Fatal(err)
	}
	return leaf, chain
}

// verify is what a peer does with a chain, leaf first.
func verify(t testing.TB, chain [][]byte, roots *x509.CertPool, now time.Time, usage x509.ExtKeyUsage) error {
	t.Helper()
	above := x509.NewCertPool()
	for _, der := range chain[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		above.AddCert(c)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: above, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

// What Config has is enough to be certified for any name.
func TestConfig(t *testing.T) {
	ca := catest.New(t)
	names := []string{"web.test", "a.very.long.name.example.com", "localhost", "*.batch.test", "127.0.0.1", "2001:db8::1"}
	leaf, chain := mustObtain(t, ca.Config(names...))
	if err := verify(t, chain.DER, ca.Roots(), ca.Clock().Now(), x509.ExtKeyUsageServerAuth); err != nil {
		t.Error(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "*") {
			name = strings.Replace(name, "*", "x", 1)
		}
		if err := leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life != 24*time.Hour-time.Second {
		t.Errorf("it lives for %v", life)
	}
	if c := ca.Config("a.test", "b.test"); !slices.Equal(c.Names, []string{"a.test", "b.test"}) || c.Clock != mtls.Clock(ca.Clock()) || c.CAs[0].Roots == nil {
		t.Errorf("Config: %+v", c)
	}
}

// Nothing is issued without proof: no account without the key.
func TestProofIsNeeded(t *testing.T) {
	ca := catest.New(t)
	for _, test := range []struct {
		name string
		eab  func(*acme.ExternalAccount) *acme.ExternalAccount
		want string
	}{
		{"no key", func(*acme.ExternalAccount) *acme.ExternalAccount { return nil }, acme.ErrExternalAccountRequired},
		{"another key", func(k *acme.ExternalAccount) *acme.ExternalAccount { k.MACKey = make([]byte, 32); return k }, acme.ErrUnauthorized},
		{"another CA's key", func(*acme.ExternalAccount) *acme.ExternalAccount { return catest.New(t).EAB() }, acme.ErrUnauthorized},
	} {
		c := ca.Config("web.test")
		c.CAs[0].EAB = test.eab(c.CAs[0].EAB)
		if _, err := register(t, c); !acme.HasType(err, test.want) {
			t.Errorf("%s: %v, want %s", test.name, err, test.want)
		}
	}
	if _, err := register(t, ca.Config("web.test")); err != nil {
		t.Errorf("the key was spoilt: %v", err)
	}
}

// Who asks for no profile gets one for the usage that the CSR names, a
// server's if it names none.
func TestUsageOfCSR(t *testing.T) {
	ca := catest.New(t)
	client, err := register(t, ca.Config())
	if err != nil {
		t.Fatal(err)
	}
	clientAuth := []byte{0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02} // RFC 5280 section 4.2.1.12
	for _, test := range []struct {
		asks []pkix.Extension
		want x509.ExtKeyUsage
	}{
		{nil, x509.ExtKeyUsageServerAuth},
		{[]pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: clientAuth}}, x509.ExtKeyUsageClientAuth},
	} {
		order, err := client.NewOrder(t.Context(), acme.OrderRequest{Identifiers: acme.Identifiers("web.test")})
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"web.test"}, ExtraExtensions: test.asks}, newKey(t))
		if err != nil {
			t.Fatal(err)
		}
		// It is valid at once: nobody need poll.
		if order, err = client.Finalize(t.Context(), order, csr); err != nil || order.Status != acme.StatusValid {
			t.Fatalf("%s, %v", order.Status, err)
		}
		chain, err := client.Certificate(t.Context(), order.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(chain.DER[0])
		if err != nil || !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{test.want}) {
			t.Errorf("%v, %v, want %v", leaf.ExtKeyUsage, err, test.want)
		}
	}
}

// Anybody's client reaches the directory who trusts the roots.
func TestOwnClient(t *testing.T) {
	ca := catest.New(t)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Roots()}}
	defer transport.CloseIdleConnections()
	a, err := (&http.Client{Transport: transport}).Get(ca.Directory())
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if a.StatusCode != http.StatusOK {
		t.Error(a.Status)
	}
	transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: catest.New(t).Roots()}}
	if _, err := (&http.Client{Transport: transport}).Get(ca.Directory()); err == nil {
		t.Error("another CA's roots will do")
	}
}

func TestRootPEM(t *testing.T) {
	ca := catest.New(t)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca.RootPEM()) || !pool.Equal(ca.Roots()) {
		t.Error("RootPEM isn't Roots")
	}
	if block, rest := pem.Decode(ca.RootPEM()); block == nil || len(bytes.TrimSpace(rest)) > 0 {
		t.Error("more than one certificate")
	}
}

// handshake has two peers talk over TLS, each demanding the other's certificate.
func handshake(t *testing.T, server, client tls.Certificate, roots *x509.CertPool, name string, now time.Time) error {
	t.Helper()
	at := func() time.Time { return now }
	here, there := net.Pipe()
	defer here.Close()
	done := make(chan error, 1)
	go func() {
		defer there.Close()
		conn := tls.Server(there, &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, Time: at})
		done <- conn.Handshake()
	}()
	conn := tls.Client(here, &tls.Config{Certificates: []tls.Certificate{client}, RootCAs: roots, ServerName: name, Time: at})
	if err := conn.Handshake(); err != nil {
		return err
	}
	go conn.Read(make([]byte, 1)) // the server's alert
	return <-done
}

// Peers with issued certificates understand each other, each in its place, until the
// certificates end.
func TestIssue(t *testing.T) {
	ca := catest.New(t, catest.StoppedAt(time.Date(2026, 2, 28, 23, 59, 59, 0, time.UTC)))
	server, client := ca.Issue(mtls.UsageServer, "web.test", "10.1.2.3"), ca.Issue(mtls.UsageClient, "batch.test")
	both := ca.Issue(mtls.UsageBoth, "web.test")
	stranger := catest.New(t, ca.Clock()).Issue(mtls.UsageBoth, "web.test")
	expect := func(what string, server, client tls.Certificate, name string, fine bool) {
		t.Helper()
		if err := handshake(t, server, client, ca.Roots(), name, ca.Clock().Now()); (err == nil) != fine {
			t.Errorf("%s: %v", what, err)
		}
	}
	expect("server and client", server, client, "web.test", true)
	expect("the server by its address", server, client, "10.1.2.3", true)
	expect("one for both on both sides", both, both, "web.test", true)
	expect("another name", server, client, "other.test", false)
	expect("a client as server", client, client, "batch.test", false)
	expect("a server as client", server, server, "web.test", false)
	expect("a stranger as server", stranger, client, "web.test", false)
	expect("a stranger as client", server, stranger, "web.test", false)
	expect("a CA as server", ca.Issuer(), client, "web.test", false)
	ca.Advance(23 * time.Hour)
	expect("an hour before the end", server, client, "web.test", true)
	ca.Advance(2 * time.Hour)
	expect("after the end", server, ca.Issue(mtls.UsageClient, "batch.test"), "web.test", false)
	expect("a client after its end", ca.Issue(mtls.UsageServer, "web.test"), client, "web.test", false)
	expect("new ones", ca.Issue(mtls.UsageServer, "web.test"), ca.Issue(mtls.UsageClient, "batch.test"), "web.test", true)
}

// With the issuing CA's key a test makes what no CA would.
func TestIssuer(t *testing.T) {
	ca := catest.New(t)
	by := ca.Issuer()
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: by.Leaf.SerialNumber, NotBefore: time.Now(), NotAfter: time.Now().AddDate(50, 0, 0), DNSNames: []string{"web.test"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}, by.Leaf, key.Public(), by.PrivateKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	chain := append([][]byte{der}, by.Certificate...)
	if err := verify(t, chain, ca.Roots(), time.Now(), x509.ExtKeyUsageCodeSigning); err != nil {
		t.Error(err)
	}
	if err := verify(t, chain, ca.Roots(), time.Now(), x509.ExtKeyUsageServerAuth); err == nil {
		t.Error("it is a server's")
	}
}

// After Rotate all goes on, under another issuing CA.
func TestRotate(t *testing.T) {
	ca := catest.New(t)
	before, roots := ca.Issue(mtls.UsageServer, "web.test"), ca.Roots()
	ca.Rotate()
	after := ca.Issue(mtls.UsageServer, "web.test")
	if bytes.Equal(before.Certificate[1], after.Certificate[1]) || bytes.Equal(before.Leaf.AuthorityKeyId, after.Leaf.AuthorityKeyId) {
		t.Error("the same issuing CA")
	}
	if !bytes.Equal(ca.Issuer().Certificate[0], after.Certificate[1]) {
		t.Error("Issuer is another")
	}
	for _, c := range []tls.Certificate{before, after} {
		if err := verify(t, c.Certificate, roots, time.Now(), x509.ExtKeyUsageServerAuth); err != nil {
			t.Error(err)
		}
	}
	if !roots.Equal(ca.Roots()) {
		t.Error("another root")
	}
}

// While a root is replaced there are two chains, one for each kind of peer.
func TestRotateRoot(t *testing.T) {
	ca := catest.New(t)
	c, old := ca.Config("web.test"), ca.Roots()
	before := ca.Issue(mtls.UsageServer, "web.test")
	ca.RotateRoot()
	client, err := register(t, c) // the directory is trusted by the old root still
	if err != nil {
		t.Fatal(err)
	}
	chain, err := client.Obtain(t.Context(), acme.ObtainRequest{
		Key: newKey(t), Order: acme.OrderRequest{Identifiers: acme.Identifiers("web.test")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(chain.Alternates) != 1 {
		t.Fatalf("%d alternate chains, want 1", len(chain.Alternates))
	}
	cross, err := client.Certificate(t.Context(), chain.Alternates[0])
	if err != nil {
		t.Fatal(err)
	}
	both := ca.Roots()
	fresh := x509.NewCertPool() // of a peer who forgot the old one
	_, rest := pem.Decode(ca.RootPEM())
	fresh.AppendCertsFromPEM(rest)
	for _, test := range []struct {
		what  string
		chain [][]byte
		roots *x509.CertPool
		fine  bool
	}{
		{"new chain, old root", chain.DER, old, false},
		{"new chain, both", chain.DER, both, true},
		{"new chain, new root", chain.DER, fresh, true},
		{"alternate, old root", cross.DER, old, true},
		{"alternate, both", cross.DER, both, true},
		{"old certificate, old root", before.Certificate, old, true},
		{"old certificate, both", before.Certificate, both, true},
		{"old certificate, new root", before.Certificate, fresh, false},
	} {
		if err := verify(t, test.chain, test.roots, time.Now(), x509.ExtKeyUsageServerAuth); (err == nil) != test.fine {
			t.Errorf("%s: %v", test.what, err)
		}
	}
	if _, err := register(t, ca.Config("web.test")); err != nil {
		t.Error(err)
	}
}

// Fifty at once, each a whole of its own.
func TestParallel(t *testing.T) {
	var all sync.WaitGroup
	urls := make(chan string, 50)
	for range cap(urls) {
		all.Go(func() {
			ca := catest.New(t)
			urls <- ca.Directory()
			leaf, chain, err := obtain(t, ca.Config("web.test"))
			if err != nil {
				t.Error(err)
				return
			}
			if err := verify(t, chain.DER, ca.Roots(), time.Now(), x509.ExtKeyUsageServerAuth); err != nil {
				t.Error(leaf.Subject, err)
			}
		})
	}
	all.Wait()
	close(urls)
	seen := map[string]bool{}
	for u := range urls {
		seen[u] = true
	}
	if len(seen) != cap(urls) {
		t.Errorf("%d directories, want %d", len(seen), cap(urls))
	}
}

// Many who ask one CA at once are all served.
func TestCrowd(t *testing.T) {
	ca := catest.New(t)
	client, err := register(t, ca.Config())
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 100 {
		key := newKey(t)
		all.Go(func() {
			_, err := client.Obtain(t.Context(), acme.ObtainRequest{Key: key, Order: acme.OrderRequest{Identifiers: acme.Identifiers("web.test")}})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// When the test is over, so is its CA.
func TestEnd(t *testing.T) {
	var c mtls.Config
	t.Run("test", func(t *testing.T) {
		ca := catest.New(t, catest.WithRevocation())
		c = ca.Config("web.test")
		mustObtain(t, c)
	})
	if _, err := c.CAs[0].HTTPClient.Get(c.CAs[0].Directory); err == nil {
		t.Error("it answers after the test")
	}
}

// A clock outside the CA's life is the test's mistake.
func TestClockOutOfRange(t *testing.T) {
	for _, at := range []time.Time{{}, time.Date(1998, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)} {
		f := &failing{TB: t}
		func() {
			defer func() { recover() }()
			catest.New(f, catest.StoppedAt(at))
		}()
		if !strings.Contains(f.said, "between 1999 and 2099") {
			t.Errorf("%v: %q", at, f.said)
		}
	}
}

// failing is a test that fails without failing the one around it.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Fatalf(format string, args ...any) {
	f.said = strings.TrimSpace(fmt.Sprintf(format, args...))
	panic("FailNow")
}

// BenchmarkNew is what a test pays: a CA from nothing, and its end.
func BenchmarkNew(b *testing.B) {
	for _, where := range []struct {
		name string
		as   []catest.Option
	}{{"network", nil}, {"memory", []catest.Option{catest.InMemory()}}} {
		b.Run(where.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				t := new(exampleTest)
				catest.New(t, where.as...)
				t.end()
			}
		})
	}
}

// BenchmarkObtain is one certificate with an account of its own.
func BenchmarkObtain(b *testing.B) {
	c := catest.New(b).Config("web.test")
	b.ReportAllocs()
	for b.Loop() {
		mustObtain(b, c)
	}
}
