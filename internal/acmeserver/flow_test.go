package acmeserver

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/ca/operator"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// chainOf reads a PEM chain strictly: nothing before, between or after the
// blocks (RFC 8555 section 9.1).
func chainOf(t *testing.T, text []byte) (chain []*x509.Certificate) {
	t.Helper()
	for len(text) > 0 {
		if !bytes.HasPrefix(text, []byte("-----BEGIN CERTIFICATE-----\n")) {
			t.Fatalf("not strict PEM: %q", text)
		}
		var block *pem.Block
		block, text = pem.Decode(text)
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, c)
	}
	return chain
}

// TestWholeIssuance: six POSTs make a certificate, none of them a poll.
func TestWholeIssuance(t *testing.T) {
	w := newWorld(t)
	u := w.user(t, "main").register()

	a := u.post(u.dir+"new-order", object{"identifiers": dnsNames("WWW.a.test", "192.0.2.1")})
	order := a.object(t)
	if a.status != 201 || order["status"] != "pending" || order["expires"] == nil || order["profile"] != "server" || order["certificate"] != nil {
		t.Fatalf("newOrder: %d %s", a.status, a.body)
	}
	url := a.header.Get("Location")
	if got := order["identifiers"].([]any)[0].(object)["value"]; got != "www.a.test" {
		t.Errorf("identifier %v", got)
	}
	for _, z := range order["authorizations"].([]any) {
		a := u.post(z.(string), nil)
		o := a.object(t)
		if a.status != 200 || o["status"] != "pending" || o["wildcard"] != nil || a.header.Get("Retry-After") != "" {
			t.Errorf("authorization: %d %s %v", a.status, a.body, a.header)
		}
		for _, c := range o["challenges"].([]any) {
			if c := c.(object); c["token"] == "" || c["status"] != "pending" || c["url"] == "" {
				t.Errorf("challenge %v", c)
			}
		}
		c := u.post(u.challengeOf(z, "http-01"), object{})
		if o := c.object(t); c.status != 200 || o["status"] != "valid" || o["validated"] == nil || c.header.Get("Retry-After") != "" {
			t.Errorf("answer to the challenge POST: %d %s", c.status, c.body)
		}
		if !slices.Contains(c.header.Values("Link"), fmt.Sprintf(`<%s>;rel="up"`, z)) {
			t.Errorf("no link up: %q", c.header.Values("Link"))
		}
	}
	if got := u.post(url, nil).object(t)["status"]; got != "ready" {
		t.Fatalf("order is %v", got)
	}
	text, key := csr(t, "www.a.test", "192.0.2.1")
	a = u.post(order["finalize"].(string), object{"csr": text})
	final := a.object(t)
	if a.status != 200 || final["status"] != "valid" || a.header.Get("Location") != url || a.header.Get("Retry-After") != "" {
		t.Fatalf("finalize: %d %s %v", a.status, a.body, a.header)
	}
	a = u.post(final["certificate"].(string), nil)
	if a.status != 200 || a.header.Get("Content-Type") != "application/pem-certificate-chain" {
		t.Fatalf("certificate: %d %v", a.status, a.header)
	}
	chain := chainOf(t, a.body)
	if len(chain) != 2 || !key.PublicKey.Equal(chain[0].PublicKey) || !slices.Equal(chain[0].DNSNames, []string{"www.a.test"}) {
		t.Errorf("chain of %d, %v", len(chain), chain[0].DNSNames)
	}
	above := x509.NewCertPool()
	above.AddCert(chain[1])
	if _, err := chain[0].Verify(x509.VerifyOptions{DNSName: "www.a.test", Roots: w.roots, Intermediates: above}); err != nil {
		t.Error(err)
	}

	// The alternate chain: the same leaf, another way up (section 7.4.2).
	alternate := `<` + final["certificate"].(string) + `/1>;rel="alternate"`
	if !slices.Contains(a.header.Values("Link"), alternate) {
		t.Fatalf("Link %q", a.header.Values("Link"))
	}
	b := u.post(final["certificate"].(string)+"/1", nil)
	other := chainOf(t, b.body)
	if !other[0].Equal(chain[0]) || other[1].Equal(chain[1]) || other[1].Issuer.CommonName != "Root B" {
		t.Error("the alternate chain is not another way up from the same leaf")
	}
	if !slices.Contains(b.header.Values("Link"), `<`+final["certificate"].(string)+`>;rel="alternate"`) {
		t.Errorf("Link %q", b.header.Values("Link"))
	}
	for _, bad := range []string{"/0", "/2", "/01", "/-1", "/99999999999", "/x", "/"} {
		wantProblem(t, u.post(final["certificate"].(string)+bad, nil), 404, protocol.Malformed, "")
	}
	// Who wants pkix-cert first takes PEM too.
	r := newRequest("POST", final["certificate"].(string), u.key.sign(u.head(final["certificate"].(string)), nil))
	r.Header.Set("Accept", "application/pkix-cert")
	if got := do(w.handler, r); got.header.Get("Content-Type") != "application/pem-certificate-chain" {
		t.Errorf("%d %v", got.status, got.header)
	}
}

