package acme

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"
)

// The key of RFC 7638 section 3.1.
const rfc7638N = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"

func mustUnb64(t testing.TB, s string) []byte {
	b := unb64(s)
	if b == nil {
		t.Fatalf("bad vector %q", s)
	}
	return b
}

func TestThumbprintVectors(t *testing.T) {
	rsaKey := &rsa.PublicKey{N: new(big.Int).SetBytes(mustUnb64(t, rfc7638N)), E: 65537}
	if got, err := Thumbprint(rsaKey); got != "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" || err != nil {
		t.Errorf("RFC 7638 section 3.1: %s, %v", got, err)
	}
	okp := ed25519.PublicKey(mustUnb64(t, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"))
	if got, err := Thumbprint(okp); got != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" || err != nil {
		t.Errorf("RFC 8037 appendix A.3: %s, %v", got, err)
	}
	// Coordinates keep their leading zeros (RFC 7518 section 6.2.1.2).
	for d := range 2000 {
		key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), big.NewInt(int64(d+1)).FillBytes(make([]byte, 32)))
		if err != nil {
			t.Fatal(err)
		}
		if point, _ := key.PublicKey.Bytes(); point[1] != 0 {
			continue
		}
		jwk, err := marshalJWK(&key.PublicKey)
		if err != nil || !strings.Contains(jwk, `"x":"A`) || len(jwk) != 126 {
			t.Errorf("%s (%d), %v", jwk, len(jwk), err)
		}
		return
	}
	t.Error("no key with a short coordinate")
}

func TestRefusedAccountKeys(t *testing.T) {
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	for name, pub := range map[string]crypto.PublicKey{
		"P-224": p224.Public(), "RSA 1024": &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 3}, "nil": nil, "nothing": "x",
		"empty RSA": &rsa.PublicKey{},
	} {
		if got, err := Thumbprint(pub); err == nil {
			t.Errorf("%s: took it: %s", name, got)
		}
	}
}

func TestKeyAuthorizationVector(t *testing.T) {
	// The token of RFC 8555 section 8.1's example with the key of RFC 7638.
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(mustUnb64(t, rfc7638N)), E: 65537}
	got, err := KeyAuthorization("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA", key)
	if want := "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"; got != want || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	for _, token := range []string{"", "../../etc/passwd", "a/b", "a b", "a.b", "a\n", "ä", "a="} {
		if got, err := KeyAuthorization(token, key); err == nil {
			t.Errorf("token %q made %q", token, got)
		}
	}
}

