package harness

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
)

// Raw is an ACME client that sends what it is told and shows what came back:
// for what a client in the field was seen to do and no library will. Its
// account keys are P-256.
type Raw struct {
	w    *World
	http *http.Client
	// Dir is the directory, name by name.
	Dir map[string]any
	// Key signs; KID is the account's URL, or empty before there is one.
	Key   *ecdsa.PrivateKey
	KID   string
	nonce string
}

// Answer is what the server answered.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	// JSON is the body where it is a JSON object.
	JSON map[string]any
}

// S is a text member of the answer, or "".
func (a Answer) S(name string) string {
	s, _ := a.JSON[name].(string)
	return s
}

// Raw makes a client of a directory, with a new key and no account.
func (w *World) Raw(ca *CA, directory string) *Raw {
	w.Helper()
	r := &Raw{w: w, http: ca.HTTPClient(), Key: w.NewKey()}
	r.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	r.Dir = r.Get(directory).JSON
	return r
}

// URL is the directory's URL of that name.
func (r *Raw) URL(name string) string {
	r.w.Helper()
	u, ok := r.Dir[name].(string)
	if !ok {
		r.w.Fatalf("the directory has no %s: %v", name, r.Dir)
	}
	return u
}

// Get sends a plain GET.
func (r *Raw) Get(url string) Answer {
	r.w.Helper()
	req, err := http.NewRequestWithContext(r.w.Context(), http.MethodGet, url, nil)
	if err != nil {
		r.w.Fatal(err)
	}
	return r.do(req)
}

// Nonce is a new nonce.
func (r *Raw) Nonce() string {
	r.w.Helper()
	req, err := http.NewRequestWithContext(r.w.Context(), http.MethodHead, r.URL("newNonce"), nil)
	if err != nil {
		r.w.Fatal(err)
	}
	n := r.do(req).Header.Get("Replay-Nonce")
	if n == "" {
		r.w.Fatal("newNonce gave no nonce")
	}
	return n
}

// Account makes an account with the members given and remembers its URL.
func (r *Raw) Account(members map[string]any) Answer {
	r.w.Helper()
	body := map[string]any{"termsOfServiceAgreed": true}
	for k, v := range members {
		body[k] = v
	}
	a := r.Post(r.URL("newAccount"), body)
	r.KID = a.Header.Get("Location")
	return a
}

// Post sends a payload signed by the account, by its key itself as long as
// there is no account. A nil payload makes it a POST-as-GET.
func (r *Raw) Post(url string, payload any) Answer {
	r.w.Helper()
	nonce := r.nonce
	r.nonce = ""
	if nonce == "" {
		nonce = r.Nonce()
	}
	return r.PostNonce(url, payload, nonce)
}

// PostNonce is Post with a nonce of the caller's.
func (r *Raw) PostNonce(url string, payload any, nonce string) Answer {
	r.w.Helper()
	protected := map[string]any{"nonce": nonce, "url": url}
	if r.KID != "" {
		protected["kid"] = r.KID
	} else {
		protected["jwk"] = JWK(r.Key)
	}
	return r.send(url, r.w.jws(r.Key, protected, payload))
}

// PostKey is Post signed by another key, which is named by itself: revocation
// by a certificate's key.
func (r *Raw) PostKey(key *ecdsa.PrivateKey, url string, payload any) Answer {
	r.w.Helper()
	return r.send(url, r.w.jws(key, map[string]any{"nonce": r.Nonce(), "url": url, "jwk": JWK(key)}, payload))
}

func (r *Raw) send(url string, body []byte) Answer {
	r.w.Helper()
	req, err := http.NewRequestWithContext(r.w.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		r.w.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/jose+json")
	a := r.do(req)
	r.nonce = a.Header.Get("Replay-Nonce")
	return a
}

func (r *Raw) do(req *http.Request) Answer {
	r.w.Helper()
	res, err := r.http.Do(req)
	if err != nil {
		r.w.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		r.w.Fatal(err)
	}
	a := Answer{Status: res.StatusCode, Header: res.Header, Body: b}
	_ = json.Unmarshal(b, &a.JSON) // a certificate isn't JSON
	return a
}

// Want fails the test where the answer's status is another.
func (r *Raw) Want(status int, a Answer) Answer {
	r.w.Helper()
	if a.Status != status {
		r.w.Fatalf("answered %d, want %d: %s", a.Status, status, a.Body)
	}
	return a
}

// Problem fails the test where the answer isn't a problem of one of the types
// (RFC 8555, 6.7) with a status of 4xx that equals the HTTP one.
func (r *Raw) Problem(a Answer, types ...string) {
	r.w.Helper()
	status, _ := a.JSON["status"].(float64)
	media, _, _ := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if a.Status/100 != 4 || int(status) != a.Status || media != "application/problem+json" {
		r.w.Errorf("answered %d (%s), want a problem: %s", a.Status, a.Header.Get("Content-Type"), a.Body)
	}
	for _, t := range types {
		if a.S("type") == "urn:ietf:params:acme:error:"+t {
			return
		}
	}
	r.w.Errorf("the problem is %s, want one of %q: %s", a.S("type"), types, a.Body)
}

// KeyAuth is a token's key authorization (RFC 8555, 8.1).
func (r *Raw) KeyAuth(token string) string { return token + "." + thumbprint(r.Key) }

// KeyAuthDigest is what a dns-01 record says (RFC 8555, 8.4).
func (r *Raw) KeyAuthDigest(token string) string {
	sum := sha256.Sum256([]byte(r.KeyAuth(token)))
	return B64(sum[:])
}

// Order makes an order for identifiers of DNS names.
func (r *Raw) Order(members map[string]any, names ...string) Answer {
	r.w.Helper()
	var ids []map[string]string
	for _, n := range names {
		ids = append(ids, map[string]string{"type": "dns", "value": n})
	}
	body := map[string]any{"identifiers": ids}
	for k, v := range members {
		body[k] = v
	}
	return r.Post(r.URL("newOrder"), body)
}

// Authz fetches each of an order's authorizations.
func (r *Raw) Authz(order Answer) []Answer {
	r.w.Helper()
	var all []Answer
	for _, u := range order.JSON["authorizations"].([]any) {
		all = append(all, r.Want(http.StatusOK, r.Post(u.(string), nil)))
	}
	return all
}

// Challenge finds a challenge of the authorization.
func (r *Raw) Challenge(authz Answer, kind string) map[string]any {
	r.w.Helper()
	for _, c := range authz.JSON["challenges"].([]any) {
		if c := c.(map[string]any); c["type"] == kind {
			return c
		}
	}
	r.w.Fatalf("no challenge %s is offered: %s", kind, authz.Body)
	return nil
}

// Prove proves an order's names by http-01 and returns it when it is ready.
func (r *Raw) Prove(order Answer, responder *Responder) Answer {
	r.w.Helper()
	for _, z := range r.Authz(order) {
		if z.S("status") != "pending" {
			continue
		}
		ch := r.Challenge(z, "http-01")
		responder.HTTP(ch["token"].(string), r.KeyAuth(ch["token"].(string)))
		r.Want(http.StatusOK, r.Post(ch["url"].(string), map[string]any{}))
	}
	return r.Wait(order.Header.Get("Location"), "ready")
}

// Wait polls an object until it has the status.
func (r *Raw) Wait(url, status string) Answer {
	r.w.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		a := r.Want(http.StatusOK, r.Post(url, nil))
		if a.S("status") == status {
			return a
		}
		if a.S("status") == "invalid" || time.Now().After(end) {
			r.w.Fatalf("%s is %s, want %s: %s", url, a.S("status"), status, a.Body)
		}
	}
}

