package acmeserver

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

// oddities take the place of every value that a client may send.
var oddities = []any{
	nil, true, 0, -1, 1.5, json.Number("1e999"), json.Number("99999999999999999999"), "", " ", "x", "\x01\x7f", "ünï\u202e", "../..", "a\x00b",
	strings.Repeat("A", 70000), []any{}, []any{nil}, []any{[]any{[]any{}}}, map[string]any{}, map[string]any{"type": nil}, map[string]any{"": ""},
}

// mutations calls yield with v changed in one place at a time.
func mutations(v any, yield func(any)) {
	for _, odd := range oddities {
		yield(odd)
	}
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			changed := maps.Clone(v)
			mutations(v[name], func(m any) { changed[name] = m; yield(changed) })
			delete(changed, name)
			yield(changed)
		}
	case []any:
		for i := range v {
			changed := slices.Clone(v)
			mutations(v[i], func(m any) { changed[i] = m; yield(changed) })
		}
	}
}

// TestMutatedPayloads: whatever a client with a good signature says, it gets
// no 5xx and no bare error.
func TestMutatedPayloads(t *testing.T) {
	w := newWorld(t)
	u := w.user(t, "main").register()
	certURL, _ := u.issue("a.test")
	der := chainOf(t, u.post(certURL, nil).body)[0].Raw
	_, pending := u.order("b.test")
	authz := pending["authorizations"].([]any)[0].(string)
	_, ready := u.order("a.test")  // its authorization is there already
	request, _ := csr(t, "c.test") // not this order's: it stays ready
	inner := u.key.sign(object{"alg": "ES256", "url": u.dir + "key-change", "jwk": u.key.jwk()}, toJSON(object{"account": u.kid, "oldKey": u.key.jwk()}))
	var innerObject object
	if err := json.Unmarshal(inner, &innerObject); err != nil {
		t.Fatal(err)
	}
	binding := bind("00000000000000000000000000", make([]byte, 32), u.dir+"new-account", u.key.jwk())
	ids := []any{object{"type": "dns", "value": "a.test"}, object{"type": "ip", "value": "::1"}}
	sent := 0
	for url, payload := range map[string]object{
		u.dir + "new-order":        {"identifiers": ids, "notBefore": "2030-01-01T00:00:00Z", "notAfter": "2030-01-02T00:00:00Z", "profile": "server", "replaces": "AAAA.AQID"},
		u.dir + "new-authz":        {"identifier": object{"type": "dns", "value": "a.test"}},
		u.kid:                      {"contact": []any{"mailto:a@b.test"}, "status": "valid"},
		authz:                      {"status": "pending"},
		ready["finalize"].(string): {"csr": request},
		u.dir + "revoke-cert":      {"certificate": b64(der[:len(der)-1]), "reason": 1},
		u.dir + "key-change":       innerObject,
		u.kid + "/orders":          {"cursor": "x"},
		certURL:                    {"x": 1},
	} {
		mutations(payload, func(m any) {
			sent++
			if a := u.post(url, string(toJSON(m))); a.status >= 500 {
				t.Errorf("%s: %d %s for %.200s", url, a.status, a.body, toJSON(m))
			}
		})
	}
	if sent < 500 {
		t.Errorf("only %d requests were sent", sent)
	}
	v := w.user(t, "eab")
	mutations(object{"contact": []any{"mailto:a@b.test"}, "termsOfServiceAgreed": true, "onlyReturnExisting": false, "externalAccountBinding": binding}, func(m any) {
		if a := v.post(v.dir+"new-account", string(toJSON(m))); a.status >= 500 || a.status < 300 {
			t.Errorf("newAccount: %d %s for %.200s", a.status, a.body, toJSON(m))
		}
	})
}

// generous takes every nonce, so that the checks behind it are reached.
type generous struct{ seam }

func (*generous) Use(context.Context, string) (bool, error) { return true, nil }

// TestMutatedBytes changes one byte of a signed request at a time: nothing
// passes, nothing is a 5xx. The authority would panic if it were reached.
func TestMutatedBytes(t *testing.T) {
	h, key, url := frameServer(&generous{}).Handler(), newKey(t), base+"/acme/main/new-account"
	text := key.sign(object{"alg": "ES256", "url": url, "nonce": "abc", "jwk": key.jwk()}, []byte(`{"contact":["mailto:evil@b.test"]}`))
	reached := 0
	for i := range text {
		for _, c := range []byte{0, '"', 'A', '_', 0xff} {
			if text[i] == c {
				continue
			}
			changed := bytes.Clone(text)
			changed[i] = c
			a := do(h, newRequest("POST", url, changed))
			if a.status < 400 || a.status >= 500 {
				t.Fatalf("%d %s for a request changed at %d to %q", a.status, a.body, i, changed[max(0, i-20):min(len(text), i+20)])
			}
			if bytes.Contains(a.body, []byte("does not verify")) {
				reached++
			}
		}
	}
	if reached < 50 {
		t.Errorf("only %d reached the signature's check", reached)
	}
	for i := range text {
		if a := do(h, newRequest("POST", url, text[:i])); a.status != 400 {
			t.Fatalf("%d for the first %d bytes", a.status, i)
		}
	}
}
