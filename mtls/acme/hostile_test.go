package acme

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// endless writes until the client hangs up, or for as much as would hurt it.
func endless(w http.ResponseWriter) {
	chunk := bytes.Repeat([]byte(" "), 64<<10)
	for range 16 << 10 { // a gigabyte
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// TestHostileServer has a server misbehave at one place each.
func TestHostileServer(t *testing.T) {
	register := func(ctx context.Context, c *Client) error {
		_, err := c.Register(ctx, Registration{})
		return err
	}
	order := func(ctx context.Context, c *Client) error {
		if err := register(ctx, c); err != nil {
			return fmt.Errorf("too early: %w", err)
		}
		_, err := c.NewOrder(ctx, OrderRequest{Identifiers: Identifiers("a.test")})
		return err
	}
	obtain := func(ctx context.Context, c *Client) error {
		if err := register(ctx, c); err != nil {
			return fmt.Errorf("too early: %w", err)
		}
		_, err := c.Obtain(ctx, ObtainRequest{Order: OrderRequest{Identifiers: Identifiers("a.test")}, Key: newKey(t), Solvers: []Solver{new(privateSolver)}})
		return err
	}
	body := func(typ, text string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", typ)
			w.Header().Set("Location", "https://ca.test/x")
			io.WriteString(w, text)
		}
	}
	status := func(code int, typ, text string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", typ)
			w.Header().Set("Location", "https://127.0.0.1:1/evil")
			w.WriteHeader(code)
			io.WriteString(w, text)
		}
	}
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}))
	for _, tc := range []struct {
		name, path string
		answer     func(http.ResponseWriter)
		call       func(context.Context, *Client) error
		want       string
	}{
		{"endless directory", "/directory", func(w http.ResponseWriter) { w.Header().Set("Content-Type", "application/json"); endless(w) }, register, "more than 1048576 bytes"},
		{"endless error", "/new-account", func(w http.ResponseWriter) { w.WriteHeader(500); endless(w) }, register, "more than 1048576 bytes"},
		{"large content length", "/directory", func(w http.ResponseWriter) { w.Header().Set("Content-Length", "99999999999") }, register, "99999999999 bytes, more than"},
		{"short body", "/directory", func(w http.ResponseWriter) { w.Header().Set("Content-Length", "100"); io.WriteString(w, "{}") }, register, "unexpected EOF"},
		{"a web page", "/directory", body("text/html", "<html>"), register, `"text/html", not application/json`},
		{"a login page", "/directory", status(302, "text/html", ""), register, "127.0.0.1:1"}, // followed; nobody listens there
		{"another JSON", "/directory", body("application/json", `{"newNonce":"https://ca.test/n"}`), register, "is not an ACME directory"},
		{"null", "/directory", body("application/json", `null`), register, "is not an ACME directory"},
		{"plain http URLs", "/directory", body("application/json", `{"newNonce":"http://ca.test/","newAccount":"http://ca.test/","newOrder":"http://ca.test/"}`), register, "not an https URL"},
		{"file URLs", "/directory", body("application/json", `{"newNonce":"file:///etc/passwd","newAccount":"https://ca.test/","newOrder":"https://ca.test/"}`), register, "not an https URL"},
		{"header injection", "/directory", body("application/json", `{"newNonce":"https://ca.test/","newAccount":"https://ca.test/\",\"alg\":\"none","newOrder":"https://ca.test/"}`), register, "not a clean https URL"},
		{"truncated JSON", "/directory", body("application/json", `{"newNonce":`), register, "not what it should be"},
		{"deep JSON", "/new-order", body("application/json", strings.Repeat("[", 500_000)), order, "not what it should be"},
		{"wrong JSON type", "/new-order", body("application/json", `{"identifiers":"x"}`), order, "not what it should be"},
		{"bad date", "/new-order", body("application/json", `{"expires":"yesterday"}`), order, "not what it should be"},
		{"JSON with a tail", "/new-order", body("application/json", `{} {}`), order, "not what it should be"},
		{"order without Location", "/new-order", func(w http.ResponseWriter) { reply(w, 201, Order{}) }, order, "no Location"},
		{"order at a plain http URL", "/new-order", func(w http.ResponseWriter) { w.Header().Set("Location", "http://ca.test/"); reply(w, 201, Order{}) }, order, "not an https URL"},
		{"redirect to plain http", "/directory", func(w http.ResponseWriter) { w.Header().Set("Location", "http://127.0.0.1:1/"); w.WriteHeader(302) }, register, "not an https URL"},
		{"redirect loop", "/directory", func(w http.ResponseWriter) { w.Header().Set("Location", "/directory"); w.WriteHeader(302) }, register, "more than 3 redirects"},
		{"account without Location", "/new-account", func(w http.ResponseWriter) { reply(w, 201, Account{}) }, register, "no Location"},
		{"wrong content type", "/new-order", body("text/plain", `{}`), order, `"text/plain", not application/json`},
		{"redirected POST 307", "/new-account", status(307, "text/html", ""), register, "redirects to \"https://127.0.0.1:1/evil\""},
		{"redirected POST 303", "/new-order", status(303, "text/html", ""), order, "redirects to \"https://127.0.0.1:1/evil\""},
		{"error without a document", "/new-order", status(502, "text/html", "<html>"), order, "HTTP status 502"},
		{"empty problem", "/new-order", status(400, "application/problem+json", "{}"), order, "HTTP status 400"},
		{"null problem", "/new-order", status(400, "application/problem+json", "null"), order, "HTTP status 400"},
		{"problem that is no object", "/new-order", status(400, "application/problem+json", "[1]"), order, "HTTP status 400"},
		{"problem as plain JSON", "/new-order", status(400, "application/json", `{"type":"urn:ietf:params:acme:error:malformed","detail":"why"}`), order, "malformed: why"},
		{"problem without type", "/new-order", status(400, "application/problem+json", `{"detail":"why"}`), order, "about:blank: why"},
		{"authorization with a bad token", "/authz/2", body("application/json", `{"identifier":{"type":"dns","value":"a.test"},"status":"pending","challenges":[{"type":"example-private-01","url":"https://ca.test/c","token":"../../x"}]}`), obtain, "is not base64url"},
		{"authorization without a known challenge", "/authz/2", body("application/json", `{"identifier":{"type":"dns","value":"a.test"},"status":"pending","challenges":[{"type":"dns-01"},{"type":"dns-persist-01"}]}`), obtain, "offers dns-01, dns-persist-01"},
		{"authorization that has failed", "/authz/2", body("application/json", `{"identifier":{"type":"dns","value":"a.test"},"status":"invalid","challenges":[{"type":"dns-01","error":{"type":"urn:ietf:params:acme:error:dns","detail":"NXDOMAIN"}}]}`), obtain, "a.test by dns-01: dns: NXDOMAIN"},
		{"authorization of no status", "/authz/2", body("application/json", `{"identifier":{"type":"dns","value":"a.test"}}`), obtain, `authorization for a.test is ""`},
		{"challenge that fails at once", "/challenge/2/example-private-01", body("application/json", `{"type":"example-private-01","status":"invalid","error":{"type":"urn:ietf:params:acme:error:unauthorized","detail":"no"}}`), obtain, "a.test by example-private-01: unauthorized: no"},
		{"order that becomes invalid", "/finalize/2", body("application/json", `{"status":"invalid","error":{"type":"urn:ietf:params:acme:error:caa","detail":"forbidden"}}`), obtain, "the order is invalid: caa: forbidden"},
		{"order without certificate", "/finalize/2", body("application/json", `{"status":"valid"}`), obtain, "without a certificate"},
		{"too many authorizations", "/new-order", func(w http.ResponseWriter) {
			w.Header().Set("Location", "https://ca.test/o")
			reply(w, 201, Order{Status: StatusPending, Authorizations: make([]string, 5000)})
		}, obtain, "more than 1000 authorizations"},
		{"chain of another type", "/certificate/2", body("text/html", cert), obtain, `got "text/html"`},
		{"chain without type", "/certificate/2", func(w http.ResponseWriter) { w.Header()["Content-Type"] = nil; io.WriteString(w, cert) }, obtain, "no content type"},
		{"empty chain", "/certificate/2", body(pemChain, ""), obtain, "chain is empty"},
		{"chain with a key", "/certificate/2", body(pemChain, cert+"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), obtain, "something other than certificates"},
		{"chain with text", "/certificate/2", body(pemChain, "ssl_certificate_key /etc/passwd;\n"+cert), obtain, "something other than certificates"},
		{"chain with headers", "/certificate/2", body(pemChain, "-----BEGIN CERTIFICATE-----\nA: b\n\nAAAA\n-----END CERTIFICATE-----\n"), obtain, "not PEM"},
		{"broken PEM", "/certificate/2", body(pemChain, "-----BEGIN CERTIFICATE-----\n!!"), obtain, "not PEM"},
		{"long chain", "/certificate/2", body(pemChain, strings.Repeat(cert, 17)), obtain, "more than 16 certificates"},
		{"chain that is no certificate", "/certificate/2", body(pemChain, cert), obtain, "x509"},
		{"another's certificate", "/certificate/2", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", pemChain)
			pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: newFakeCA(t).caCert.Raw})
		}, obtain, "for another key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ca := newFakeCA(t)
			ca.hook = func(w http.ResponseWriter, r *http.Request, _ *signedRequest) bool {
				if r.URL.Path == tc.path {
					tc.answer(w)
					return true
				}
				return false
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			err := tc.call(ctx, ca.client(newKey(t)))
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "too early") {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// TestNonces follows RFC 8555 section 6.5.
func TestNonces(t *testing.T) {
	t.Run("never any", func(t *testing.T) {
		ca := newFakeCA(t)
		ca.hook = func(w http.ResponseWriter, r *http.Request, _ *signedRequest) bool {
			w.Header().Del("Replay-Nonce")
			return false
		}
		if _, err := ca.client(newKey(t)).Register(t.Context(), Registration{}); err == nil || !strings.Contains(err.Error(), "no valid Replay-Nonce") {
			t.Errorf("%v", err)
		}
	})
	t.Run("only from newNonce", func(t *testing.T) {
		ca := newFakeCA(t)
		ca.hook = func(w http.ResponseWriter, r *http.Request, _ *signedRequest) bool {
			if r.URL.Path != "/nonce" {
				w.Header().Del("Replay-Nonce")
			}
			return false
		}
		c := ca.client(newKey(t))
		if _, err := c.Register(t.Context(), Registration{}); err != nil {
			t.Error(err)
		}
		if _, err := c.Account(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("with bad characters", func(t *testing.T) { // section 6.5.1: MUST be ignored
		ca := newFakeCA(t)
		ca.hook = func(w http.ResponseWriter, r *http.Request, _ *signedRequest) bool {
			w.Header().Set("Replay-Nonce", `x","alg":"none`)
			return false
		}
		if _, err := ca.client(newKey(t)).Register(t.Context(), Registration{}); err == nil || !strings.Contains(err.Error(), "no valid Replay-Nonce") {
			t.Errorf("%v", err)
		}
	})
	t.Run("forgotten", func(t *testing.T) { // a restarted server; the pool is stale as a whole
		ca := newFakeCA(t)
		c := ca.client(newKey(t))
		if _, err := c.Register(t.Context(), Registration{}); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			c.keepNonce(ca.nonce())
		}
		clear(ca.nonces)
		before := len(ca.postPaths())
		if _, err := c.Account(t.Context()); err != nil {
			t.Error(err)
		}
		if n := len(ca.postPaths()) - before; n != 2 {
			t.Errorf("%d POSTs, want one refused and one more", n)
		}
	})
	t.Run("badNonce forever", func(t *testing.T) {
		ca := newFakeCA(t)
		c := ca.client(newKey(t))
		if _, err := c.Register(t.Context(), Registration{}); err != nil {
			t.Fatal(err)
		}
		ca.hook = func(w http.ResponseWriter, r *http.Request, req *signedRequest) bool {
			if req != nil {
				problem(w, 400, ErrBadNonce, "never good")
			}
			return req != nil
		}
		before := len(ca.postPaths())
		if _, err := c.Account(t.Context()); !HasType(err, ErrBadNonce) {
			t.Errorf("%v", err)
		}
		if n := len(ca.postPaths()) - before; n != nonceTries {
			t.Errorf("tried %d times, want %d", n, nonceTries)
		}
	})
	t.Run("the pool is bounded", func(t *testing.T) {
		c := new(Client)
		for range 1000 {
			c.keepNonce("x")
		}
		if len(c.nonces) != maxPool {
			t.Errorf("%d nonces", len(c.nonces))
		}
	})
}

func TestEndlessOrdersList(t *testing.T) {
	ca := newFakeCA(t)
	c := ca.client(newKey(t))
	acct, err := c.Register(t.Context(), Registration{})
	if err != nil {
		t.Fatal(err)
	}
	ca.hook = func(w http.ResponseWriter, r *http.Request, _ *signedRequest) bool {
		if !strings.HasPrefix(r.URL.Path, "/orders/") {
			return false
		}
		w.Header().Set("Link", `<`+r.URL.Path+`>;rel="next"`) // itself
		reply(w, 200, map[string][]string{})
		return true
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for url, err := range c.Orders(ctx, acct) {
		if err == nil {
			t.Fatalf("got %s", url)
		}
		if !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "names itself") {
			t.Error(err)
		}
	}
	for _, err := range c.Orders(ctx, Account{}) {
		if err == nil {
			t.Error("no list is no error")
		}
	}
}

// TestSlowServer: a server that trickles is left when its request's time ends.
func TestSlowServer(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := io.WriteString(w, " "); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}))
	defer srv.Close()
	hc := *srv.Client()
	hc.Timeout = 100 * time.Millisecond
	start := time.Now()
	if _, err := (&Client{DirectoryURL: srv.URL, HTTPClient: &hc}).Discover(t.Context()); err == nil || time.Since(start) > 3*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	if c := new(Client); c.transport().Timeout != requestTimeout {
		t.Error("no time limit by default")
	}
}

// failingSolver can't get ready.
type failingSolver struct{ privateSolver }

func (*failingSolver) Present(context.Context, Proof) (any, error) {
	return nil, errors.New("the zone is read-only")
}

func TestFailuresAreCleanedUp(t *testing.T) {
	ca := newFakeCA(t)
	c := ca.client(newKey(t))
	if _, err := c.Register(t.Context(), Registration{}); err != nil {
		t.Fatal(err)
	}
	solver := new(failingSolver)
	_, err := c.Obtain(t.Context(), ObtainRequest{Order: OrderRequest{Identifiers: Identifiers("a.test")}, Key: newKey(t), Solvers: []Solver{solver}})
	if err == nil || !strings.Contains(err.Error(), "read-only") || !strings.Contains(err.Error(), "cleaning up") || solver.cleaned != 1 {
		t.Errorf("%v, cleaned %d", err, solver.cleaned)
	}
	for _, path := range ca.postPaths() {
		if strings.HasPrefix(path, "/challenge/") {
			t.Error("accepted what was not ready")
		}
	}
}

func TestRateLimitReachesTheCaller(t *testing.T) {
	ca := newFakeCA(t)
	c := ca.client(newKey(t))
	if _, err := c.Register(t.Context(), Registration{}); err != nil {
		t.Fatal(err)
	}
	ca.hook = func(w http.ResponseWriter, r *http.Request, req *signedRequest) bool {
		w.Header().Set("Retry-After", "120")
		problem(w, 429, ErrRateLimited, "slowly")
		return true
	}
	_, err := c.NewOrder(t.Context(), OrderRequest{Identifiers: Identifiers("a.test")})
	p, ok := errors.AsType[*Problem](err)
	if !ok || p.RetryAfter != 2*time.Minute || p.Status != 429 || p.Type != ErrRateLimited {
		t.Errorf("%v", err)
	}
	if n := len(ca.postPaths()); n != 2 {
		t.Errorf("%d POSTs: rateLimited was retried", n)
	}
}

func TestBadEABIsRefusedHere(t *testing.T) {
	c := newFakeCA(t).client(newKey(t))
	for name, eab := range map[string]ExternalAccount{"algorithm": {KeyID: "x", MACKey: []byte("k"), Alg: "none"}, "no key": {KeyID: "x"}, "no id": {MACKey: []byte("k")}} {
		if _, err := c.Register(t.Context(), Registration{EAB: &eab}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for alg, size := range map[string]int{"": 32, "HS256": 32, "HS384": 48, "HS512": 64} {
		key, _ := newJWSKey(newKey(t))
		raw, err := (&ExternalAccount{KeyID: "x", MACKey: []byte("k"), Alg: alg}).seal("https://ca.test/", key)
		var j struct{ Signature string }
		if err != nil || json.Unmarshal(raw, &j) != nil || len(unb64(j.Signature)) != size {
			t.Errorf("%s: %s, %v", alg, raw, err)
		}
	}
}

// TestBareDirectory: a resource the directory lacks is an error with its name,
// not a request to an empty URL.
func TestBareDirectory(t *testing.T) {
	ca := newFakeCA(t)
	ca.hook = func(w http.ResponseWriter, r *http.Request, _ *signedRequest) bool {
		if r.URL.Path == "/directory" {
			reply(w, 200, Directory{NewNonce: ca.srv.URL + "/nonce", NewAccount: ca.srv.URL + "/new-account", NewOrder: ca.srv.URL + "/new-order"})
		}
		return r.URL.Path == "/directory"
	}
	c := ca.client(newKey(t))
	if _, err := c.Register(t.Context(), Registration{}); err != nil {
		t.Fatal(err)
	}
	_, noAuthz := c.PreAuthorize(t.Context(), Identifier{TypeDNS, "a.test"})
	_, noInfo := c.RenewalInfo(t.Context(), ca.caCert)
	for want, err := range map[string]error{
		"newAuthz": noAuthz, "renewalInfo": noInfo,
		"keyChange":  c.RolloverKey(t.Context(), newKey(t)),
		"revokeCert": c.Revoke(t.Context(), ca.caCert.Raw, 0, nil),
	} {
		if err == nil || !strings.Contains(err.Error(), "offers no "+want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestRenewalInfoWindows: RFC 9773 section 4.2 and 4.3.
func TestRenewalInfoWindows(t *testing.T) {
	ca := newFakeCA(t)
	leaf := *ca.caCert
	leaf.AuthorityKeyId = []byte{1}
	for _, tc := range []struct {
		body, retryAfter string
		want             time.Duration // 0: an error
	}{
		{`{"suggestedWindow":{"start":"2025-01-02T04:00:00Z","end":"2025-01-03T04:00:00Z"}}`, "", 6 * time.Hour}, // in the past is fine
		{`{"suggestedWindow":{"start":"2025-01-02T04:00:00Z","end":"2025-01-03T04:00:00Z"}}`, "21600", 6 * time.Hour},
		{`{"suggestedWindow":{"start":"2025-01-02T04:00:00Z","end":"2025-01-03T04:00:00Z"}}`, "0", time.Minute},
		{`{"suggestedWindow":{"start":"2025-01-02T04:00:00Z","end":"2025-01-03T04:00:00Z"}}`, "99999999", 24 * time.Hour},
		{`{"suggestedWindow":{"start":"2025-01-03T04:00:00Z","end":"2025-01-02T04:00:00Z"}}`, "", 0},
		{`{"suggestedWindow":{"start":"2025-01-03T04:00:00Z","end":"2025-01-03T04:00:00Z"}}`, "", 0},
		{`{"suggestedWindow":{"end":"2025-01-03T04:00:00Z"}}`, "", 0},
		{`{}`, "", 0},
		{`null`, "", 0},
	} {
		ca.hook = func(w http.ResponseWriter, r *http.Request, _ *signedRequest) bool {
			if !strings.HasPrefix(r.URL.Path, "/ari/") {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			if tc.retryAfter != "" {
				w.Header().Set("Retry-After", tc.retryAfter)
			}
			io.WriteString(w, tc.body)
			return true
		}
		got, err := ca.client(nil).RenewalInfo(t.Context(), &leaf)
		if (err != nil) != (tc.want == 0) || got.RetryAfter != tc.want {
			t.Errorf("%s: %+v, %v", tc.body, got, err)
		}
	}
}

// TestLogsHoldNoSecrets: the debug log names requests and nothing inside them.
func TestLogsHoldNoSecrets(t *testing.T) {
	ca := newFakeCA(t)
	solver := ca.serveHTTP01(t)
	var log bytes.Buffer
	c := ca.client(newKey(t))
	c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	mac := ca.eab[`kid "1"`]
	if _, err := c.Register(t.Context(), Registration{EAB: &ExternalAccount{KeyID: `kid "1"`, MACKey: mac}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Obtain(t.Context(), ObtainRequest{Order: OrderRequest{Identifiers: Identifiers("a.test")}, Key: newKey(t), Solvers: []Solver{solver}}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "acme request"); n != 7 { // directory and six POSTs
		t.Errorf("%d records:\n%s", n, &log)
	}
	for _, secret := range []string{string(mac), ca.orders["2"].authz.Challenges[0].Token, "kid"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}
