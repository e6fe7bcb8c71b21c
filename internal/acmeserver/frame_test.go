package acmeserver

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/jws"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// frameServer serves two directories whose authority is never reached: all
// that it is used for is refused before.
func frameServer(nonces Nonces) *Server {
	return &Server{
		Authority: &ca.Authority{}, Nonces: nonces, BaseURL: base,
		Directories: map[string]Meta{
			"main":  {Website: "https://www.test/", CAAIdentities: []string{"ca.test"}, Profiles: []cert.Profile{{Name: "server", Description: "for servers"}, {Name: "client"}}},
			"other": {TermsOfService: "https://www.test/terms", ExternalAccountRequired: true},
		},
	}
}

const someAccount = base + "/acme/main/account/00000000000000000000000000"

// TestRefusals sends what RFC 8555 section 6 forbids.
func TestRefusals(t *testing.T) {
	key := newKey(t)
	nonces := &seam{}
	h := frameServer(nonces).Handler()
	const newAccountURL, newOrderURL = base + "/acme/main/new-account", base + "/acme/main/new-order"
	// post signs a request that is right but for what it is given.
	post := func(url string, protected map[string]any) *http.Request {
		head := map[string]any{"alg": "ES256", "url": url, "nonce": nonces.New()}
		if strings.HasSuffix(url, "new-account") {
			head["jwk"] = key.jwk()
		} else {
			head["kid"] = someAccount
		}
		for name, value := range protected {
			if head[name] = value; value == nil {
				delete(head, name)
			}
		}
		return newRequest("POST", url, key.sign(head, []byte("{}")))
	}
	header := func(r *http.Request, name, value string) *http.Request {
		r.Header.Set(name, value)
		return r
	}
	body := func(text string) *http.Request { return newRequest("POST", newAccountURL, []byte(text)) }
	truncated := newRequest("POST", newAccountURL, []byte("{"))
	truncated.Body, truncated.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader("{"), failing{io.ErrUnexpectedEOF})), 20
	slow := newRequest("POST", newAccountURL, nil)
	slow.Body, slow.ContentLength = io.NopCloser(failing{os.ErrDeadlineExceeded}), 20
	announced := newRequest("POST", newAccountURL, nil)
	announced.Body, announced.ContentLength = io.NopCloser(failing{errors.New("the body was read")}), jws.MaxBody+1
	chunked := newRequest("POST", newAccountURL, bytes.Repeat([]byte(" "), 10<<20))
	chunked.ContentLength = -1
	forgedHost := post("https://evil.test/acme/main/new-account", nil)
	forgedHost.Host = "evil.test"
	compact := "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"

	tests := []struct {
		name    string // and the section of RFC 8555
		request *http.Request
		status  int
		typ     protocol.ProblemType
		detail  string
	}{
		{"path that is nothing", newRequest("GET", base+"/", nil), 404, protocol.Malformed, "begin at the directory"},
		{"unknown directory", newRequest("GET", base+"/acme/nosuch/directory", nil), 404, protocol.Malformed, ""},
		{"directory with a slash", newRequest("GET", base+"/acme/main/directory/", nil), 404, protocol.Malformed, ""},
		{"directory with an escape", newRequest("GET", base+"/acme/main/director%79", nil), 404, protocol.Malformed, ""},
		{"path with dots", newRequest("GET", base+"/acme/main/x/../directory", nil), 404, protocol.Malformed, ""},
		{"too many words", newRequest("POST", base+"/acme/main/order/a/finalize/b", nil), 404, protocol.Malformed, ""},
		{"6.3 GET of an account", newRequest("GET", someAccount, nil), 405, protocol.Malformed, "POST-as-GET"},
		{"6.3 GET of newOrder", newRequest("GET", newOrderURL, nil), 405, protocol.Malformed, "POST"},
		{"6.3 GET of a certificate", newRequest("GET", base+"/acme/main/certificate/00", nil), 405, protocol.Malformed, "POST-as-GET"},
		{"PUT", newRequest("PUT", newAccountURL, nil), 405, protocol.Malformed, "PUT"},
		{"POST of renewalInfo", newRequest("POST", base+"/acme/main/renewal-info/a.b", nil), 405, protocol.Malformed, "GET"},
		{"6.2 no Content-Type", header(post(newAccountURL, nil), "Content-Type", ""), 415, protocol.Malformed, "application/jose+json"},
		{"6.2 other Content-Type", header(post(newAccountURL, nil), "Content-Type", "application/json"), 415, protocol.Malformed, "application/jose+json"},
		{"6.2 longer Content-Type", header(post(newAccountURL, nil), "Content-Type", "application/jose+jsonx"), 415, protocol.Malformed, ""},
		{"compressed", header(post(newAccountURL, nil), "Content-Encoding", "gzip"), 415, protocol.Malformed, "Content-Encoding"},
		{"long body announced", announced, 413, protocol.Malformed, "131072"},
		{"long body not announced", chunked, 413, protocol.Malformed, "131072"},
		{"body cut short", truncated, 400, protocol.Malformed, "ended early"},
		{"body too slow", slow, 408, protocol.Malformed, "in time"},
		{"empty body", body(""), 400, protocol.Malformed, ""},
		{"not JSON", body("hello"), 400, protocol.Malformed, ""},
		{"6.2 compact", body(compact), 400, protocol.Malformed, ""},
		{"6.2 not signed", body("{}"), 400, protocol.Malformed, ""},
		{"6.2 alg none", post(newAccountURL, map[string]any{"alg": "none"}), 400, protocol.BadSignatureAlgorithm, "ES256"},
		{"6.2 alg HS256", post(newAccountURL, map[string]any{"alg": "HS256"}), 400, protocol.BadSignatureAlgorithm, "ES256"},
		{"6.2 alg of another key", post(newAccountURL, map[string]any{"alg": "RS256"}), 400, protocol.BadSignatureAlgorithm, "ES256"},
		{"6.2 jwk of a kind we don't take", post(newAccountURL, map[string]any{"jwk": map[string]any{"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}}), 400, protocol.BadPublicKey, "P-256"},
		{"6.2 jwk and kid", post(newAccountURL, map[string]any{"kid": someAccount}), 400, protocol.Malformed, "either jwk or kid"},
		{"6.2 neither", post(newAccountURL, map[string]any{"jwk": nil}), 400, protocol.Malformed, "either jwk or kid"},
		{"6.2 kid at newAccount", post(newAccountURL, map[string]any{"jwk": nil, "kid": someAccount}), 400, protocol.Malformed, "wants the account's public key as jwk"},
		{"6.2 jwk at newOrder", post(newOrderURL, map[string]any{"kid": nil, "jwk": key.jwk()}), 400, protocol.Malformed, "wants the account's URL as kid"},
		{"6.2 kid is no URL", post(newOrderURL, map[string]any{"kid": "me"}), 400, protocol.AccountDoesNotExist, base + "/acme/main/account/"},
		{"6.2 kid of another directory", post(newOrderURL, map[string]any{"kid": strings.Replace(someAccount, "main", "other", 1)}), 400, protocol.AccountDoesNotExist, ""},
		{"6.2 kid of another host", post(newOrderURL, map[string]any{"kid": strings.Replace(someAccount, "ca.test", "evil.test", 1)}), 400, protocol.AccountDoesNotExist, ""},
		{"6.2 kid with more", post(newOrderURL, map[string]any{"kid": someAccount + "/"}), 400, protocol.AccountDoesNotExist, ""},
		{"6.4 url of another resource", post(newAccountURL, map[string]any{"url": newOrderURL}), 403, protocol.Unauthorized, newAccountURL},
		{"6.4 url of another host", post(newAccountURL, map[string]any{"url": "https://evil.test/acme/main/new-account"}), 403, protocol.Unauthorized, newAccountURL},
		{"6.4 url of another scheme", post(newAccountURL, map[string]any{"url": "http://ca.test/acme/main/new-account"}), 403, protocol.Unauthorized, newAccountURL},
		{"6.4 url without its query", post(newAccountURL+"?a=b", map[string]any{"url": newAccountURL, "jwk": key.jwk(), "kid": nil}), 403, protocol.Unauthorized, "?a=b"},
		{"6.4 forged Host", forgedHost, 403, protocol.Unauthorized, newAccountURL},
		{"6.5 no nonce", post(newAccountURL, map[string]any{"nonce": nil}), 400, protocol.BadNonce, "Replay-Nonce"},
		{"6.5 empty nonce", post(newAccountURL, map[string]any{"nonce": ""}), 400, protocol.BadNonce, "Replay-Nonce"},
		{"6.5 unknown nonce", post(newAccountURL, map[string]any{"nonce": "abc"}), 400, protocol.BadNonce, "Replay-Nonce"},
		{"6.5.2 nonce that is not base64url", post(newAccountURL, map[string]any{"nonce": "a b"}), 400, protocol.Malformed, "base64url"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := do(h, tt.request)
			wantProblem(t, a, tt.status, tt.typ, tt.detail)
			if tt.typ == protocol.BadSignatureAlgorithm { // section 6.2 MUST
				if list, _ := a.object(t)["algorithms"].([]any); len(list) != 5 {
					t.Errorf("algorithms %v", list)
				}
			}
			if tt.status == 405 && a.header.Get("Allow") == "" {
				t.Error("405 without Allow (RFC 9110 section 15.5.6)")
			}
			if tt.status != 404 && a.header.Get("Link") != `<`+base+`/acme/main/directory>;rel="index"` {
				t.Errorf("Link %q (section 7.1)", a.header.Values("Link"))
			}
		})
	}
}

// failing is a body whose reading ends with an error.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestParametersOfContentType: the media type is compared, not the header.
func TestParametersOfContentType(t *testing.T) {
	for _, ok := range []string{"application/jose+json", "application/jose+json; charset=utf-8", "Application/JOSE+JSON"} {
		r := newRequest("POST", base+"/acme/main/new-account", []byte("x"))
		r.Header.Set("Content-Type", ok)
		wantProblem(t, do(frameServer(&seam{}).Handler(), r), 400, protocol.Malformed, "JSON")
	}
}

// TestSignatureMustVerify: any change to what was signed is refused, with a
// problem that isn't the one for accounts that have ended.
func TestSignatureMustVerify(t *testing.T) {
	key, nonces := newKey(t), &seam{}
	h := frameServer(nonces).Handler()
	url := base + "/acme/main/new-account"
	other := newKey(t)
	text := other.sign(map[string]any{"alg": "ES256", "url": url, "nonce": nonces.New(), "jwk": key.jwk()}, []byte("{}"))
	wantProblem(t, do(h, newRequest("POST", url, text)), 400, protocol.Malformed, "signature")
}

// TestNonceIsSpent: "Once a nonce value has appeared in an ACME request, the
// server MUST consider it invalid" (RFC 8555 section 6.5), whatever was wrong
// with that request.
func TestNonceIsSpent(t *testing.T) {
	key, nonces := newKey(t), &seam{}
	h := frameServer(nonces).Handler()
	url := base + "/acme/main/new-account"
	nonce := nonces.New()
	head := map[string]any{"alg": "ES256", "url": url + "x", "nonce": nonce, "jwk": key.jwk()}
	wantProblem(t, do(h, newRequest("POST", url, key.sign(head, nil))), 403, protocol.Unauthorized, "")
	head["url"] = url
	a := do(h, newRequest("POST", url, key.sign(head, nil)))
	wantProblem(t, a, 400, protocol.BadNonce, "")
	// "An error response with the badNonce error type MUST include a
	// Replay-Nonce header field with a fresh nonce that the server will accept".
	head["nonce"] = a.header.Get("Replay-Nonce")
	wantProblem(t, do(h, newRequest("POST", url, key.sign(head, nil))), 400, protocol.Malformed, "payload")
}

// TestTrouble: the server's own errors show nothing of themselves, say when to
// come back, and are in the log.
func TestTrouble(t *testing.T) {
	key := newKey(t)
	for _, tt := range []struct {
		err    error
		status int
	}{
		{errors.New("secret of the database"), 500},
		{errors.Join(errors.New("secret of the database"), store.ErrUnavailable), 503},
	} {
		var log bytes.Buffer
		var seen []Observation
		nonces := &seam{fail: tt.err}
		s := frameServer(nonces)
		s.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s.Observe = func(o Observation) { seen = append(seen, o) }
		url := base + "/acme/main/new-account"
		r := newRequest("POST", url, key.sign(map[string]any{"alg": "ES256", "url": url, "nonce": nonces.New(), "jwk": key.jwk()}, nil))
		a := do(s.Handler(), r)
		wantProblem(t, a, tt.status, protocol.ServerInternal, "")
		if bytes.Contains(a.body, []byte("secret")) {
			t.Errorf("the answer shows the error: %s", a.body)
		}
		if a.header.Get("Retry-After") != "5" {
			t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
		}
		if !strings.Contains(log.String(), "secret of the database") || !strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("log %s", log.String())
		}
		if len(seen) != 1 || seen[0].Resource != "newAccount" || seen[0].Directory != "main" || seen[0].Status != tt.status || seen[0].Problem != protocol.ServerInternal {
			t.Errorf("observed %+v", seen)
		}
	}
}

// TestOneRecordPerRequest: what a client sends is bounded and quoted in it.
func TestOneRecordPerRequest(t *testing.T) {
	var log bytes.Buffer
	s := frameServer(&seam{})
	s.Logger = slog.New(slog.NewTextHandler(&log, nil))
	r := newRequest("GET", base+"/acme/main/profile/"+strings.Repeat("a", 5000), nil)
	r.Header.Set("User-Agent", "evil\nlevel=ERROR "+strings.Repeat("b", 5000))
	do(s.Handler(), r)
	line := log.String()
	if strings.Count(line, "\n") != 1 || len(line) > 1000 {
		t.Errorf("%d bytes: %.1200s", len(line), line)
	}
	for _, want := range []string{"directory=main", "resource=profile", "method=GET", "status=404", "took=", "peer=192.0.2.1:1234", "problem=malformed"} {
		if !strings.Contains(line, want) {
			t.Errorf("no %s in %s", want, line)
		}
	}
}

// TestForwardedHeadersAreNotBelieved: the peer is the connection's.
func TestForwardedHeadersAreNotBelieved(t *testing.T) {
	r := newRequest("GET", base+"/acme/main/directory", nil)
	r.RemoteAddr = "[::ffff:192.0.2.7]:99"
	r.Header.Set("X-Forwarded-For", "198.51.100.1")
	r.Header.Set("Forwarded", "for=198.51.100.1")
	r.Header.Set("X-Real-IP", "198.51.100.1")
	if got := peerOf(r).String(); got != "192.0.2.7:99" {
		t.Errorf("peer %s", got)
	}
}

// TestDirectory: RFC 8555 section 7.1.1; every URL comes from BaseURL, and
// those that need no signature resolve.
func TestDirectory(t *testing.T) {
	h := frameServer(&seam{}).Handler()
	r := newRequest("GET", base+"/acme/main/directory", nil)
	r.Host = "evil.test"
	r.Header.Set("X-Forwarded-Host", "evil.test")
	a := do(h, r)
	if n := a.header.Get("Replay-Nonce"); n != "" { // ruby-acme-client can't bear one here
		t.Errorf("Replay-Nonce %q", n)
	}
	if a.status != 200 || a.header.Get("Content-Type") != "application/json" || a.header.Get("Link") != "" {
		t.Errorf("%d %v", a.status, a.header)
	}
	if bytes.Contains(a.body, []byte("evil")) {
		t.Errorf("a URL is built from a forged Host: %s", a.body)
	}
	d := a.object(t)
	for name, path := range map[string]string{
		"newNonce": "new-nonce", "newAccount": "new-account", "newOrder": "new-order", "newAuthz": "new-authz",
		"revokeCert": "revoke-cert", "keyChange": "key-change", "renewalInfo": "renewal-info",
	} {
		if d[name] != base+"/acme/main/"+path {
			t.Errorf("%s is %v", name, d[name])
		}
	}
	meta := d["meta"].(map[string]any)
	if meta["website"] != "https://www.test/" || meta["externalAccountRequired"] != false || meta["caaIdentities"].([]any)[0] != "ca.test" {
		t.Errorf("meta %v", meta)
	}
	profiles := meta["profiles"].(map[string]any)
	if len(profiles) != 2 {
		t.Errorf("profiles %v", profiles)
	}
	for _, url := range []any{meta["termsOfService"], profiles["server"], profiles["client"]} {
		if page := do(h, newRequest("GET", url.(string), nil)); page.status != 200 || len(page.body) == 0 || !strings.HasPrefix(page.header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %d %s", url, page.status, page.body)
		}
	}
	meta = do(h, newRequest("GET", base+"/acme/other/directory", nil)).object(t)["meta"].(map[string]any)
	if meta["termsOfService"] != "https://www.test/terms" || meta["externalAccountRequired"] != true {
		t.Errorf("meta %v", meta)
	}
}

// TestNewNonce: RFC 8555 section 7.2.
func TestNewNonce(t *testing.T) {
	h := frameServer(&seam{}).Handler()
	seen := map[string]bool{}
	for method, status := range map[string]int{"HEAD": 200, "GET": 204} {
		a := do(h, newRequest(method, base+"/acme/main/new-nonce", nil))
		wantCommon(t, a)
		if a.status != status || len(a.body) != 0 {
			t.Errorf("%s: %d, body %q", method, a.status, a.body)
		}
		if seen[a.header.Get("Replay-Nonce")] {
			t.Error("the same nonce twice")
		}
		seen[a.header.Get("Replay-Nonce")] = true
		if a.header.Get("Link") != `<`+base+`/acme/main/directory>;rel="index"` {
			t.Errorf("%s: Link %q", method, a.header.Get("Link"))
		}
	}
}

// TestPreflight: browsers ask before they post (RFC 8555 section 6.1).
func TestPreflight(t *testing.T) {
	r := newRequest("OPTIONS", base+"/acme/main/new-order", nil)
	r.Header.Set("Origin", "https://app.test")
	r.Header.Set("Access-Control-Request-Method", "POST")
	a := do(frameServer(&seam{}).Handler(), r)
	wantCommon(t, a)
	if a.status != 204 || !strings.Contains(a.header.Get("Access-Control-Allow-Methods"), "POST") || a.header.Get("Access-Control-Allow-Headers") != "Content-Type" {
		t.Errorf("%d %v", a.status, a.header)
	}
	if got := a.header.Get("Access-Control-Expose-Headers"); !strings.Contains(got, "Replay-Nonce") || !strings.Contains(got, "Location") || !strings.Contains(got, "Link") {
		t.Errorf("a script can't read what it needs: %q", got)
	}
}

// TestEveryPathAnswers: no method or path makes a 5xx or a panic.
func TestEveryPathAnswers(t *testing.T) {
	h := frameServer(&seam{}).Handler()
	for _, path := range []string{"*", "/", "//", "/acme", "/acme/", "/acme/main", "/acme/main/", "/acme/main//", "/acme/main/order", "/acme/main/order/", "/acme/main/challenge/x",
		"/acme/main/certificate/x/y", "/acme/main/account//orders", "/terms/", "/terms/nosuch", "/terms/main", "/acme/main/renewal-info/"} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "BREW"} {
			r := &http.Request{Method: method, URL: newRequest("GET", base+"/", nil).URL, Header: http.Header{}, Body: http.NoBody}
			r.URL.Path = path
			if path == "/acme/main/renewal-info/" && method != "POST" {
				continue // reaches the authority
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code >= 500 || w.Code == 0 {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
}
