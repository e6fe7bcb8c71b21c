package acmeserver

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// TestContacts: RFC 8555 section 7.3.
func TestContacts(t *testing.T) {
	many := slices.Repeat([]string{"mailto:a@b.test"}, maxContacts)
	tests := []struct {
		contacts []string
		want     protocol.ProblemType // "" for accepted
	}{
		{nil, ""},
		{[]string{}, ""},
		{[]string{"mailto:cert-admin@example.org", "mailto:admin@example.org"}, ""},
		{[]string{"MAILTO:a@b.test"}, ""},
		{[]string{"a@b.test"}, ""}, // the step CLI
		{[]string{"mailto:jürgen@b.test"}, ""},
		{many, ""},
		{append(many, "mailto:a@b.test"), protocol.InvalidContact},
		{[]string{"mailto:"}, protocol.InvalidContact},
		{[]string{""}, protocol.InvalidContact},
		{[]string{"mailto:nobody"}, protocol.InvalidContact},
		{[]string{"mailto:@b.test"}, protocol.InvalidContact},
		{[]string{"mailto:a@"}, protocol.InvalidContact},
		{[]string{"mailto:a@b.test,c@d.test"}, protocol.InvalidContact},  // more than one addr-spec
		{[]string{"mailto:a@b.test?subject=x"}, protocol.InvalidContact}, // hfields
		{[]string{"mailto:a@b.test\r\nBcc: c@d.test"}, protocol.InvalidContact},
		{[]string{"mailto:A <a@b.test>"}, protocol.InvalidContact},
		{[]string{"mailto:" + strings.Repeat("a", 250) + "@b.test"}, protocol.InvalidContact},
		{[]string{"tel:+123456789"}, protocol.UnsupportedContact},
		{[]string{"https://a@b.test/"}, protocol.UnsupportedContact},
		{[]string{"mailto:a@b.test", "ftp://x"}, protocol.UnsupportedContact},
	}
	for _, tt := range tests {
		err := checkContacts(tt.contacts)
		if tt.want == "" && err != nil || tt.want != "" && !isType(err, tt.want) {
			t.Errorf("%.80q: %v, want %q", tt.contacts, err, tt.want)
		}
	}
}

// TestIdentifiers: canonical form, duplicates, and several faults at once
// (RFC 8555 section 6.7.1). What a name may be is internal/protocol's.
func TestIdentifiers(t *testing.T) {
	dns := func(v string) identifierObject { return identifierObject{"dns", v} }
	ids, err := parseIdentifiers([]identifierObject{dns("A.Test"), {"ip", "2001:DB8::0:1"}, dns("*.a.test")})
	want := []protocol.Identifier{{Type: "dns", Value: "a.test"}, {Type: "ip", Value: "2001:db8::1"}, {Type: "dns", Value: "*.a.test"}}
	if err != nil || !slices.Equal(ids, want) {
		t.Errorf("%v %v", ids, err)
	}
	for name, tt := range map[string]struct {
		sent []identifierObject
		want protocol.ProblemType
		sub  int
	}{
		"none":                     {nil, protocol.Malformed, 0},
		"too many":                 {slices.Repeat([]identifierObject{dns("a.test")}, maxIdentifiers+1), protocol.Malformed, 0},
		"twice":                    {[]identifierObject{dns("a.test"), dns("a.test")}, protocol.Malformed, 0},
		"twice but for case":       {[]identifierObject{dns("a.test"), dns("A.TEST")}, protocol.Malformed, 0},
		"twice by another writing": {[]identifierObject{{"ip", "2001:db8::1"}, {"ip", "2001:db8:0::1"}}, protocol.Malformed, 0},
		"unknown type":             {[]identifierObject{{"email", "a@b.test"}}, protocol.UnsupportedIdentifier, 0},
		"no type":                  {[]identifierObject{{"", "a.test"}}, protocol.UnsupportedIdentifier, 0},
		"no value":                 {[]identifierObject{dns("")}, protocol.Malformed, 0},
		"address as dns":           {[]identifierObject{dns("127.0.0.1")}, protocol.Malformed, 0},
		"two faults":               {[]identifierObject{dns("a..test"), dns("ok.test"), dns("a_b.test")}, protocol.Malformed, 2},
		"two kinds of fault":       {[]identifierObject{dns("a..test"), {"email", "x"}}, protocol.Compound, 2},
	} {
		_, err := parseIdentifiers(tt.sent)
		if !isType(err, tt.want) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if sub := asProblem(err).Sub; len(sub) != tt.sub {
			t.Errorf("%s: %d subproblems", name, len(sub))
		}
	}
}