// TestNewAccount: RFC 8555 sections 7.3 and 7.3.1.
func TestNewAccount(t *testing.T) {
	w := newWorld(t)
	u := w.user(t, "main")
	url := u.dir + "new-account"
	wantProblem(t, u.post(url, object{"onlyReturnExisting": true, "contact": []string{"mailto:a@b.test"}}), 400, protocol.AccountDoesNotExist, "")
	wantProblem(t, u.post(url, object{"contact": []string{"tel:1"}}), 400, protocol.UnsupportedContact, "mailto")
	wantProblem(t, u.post(url, object{"contact": []string{"mailto:x"}}), 400, protocol.InvalidContact, "")
	wantProblem(t, u.post(url, object{"contact": "mailto:a@b.test"}), 400, protocol.Malformed, "contact must be an array")
	wantProblem(t, u.post(url, nil), 400, protocol.Malformed, "payload")

	a := u.post(url, object{
		"contact": []string{"mailto:cert-admin@example.org", "a@b.test"}, "termsOfServiceAgreed": true,
		"orders": "https://evil.test/", "status": "revoked", "resource": "new-reg", "onlyReturnExisting": false,
	})
	kid := a.header.Get("Location")
	if a.status != 201 || !strings.HasPrefix(kid, base+"/acme/main/account/") {
		t.Fatalf("%d %v", a.status, a.header)
	}
	wantJSON(t, a.object(t), `{"status":"valid","contact":["mailto:cert-admin@example.org","a@b.test"],"termsOfServiceAgreed":true,"orders":"`+kid+`/orders"}`)

	// Again: 200, the same URL, and "any fields in the request object MUST be
	// ignored", also those that would be faults.
	for _, again := range []any{object{}, object{"contact": []string{"tel:1"}}, object{"onlyReturnExisting": true, "contact": []string{"mailto:z@b.test"}},
		object{"externalAccountBinding": object{"protected": "nonsense"}}} {
		b := u.post(url, again)
		if b.status != 200 || b.header.Get("Location") != kid || !bytes.Equal(a.body, b.body) {
			t.Errorf("%v: %d %s", again, b.status, b.body)
		}
	}
}

// TestTerms: section 7.3 ("MUST reject newAccount requests that do not have
// the termsOfServiceAgreed field set to true") and the Link of section 7.3.3.
func TestTerms(t *testing.T) {
	w := newWorld(t)
	u := w.user(t, "terms")
	for _, payload := range []object{{}, {"termsOfServiceAgreed": false}} {
		a := u.post(u.dir+"new-account", payload)
		wantProblem(t, a, 403, protocol.UserActionRequired, base+"/terms/terms")
		if !slices.Contains(a.header.Values("Link"), `<`+base+`/terms/terms>;rel="terms-of-service"`) || a.object(t)["instance"] != base+"/terms/terms" {
			t.Errorf("%q %s", a.header.Values("Link"), a.body)
		}
	}
	wantProblem(t, u.post(u.dir+"new-account", object{"onlyReturnExisting": true}), 400, protocol.AccountDoesNotExist, "")
	u.register()
	u.kid = ""
	if a := u.post(u.dir+"new-account", object{}); a.status != 200 {
		t.Errorf("an account that agreed before: %d %s", a.status, a.body)
	}
}

// TestAccount: sections 7.3.2 and 7.3.6.
func TestAccount(t *testing.T) {
	w := newWorld(t)
	u, v := w.user(t, "main").register(), w.user(t, "main").register()
	want := `{"status":"valid","contact":["mailto:a@b.test"],"termsOfServiceAgreed":true,"orders":"` + u.kid + `/orders"}`
	for _, payload := range []any{nil, object{}, object{"termsOfServiceAgreed": false}, object{"status": "revoked"}, object{"status": "valid"},
		object{"orders": "x", "externalAccountBinding": object{}, "unknown": 1}, object{"contact": nil}} {
		a := u.post(u.kid, payload)
		if a.status != 200 {
			t.Fatalf("%v: %d %s", payload, a.status, a.body)
		}
		wantJSON(t, a.object(t), want)
	}
	a := u.post(u.kid, object{"contact": []string{"mailto:new@b.test"}})
	if got := a.object(t)["contact"].([]any)[0]; a.status != 200 || got != "mailto:new@b.test" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a = u.post(u.kid, object{"contact": []string{}}); a.object(t)["contact"] != nil {
		t.Errorf("contacts that were taken back: %s", a.body)
	}
	wantProblem(t, u.post(u.kid, object{"contact": []string{"mailto:"}}), 400, protocol.InvalidContact, "")

	// Another's account, and one that isn't there, look the same.
	nobody := u.dir + "account/00000000000000000000000000"
	for _, payload := range []any{nil, object{}, object{"status": "deactivated"}} {
		a, b := u.post(v.kid, payload), u.post(nobody, payload)
		wantProblem(t, a, 403, protocol.Unauthorized, "")
		if !bytes.Equal(a.body, b.body) {
			t.Errorf("a stranger learns which accounts exist: %s, %s", a.body, b.body)
		}
	}
	if got := v.post(v.kid, nil).object(t)["status"]; got != "valid" {
		t.Fatalf("another's account is %v", got)
	}

	if a = u.post(u.kid, object{"status": "deactivated"}); a.status != 200 || a.object(t)["status"] != "deactivated" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	// "it MUST return an error response with status code 401".
	wantProblem(t, u.post(u.kid, nil), 401, protocol.Unauthorized, "deactivated")
	wantProblem(t, u.post(u.dir+"new-order", object{"identifiers": dnsNames("a.test")}), 401, protocol.Unauthorized, "")
	u.kid = ""
	wantProblem(t, u.post(u.dir+"new-account", object{}), 401, protocol.Unauthorized, "")
}