// Finalize sends a request for a certificate with this key and these names.
func (r *Raw) Finalize(order Answer, key crypto.Signer, names ...string) Answer {
	r.w.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key)
	if err != nil {
		r.w.Fatal(err)
	}
	return r.Post(order.S("finalize"), map[string]string{"csr": B64(der)})
}

// Issue gets a certificate by http-01 and returns its chain as PEM.
func (r *Raw) Issue(responder *Responder, key crypto.Signer, members map[string]any, names ...string) string {
	r.w.Helper()
	order := r.Want(http.StatusCreated, r.Order(members, names...))
	url := order.Header.Get("Location")
	order = r.Prove(order, responder)
	r.Want(http.StatusOK, r.Finalize(order, key, names...))
	return string(r.Want(http.StatusOK, r.Post(r.Wait(url, "valid").S("certificate"), nil)).Body)
}

// EAB is the externalAccountBinding of the client's key (RFC 8555, 7.3.4).
func (r *Raw) EAB(kid, key, alg string) json.RawMessage {
	r.w.Helper()
	secret, err := base64.RawURLEncoding.DecodeString(key)
	if err != nil {
		r.w.Fatal(err)
	}
	protected := r.w.b64JSON(map[string]any{"alg": alg, "kid": kid, "url": r.URL("newAccount")})
	payload := r.w.b64JSON(JWK(r.Key))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(protected + "." + payload))
	return frame(protected, payload, mac.Sum(nil))
}

// RollTo changes the account's key (RFC 8555, 7.3.5).
func (r *Raw) RollTo(key *ecdsa.PrivateKey) Answer {
	r.w.Helper()
	url := r.URL("keyChange")
	inner := r.w.jws(key, map[string]any{"jwk": JWK(key), "url": url}, map[string]any{"account": r.KID, "oldKey": JWK(r.Key)})
	a := r.Post(url, json.RawMessage(inner))
	if a.Status == http.StatusOK {
		r.Key = key
	}
	return a
}

// jws is a flattened JWS, ES256; a nil payload is an empty one.
func (w *World) jws(key *ecdsa.PrivateKey, protected map[string]any, payload any) []byte {
	w.Helper()
	protected["alg"] = "ES256"
	head, body := w.b64JSON(protected), ""
	if payload != nil {
		body = w.b64JSON(payload)
	}
	sum := sha256.Sum256([]byte(head + "." + body))
	rr, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		w.Fatal(err)
	}
	sig := make([]byte, 64)
	rr.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return frame(head, body, sig)
}

func frame(head, body string, sig []byte) []byte {
	b, _ := json.Marshal(map[string]string{"protected": head, "payload": body, "signature": B64(sig)}) // strings always marshal
	return b
}

// JWK is a P-256 key's public half (RFC 7518, 6.2).
func JWK(key *ecdsa.PrivateKey) map[string]string {
	point, _ := key.PublicKey.Bytes() // a key made here is on its curve
	return map[string]string{"crv": "P-256", "kty": "EC", "x": B64(point[1:33]), "y": B64(point[33:])}
}

// thumbprint is a key's SHA-256 thumbprint (RFC 7638).
func thumbprint(key *ecdsa.PrivateKey) string {
	b, _ := json.Marshal(JWK(key)) // members sorted, as the RFC wants
	sum := sha256.Sum256(b)
	return B64(sum[:])
}

func (w *World) b64JSON(v any) string {
	w.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		w.Fatal(err)
	}
	return B64(b)
}

// B64 is base64url without padding.
func B64(b []byte) string { return strings.TrimRight(base64.URLEncoding.EncodeToString(b), "=") }