func TestCertIDVector(t *testing.T) {
	// RFC 9773 section 4.1.
	aki, _ := hex.DecodeString("69885b6b87464041e1b37b847ba0ae2cde01c8d4")
	leaf := &x509.Certificate{AuthorityKeyId: aki, SerialNumber: big.NewInt(0x87654321)}
	if got, err := CertID(leaf); got != "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE" || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	for serial, want := range map[int64]string{0: "AA", 0x7f: "fw", 0x80: "AIA", 0x100: "AQA"} {
		leaf.SerialNumber = big.NewInt(serial)
		if got, _ := CertID(leaf); got != "aYhba4dGQEHhs3uEe6CuLN4ByNQ."+want {
			t.Errorf("serial %x: %s", serial, got)
		}
	}
	for name, leaf := range map[string]*x509.Certificate{"no AKI": {SerialNumber: big.NewInt(1)}, "no serial": {AuthorityKeyId: aki}, "negative": {AuthorityKeyId: aki, SerialNumber: big.NewInt(-1)}} {
		if got, err := CertID(leaf); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestDNSNames(t *testing.T) {
	const account = "https://example.com/acme/acct/ExampleAccount"
	for got, want := range map[string]string{
		DNS01Name("example.com"):                 "_acme-challenge.example.com",
		DNS01Name("*.example.com"):               "_acme-challenge.example.com",
		DNSAccount01Name(account, "example.org"): "_ujmmovf2vn55tgye._acme-challenge.example.org", // the draft's example
		DNSPersist01Name("*.example.com"):        "_validation-persist.example.com",
		DNSPersist01Value("authority.example", "https://ca.example/acct/123", true, time.Unix(4102444800, 0)): "authority.example; accounturi=https://ca.example/acct/123; policy=wildcard; persistUntil=4102444800",
		DNSPersist01Value("authority.example", "https://ca.example/acct/123", false, time.Time{}):             "authority.example; accounturi=https://ca.example/acct/123",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	sum := sha256.Sum256([]byte("a.b"))
	if got := mustUnb64(t, DNS01Value("a.b")); !bytes.Equal(got, sum[:]) {
		t.Errorf("DNS01Value %x", got)
	}
}

func TestTLSALPN01ServerName(t *testing.T) {
	for in, want := range map[Identifier]string{
		{TypeDNS, "Example.com"}:       "example.com",
		{TypeIP, "192.0.2.1"}:          "1.2.0.192.in-addr.arpa",
		{TypeIP, "::ffff:192.0.2.1"}:   "1.2.0.192.in-addr.arpa",
		{TypeIP, "2001:db8::567:89ab"}: "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", // RFC 3596 section 2.5's form
	} {
		if got, err := TLSALPN01ServerName(in); got != want || err != nil {
			t.Errorf("%v: %s, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "x", "fe80::1%eth0", "1.2.3"} {
		if got, err := TLSALPN01ServerName(Identifier{TypeIP, bad}); err == nil {
			t.Errorf("%q: %s", bad, got)
		}
	}
}

func TestNewCSR(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	der, err := NewCSR(key, Identifiers("a.test", "*.b.test", "192.0.2.1", "2001:db8::1")...)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil || csr.CheckSignature() != nil || len(csr.Subject.Names) != 0 || fmt.Sprint(csr.DNSNames, csr.IPAddresses) != "[a.test *.b.test] [192.0.2.1 2001:db8::1]" {
		t.Errorf("%+v, %v", csr, err)
	}
	if _, err := NewCSR(key, Identifier{"permanent-identifier", "x"}); err == nil {
		t.Error("an identifier got lost")
	}
}

func TestFixedWidth(t *testing.T) {
	der := func(r, s *big.Int) []byte {
		b, _ := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		return b
	}
	big256 := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))
	got, err := fixedWidth(der(big.NewInt(1), big256), 32) // RFC 7518 section 3.4: leading zeros stay
	if want := append(append(make([]byte, 31), 1), big256.Bytes()...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, %v", got, err)
	}
	for name, bad := range map[string][]byte{
		"too long": der(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1)), "zero": der(big.NewInt(0), big.NewInt(1)), "negative": der(big.NewInt(1), big.NewInt(-1)),
		"trailing": append(der(big.NewInt(1), big.NewInt(1)), 0), "empty": {}, "raw": make([]byte, 64),
	} {
		if got, err := fixedWidth(bad, 32); err == nil {
			t.Errorf("%s: %x", name, got)
		}
	}
}

func TestChallengeExtra(t *testing.T) {
	const in = `{"type":"x-01","url":"https://a/1","status":"pending","token":"tok","audiences":["a","b"],"deep":{"n":1}}`
	var ch Challenge
	if err := json.Unmarshal([]byte(in), &ch); err != nil {
		t.Fatal(err)
	}
	if len(ch.Extra) != 2 || string(ch.Extra["audiences"]) != `["a","b"]` || ch.Token != "tok" {
		t.Errorf("%+v", ch)
	}
	ch.Extra["status"] = json.RawMessage(`"valid"`) // must not win
	out, err := json.Marshal(ch)
	var back Challenge
	if err != nil || json.Unmarshal(out, &back) != nil || back.Status != StatusPending || len(back.Extra) != 2 {
		t.Errorf("%s, %v", out, err)
	}
	for _, bad := range []string{`null`, `[]`, `"x"`, `{"type":1}`, `{"error":7}`} {
		var authz Authorization
		if err := json.Unmarshal([]byte(`{"challenges":[`+bad+`]}`), &authz); err == nil {
			t.Errorf("took %s", bad)
		}
	}
}

func TestProblemText(t *testing.T) {
	p := &Problem{Type: ErrCompound, Detail: "two\x1b[31m \u009b31m\nlines \u202e", Status: 400, RetryAfter: time.Second,
		Subproblems: []Problem{{Type: ErrCAA, Detail: "no", Identifier: &Identifier{TypeDNS, "a.test"}}}}
	if got, want := p.Error(), "compound: two [31m  31m lines  ; a.test: caa: no"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	long := &Problem{Type: ErrMalformed, Detail: strings.Repeat("x", 1<<20), Subproblems: make([]Problem, 1000), Algorithms: []string{"ES256"}, Instance: "https://a"}
	if got := long.Error(); len(got) > 2000 || !strings.Contains(got, "995 more") || !strings.Contains(got, "ES256") {
		t.Errorf("%d bytes: %.200s", len(got), got[1000:])
	}
	var buf bytes.Buffer
	slog.New(slog.NewTextHandler(&buf, nil)).Info("x", "problem", p)
	for _, want := range []string{"problem.type=" + ErrCompound, "problem.status=400", "problem.subproblems=1", "problem.retryAfter=1s"} {
		if !strings.Contains(buf.String(), want) {
			t.Errorf("%s lacks %s", buf.String(), want)
		}
	}
	if strings.Contains(buf.String(), "\x1b") {
		t.Error("a control character reached the log")
	}
	if !HasType(fmt.Errorf("x: %w", p), ErrCompound) || HasType(fmt.Errorf("x"), ErrCompound) || HasType(nil, "") {
		t.Error("HasType")
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2025, 6, 1, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"": 0, "0": 0, "5": 5 * time.Second, "-1": 0, "1.5": 0, "soon": 0, "99999999999": 24 * time.Hour,
		"99999999999999999999999999":    24 * time.Hour,
		"Sun, 01 Jun 2025 12:00:30 GMT": 30 * time.Second,
		"Sun, 01 Jun 2025 11:00:00 GMT": 0,
		"Fri, 31 Dec 9999 23:59:59 GMT": 24 * time.Hour,
	} {
		if got := parseRetryAfter(in, now); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

func TestLinks(t *testing.T) {
	for in, want := range map[string]string{ // RFC 8288 section 3
		`<https://a/1>;rel="alternate"`:                                "https://a/1",
		`<https://a/1>; rel=alternate`:                                 "https://a/1",
		`<https://a/1>;title="x, <y>; rel=no";rel="up alternate"`:      "https://a/1",
		`<https://a/0>;rel="index",<https://a/1>;REL="ALTERNATE"`:      "https://a/1",
		`<https://a/1>;rel="alternate", <https://a/2>;rel="alternate"`: "https://a/1 https://a/2",
		`<https://a/1>;rel="up";rel="alternate"`:                       "", // only the first rel counts
		`<https://a/1>`:                                                "", `<https://a/1`: "", `https://a/1>;rel=alternate`: "", `<`: "", `"`: "", `<>;rel="alternate`: "",
	} {
		var got []string
		for target := range parseLink(in, "alternate") {
			if target != "" {
				got = append(got, target)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", in, got, want)
		}
	}
	a := &answer{url: "https://a/cert/1", header: map[string][]string{"Link": {`</cert/1/2>;rel=alternate, <http://evil/>;rel=alternate`, strings.Repeat(`<x>;rel=alternate,`, 100)}}}
	got := a.links("alternate")
	if len(got) != maxLinks || got[0] != "https://a/cert/1/2" || got[1] != "https://a/cert/x" {
		t.Errorf("%d links: %v", len(got), got)
	}
}

func TestCheckURL(t *testing.T) {
	for in, ok := range map[string]bool{
		"https://ca.internal/acme": true, "https://[::1]:14000/x?y=z": true,
		"": false, "https://": false, "http://ca.internal/": false, "//ca.internal/": false, "file:///etc/passwd": false,
		"https://a/\"": false, "https://a/\\": false, "https://a/\n": false, "https://a/ b": false, "https://a/ä": false, "https://a/#x": false,
		"https://a/" + strings.Repeat("x", 3000): false,
	} {
		if err := checkURL(in); (err == nil) != ok {
			t.Errorf("%.40q: %v", in, err)
		}
	}
}
