package acmeserver

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/chancery-pki/chancery/internal/protocol"
)

const base = "https://ca.test"

// seam is a Nonces that can be told to fail; store.Nonces, the real one, is
// used by the tests with a real authority.
type seam struct {
	mu   sync.Mutex
	next int
	out  map[string]bool
	fail error
}

func (s *seam) New() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out == nil {
		s.out = map[string]bool{}
	}
	s.next++
	nonce := fmt.Sprintf("nonce-%d", s.next)
	s.out[nonce] = true
	return nonce
}

func (s *seam) Use(_ context.Context, nonce string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	good := s.out[nonce]
	delete(s.out, nonce)
	return good, s.fail
}

// signingKey is an ES256 account key, with an independent JWS writer.
type signingKey struct {
	*ecdsa.PrivateKey
}

func newKey(t testing.TB) signingKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signingKey{k}
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (k signingKey) jwk() map[string]any {
	point, err := k.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	return map[string]any{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])}
}

func toJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// sign makes a flattened JWS (RFC 7515 section 7.2.2).
func (k signingKey) sign(protected map[string]any, payload []byte) []byte {
	head, body := b64(toJSON(protected)), b64(payload)
	sum := sha256.Sum256([]byte(head + "." + body))
	r, s, err := ecdsa.Sign(rand.Reader, k.PrivateKey, sum[:])
	if err != nil {
		panic(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return toJSON(map[string]string{"protected": head, "payload": body, "signature": b64(signature)})
}

// answer is a response, read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) object(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(a.body, &m); err != nil {
		t.Fatalf("body %q: %v", a.body, err)
	}
	return m
}

// do sends a request to the handler as net/http would.
func do(h http.Handler, r *http.Request) answer {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w.Code, w.Result().Header, w.Body.Bytes()}
}

func newRequest(method, url string, body []byte) *http.Request {
	r := httptest.NewRequest(method, url, bytes.NewReader(body))
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/jose+json")
	}
	return r
}

// wantProblem checks everything RFC 8555 section 6.7 and issue 2 say of an
// error: type, status equal to `status`, a detail, media type, a fresh nonce,
// the index link.
func wantProblem(t testing.TB, a answer, status int, typ protocol.ProblemType, detail string) {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d, want %d; %s", a.status, status, a.body)
	}
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type %q", got)
	}
	p := a.object(t)
	if want := "urn:ietf:params:acme:error:" + string(typ); p["type"] != want {
		t.Errorf("type %v, want %v; %s", p["type"], want, a.body)
	}
	if p["status"] != float64(status) {
		t.Errorf("status member %v, want %d", p["status"], status)
	}
	text, _ := p["detail"].(string)
	if text == "" || !strings.Contains(text, detail) {
		t.Errorf("detail %q, want it to contain %q", text, detail)
	}
	if p["identifier"] != nil {
		t.Error("identifier at the top level (section 6.7.1)")
	}
	wantCommon(t, a)
}

// wantCommon checks what every answer has.
func wantCommon(t testing.TB, a answer) {
	t.Helper()
	if n := a.header.Values("Replay-Nonce"); len(n) != 1 || strings.Trim(n[0], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" || n[0] == "" {
		t.Errorf("Replay-Nonce %q (section 6.5.1)", n)
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q (section 7.2)", got)
	}
	if got := a.header.Get("Access-Control-Allow-Origin"); got != "*" {
		t.Errorf("Access-Control-Allow-Origin %q (section 6.1)", got)
	}
}
