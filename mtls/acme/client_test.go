package acme

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// serveHTTP01 puts a solver where ca looks for http-01.
func (ca *fakeCA) serveHTTP01(t testing.TB) *HTTP01Solver {
	solver := new(HTTP01Solver)
	srv := httptest.NewServer(solver)
	t.Cleanup(srv.Close)
	ca.httpAddr = srv.Listener.Addr().String()
	return solver
}

// serveALPN puts a solver where ca looks for tls-alpn-01.
func (ca *fakeCA) serveALPN(t testing.TB) *TLSALPN01Solver {
	solver := new(TLSALPN01Solver)
	l, err := tls.Listen("tcp", "127.0.0.1:0", solver.TLSConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	ca.tlsAddr = l.Addr().String()
	return solver
}

// opaqueSigner hides its key's type, as a key in hardware does.
type opaqueSigner struct{ crypto.Signer }

// TestAccountKeys takes an account of every key type through its whole life:
// RFC 8555 section 7.3, with an external account, to 7.3.6.
func TestAccountKeys(t *testing.T) {
	keys := map[string]func() (crypto.Signer, error){
		"ES256": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
		"ES384": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) },
		"ES512": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P521(), rand.Reader) },
		"RS256": func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) },
		"EdDSA": func() (crypto.Signer, error) { _, key, err := ed25519.GenerateKey(rand.Reader); return key, err },
		"in hardware": func() (crypto.Signer, error) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			return opaqueSigner{key}, err
		},
	}
	for name, generate := range keys {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			key, err := generate()
			if err != nil {
				t.Fatal(err)
			}
			ca := newFakeCA(t)
			c := ca.client(key)
			if _, err := c.Register(ctx, Registration{OnlyReturnExisting: true}); !HasType(err, ErrAccountDoesNotExist) {
				t.Fatalf("existing account: %v", err)
			}
			acct, err := c.Register(ctx, Registration{Contact: []string{"mailto:a@example.com"}, TermsAgreed: true,
				EAB: &ExternalAccount{KeyID: `kid "1"`, MACKey: ca.eab[`kid "1"`]}})
			if err != nil {
				t.Fatal(err)
			}
			if !acct.Created || acct.Status != StatusValid || !acct.TermsOfServiceAgreed || acct.ExternalAccountBinding == nil || acct.URL == "" {
				t.Errorf("account %+v", acct)
			}
			again, err := c.Register(ctx, Registration{OnlyReturnExisting: true})
			if err != nil || again.Created || again.URL != acct.URL {
				t.Errorf("again: %+v, %v", again, err)
			}
			if got, err := c.UpdateAccount(ctx, AccountUpdate{}); err != nil || len(got.Contact) != 1 {
				t.Errorf("an empty update: %+v, %v", got, err)
			}
			if got, err := c.UpdateAccount(ctx, AccountUpdate{Contact: []string{}}); err != nil || len(got.Contact) != 0 {
				t.Errorf("contacts not removed: %+v, %v", got, err)
			}
			newKey, _ := generate()
			if err := c.RolloverKey(ctx, newKey); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Account(ctx); err != nil || got.URL != acct.URL {
				t.Errorf("after rollover: %+v, %v", got, err)
			}
			want, _ := KeyAuthorization("abc", newKey.Public())
			if got, err := c.KeyAuthorization("abc"); got != want || err != nil {
				t.Errorf("key authorization after rollover %q, %v", got, err)
			}
			kept := ca.client(newKey)
			kept.AccountURL = acct.URL
			if got, err := kept.DeactivateAccount(ctx); err != nil || got.Status != StatusDeactivated {
				t.Errorf("deactivated: %+v, %v", got, err)
			}
			if !ca.agents["test/1 chancery-acme/1"] || len(ca.agents) != 1 {
				t.Errorf("user agents %v", ca.agents)
			}
		})
	}
}