// TestAccountsBelongToOneDirectory: the same key elsewhere is nobody.
func TestAccountsBelongToOneDirectory(t *testing.T) {
	w := newWorld(t)
	u := w.user(t, "main").register()
	elsewhere := *u
	elsewhere.dir, elsewhere.last = base+"/acme/terms/", ""
	wantProblem(t, elsewhere.post(elsewhere.dir+"new-order", object{"identifiers": dnsNames("a.test")}), 400, protocol.AccountDoesNotExist, "")
	elsewhere.kid = strings.Replace(u.kid, "/main/", "/terms/", 1)
	wantProblem(t, elsewhere.post(elsewhere.dir+"new-order", object{"identifiers": dnsNames("a.test")}), 400, protocol.AccountDoesNotExist, "")
	// An order isn't reachable through another directory either.
	url, _ := u.order("a.test")
	elsewhere.kid = ""
	elsewhere.register()
	wantProblem(t, elsewhere.post(strings.Replace(url, "/main/", "/terms/", 1), nil), 404, protocol.Malformed, "no such order")
}

// TestPostAsGetOfDirectory: "in addition to POST-as-GET requests for these
// resources" (section 6.3).
func TestPostAsGetOfDirectory(t *testing.T) {
	u := newWorld(t).user(t, "main").register()
	if a := u.post(u.dir+"directory", nil); a.status != 200 || a.object(t)["newOrder"] == nil {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := u.post(u.dir+"new-nonce", nil); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
	wantProblem(t, u.post(u.dir+"directory", object{}), 400, protocol.Malformed, "POST-as-GET")
}

// TestReplay: one request, sent again or 32 times at once, counts once.
func TestReplay(t *testing.T) {
	u := newWorld(t).user(t, "main").register()
	text := u.key.sign(u.head(u.kid), nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for range 32 {
		wg.Go(func() {
			a := do(u.handler, newRequest("POST", u.kid, text))
			mu.Lock()
			defer mu.Unlock()
			if statuses[a.status]++; a.status != 200 {
				wantProblem(t, a, 400, protocol.BadNonce, "")
			}
		})
	}
	wg.Wait()
	if statuses[200] != 1 || statuses[400] != 31 {
		t.Errorf("%v", statuses)
	}
}

// TestAnotherKeyForTheAccount: kid names the account, but the signature is a
// stranger's.
func TestAnotherKeyForTheAccount(t *testing.T) {
	w := newWorld(t)
	u, stranger := w.user(t, "main").register(), w.user(t, "main")
	stranger.kid = u.kid
	wantProblem(t, stranger.post(u.kid, nil), 400, protocol.Malformed, "signature")
	stranger.kid = u.dir + "account/00000000000000000000000000"
	wantProblem(t, stranger.post(u.kid, nil), 400, protocol.AccountDoesNotExist, "")
}

// TestExternalAccountBinding: section 7.3.4.
func TestExternalAccountBinding(t *testing.T) {
	w := newWorld(t)
	k, err := w.console.CreateEABKey(t.Context(), operator.Caller{Name: "test", Role: operator.Administrator}, protocol.EABKey{Directory: "eab", Label: "test", MaxAccounts: 3})
	if err != nil {
		t.Fatal(err)
	}
	kid := string(k.ID)
	u := w.user(t, "eab")
	url := u.dir + "new-account"
	with := func(binding any) object { return object{"externalAccountBinding": binding} }
	wantProblem(t, u.post(url, object{}), 403, protocol.ExternalAccountRequired, "")
	wantProblem(t, u.post(url, with(nil)), 403, protocol.ExternalAccountRequired, "")
	wantProblem(t, u.post(url, with(object{})), 400, protocol.Malformed, "")
	wantProblem(t, u.post(url, with("x")), 400, protocol.Malformed, "")
	wantProblem(t, u.post(url, with(bind(kid, k.MACKey, u.dir+"new-order", u.key.jwk()))), 400, protocol.Malformed, "url of the externalAccountBinding")
	wantProblem(t, u.post(url, with(bind(kid, k.MACKey, url, newKey(t).jwk()))), 400, protocol.Malformed, "key that signed")
	// A wrong MAC and a key that isn't there look the same.
	a := u.post(url, with(bind(kid, make([]byte, 32), url, u.key.jwk())))
	b := u.post(url, with(bind("00000000000000000000000000", k.MACKey, url, u.key.jwk())))
	wantProblem(t, a, 403, protocol.Unauthorized, "")
	if !bytes.Equal(a.body, b.body) {
		t.Errorf("a stranger learns which keys exist: %s, %s", a.body, b.body)
	}
	binding := bind(kid, k.MACKey, url, u.key.jwk())
	a = u.post(url, with(binding))
	if a.status != 201 || string(toJSON(a.object(t)["externalAccountBinding"])) != string(toJSON(binding)) {
		t.Errorf("%d %s, want the binding back", a.status, a.body)
	}
	u.kid = a.header.Get("Location")
	if a = u.post(u.kid, nil); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestKeyChange: section 7.3.5, its checks by their numbers.
func TestKeyChange(t *testing.T) {
	w := newWorld(t)
	u, v := w.user(t, "main").register(), w.user(t, "main").register()
	fresh := newKey(t)
	url := u.dir + "key-change"
	inner := func(by signingKey, head, payload object) string {
		h := object{"alg": "ES256", "url": url, "jwk": by.jwk()}
		for name, value := range head {
			if h[name] = value; value == nil {
				delete(h, name)
			}
		}
		return string(by.sign(h, toJSON(payload)))
	}
	right := object{"account": u.kid, "oldKey": u.key.jwk()}
	stolen := string(fresh.sign(object{"alg": "ES256", "url": url, "jwk": v.key.jwk()}, toJSON(right)))
	for name, tt := range map[string]struct {
		payload any
		typ     protocol.ProblemType
		detail  string
	}{
		"2 nothing":               {nil, protocol.Malformed, "inner JWS"},
		"2 no JWS":                {object{"a": 1}, protocol.Malformed, ""},
		"3 kid":                   {inner(fresh, object{"jwk": nil, "kid": u.kid}, right), protocol.Malformed, "jwk"},
		"3 weak key":              {inner(fresh, object{"jwk": object{"kty": "oct", "k": "AAAA"}}, right), protocol.BadPublicKey, ""},
		"a nonce":                 {inner(fresh, object{"nonce": "abc"}, right), protocol.Malformed, "nonce"},
		"4 not signed by the new": {stolen, protocol.Malformed, "signature"},
		"5 no payload":            {string(fresh.sign(object{"alg": "ES256", "url": url, "jwk": fresh.jwk()}, nil)), protocol.Malformed, "keyChange object"},
		"5 no account":            {inner(fresh, nil, object{"oldKey": u.key.jwk()}), protocol.Malformed, "account and oldKey"},
		"5 no oldKey":             {inner(fresh, nil, object{"account": u.kid}), protocol.Malformed, "account and oldKey"},
		"6 other url":             {inner(fresh, object{"url": u.kid}, right), protocol.Malformed, "url of the inner JWS"},
		"7 another's account":     {inner(fresh, nil, object{"account": v.kid, "oldKey": u.key.jwk()}), protocol.Malformed, "account must be"},
		"8 another old key":       {inner(fresh, nil, object{"account": u.kid, "oldKey": v.key.jwk()}), protocol.Malformed, "oldKey"},
		"8 oldKey is no key":      {inner(fresh, nil, object{"account": u.kid, "oldKey": "x"}), protocol.Malformed, "oldKey"},
		"the key it has":          {inner(u.key, nil, right), protocol.Malformed, "present key"},
	} {
		t.Run(name, func(t *testing.T) { wantProblem(t, u.post(url, tt.payload), 400, tt.typ, tt.detail) })
	}
	a := u.post(url, inner(v.key, nil, right)) // 9
	wantProblem(t, a, 409, protocol.Malformed, "")
	if a.header.Get("Location") != v.kid {
		t.Errorf("Location %q, want %q", a.header.Get("Location"), v.kid)
	}

	orderURL, _ := u.order("a.test")
	if a = u.post(url, inner(fresh, nil, right)); a.status != 200 || a.object(t)["status"] != "valid" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	wantProblem(t, u.post(u.kid, nil), 400, protocol.Malformed, "signature") // the old key is out
	u.key = fresh
	if got := u.post(orderURL, nil).object(t)["status"]; got != "pending" {
		t.Errorf("the order is %v after a rollover", got)
	}
}

// TestNewOrderRefused: section 7.4, and what clients were seen to send.
func TestNewOrderRefused(t *testing.T) {
	u := newWorld(t).user(t, "main").register()
	url := u.dir + "new-order"
	soon := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for name, tt := range map[string]struct {
		payload any
		status  int
		typ     protocol.ProblemType
	}{
		"POST-as-GET":           {nil, 400, protocol.Malformed},
		"nothing":               {object{}, 400, protocol.Malformed},
		"no identifiers":        {object{"identifiers": []any{}}, 400, protocol.Malformed},
		"not an array":          {object{"identifiers": "a.test"}, 400, protocol.Malformed},
		"lego 4.9's address":    {object{"identifiers": []object{{"type": "dns", "value": "127.0.0.1"}}}, 400, protocol.Malformed},
		"unknown type":          {object{"identifiers": []object{{"type": "email", "value": "a@b.test"}}}, 400, protocol.UnsupportedIdentifier},
		"twice":                 {object{"identifiers": dnsNames("a.test", "A.test")}, 400, protocol.Malformed},
		"unknown profile":       {object{"identifiers": dnsNames("a.test"), "profile": "gold"}, 400, protocol.InvalidProfile},
		"overlong profile":      {object{"identifiers": dnsNames("a.test"), "profile": strings.Repeat("x", 9999)}, 400, protocol.InvalidProfile},
		"bad date":              {object{"identifiers": dnsNames("a.test"), "notAfter": "tomorrow"}, 400, protocol.Malformed},
		"ends in the past":      {object{"identifiers": dnsNames("a.test"), "notAfter": "2016-01-08T00:00:00Z"}, 400, protocol.Malformed},
		"ends before it begins": {object{"identifiers": dnsNames("a.test"), "notBefore": time.Now().Add(2 * time.Hour).UTC().Format(time.RFC3339), "notAfter": soon}, 400, protocol.Malformed},
		"too long":              {object{"identifiers": dnsNames("a.test"), "notAfter": time.Now().AddDate(10, 0, 0).UTC().Format(time.RFC3339)}, 400, protocol.Malformed},
		"overlong replaces":     {object{"identifiers": dnsNames("a.test"), "replaces": strings.Repeat("x", 9999)}, 400, protocol.Malformed},
		"replaces nonsense":     {object{"identifiers": dnsNames("a.test"), "replaces": "x"}, 400, protocol.Malformed},
		"replaces nothing":      {object{"identifiers": dnsNames("a.test"), "replaces": "AAAA.AQID"}, 404, protocol.Malformed},
	} {
		t.Run(name, func(t *testing.T) { wantProblem(t, u.post(url, tt.payload), tt.status, tt.typ, "") })
	}
	a := u.post(url, object{"identifiers": dnsNames("a_b.test", "ok.test", "c..test")})
	wantProblem(t, a, 400, protocol.Malformed, "")
	if sub, _ := a.object(t)["subproblems"].([]any); len(sub) != 2 || sub[0].(object)["identifier"].(object)["value"] != "a_b.test" {
		t.Errorf("%s", a.body)
	}
	// The step CLI's dates of year 1 are none; those asked for are shown.
	a = u.post(url, object{"identifiers": dnsNames("a.test"), "notBefore": "0001-01-01T00:00:00Z", "notAfter": "0001-01-01T00:00:00Z"})
	if o := a.object(t); a.status != 201 || o["notBefore"] != nil || o["notAfter"] != nil {
		t.Errorf("%d %s", a.status, a.body)
	}
	a = u.post(url, object{"identifiers": dnsNames("a.test"), "notAfter": soon, "profile": "server"})
	if o := a.object(t); a.status != 201 || o["notAfter"] != soon || o["profile"] != "server" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestStrangers: what is another's is as good as not there.
func TestStrangers(t *testing.T) {
	w := newWorld(t)
	u, stranger := w.user(t, "main").register(), w.user(t, "main").register()
	cert, _ := u.issue("a.test")
	orderURL, o := u.order("b.test")
	authz := o["authorizations"].([]any)[0].(string)
	challenge := u.challengeOf(authz, "http-01")
	text, _ := csr(t, "b.test")
	for url, payload := range map[string]any{
		orderURL: nil, o["finalize"].(string): object{"csr": text}, authz: nil, challenge: object{}, cert: nil,
	} {
		a := stranger.post(url, payload)
		wantProblem(t, a, 404, protocol.Malformed, "there is no such")
	}
	wantProblem(t, stranger.post(authz, object{"status": "deactivated"}), 404, protocol.Malformed, "")
	wantProblem(t, stranger.post(challenge, nil), 404, protocol.Malformed, "")
	wantProblem(t, stranger.post(u.kid+"/orders", nil), 403, protocol.Unauthorized, "")
	if got := u.post(authz, nil).object(t)["status"]; got != "pending" {
		t.Errorf("the authorization is %v after a stranger's requests", got)
	}
	for _, path := range []string{"order/x", "order/x/finalize", "authz/x", "challenge/x/http-01", "certificate/x", "certificate/"} {
		payload := any(nil)
		if strings.Contains(path, "finalize") || strings.Contains(path, "challenge") {
			payload = object{"csr": text}
		}
		wantProblem(t, u.post(u.dir+path, payload), 404, protocol.Malformed, "no such")
	}
}

// TestChallenge: sections 7.5.1 and 8.
func TestChallenge(t *testing.T) {
	u := newWorld(t).user(t, "main").register()
	t.Run("POST-as-GET shows and doesn't start it", func(t *testing.T) {
		_, o := u.order("bad.a.test")
		url := u.challengeOf(o["authorizations"].([]any)[0], "http-01")
		a := u.post(url, nil)
		if c := a.object(t); a.status != 200 || c["status"] != "pending" || c["url"] != url || a.header.Get("Retry-After") != "" {
			t.Errorf("%d %s", a.status, a.body)
		}
		if got := u.post(o["authorizations"].([]any)[0].(string), nil).object(t)["status"]; got != "pending" {
			t.Errorf("the authorization is %v", got)
		}
	})
	t.Run("failure makes authorization and order invalid", func(t *testing.T) {
		url, o := u.order("bad.b.test")
		authz := o["authorizations"].([]any)[0].(string)
		a := u.post(u.challengeOf(authz, "http-01"), object{})
		c := a.object(t)
		if a.status != 200 || c["status"] != "invalid" || a.header.Get("Retry-After") != "" {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if e := c["error"].(object); e["type"] != "urn:ietf:params:acme:error:incorrectResponse" || e["status"] == nil {
			t.Errorf("error %v", e)
		}
		z := u.post(authz, nil).object(t)
		if list := z["challenges"].([]any); z["status"] != "invalid" || len(list) != 1 || list[0].(object)["type"] != "http-01" {
			t.Errorf("%v", z)
		}
		if final := u.post(url, nil).object(t); final["status"] != "invalid" || final["error"] == nil {
			t.Errorf("%v", final)
		}
		text, _ := csr(t, "bad.b.test")
		wantProblem(t, u.post(o["finalize"].(string), object{"csr": text}), 403, protocol.OrderNotReady, "")
	})
	t.Run("slow: processing, with Retry-After", func(t *testing.T) {
		_, o := u.order("slow.a.test")
		authz := o["authorizations"].([]any)[0].(string)
		a := u.post(u.challengeOf(authz, "http-01"), object{})
		if a.status != 200 || a.object(t)["status"] != "processing" || a.header.Get("Retry-After") != "1" {
			t.Errorf("%d %s, Retry-After %q", a.status, a.body, a.header.Get("Retry-After"))
		}
		if b := u.post(authz, nil); b.object(t)["status"] != "pending" || b.header.Get("Retry-After") != "1" {
			t.Errorf("%s, Retry-After %q", b.body, b.header.Get("Retry-After"))
		}
		// Giving it up while its validation runs ends it at once.
		if b := u.post(authz, object{"status": "deactivated"}); b.status != 200 || b.object(t)["status"] != "deactivated" {
			t.Errorf("%d %s", b.status, b.body)
		}
	})
	t.Run("to be tried again: the error is shown", func(t *testing.T) {
		_, o := u.order("later.a.test")
		url := u.challengeOf(o["authorizations"].([]any)[0], "dns-01")
		a := u.post(url, object{})
		c := a.object(t)
		if a.status != 200 || c["status"] != "processing" || c["error"] == nil || a.header.Get("Retry-After") != "10" {
			t.Errorf("%d %s, Retry-After %q", a.status, a.body, a.header.Get("Retry-After"))
		}
	})
	t.Run("not offered", func(t *testing.T) {
		_, o := u.order("*.w.test")
		authz := o["authorizations"].([]any)[0].(string)
		z := u.post(authz, nil).object(t)
		if z["wildcard"] != true || z["identifier"].(object)["value"] != "w.test" {
			t.Errorf("%v", z)
		}
		url := strings.Replace(u.challengeOf(authz, "dns-01"), "dns-01", "http-01", 1)
		wantProblem(t, u.post(url, object{}), 404, protocol.Malformed, "no such challenge")
		wantProblem(t, u.post(url, nil), 404, protocol.Malformed, "no such challenge")
	})
	t.Run("old clients' payload", func(t *testing.T) {
		_, o := u.order("old.test")
		a := u.post(u.challengeOf(o["authorizations"].([]any)[0], "http-01"), object{"resource": "challenge", "type": "http-01", "keyAuthorization": "x.y"})
		if a.object(t)["status"] != "valid" {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
	t.Run("dns-persist-01 has its names and a token", func(t *testing.T) {
		_, o := u.order("persist.test")
		c := u.post(u.challengeOf(o["authorizations"].([]any)[0], "dns-persist-01"), nil).object(t)
		if c["token"] == "" || c["issuer-domain-names"].([]any)[0] != "ca.test" || c["accounturi"] != u.kid {
			t.Errorf("%v", c)
		}
	})
}

// TestAuthorization: sections 7.4.1 and 7.5.2.
func TestAuthorization(t *testing.T) {
	u := newWorld(t).user(t, "main").register()
	url := u.dir + "new-authz"
	wantProblem(t, u.post(url, object{"identifier": object{"type": "dns", "value": "*.a.test"}}), 400, protocol.Malformed, "wildcard")
	wantProblem(t, u.post(url, object{"identifier": object{"type": "dns", "value": "a..test"}}), 400, protocol.Malformed, "")
	wantProblem(t, u.post(url, object{}), 400, protocol.UnsupportedIdentifier, "")
	wantProblem(t, u.post(url, object{"identifier": "a.test"}), 400, protocol.Malformed, "must be an object")
	a := u.post(url, object{"identifier": object{"type": "dns", "value": "Pre.test"}})
	authz := a.header.Get("Location")
	if z := a.object(t); a.status != 201 || z["status"] != "pending" || z["identifier"].(object)["value"] != "pre.test" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	wantProblem(t, u.post(authz, object{}), 400, protocol.Malformed, "deactivated")
	wantProblem(t, u.post(authz, object{"status": "valid"}), 400, protocol.Malformed, "deactivated")
	if a = u.post(u.challengeOf(authz, "http-01"), object{}); a.object(t)["status"] != "valid" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	// An order for the name rests on it, and is ready.
	orderURL, o := u.order("pre.test")
	if o["status"] != "ready" || o["authorizations"].([]any)[0] != authz {
		t.Errorf("%v", o)
	}
	z := u.post(authz, nil).object(t)
	if list := z["challenges"].([]any); z["expires"] == nil || len(list) != 1 || list[0].(object)["validated"] == nil {
		t.Errorf("%v", z)
	}
	// x/crypto says more than it should.
	a = u.post(authz, object{"status": "deactivated", "resource": "authz", "delete": true})
	if a.status != 200 || a.object(t)["status"] != "deactivated" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if got := u.post(orderURL, nil).object(t)["status"]; got != "invalid" {
		t.Errorf("the order is %v without its authorization", got)
	}
}

// TestFinalize: section 7.4.
func TestFinalize(t *testing.T) {
	u := newWorld(t).user(t, "main").register()
	url, o := u.order("a.test")
	finalize := o["finalize"].(string)
	text, _ := csr(t, "a.test")
	wantProblem(t, u.post(finalize, object{"csr": text}), 403, protocol.OrderNotReady, "")
	u.prove(o)
	padded := base64.StdEncoding.EncodeToString([]byte("no CSR."))
	for name, tt := range map[string]struct {
		payload any
		typ     protocol.ProblemType
	}{
		"POST-as-GET": {nil, protocol.Malformed}, "nothing": {object{}, protocol.Malformed}, "number": {object{"csr": 1}, protocol.Malformed},
		"padded": {object{"csr": padded}, protocol.Malformed}, "PEM": {object{"csr": "-----BEGIN CERTIFICATE REQUEST-----\n"}, protocol.Malformed},
		"no CSR": {object{"csr": b64([]byte("no CSR"))}, protocol.BadCSR},
	} {
		t.Run(name, func(t *testing.T) { wantProblem(t, u.post(finalize, tt.payload), 400, tt.typ, "") })
	}
	other, _ := csr(t, "b.test")
	wantProblem(t, u.post(finalize, object{"csr": other}), 400, protocol.BadCSR, "")
	if got := u.post(url, nil).object(t)["status"]; got != "ready" {
		t.Fatalf("the order is %v after a bad CSR; it SHOULD stay ready", got)
	}

	// Twenty at once make one certificate.
	var wg sync.WaitGroup
	var mu sync.Mutex
	certificates, statuses := map[any]bool{}, map[int]int{}
	for range 20 {
		request := newRequest("POST", finalize, u.key.sign(u.head(finalize), toJSON(object{"csr": text})))
		wg.Go(func() {
			a := do(u.handler, request)
			mu.Lock()
			defer mu.Unlock()
			if statuses[a.status]++; a.status == 200 {
				certificates[a.object(t)["certificate"]] = true
			} else {
				wantProblem(t, a, 403, protocol.OrderNotReady, "")
			}
		})
	}
	wg.Wait()
	if statuses[200] != 1 || statuses[403] != 19 || len(certificates) != 1 {
		t.Errorf("%v, %d certificates", statuses, len(certificates))
	}
	wantProblem(t, u.post(finalize, object{"csr": text}), 403, protocol.OrderNotReady, "")
}

// TestRevoke: section 7.6.
func TestRevoke(t *testing.T) {
	w := newWorld(t)
	u, stranger := w.user(t, "main").register(), w.user(t, "main").register()
	url := u.dir + "revoke-cert"
	fetch := func() (string, signingKey) {
		at, key := u.issue("a.test")
		return b64(chainOf(t, u.post(at, nil).body)[0].Raw), signingKey{key}
	}
	der, key := fetch()
	wantProblem(t, u.post(url, nil), 400, protocol.Malformed, "")
	wantProblem(t, u.post(url, object{}), 400, protocol.Malformed, "certificate")
	wantProblem(t, u.post(url, object{"certificate": der + "="}), 400, protocol.Malformed, "base64url")
	wantProblem(t, u.post(url, object{"certificate": b64([]byte("x"))}), 400, protocol.Malformed, "")
	for _, reason := range []any{7, 2, 6, 10, 11, -1, 1e9, 1.5, "1", true} {
		wantProblem(t, u.post(url, object{"certificate": der, "reason": reason}), 400, protocol.BadRevocationReason, "")
	}
	wantProblem(t, stranger.post(url, object{"certificate": der}), 403, protocol.Unauthorized, "")
	other := w.user(t, "main") // signs with jwk: a key that isn't the certificate's
	wantProblem(t, other.post(url, object{"certificate": der}), 403, protocol.Unauthorized, "")

	a := u.post(url, object{"certificate": der, "reason": 4})
	if a.status != 200 || len(a.body) != 0 {
		t.Errorf("%d %q", a.status, a.body)
	}
	wantProblem(t, u.post(url, object{"certificate": der}), 400, protocol.AlreadyRevoked, "")
	other.key = key
	wantProblem(t, other.post(url, object{"certificate": der}), 400, protocol.AlreadyRevoked, "")

	der, key = fetch()
	other.key = key // the certificate's own, without an account
	if a = other.post(url, object{"certificate": der, "reason": 1}); a.status != 200 {
		t.Errorf("by certificate key: %d %s", a.status, a.body)
	}

	der, _ = fetch() // by an account that holds the authorizations
	_, o := stranger.order("a.test")
	stranger.prove(o)
	if a = stranger.post(url, object{"certificate": der, "reason": nil}); a.status != 200 {
		t.Errorf("by another account: %d %s", a.status, a.body)
	}
}

// TestRenewalInfo: RFC 9773 sections 4 and 5.
func TestRenewalInfo(t *testing.T) {
	u := newWorld(t).user(t, "main").register()
	at, _ := u.issue("a.test")
	leaf := chainOf(t, u.post(at, nil).body)[0]
	serial := leaf.SerialNumber.Bytes()
	if serial[0]&0x80 != 0 {
		serial = append([]byte{0}, serial...) // as in DER (section 4.1)
	}
	id := b64(leaf.AuthorityKeyId) + "." + b64(serial)
	get := func(id string) answer { return do(u.handler, newRequest("GET", u.dir+"renewal-info/"+id, nil)) }
	a := get(id)
	wantCommon(t, a)
	window, _ := a.object(t)["suggestedWindow"].(object)
	start, err1 := time.Parse(time.RFC3339, fmt.Sprint(window["start"]))
	end, err2 := time.Parse(time.RFC3339, fmt.Sprint(window["end"]))
	if a.status != 200 || err1 != nil || err2 != nil || !start.Before(end) || start.Before(leaf.NotBefore) || end.After(leaf.NotAfter) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if after := a.header.Get("Retry-After"); after == "" || after == "0" {
		t.Errorf("Retry-After %q (section 4.3)", after)
	}
	wantProblem(t, get(b64(leaf.AuthorityKeyId)+"."+b64(append([]byte{1}, serial...))), 404, protocol.Malformed, "")
	wantProblem(t, get("AAAA.AQID"), 404, protocol.Malformed, "")
	for _, bad := range []string{"x", "", id + "=", "a.b.c", strings.Repeat("A", 5000)} {
		if a := get(bad); a.status != 400 && a.status != 404 {
			t.Errorf("%.20q: %d", bad, a.status)
		}
	}

	// replaces: once, and reflected (section 5).
	r := u.post(u.dir+"new-order", object{"identifiers": dnsNames("a.test"), "replaces": id})
	if r.status != 201 || r.object(t)["replaces"] != id {
		t.Errorf("%d %s; replaces MUST be reflected", r.status, r.body)
	}
	if again := u.post(r.header.Get("Location"), nil); again.object(t)["replaces"] != id {
		t.Errorf("%s; replaces MUST be reflected in subsequent requests", again.body)
	}
	o := r.object(t)
	text, _ := csr(t, "a.test")
	if f := u.post(o["finalize"].(string), object{"csr": text}); f.object(t)["status"] != "valid" {
		t.Fatalf("%d %s", f.status, f.body)
	}
	wantProblem(t, u.post(u.dir+"new-order", object{"identifiers": dnsNames("a.test"), "replaces": id}), 409, protocol.AlreadyReplaced, "")
}

// TestOrdersList: section 7.1.2.1, with paging.
func TestOrdersList(t *testing.T) {
	u := newWorld(t).user(t, "main").register()
	want := map[any]bool{}
	next := u.kid + "/orders"
	if a := u.post(next, nil); a.status != 200 || string(a.body) != "{\"orders\":[]}\n" {
		t.Errorf("%d %s, want an empty array", a.status, a.body)
	}
	for range ordersPage + 5 {
		url, _ := u.order("a.test")
		want[url] = true
	}
	pages := 0
	for next != "" {
		a := u.post(next, nil)
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		for _, url := range a.object(t)["orders"].([]any) {
			if !want[url] {
				t.Errorf("%v is unknown, or there twice", url)
			}
			delete(want, url)
		}
		next = ""
		for _, l := range a.header.Values("Link") {
			if url, ok := strings.CutSuffix(l, `>;rel="next"`); ok {
				next = strings.TrimPrefix(url, "<")
			}
		}
		pages++
	}
	if len(want) != 0 || pages != 2 {
		t.Errorf("%d orders missing after %d pages", len(want), pages)
	}
	wantProblem(t, u.post(u.kid+"/orders?cursor=x", nil), 400, protocol.Malformed, "cursor")
	wantProblem(t, u.post(u.kid+"/orders", object{}), 400, protocol.Malformed, "POST-as-GET")
}

// TestPodProof: the payload reaches the validator and no answer shows whose
// proof it was; a cluster that can't be asked is a 503 with Retry-After, after
// which the same challenge is asked for again; and no pod proves ahead of an
// order.
func TestPodProof(t *testing.T) {
	w := newWorld(t)
	u := w.user(t, "pods").register()
	_, o := u.order("away.a.test")
	authz := o["authorizations"].([]any)[0]
	challenge := u.challengeOf(authz, "kubernetes-01")
	for range 2 {
		a := u.post(challenge, object{"serviceAccountToken": "secret"})
		wantProblem(t, a, 503, protocol.ServerInternal, "away")
		if a.header.Get("Retry-After") != "7" {
			t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
		}
		if z := u.post(authz.(string), nil); z.status != 200 || z.object(t)["status"] != "pending" || bytes.Contains(z.body, []byte("error")) {
			t.Errorf("%d %s", z.status, z.body)
		}
	}
	_, o = u.order("web.a.test")
	authz = o["authorizations"].([]any)[0]
	a := u.post(u.challengeOf(authz, "kubernetes-01"), object{"serviceAccountToken": "secret"})
	if c := a.object(t); a.status != 200 || c["status"] != "valid" || fmt.Sprint(c["audiences"]) != "["+base+"/acme/pods/directory]" {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, text := range [][]byte{a.body, u.post(authz.(string), nil).body} {
		if bytes.Contains(text, []byte("secret")) || bytes.Contains(text, []byte("subject")) {
			t.Errorf("too much is told: %s", text)
		}
	}
	wantProblem(t, u.post(u.dir+"new-authz", object{"identifier": object{"type": "dns", "value": "web.a.test"}}), 403, protocol.Unauthorized, "make the order")
}
