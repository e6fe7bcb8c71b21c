package acl_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/mtls/acl"
)

// peer makes a peer of names as they would stand in its certificate: "ip:"
// and "uri:" say that a name isn't a dns name.
func peer(t testing.TB, names ...string) *acl.Peer {
	t.Helper()
	p := new(acl.Peer)
	for _, name := range names {
		if text, ok := strings.CutPrefix(name, "uri:"); ok {
			u, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			p.URIs = append(p.URIs, u)
		} else if text, ok := strings.CutPrefix(name, "ip:"); ok {
			ip := net.ParseIP(text)
			if ip == nil {
				t.Fatalf("%q is no address", text)
			}
			if v4 := ip.To4(); v4 != nil && !strings.Contains(text, ":") {
				ip = v4
			}
			p.IPAddresses = append(p.IPAddresses, ip)
		} else {
			p.DNSNames = append(p.DNSNames, name)
		}
	}
	return p
}

func mustParse(t testing.TB, text string) *acl.Rules {
	t.Helper()
	rules, err := acl.Parse("rules.acl", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// Every line of the package comment's table, and what it doesn't cover.
func TestWhom(t *testing.T) {
	for _, c := range []struct {
		pattern   string
		in, notIn []string
	}{
		{"web.prod.internal",
			[]string{"web.prod.internal", "WEB.Prod.INTERNAL"},
			[]string{"a.web.prod.internal", "web.prod.internal.evil", "xweb.prod.internal", "prod.internal", "web", "*.prod.internal", "uri:spiffe://web.prod.internal/x"}},
		{"WEB.Prod.internal", []string{"web.prod.internal"}, []string{"web2.prod.internal"}},
		{"*.prod.internal",
			[]string{"web.prod.internal", "a.b.c.prod.internal", "A.PROD.internal", "*.prod.internal", "*.x.prod.internal"},
			[]string{"prod.internal", "xprod.internal", "web.prod.internal.evil", "web.internal", "*.internal"}},
		{"spiffe://prod.internal/ns/web/sa/api",
			[]string{"uri:spiffe://prod.internal/ns/web/sa/api", "uri:spiffe://PROD.internal/ns/web/sa/api", "uri:SPIFFE://prod.internal/ns/web/sa/api"},
			[]string{"uri:spiffe://prod.internal/ns/web/sa/API", "uri:spiffe://prod.internal/ns/web/sa", "uri:spiffe://prod.internal/ns/web/sa/api/x",
				"uri:spiffe://other.internal/ns/web/sa/api", "uri:https://prod.internal/ns/web/sa/api", "prod.internal"}},
		{"spiffe://Prod.internal/ns/web/*",
			[]string{"uri:spiffe://prod.internal/ns/web/sa", "uri:spiffe://prod.internal/ns/web/sa/api"},
			[]string{"uri:spiffe://prod.internal/ns/web", "uri:spiffe://prod.internal/ns/web2/sa", "uri:spiffe://prod.internal/ns", "uri:spiffe://prod.internal.evil/ns/web/sa"}},
		{"spiffe://prod.internal/*",
			[]string{"uri:spiffe://prod.internal/x", "uri:spiffe://prod.internal/x/y"},
			[]string{"uri:spiffe://prod.internal2/x", "uri:spiffe://a.prod.internal/x", "x.prod.internal"}},
		{"10.2.0.7", []string{"ip:10.2.0.7"}, []string{"ip:10.2.0.8", "10.2.0.7", "ip:::ffff:10.2.0.7"}},
		{"10.2.0.0/16", []string{"ip:10.2.0.0", "ip:10.2.255.255"}, []string{"ip:10.3.0.0", "ip:::a02:1", "ip:::ffff:10.2.0.1"}},
		{"0.0.0.0/0", []string{"ip:1.2.3.4"}, []string{"ip:::1"}},
		{"::/0", []string{"ip:::1"}, []string{"ip:1.2.3.4", "ip:::ffff:1.2.3.4"}},
		{"2001:DB8::/32", []string{"ip:2001:db8::1"}, []string{"ip:2001:db9::1"}},
		{"2001:db8::1", []string{"ip:2001:DB8:0::1"}, []string{"ip:2001:db8::2"}},
		{"*", []string{"web", "uri:spiffe://a/b", "ip:::1", "*.prod.internal"}, []string{"uri:https://prod.internal/x"}},
	} {
		rules := acl.Allow(c.pattern)
		if rules.Err() != nil {
			t.Errorf("%s: %v", c.pattern, rules.Err())
		}
		for _, name := range c.in {
			if err := rules.Allow(peer(t, name)); err != nil {
				t.Errorf("%q keeps out %q: %v", c.pattern, name, err)
			}
		}
		for _, name := range c.notIn {
			if rules.Allow(peer(t, name)) == nil {
				t.Errorf("%q lets in %q", c.pattern, name)
			}
		}
	}
}

func TestSeveralNames(t *testing.T) {
	rules := mustParse(t, "allow web.prod.internal\nallow 10.0.0.0/8\ndeny old.prod.internal\ndeny 10.6.6.6\n")
	for _, c := range []struct {
		names   []string
		allowed bool
	}{
		{[]string{"x.other", "web.prod.internal"}, true},
		{[]string{"x.other", "ip:10.1.1.1"}, true},
		{[]string{"web.prod.internal", "old.prod.internal"}, false},
		{[]string{"old.prod.internal", "web.prod.internal"}, false},
		{[]string{"web.prod.internal", "ip:10.6.6.6"}, false},
		{[]string{"web.prod.internal", "*.prod.internal"}, false}, // may be old
		{[]string{"web.prod.internal", "*.internal"}, true},       // can't: one label
		{[]string{"web.prod.internal", "uri:https://what.ever/it/is"}, true},
	} {
		if err := rules.Allow(peer(t, c.names...)); (err == nil) != c.allowed {
			t.Errorf("%v: %v, want allowed %v", c.names, err, c.allowed)
		}
	}
}

// Deny wins, whatever the order.
func TestDenyWins(t *testing.T) {
	for _, text := range []string{
		"allow *.batch.internal\ndeny old.batch.internal\n",
		"deny old.batch.internal\nallow *.batch.internal\n",
		"deny old.batch.internal\nallow old.batch.internal\nallow *\n",
		"*\ndeny *.batch.internal\nallow old.batch.internal\n",
		"deny *\nallow old.batch.internal\n",
	} {
		err := mustParse(t, text).Allow(peer(t, "old.batch.internal"))
		var denied *acl.Denied
		if !errors.As(err, &denied) || !strings.HasPrefix(denied.Rule, "rules.acl:") || !strings.Contains(denied.Rule, ": deny ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A name that can't be compared keeps its certificate out, whatever else
// stands in it: a deny rule could not be held against it.
func TestNamesThatCantBeCompared(t *testing.T) {
	rules := mustParse(t, "allow *\nallow web.prod.internal\nallow spiffe://prod.internal/*\ndeny old.prod.internal\n")
	long := strings.Repeat("a", 64)
	for _, name := range []string{
		"", ".", "..", "a..b", ".web.prod.internal", "web.prod.internal.", "old.prod.internal.", "old.prod.internal\x00", "old.prod.internal\x00.evil",
		"old.prod.internal ", " old.prod.internal", "old prod", "old/prod", "*", "*.", "*.*.internal", "w*.prod.internal", "web.*.internal", "**.internal",
		"-a.internal", "a-.internal", "ol\u0501.prod.internal", "\u212aeys.internal", "müll.internal", "old\u3002prod\u3002internal",
		"127.1", "10.2.0.7", "2130706433", "0x7f000001", "a.0x7F", "a.7", "1::2", "[::1]",
		long + ".internal", strings.Repeat("a.", 126) + "ab", strings.Repeat("a", 5000), "a\nb", "user@host.internal", "web.prod.internal:443",
		"uri:spiffe://prod.internal", "uri:spiffe://prod.internal/", "uri:spiffe:///x", "uri:spiffe:x", "uri:spiffe://prod.internal/x/", "uri:spiffe://prod.internal/x//y",
		"uri:spiffe://prod.internal/./x", "uri:spiffe://prod.internal/x/..", "uri:spiffe://prod.internal/%41", "uri:spiffe://prod.internal/x%2Fy", "uri:spiffe://prod.internal/x%20y",
		"uri:spiffe://prod.internal:443/x", "uri:spiffe://user@prod.internal/x", "uri:spiffe://prod.internal/x?y", "uri:spiffe://prod.internal/x?", "uri:spiffe://prod.internal/x#y",
		"uri:spiffe://[::1]/x", "uri:spiffe://prod.internal/é", "uri:spiffe://prod.internal/x:y", "uri:spiffe://prod.internal/*", "uri:spiffe://" + strings.Repeat("a", 256) + "/x",
		"uri:spiffe://prod.internal/" + strings.Repeat("a", 2048),
		"ip:::ffff:10.2.0.7",
	} {
		var denied *acl.Denied
		for _, p := range []*acl.Peer{peer(t, name), peer(t, "web.prod.internal", name)} {
			if err := rules.Allow(p); !errors.As(err, &denied) || denied.Reason == "" {
				t.Errorf("%q: %v", name, err)
			}
			if rules.AllowRequest(p, acl.Request{Method: "GET", Path: "/"}) == nil {
				t.Errorf("%q may make requests", name)
			}
		}
		if strings.ContainsAny(denied.Error(), "\n\x00") {
			t.Errorf("%q gets into the log as it is: %q", name, denied.Error())
		}
		if got := acl.Allow(name); got.Err() == nil && name != "*" && name != "10.2.0.7" && name != "1::2" {
			t.Errorf("%q is a pattern", name)
		}
	}
	if err := rules.Allow(peer(t, "uri:spiffe://prod.internal/x", "uri:https://prod.internal/")); err == nil {
		t.Error("a SPIFFE ID beside another URI is let in (X509-SVID section 2)")
	}
	if err := rules.Allow(&acl.Peer{IPAddresses: []net.IP{{1, 2, 3}}}); err == nil {
		t.Error("an address of three bytes is let in")
	}
}

// What a name may be, so that strictness keeps nobody out who is right.
func TestOddButGoodNames(t *testing.T) {
	for _, name := range []string{
		"localhost", "a", "my_service.prod.internal", "_sip._tcp.internal", "xn--mll-hoa.internal", "1a.internal", "7.internal", "a--b.internal",
		strings.Repeat("a", 63) + ".internal", strings.Repeat("a.", 126) + "a",
		"uri:spiffe://prod_1.internal/A.b-c_d/..e", "uri:spiffe://10.1.1.1/x", "uri:spiffe://a/" + strings.Repeat("x", 2048-len("spiffe://a/")),
	} {
		if err := acl.Allow("*").Allow(peer(t, name)); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if err := acl.Allow(strings.TrimPrefix(name, "uri:")).Allow(peer(t, name)); err != nil {
			t.Errorf("%q by itself: %v", name, err)
		}
	}
}

// Without a name nobody is let in but by a function; the common name is not
// a name.
func TestNoName(t *testing.T) {
	nameless := acl.PeerOf(&x509.Certificate{Subject: pkix.Name{CommonName: "web.prod.internal"}, EmailAddresses: []string{"web@prod.internal"}})
	for _, rules := range []*acl.Rules{acl.Allow("*"), acl.Allow("web.prod.internal"), acl.Allow("*.internal", "0.0.0.0/0"), acl.Allow(), nil, {}} {
		if rules.Allow(nameless) == nil || rules.AllowRequest(nameless, acl.Request{Method: "GET", Path: "/"}) == nil {
			t.Errorf("%q lets in a certificate without names", rules)
		}
		if rules.Allow(nil) == nil || rules.Allow(acl.PeerOf(nil)) == nil || rules.Allow(new(acl.Peer)) == nil {
			t.Errorf("%q lets in nobody's certificate", rules)
		}
	}
	if err := acl.Anyone().Allow(nameless); err != nil {
		t.Error(err)
	}
	if acl.Anyone().Allow(nil) == nil || acl.Func(nil).Allow(nameless) == nil || acl.Func(nil).AllowRequest(nameless, acl.Request{}) == nil {
		t.Error("no certificate, or no function, is let in")
	}
	byName := acl.Func(func(p *acl.Peer) bool { return p.Subject.CommonName == "web.prod.internal" })
	if byName.Allow(nameless) != nil || byName.AllowRequest(nameless, acl.Request{}) != nil {
		t.Error("a function can't let in a certificate without names")
	}
	var denied *acl.Denied
	if err := byName.AllowRequest(peer(t, "x"), acl.Request{Method: "GET", Path: "/p"}); !errors.As(err, &denied) || denied.Request.Path != "/p" {
		t.Error(err)
	}
}

// The nil policies and odd certificates deny, and don't panic.
func TestNothingPanics(t *testing.T) {
	odd := &acl.Peer{URIs: []*url.URL{nil, {Scheme: "spiffe", Host: "a", Path: "x"}}, IPAddresses: []net.IP{nil}}
	var none *acl.Rules
	var noFile *acl.File
	for _, policy := range []acl.Policy{none, noFile, acl.Allow("*"), acl.Allow("b a d"), acl.Func(nil)} {
		for _, p := range []*acl.Peer{nil, odd, {}} {
			for _, err := range []error{policy.Allow(p), policy.AllowRequest(p, acl.Request{})} {
				if err == nil || err.Error() == "" {
					t.Errorf("%T lets in %v", policy, p)
				}
			}
			if acl.Explain(policy, p, acl.Request{Path: "/"}) == "" || p.LogValue().String() == "" {
				t.Error("no text")
			}
		}
	}
	if none.Err() != nil || none.String() != "" || none.Warnings() != nil || noFile.Err() == nil || new(acl.Denied).Error() == "" || acl.Explain(nil, odd, acl.Request{}) == "" {
		t.Error("nil has something to say")
	}
}

// What Go's own parser lets through of a certificate is refused here.
func TestRealCertificates(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parse := func(names ...string) (*acl.Peer, error) {
		p := peer(t, names...)
		template := &x509.Certificate{
			SerialNumber: big.NewInt(0xabc), Subject: pkix.Name{CommonName: "web.prod.internal"},
			NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
			DNSNames: p.DNSNames, URIs: p.URIs, IPAddresses: p.IPAddresses,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		return acl.PeerOf(leaf), err
	}
	issue := func(names ...string) *acl.Peer {
		p, err := parse(names...)
		if err != nil {
			t.Fatalf("%q: %v", names, err)
		}
		return p
	}
	rules := acl.Allow("web.prod.internal", "spiffe://prod.internal/ns/*", "10.2.0.0/16", "2001:db8::/32")
	for _, name := range []string{"Web.prod.internal", "uri:spiffe://prod.internal/ns/a", "ip:10.2.3.4", "ip:2001:db8::1"} {
		if err := rules.Allow(issue(name)); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"web.prod.internal\x00.evil", "web.prod.internal.", "uri:spiffe://prod.internal/ns/%61", "uri:spiffe://prod.internal/ns/../a"} {
		if p, err := parse(name); err == nil && rules.Allow(p) == nil { // some, crypto/x509 refuses already
			t.Errorf("%q is let in", name)
		}
	}
	if got, want := issue("web.prod.internal", "uri:spiffe://prod.internal/ns/a", "ip:10.2.3.4").LogValue().String(),
		`[names=dns:"web.prod.internal", uri:"spiffe://prod.internal/ns/a", ip:"10.2.3.4" issuer=CN=web.prod.internal serial=abc]`; got != want {
		t.Errorf("in a log: %s\nwant %s", got, want)
	}
}

func TestPeerNames(t *testing.T) {
	for _, c := range []struct {
		p            *acl.Peer
		name, string string
	}{
		{peer(t, "WEB.internal", "ip:10.0.0.1"), "web.internal", `dns:"web.internal", ip:"10.0.0.1"`},
		{peer(t, "uri:spiffe://a/b"), "spiffe://a/b", `uri:"spiffe://a/b"`},
		{peer(t, "ip:::ffff:10.0.0.1"), "::ffff:10.0.0.1", `ip:"::ffff:10.0.0.1"`},
		{peer(t), "", "a certificate without names"},
		{nil, "", "a certificate without names"},
		{peer(t, "a\nb"), `"a\nb"`, `dns:"a\nb"`},
		{peer(t, "a", "b", "c", "d", "e", "f", "g", "h", "i", "ip:::1"), "a", `dns:"a", dns:"b", dns:"c", dns:"d", dns:"e", dns:"f", dns:"g", dns:"h" and 2 more`},
	} {
		if c.p.Name() != c.name || c.p.String() != c.string {
			t.Errorf("%q, %s; want %q, %s", c.p.Name(), c.p, c.name, c.string)
		}
	}
}

func TestAllowBadPatterns(t *testing.T) {
	for pattern, want := range map[string]string{
		"web.prod.internal GET": "acl.Parse",
		"deny web":              "acl.Parse",
		"web # it":              "acl.Parse",
		"a\nb":                  "acl.Parse",
		".prod.internal":        `"*.prod.internal"`,
		"https://web.internal":  "spiffe://",
		"web.internal:443":      `"web.internal"`,
		"10.0.0.1/8":            `"10.0.0.0/8"`,
		"10.0.0.0/33":           "not a network",
		"web/path":              "not a network",
		"::ffff:10.0.0.1":       `"10.0.0.1"`,
		"::ffff:10.0.0.0/104":   "IPv4",
		"fe80::1%eth0":          `"fe80::1"`,
		"spiffe://prod":         `"spiffe://prod/*"`,
		"spiffe://prod/":        `"spiffe://prod/*"`,
		"spiffe://prod/a/":      "slash",
		"spiffe://prod/a*":      `"/*"`,
		"spiffe://prod/*/a":     `"/*"`,
		"spiffe://*/a":          "trust domain",
		"müll.internal":         "xn--",
		"a..b":                  "empty",
		"web*.internal":         "wildcard",
		"":                      "1 to 253",
		"127.1":                 "address",
	} {
		rules := acl.Allow("ok.internal", pattern)
		if err := rules.Err(); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "acl.Allow: pattern 2: ") {
			t.Errorf("%q: %v, want something about %s", pattern, err, want)
		}
		if err := rules.Allow(peer(t, "ok.internal")); err == nil || !strings.Contains(err.Error(), "pattern 2") {
			t.Errorf("%q: rules with a wrong pattern say %v", pattern, err)
		}
	}
}