// TestDates: RFC 3339 (RFC 8555 section 7.4); those of year 1, which Go
// clients send for dates they weren't asked for, are none.
func TestDates(t *testing.T) {
	for text, want := range map[string]time.Time{
		"":                          {},
		"0001-01-01T00:00:00Z":      {},
		"0001-01-01T00:00:00-05:00": {},
		"0001-01-02T15:04:05Z":      {},
		"2016-01-01T00:04:00+04:00": time.Date(2015, 12, 31, 20, 4, 0, 0, time.UTC),
		"2016-01-08T00:00:00.5Z":    time.Date(2016, 1, 8, 0, 0, 0, 5e8, time.UTC),
	} {
		if got, err := parseDate("notAfter", text); err != nil || !got.Equal(want) || got.IsZero() != want.IsZero() {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
	for _, text := range []string{"tomorrow", "2016-01-01", "2016-13-01T00:00:00Z", "1451606400", " ", strings.Repeat("9", 9999)} {
		if _, err := parseDate("notAfter", text); !isType(err, protocol.Malformed) || len(err.Error()) > 400 {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

// TestReasons: RFC 8555 section 7.6; the values are judged by the authority.
func TestReasons(t *testing.T) {
	for raw, want := range map[string]int{"": -1, "null": -1, "0": 0, "1": 1, "4": 4, "7": 7, "-1": -1} {
		got, err := parseReason(json.RawMessage(raw))
		if err != nil || (got == nil) != (raw == "" || raw == "null") || got != nil && *got != want {
			t.Errorf("%q: %v %v", raw, got, err)
		}
	}
	for _, raw := range []string{`"1"`, "1.5", "1e0", "99999999999999999999", "true", "[]", "{}"} {
		if _, err := parseReason(json.RawMessage(raw)); !isType(err, protocol.BadRevocationReason) {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

// TestBinary: "Encoded values that include trailing '=' characters MUST be
// rejected" (RFC 8555 section 6.1), and so is every other second form.
func TestBinary(t *testing.T) {
	if der, err := decodeBinary("csr", "AP-_"); err != nil || string(der) != "\x00\xff\xbf" {
		t.Errorf("%x %v", der, err)
	}
	for _, text := range []string{"", "AP8=", "AP9", "AP+/", "AP_\n_", "AP__ ", "-----BEGIN CERTIFICATE REQUEST-----"} {
		if _, err := decodeBinary("csr", text); !isType(err, protocol.Malformed) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestDecodeObject: unknown members are ignored, wrong types named.
func TestDecodeObject(t *testing.T) {
	var order newOrderPayload
	if err := decodeObject([]byte(`{"identifiers":[{"type":"dns","value":"a"}],"resource":"new-order","notBefore":null,"replaces":null}`), &order); err != nil || len(order.Identifiers) != 1 {
		t.Errorf("%v %+v", err, order)
	}
	for text, want := range map[string]string{
		`{"identifiers":"a.test"}`:      "member identifiers must be an array, not string",
		`{"identifiers":["a.test"]}`:    "must be an object, not string",
		`{"identifiers":[{"value":1}]}`: "must be a string, not number",
		`{"profile":{}}`:                "member profile must be a string, not object",
		`{"notAfter":1}`:                "member notAfter must be a string, not number",
	} {
		err := decodeObject([]byte(text), new(newOrderPayload))
		if !isType(err, protocol.Malformed) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestCanonicalKey: RFC 7638 section 3.1's example, its members in any order
// and with others among them.
func TestCanonicalKey(t *testing.T) {
	const n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
	want := `{"e":"AQAB","kty":"RSA","n":"` + n + `"}`
	if got := canonicalKey(json.RawMessage(`{"kty":"RSA","n":"` + n + `","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`)); got != want {
		t.Errorf("%s", got)
	}
	for _, text := range []string{`{}`, `null`, `"x"`, `{"kty":1}`, `{"kty":"RSA","n":"` + n + `"}`} {
		if got := canonicalKey(json.RawMessage(text)); got == want {
			t.Errorf("%s is taken for the key", text)
		}
	}
}

func FuzzNewOrderPayload(f *testing.F) {
	f.Add([]byte(`{"identifiers":[{"type":"dns","value":"a.test"},{"type":"ip","value":"::1"}],"notBefore":"2016-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"identifiers":[{"type":"dns","value":"*.xn--a.test"}],"notAfter":"x","profile":7}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var p newOrderPayload
		if decodeObject(text, &p) != nil {
			return
		}
		ids, err := parseIdentifiers(p.Identifiers)
		if err != nil {
			if q := asProblem(err); q.Type == protocol.ServerInternal {
				t.Fatalf("%v for %q", err, text)
			}
			return
		}
		for _, id := range ids { // canonical: parsing again changes nothing
			if again, err := protocol.ParseIdentifier(string(id.Type), id.Value); err != nil || again != id {
				t.Fatalf("%v became %v, %v", id, again, err)
			}
		}
		if at, err := parseDate("notBefore", p.NotBefore); err == nil && at.Year() == 1 && !at.IsZero() {
			t.Fatalf("%q gave %v", p.NotBefore, at)
		}
	})
}