// TestSixPOSTs is the promise of a whole issuance in six POSTs where the
// server answers at once, and one fetch each of directory and nonce at most.
func TestSixPOSTs(t *testing.T) {
	ca := newFakeCA(t)
	solver := ca.serveHTTP01(t)
	var gets []string
	ca.hook = func(_ http.ResponseWriter, r *http.Request, _ *signedRequest) bool {
		if r.Method != http.MethodPost {
			gets = append(gets, r.Method+" "+r.URL.Path)
		}
		return false
	}
	c := ca.client(newKey(t))
	if _, err := c.Register(t.Context(), Registration{TermsAgreed: true}); err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	chain, err := c.Obtain(t.Context(), ObtainRequest{Order: OrderRequest{Identifiers: Identifiers("web.internal")}, Key: key, Solvers: []Solver{solver}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/new-account", "/new-order", "/authz/2", "/challenge/2/http-01", "/finalize/2", "/certificate/2"}
	if got := ca.postPaths(); !slices.Equal(got, want) {
		t.Errorf("POSTs\n%v, want\n%v", got, want)
	}
	if !slices.Equal(gets, []string{"GET /directory"}) { // whose answer brought the first nonce
		t.Errorf("unsigned requests %v", gets)
	}
	leaf, err := x509.ParseCertificate(chain.DER[0])
	if err != nil || len(chain.DER) != 2 || leaf.VerifyHostname("web.internal") != nil || !key.PublicKey.Equal(leaf.PublicKey) {
		t.Errorf("chain of %d, %v", len(chain.DER), err)
	}
	if len(chain.Alternates) != 1 || chain.Alternates[0] != ca.srv.URL+"/certificate/2/1" || chain.ContentType != pemChain {
		t.Errorf("alternates %v, type %q", chain.Alternates, chain.ContentType)
	}
	solver.pending.Range(func(k, _ any) bool { t.Errorf("%v was not cleaned up", k); return true })
}

func TestObtainByALPN(t *testing.T) {
	for _, name := range []string{"web.internal", "192.0.2.7"} { // RFC 8737, RFC 8738
		t.Run(name, func(t *testing.T) {
			ca := newFakeCA(t)
			solver := ca.serveALPN(t)
			c := ca.client(newKey(t))
			if _, err := c.Register(t.Context(), Registration{}); err != nil {
				t.Fatal(err)
			}
			_, err := c.Obtain(t.Context(), ObtainRequest{Order: OrderRequest{Identifiers: Identifiers(name)}, Key: newKey(t), Solvers: []Solver{solver}})
			if err != nil {
				t.Fatal(err)
			}
			solver.pending.Range(func(k, _ any) bool { t.Errorf("%v was not cleaned up", k); return true })
		})
	}
}

// privateSolver answers a challenge this package knows nothing about.
type privateSolver struct{ cleaned int }

func (*privateSolver) Type() string { return "example-private-01" }
func (*privateSolver) Present(_ context.Context, p Proof) (any, error) {
	return map[string]json.RawMessage{"echo": p.Challenge.Extra["challenge"]}, nil
}
func (s *privateSolver) CleanUp(context.Context, Proof) error {
	s.cleaned++
	return errors.New("the clean-up of a finished proof stops nothing")
}

func TestPrivateChallengeAndPayload(t *testing.T) {
	ca := newFakeCA(t)
	solver := new(privateSolver)
	c := ca.client(newKey(t))
	if _, err := c.Register(t.Context(), Registration{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Obtain(t.Context(), ObtainRequest{Order: OrderRequest{Identifiers: Identifiers("a.test")}, Key: newKey(t), Solvers: []Solver{new(unofferedSolver), solver}}); err != nil {
		t.Fatal(err)
	}
	if got := string(ca.orders["2"].payload["echo"]); got != `"AAEC"` || solver.cleaned != 1 {
		t.Errorf("the server got %s; cleaned %d times", got, solver.cleaned)
	}

	// A finalize payload of another kind, and a credential of another kind.
	ca.hook = func(w http.ResponseWriter, r *http.Request, _ *signedRequest) bool {
		if strings.HasPrefix(r.URL.Path, "/certificate/") {
			w.Header().Set("Content-Type", "application/vnd.chancery.ssh-certificate")
			w.Write([]byte("ssh-ed25519-cert-v01@openssh.com AAAA\n"))
			return true
		}
		return false
	}
	order, err := c.NewOrder(t.Context(), OrderRequest{Identifiers: Identifiers("a.test")})
	if err != nil {
		t.Fatal(err)
	}
	authz, err := c.Authorization(t.Context(), order.Authorizations[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Accept(t.Context(), authz.Challenges[2], nil); err != nil {
		t.Fatal(err)
	}
	if order, err = c.FinalizeWith(t.Context(), order, map[string]string{"sshPublicKey": "ssh-ed25519 AAAA"}); err != nil {
		t.Fatal(err)
	}
	cred, err := c.Certificate(t.Context(), order.Certificate)
	if err != nil || cred.DER != nil || !strings.HasPrefix(string(cred.PEM), "ssh-ed25519") || cred.ContentType != "application/vnd.chancery.ssh-certificate" {
		t.Errorf("%+v, %v", cred, err)
	}
}

type unofferedSolver struct{ HTTP01Solver }

func (*unofferedSolver) Type() string { return DNS01 }

// The proofs alone, for who finalizes otherwise.
func TestAuthorize(t *testing.T) {
	ca := newFakeCA(t)
	c := ca.client(newKey(t))
	if _, err := c.Register(t.Context(), Registration{}); err != nil {
		t.Fatal(err)
	}
	order, err := c.NewOrder(t.Context(), OrderRequest{Identifiers: Identifiers("a.test")})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Authorize(t.Context(), order, new(unofferedSolver)); err == nil {
		t.Error("authorized by a challenge that nobody offered")
	}
	solver := new(privateSolver)
	if err := c.Authorize(t.Context(), order, solver); err != nil {
		t.Fatal(err)
	}
	if order, err = c.Order(t.Context(), order.URL); err != nil || order.Status != StatusReady || solver.cleaned != 1 {
		t.Fatalf("%q, %v, cleaned %d times", order.Status, err, solver.cleaned)
	}
	if err := c.Authorize(t.Context(), order); err != nil { // ready: nothing is left to prove
		t.Error(err)
	}
}

func TestOrderRequest(t *testing.T) {
	ca := newFakeCA(t)
	var got map[string]any
	ca.hook = func(_ http.ResponseWriter, r *http.Request, req *signedRequest) bool {
		if r.URL.Path == "/new-order" {
			json.Unmarshal(req.payload, &got)
		}
		return false
	}
	c := ca.client(newKey(t))
	if _, err := c.NewOrder(t.Context(), OrderRequest{}); !errors.Is(err, ErrNoAccount) {
		t.Fatalf("without an account: %v", err)
	}
	if _, err := c.Register(t.Context(), Registration{}); err != nil {
		t.Fatal(err)
	}
	before, after := time.Date(2030, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600)), time.Date(2030, 1, 3, 0, 0, 0, 0, time.UTC)
	order, err := c.NewOrder(t.Context(), OrderRequest{Identifiers: Identifiers("a.test", "2001:DB8:0::1"), Profile: "short", Replaces: "a.b", NotBefore: before, NotAfter: after})
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(got)
	want := `{"identifiers":[{"type":"dns","value":"a.test"},{"type":"ip","value":"2001:db8::1"}],"notAfter":"2030-01-03T00:00:00Z","notBefore":"2030-01-02T02:04:05Z","profile":"short","replaces":"a.b"}`
	if string(text) != want {
		t.Errorf("newOrder\n%s, want\n%s", text, want)
	}
	if order.Profile != "short" || !order.NotAfter.Equal(after) || order.URL == "" {
		t.Errorf("order %+v", order)
	}
	if again, err := c.Order(t.Context(), order.URL); err != nil || again.Finalize != order.Finalize {
		t.Errorf("order again %+v, %v", again, err)
	}
	got = nil
	if _, err = c.NewOrder(t.Context(), OrderRequest{Identifiers: Identifiers("a.test")}); err != nil || len(got) != 1 {
		t.Errorf("a plain order has members %v, %v", got, err)
	}
}

func TestAuthorizations(t *testing.T) {
	ca := newFakeCA(t)
	c := ca.client(newKey(t))
	acct, err := c.Register(t.Context(), Registration{})
	if err != nil {
		t.Fatal(err)
	}
	authz, err := c.PreAuthorize(t.Context(), Identifier{TypeDNS, "a.test"}) // RFC 8555 section 7.4.1
	if err != nil || authz.Identifier.Value != "a.test" || authz.Status != StatusPending {
		t.Fatalf("%+v, %v", authz, err)
	}
	ch, err := c.Challenge(t.Context(), authz.Challenges[0].URL)
	if err != nil || ch.Token != authz.Challenges[0].Token || string(ch.Extra["challenge"]) != `"AAEC"` {
		t.Errorf("challenge %+v, %v", ch, err)
	}
	if got, err := c.DeactivateAuthorization(t.Context(), authz.URL); err != nil || got.Status != StatusDeactivated {
		t.Errorf("deactivated: %+v, %v", got, err)
	}
	var urls []string
	for url, err := range c.Orders(t.Context(), acct) { // three pages of two
		if err != nil {
			t.Fatal(err)
		}
		urls = append(urls, strings.TrimPrefix(url, ca.srv.URL))
	}
	if want := []string{"/order/0", "/order/1", "/order/2", "/order/3", "/order/4", "/order/5"}; !slices.Equal(urls, want) {
		t.Errorf("orders %v", urls)
	}
	for range c.Orders(t.Context(), acct) {
		break // must not fetch more, nor panic
	}
}

func TestRevokeAndRenewalInfo(t *testing.T) {
	ca := newFakeCA(t)
	c := ca.client(newKey(t))
	if _, err := c.Register(t.Context(), Registration{}); err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	chain, err := c.Obtain(t.Context(), ObtainRequest{Order: OrderRequest{Identifiers: Identifiers("a.test")}, Key: key, Solvers: []Solver{new(privateSolver)}})
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(chain.DER[0])
	info, err := c.RenewalInfo(t.Context(), leaf)
	id, _ := CertID(leaf)
	if err != nil || info.ExplanationURL != ca.srv.URL+"/why?"+id || info.SuggestedWindow.End.Sub(info.SuggestedWindow.Start) != time.Hour || info.RetryAfter != time.Minute {
		t.Errorf("%+v, %v", info, err) // Retry-After: 1 is raised to a minute (RFC 9773 section 4.3.2)
	}
	if err := c.Revoke(t.Context(), chain.DER[0], ReasonSuperseded, nil); err != nil {
		t.Errorf("by account: %v", err)
	}
	stranger := ca.client(nil) // has no account key at all
	if err := stranger.Revoke(t.Context(), chain.DER[0], ReasonKeyCompromise, key); err != nil {
		t.Errorf("by the certificate's key: %v", err)
	}
	if err := stranger.Revoke(t.Context(), chain.DER[0], ReasonKeyCompromise, newKey(t)); !HasType(err, ErrUnauthorized) {
		t.Errorf("by another key: %v", err)
	}
	if err := c.Revoke(t.Context(), chain.DER[0], 2, nil); !HasType(err, ErrBadRevocationReason) {
		t.Errorf("a bad reason: %v", err)
	}
}

// TestConcurrent has one account order from many goroutines at once.
func TestConcurrent(t *testing.T) {
	ca := newFakeCA(t)
	solver := ca.serveHTTP01(t)
	c := ca.client(newKey(t))
	if _, err := c.Register(t.Context(), Registration{}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := c.Obtain(t.Context(), ObtainRequest{Order: OrderRequest{Identifiers: Identifiers("a.test")}, Key: newKey(t), Solvers: []Solver{solver}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(ca.postPaths()); n != 1+16*5 {
		t.Errorf("%d POSTs for 16 certificates", n)
	}
}

// TestSolverHandlers holds the ready solvers to what they must not answer.
func TestSolverHandlers(t *testing.T) {
	h := new(HTTP01Solver)
	h.Present(t.Context(), Proof{Challenge: Challenge{Token: "tok"}, KeyAuthorization: "tok.thumb"})
	for path, want := range map[string]int{HTTP01Path("tok"): 200, HTTP01Path("tok2"): 404, HTTP01Path(""): 404, "/tok": 404, "/": 404} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		if rec.Code != want || (want == 200) != bytes.Equal(rec.Body.Bytes(), []byte("tok.thumb")) {
			t.Errorf("%s: %d %q", path, rec.Code, rec.Body)
		}
	}
	rec := httptest.NewRecorder()
	if h.ServeHTTP(rec, httptest.NewRequest("POST", HTTP01Path("tok"), nil)); rec.Code != 404 {
		t.Errorf("POST: %d", rec.Code)
	}

	s := new(TLSALPN01Solver)
	id := Identifier{TypeDNS, "Web.Internal"}
	first := Proof{Authorization: Authorization{Identifier: id}, KeyAuthorization: "one.thumb"}
	second := Proof{Authorization: Authorization{Identifier: id}, KeyAuthorization: "two.thumb"}
	for _, p := range []Proof{first, second} {
		if _, err := s.Present(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	s.CleanUp(t.Context(), first) // must leave the second
	for _, tc := range []struct {
		name   string
		protos []string
		want   bool
	}{
		{"web.internal", []string{"acme-tls/1"}, true},
		{"WEB.internal", []string{"acme-tls/1"}, true},
		{"web.internal", []string{"acme-tls/1", "h2"}, false},
		{"web.internal", []string{"h2"}, false},
		{"web.internal", nil, false},
		{"other.internal", []string{"acme-tls/1"}, false},
	} {
		cert, err := s.GetCertificate(&tls.ClientHelloInfo{ServerName: tc.name, SupportedProtos: tc.protos})
		if (cert != nil) != tc.want || err != nil {
			t.Errorf("%s %v: %v, %v", tc.name, tc.protos, cert != nil, err)
		}
	}
	s.CleanUp(t.Context(), second)
	if cert, _ := s.GetCertificate(&tls.ClientHelloInfo{ServerName: "web.internal", SupportedProtos: []string{"acme-tls/1"}}); cert != nil {
		t.Error("still there after the clean-up")
	}
	if _, err := s.Present(t.Context(), Proof{Authorization: Authorization{Identifier: Identifier{TypeIP, "not an address"}}}); err == nil {
		t.Error("took a bad address")
	}
}

func TestNetworkErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c := &Client{DirectoryURL: "https://" + l.Addr().String() + "/directory", Key: newKey(t)}
	if _, err := c.Register(t.Context(), Registration{}); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Discover(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := (&Client{DirectoryURL: "https://127.0.0.1/"}).Register(t.Context(), Registration{}); err == nil {
		t.Error("registered without a key")
	}
}

// TestCSRAsksForUsages reads the extension request by RFC 2986 and RFC 5280
// section 4.2.1.12, byte for byte.
func TestCSRAsksForUsages(t *testing.T) {
	key := newKey(t)
	server, client := "06082b06010505070301", "06082b06010505070302"
	for _, tc := range []struct {
		usages []x509.ExtKeyUsage
		want   string // the extension's value in hexadecimal
	}{
		{nil, ""},
		{[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, "300a" + server},
		{[]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, "300a" + client},
		{[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, "3014" + server + client},
	} {
		der, err := NewCSRFor(tc.usages, key, Identifiers("a.test", "192.0.2.1")...)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil || csr.CheckSignature() != nil || len(csr.DNSNames) != 1 || len(csr.IPAddresses) != 1 {
			t.Fatalf("%v: the request is broken: %v", tc.usages, err)
		}
		got := ""
		for _, ext := range csr.Extensions {
			if ext.Id.String() == "2.5.29.37" {
				got = hex.EncodeToString(ext.Value)
			}
		}
		if got != tc.want {
			t.Errorf("%v: extension %q, want %q", tc.usages, got, tc.want)
		}
	}
	for _, bad := range []x509.ExtKeyUsage{x509.ExtKeyUsageAny, x509.ExtKeyUsage(999)} {
		if _, err := NewCSRFor([]x509.ExtKeyUsage{bad}, key, Identifiers("a.test")...); err == nil {
			t.Errorf("usage %d was accepted", bad)
		}
	}
}
