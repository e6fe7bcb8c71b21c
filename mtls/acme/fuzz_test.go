package acme

import (
	"bytes"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func FuzzProblem(f *testing.F) {
	for _, s := range []string{
		`{"type":"urn:ietf:params:acme:error:malformed","detail":"x","status":400}`,
		`{"type":"urn:ietf:params:acme:error:compound","subproblems":[{"type":"urn:ietf:params:acme:error:caa","identifier":{"type":"dns","value":"a"}}]}`,
		`{"type":"urn:ietf:params:acme:error:badSignatureAlgorithm","algorithms":["ES256"]}`,
		`{"detail":"\u001b[31m\u202e"}`, `null`, `[]`, `{"subproblems":[null]}`, `{"status":1e400}`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p := parseProblem("application/problem+json", body)
		if p == nil {
			return
		}
		text := p.Error()
		if p.Type == "" || len(text) > 20*(maxShownText+50) || !utf8.ValidString(text) || strings.ContainsAny(text, "\n\r\x00\x1b\x7f") {
			t.Errorf("%q", text)
		}
		p.LogValue()
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "120", "-1", "1e9", "99999999999999999999", "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		f.Add(s)
	}
	now := time.Now()
	f.Fuzz(func(t *testing.T, s string) {
		if d := parseRetryAfter(s, now); d < 0 || d > maxRetryAfter {
			t.Errorf("%q: %v", s, d)
		}
	})
}

func FuzzLink(f *testing.F) {
	for _, s := range []string{`<https://a/1>;rel="alternate"`, `<a>,<b>;rel=alternate;x="\"`, `</x>;rel="up alternate", <y>`, `<<>>;;==""`, `<https://a/"\>;rel=alternate`, "<%zz>;rel=alternate"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a := &answer{url: "https://ca.test/cert/1", header: map[string][]string{"Link": {s, s}}}
		links := a.links("alternate")
		if len(links) > maxLinks {
			t.Errorf("%d links", len(links))
		}
		for _, u := range links {
			if err := checkURL(u); err != nil {
				t.Errorf("%q: %v", s, err)
			}
		}
	})
}

// FuzzWords: what can be read can be written, and read again as the same.
func FuzzWords(f *testing.F) {
	for _, s := range []string{
		`{"status":"pending","identifiers":[{"type":"dns","value":"a"}],"authorizations":["https://a/1"],"finalize":"https://a/f","expires":"2030-01-01T00:00:00Z"}`,
		`{"identifier":{"type":"dns","value":"a"},"challenges":[{"type":"x","url":"https://a/c","status":"pending","token":"t","more":[1,{"a":null}]}],"wildcard":true}`,
		`{"newNonce":"https://a/n","meta":{"profiles":{"a":"b"},"externalAccountRequired":true}}`,
		`{"suggestedWindow":{"start":"2030-01-01T00:00:00Z","end":"2030-01-02T00:00:00Z"}}`,
		`{"challenges":[null]}`, `null`, `{"challenges":[{"type":"a","type":"b","Type":"c"}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		a := &answer{header: map[string][]string{"Content-Type": {"application/json"}}, body: body}
		for _, v := range []any{new(Order), new(Account), new(Directory), new(RenewalInfo)} {
			a.decode(v)
		}
		var authz, again Authorization
		if a.decode(&authz) != nil {
			return
		}
		first, err := json.Marshal(authz)
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if err := json.Unmarshal(first, &again); err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		if second, _ := json.Marshal(again); !bytes.Equal(first, second) {
			t.Errorf("%s\n%s", first, second)
		}
	})
}

func FuzzChain(f *testing.F) {
	for _, s := range []string{"", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\nx", "-----BEGIN CERTIFICATE-----\r\nAA==\r\n-----END CERTIFICATE-----\r\n-----BEGIN PRIVATE KEY-----\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		der, err := parseChain(data)
		if (err == nil) != (len(der) > 0) || len(der) > maxChain {
			t.Errorf("%d certificates, %v", len(der), err)
		}
		if err == nil && bytes.Contains(data, []byte("BEGIN PRIVATE KEY")) && bytes.Count(data, []byte("-----BEGIN ")) != bytes.Count(data, []byte("-----BEGIN CERTIFICATE-----")) {
			t.Errorf("another block got through: %q", data)
		}
	})
}

func FuzzFixedWidth(f *testing.F) {
	f.Add([]byte{0x30, 6, 2, 1, 1, 2, 1, 2})
	f.Add([]byte{0x30, 8, 2, 2, 0, 0x80, 2, 2, 0, 0xff})
	f.Add([]byte{0x30, 0x81, 6, 2, 1, 1, 2, 1, 2})
	f.Fuzz(func(t *testing.T, sig []byte) {
		out, err := fixedWidth(sig, 32)
		if err == nil && (len(out) != 64 || new(big.Int).SetBytes(out[:32]).Sign() == 0 || new(big.Int).SetBytes(out[32:]).Sign() == 0) {
			t.Errorf("%x: %x", sig, out)
		}
	})
}
