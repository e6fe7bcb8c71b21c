package catest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/catest"
	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// In one line, a CA that certifies any name.
func ExampleNew() {
	ca := catest.New(t)
	client := &acme.Client{DirectoryURL: ca.Directory(), HTTPClient: ca.Client(), Key: newKey(t)}
	_, err := client.Register(t.Context(), acme.Registration{EAB: ca.EAB()})
	if err != nil {
		fmt.Println(err)
	}
	chain, err := client.Obtain(t.Context(), acme.ObtainRequest{
		Order: acme.OrderRequest{Identifiers: acme.Identifiers("web.test")}, Key: newKey(t),
	})
	if err != nil {
		fmt.Println(err)
	}
	leaf, _ := x509.ParseCertificate(chain.DER[0])
	fmt.Println(leaf.DNSNames, leaf.Issuer)
	// Output: [web.test] CN=catest issuing CA 1,O=Test
}

// A line for the CA, a line for the identity: a server and its client.
func ExampleCA_Config() {
	ca := catest.New(t)
	id, err := mtls.New(t.Context(), ca.Config("web.test"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer id.Close()

	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("hello", r.TLS.PeerCertificates[0].DNSNames[0])
	}))
	server.TLS = id.Server(acl.Allow("web.test"))
	server.StartTLS()
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: id.ClientTo("web.test")}}
	defer client.CloseIdleConnections()
	if _, err := client.Get(server.URL); err != nil {
		fmt.Println(err)
	}
	// Output: hello web.test
}

// A server that demands a client certificate, and a peer that has one, without ACME.
func ExampleCA_Issue() {
	ca := catest.New(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("hello", r.TLS.PeerCertificates[0].DNSNames[0])
	}))
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{ca.Issue(mtls.UsageServer, "127.0.0.1")},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ca.Roots(),
	}
	server.StartTLS()
	defer server.Close()

	peer := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		Certificates: []tls.Certificate{ca.Issue(mtls.UsageClient, "batch.test")}, RootCAs: ca.Roots(),
	}}}
	defer peer.CloseIdleConnections()
	if _, err := peer.Get(server.URL); err != nil {
		fmt.Println(err)
	}
	// Output: hello batch.test
}

// What a certificate's end looks like, without waiting for it.
func ExampleCA_Advance() {
	ca := catest.New(t, catest.StoppedAt(time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)))
	leaf := ca.Issue(mtls.UsageServer, "web.test").Leaf
	for range 3 {
		fmt.Println(ca.Clock().Now().Format(time.DateTime), ca.Clock().Now().After(leaf.NotAfter))
		ca.Advance(12 * time.Hour)
	}
	// Output:
	// 2027-03-01 12:00:00 false
	// 2027-03-02 00:00:00 false
	// 2027-03-02 12:00:00 true
}

// Two CAs agree about the time, so that one may stand in for the other.
func ExampleClock() {
	one := catest.New(t, catest.StoppedAt(time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)))
	two := catest.New(t, one.Clock())
	config := one.Config("web.test")
	config.CAs = append(config.CAs, two.Config().CAs...)
	one.Advance(time.Hour)
	fmt.Println(two.Clock().Now().Format(time.TimeOnly), len(config.CAs))
	// Output: 13:00:00 2
}

// What a program does while its CA is away.
func ExampleCA_Down() {
	ca := catest.New(t)
	ask := func() {
		_, err := ca.Client().Get(ca.Directory())
		fmt.Println("it answers:", err == nil)
	}
	ca.Down()
	ask()
	ca.Up()
	ask()
	// Output:
	// it answers: false
	// it answers: true
}

// A CA with too much to do.
func ExampleCA_Answer() {
	ca := catest.New(t)
	ca.Answer(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(http.StatusServiceUnavailable)
		})
	})
	res, err := ca.Client().Get(ca.Directory())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()
	fmt.Println(res.Status)
	// Output: 503 Service Unavailable
}

// Peers who know only the old root, while it is being replaced.
func ExampleCA_RotateRoot() {
	ca := catest.New(t)
	old := ca.Roots()
	ca.RotateRoot()
	leaf := ca.Issue(mtls.UsageServer, "web.test").Leaf
	above := x509.NewCertPool()
	above.AddCert(ca.Issuer().Leaf)
	for _, roots := range []*x509.CertPool{old, ca.Roots()} {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: above})
		fmt.Println(err == nil)
	}
	// Output:
	// false
	// true
}

// A solver under test, here http-01's.
func ExampleWithChallenges() {
	solver := new(acme.HTTP01Solver)
	site := httptest.NewServer(solver)
	defer site.Close()
	ca := catest.New(t, catest.WithChallenges(catest.Challenges{HTTPPort: portOf(t, site.Listener.Addr().String())}))

	client := &acme.Client{DirectoryURL: ca.Directory(), HTTPClient: ca.Client(), Key: newKey(t)}
	if _, err := client.Register(t.Context(), acme.Registration{}); err != nil {
		fmt.Println(err)
	}
	_, err := client.Obtain(t.Context(), acme.ObtainRequest{
		Order: acme.OrderRequest{Identifiers: acme.Identifiers("web.test")}, Key: newKey(t), Solvers: []acme.Solver{solver},
	})
	fmt.Println(err)
	// Output: <nil>
}

// t stands for the test's own, which examples have none of.
var t = new(exampleTest)

type exampleTest struct {
	testing.TB
	cleanup []func()
}

func (*exampleTest) Helper()                           {}
func (*exampleTest) Logf(format string, args ...any)   { fmt.Printf(format, args...) }
func (*exampleTest) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (*exampleTest) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (*exampleTest) Context() context.Context          { return context.Background() }
func (e *exampleTest) Cleanup(f func())                { e.cleanup = append(e.cleanup, f) }

func (e *exampleTest) TempDir() string {
	folder, err := os.MkdirTemp("", "catest-")
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { os.RemoveAll(folder) })
	return folder
}

func (e *exampleTest) end() {
	for _, f := range slices.Backward(e.cleanup) {
		f()
	}
}

func TestMain(m *testing.M) {
	code := m.Run()
	t.end()
	os.Exit(code)
}
