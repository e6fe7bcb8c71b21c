package acl_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/mtls/acl"
)

func TestParse(t *testing.T) {
	rules := mustParse(t, "# who may read the reports\r\n"+
		"\n"+
		"  allow\tWEB.prod.internal\r\n"+
		"*.batch.internal  GET,HEAD,GET /reports/*  # methods and path\n"+
		"deny old.batch.internal#gone\n"+
		"allow SPIFFE://Prod.internal/ns/Web/* /pkg.Service/*\n"+
		"allow 10.2.0.0/16 PROPFIND\n"+
		"10.2.0.7/32\n"+
		"2001:DB8::0:1\n"+
		"allow allow\n"+
		"deny deny\n"+
		"deny * /nobody # ümläut, 日本") // no newline at the end: it is no file
	want := `allow web.prod.internal
allow *.batch.internal GET,HEAD /reports/*
deny old.batch.internal
allow spiffe://prod.internal/ns/Web/* /pkg.Service/*
allow 10.2.0.0/16 PROPFIND
allow 10.2.0.7
allow 2001:db8::1
allow allow
deny deny
deny * /nobody
`
	if got := rules.String(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if err := rules.Err(); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"", "\n", "# nothing\n", " \t \n"} {
		if err := mustParse(t, text).Allow(peer(t, "web")); err == nil {
			t.Errorf("%q lets somebody in", text)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"allow\n", `rules.acl:1:6: allow whom? a name comes next, as in "allow web.prod.internal"`},
		{"\n  deny # nobody\n", `rules.acl:2:7: deny whom?`},
		{"Allow web\n", `rules.acl:1:1: write "allow" in lower case`},
		{"DENY web\n", `rules.acl:1:1: write "deny" in lower case`},
		{"allow a..b\n", `rules.acl:1:7: "a..b": a label is empty`},
		{"# x\n\nallow  .prod.internal\n", `rules.acl:3:8: ".prod.internal": for every name below a domain write "*.prod.internal"`},
		{"allow web get\n", `rules.acl:1:11: "get": a method has upper-case letters`},
		{"allow web GET,post\n", `rules.acl:1:15: "post": a method has upper-case letters`},
		{"allow web GET, POST /x\n", `rules.acl:1:15: a method is missing`},
		{"allow web ,GET\n", `rules.acl:1:11: a method is missing`},
		{"allow web db.internal\n", `rules.acl:1:11: "db.internal": a method has upper-case letters, digits, "-" and "_", as in "GET,POST"; a path begins with "/", another name has a line of its own`},
		{"allow web * /x\n", `rules.acl:1:11: for all methods, or all paths, leave it out`},
		{"allow web GET *\n", `rules.acl:1:15: for all paths leave it out`},
		{"allow web GET reports\n", `rules.acl:1:15: "reports" would never be met: a path begins with "/"`},
		{"allow web /a /b\n", `rules.acl:1:14: "/b" is too much`},
		{"allow web GET /a b\n", `rules.acl:1:18: "b" is too much`},
		{"allow web /a*\n", `rules.acl:1:11: "/a*": a wildcard stands only for the end after a slash, as in "/reports/*"`},
		{"allow web /*/a\n", `rules.acl:1:11: "/*/a": a wildcard stands only for the end`},
		{"allow web /a/../b\n", `rules.acl:1:11: "/a/../b" would never be met: a segment is "." or ".."`},
		{"allow web /a%2fb\n", `rules.acl:1:11: "/a%2fb" would never be met: a "%" is not followed`},
		{"allow web /a/" + strings.Repeat("b", 1024) + "\n", `rules.acl:1:11: a path has at most 1024 bytes`},
		{"allow web A,B,C,D,E,F,G,H,I,J,K,L,M,N,O,P,Q\n", `rules.acl:1:43: a rule has at most 16 methods`},
		{"allow web " + strings.Repeat("A", 33) + "\n", `rules.acl:1:11: "` + strings.Repeat("A", 33) + `": a method has 1 to 32`},
		{"allow 10.0.0.1/8\n", `rules.acl:1:7: "10.0.0.1/8" has bits set beyond its length; write "10.0.0.0/8"`},
		{"allow a\xff\n", `rules.acl:1:8: not UTF-8`},
		{"\ufeffallow a\n", `rules.acl:1:1: a byte order mark`},
		{"allow a # x\rdeny a\n", `rules.acl:1:12: a control character (U+000D)`},
		{"allow a # \u202e\n", `rules.acl:1:11: a control character (U+202E)`},
		{"allow a\x00\n", `rules.acl:1:8: a control character (U+0000)`},
		{"allow a\u00a0GET\n", `rules.acl:1:7: "a\u00a0GET": write names of other alphabets`},
		{"#" + strings.Repeat("x", 4096) + "\n", `rules.acl:1:4097: a line has at most 4096 bytes`},
		{strings.Repeat("allow a\n", 100_001), `rules.acl:100001:1: there are more than 100,000 rules`},
		{strings.Repeat("\n", 4<<20+1), `rules.acl:1:1: it is longer than 4 MiB`},
	} {
		rules, err := acl.Parse("rules.acl", []byte(c.text))
		var where *acl.ParseError
		if rules != nil || !errors.As(err, &where) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%.60q: %v\nwant %s", c.text, err, c.want)
		} else if len(err.Error()) > 1000 {
			t.Errorf("%.60q: a text of %d bytes", c.text, len(err.Error()))
		}
	}
}

func TestWarnings(t *testing.T) {
	rules := mustParse(t, `allow web.prod.internal
allow *.batch.internal
deny  old.batch.internal
allow old.batch.internal GET
deny  *.dev.internal
allow x.dev.internal /a/*
allow *.y.dev.internal
allow *.internal
allow WEB.prod.internal
deny  10.6.0.0/16
allow 10.6.6.0/24
allow 10.0.0.0/8
deny  spiffe://dev/*
allow spiffe://dev/a
allow spiffe://dev/a/*
allow spiffe://prod/a
deny  web.lab GET /a/*
deny  web.lab POST
allow web.lab GET,POST /a/b
allow web.lab GET /a/*
allow web.lab GET /a
allow web.lab GET,PUT /a/b
allow web.lab /a/b
allow web.lab POST
deny  10.7.0.0/25
allow 10.7.0.0/24
deny  exact.lab /a/
allow exact.lab /a/*
deny  old.batch.internal
deny  spiffe://lab/x/*
allow spiffe://lab/x/*
`)
	want := []string{
		"rules.acl:4: allow old.batch.internal GET: allows nothing, because of rules.acl:3: deny old.batch.internal",
		"rules.acl:6: allow x.dev.internal /a/*: allows nothing, because of rules.acl:5: deny *.dev.internal",
		"rules.acl:7: allow *.y.dev.internal: allows nothing, because of rules.acl:5: deny *.dev.internal",
		"rules.acl:9: allow web.prod.internal: stands in line 1 already",
		"rules.acl:11: allow 10.6.6.0/24: allows nothing, because of rules.acl:10: deny 10.6.0.0/16",
		"rules.acl:14: allow spiffe://dev/a: allows nothing, because of rules.acl:13: deny spiffe://dev/*",
		"rules.acl:15: allow spiffe://dev/a/*: allows nothing, because of rules.acl:13: deny spiffe://dev/*",
		"rules.acl:19: allow web.lab GET,POST /a/b: allows nothing, because of rules.acl:18: deny web.lab POST",
		"rules.acl:20: allow web.lab GET /a/*: allows nothing, because of rules.acl:17: deny web.lab GET /a/*",
		"rules.acl:21: allow web.lab GET /a: allows nothing, because of rules.acl:17: deny web.lab GET /a/*",
		"rules.acl:24: allow web.lab POST: allows nothing, because of rules.acl:18: deny web.lab POST",
		"rules.acl:29: deny old.batch.internal: stands in line 3 already",
		"rules.acl:31: allow spiffe://lab/x/*: allows nothing, because of rules.acl:30: deny spiffe://lab/x/*",
	}
	got := rules.Warnings()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("missing: %s", want[i])
		case i >= len(want):
			t.Errorf("too much: %s", got[i])
		case got[i] != want[i]:
			t.Errorf("%s\nwant %s", got[i], want[i])
		}
	}
	if got := mustParse(t, "deny *\nallow *\nallow a\n").Warnings(); len(got) != 2 {
		t.Errorf("deny *: %q", got)
	}
}

func TestDeniedTexts(t *testing.T) {
	rules := mustParse(t, "allow *.prod.internal\nallow web.batch.internal GET /reports/*\ndeny old.batch.internal\nallow spiffe://prod.internal/ns/web/*\nallow 10.0.0.0/8\ndeny *.prod.internal /admin/*\n")
	for _, c := range []struct {
		who           []string
		request, want string
	}{
		{[]string{"x.dev.internal"}, "", `no rule allows dns:"x.dev.internal"; "*.prod.internal" (rules.acl:1) comes nearest`},
		{[]string{"wbe.batch.internal"}, "", `no rule allows dns:"wbe.batch.internal"; "web.batch.internal" (rules.acl:2) comes nearest`},
		{[]string{"uri:spiffe://prod.internal/ns/db/a"}, "", `no rule allows uri:"spiffe://prod.internal/ns/db/a"; "spiffe://prod.internal/ns/web/*" (rules.acl:4) comes nearest`},
		{[]string{"com", "ip:11.0.0.1"}, "GET /", `no rule allows dns:"com", ip:"11.0.0.1" GET "/"`},
		{[]string{"old.batch.internal"}, "", `dns:"old.batch.internal" is denied by rules.acl:3: deny old.batch.internal`},
		{[]string{"web.batch.internal"}, "POST /reports/a", `no rule allows dns:"web.batch.internal" POST "/reports/a"; it may do something else by rules.acl:2: allow web.batch.internal GET /reports/*`},
		{[]string{"web.batch.internal"}, "GET /reports//a", `no rule allows dns:"web.batch.internal" GET "/reports//a"; no rule with a path allows such a path: two slashes stand in a row; it may do something else by rules.acl:2: allow web.batch.internal GET /reports/*`},
		{[]string{"web.prod.internal"}, "GET /admin/x", `dns:"web.prod.internal" GET "/admin/x" is denied by rules.acl:6: deny *.prod.internal /admin/*`},
		{[]string{"web.prod.internal."}, "", `dns:"web.prod.internal." is not allowed: a label is empty: two dots in a row, or one at an end`},
		{nil, "", `a certificate without names is not allowed: the certificate has no name that rules are about: a dns name, a SPIFFE ID, an address`},
		{[]string{"web.prod.internal"}, "G\nT /\n", `dns:"web.prod.internal" "G\nT" "/\n" is denied by rules.acl:6: deny *.prod.internal /admin/*`},
	} {
		err := rules.Allow(peer(t, c.who...))
		if c.request != "" {
			err = rules.AllowRequest(peer(t, c.who...), request(c.request))
		}
		if err == nil || err.Error() != c.want {
			t.Errorf("%v\nwant %s", err, c.want)
		}
	}
	if err := acl.Allow("a.internal", "b.internal").Allow(peer(t, "c.internal")); err == nil || err.Error() != `no rule allows dns:"c.internal"; "a.internal" (pattern 1 of acl.Allow) comes nearest` {
		t.Error(err)
	}
}

func TestExplain(t *testing.T) {
	rules := mustParse(t, "allow *.batch.internal GET /reports/*\nallow web.prod.internal\ndeny old.batch.internal\nallow new.batch.internal\ndeny *.internal DELETE\n")
	for _, c := range []struct {
		policy acl.Policy
		who    *acl.Peer
		r      string
		want   string
	}{
		{rules, peer(t, "new.batch.internal"), "GET /reports/a", `peer:       dns:"new.batch.internal"
connection: allowed by rules.acl:4: allow new.batch.internal
request:    GET "/reports/a"
decision:   allowed by rules.acl:4: allow new.batch.internal
its rules:  rules.acl:1: allow *.batch.internal GET /reports/*
its rules:  rules.acl:4: allow new.batch.internal
its rules:  rules.acl:5: deny *.internal DELETE
`},
		{rules, peer(t, "x.batch.internal"), "DELETE /", `peer:       dns:"x.batch.internal"
connection: allowed by rules.acl:1: allow *.batch.internal GET /reports/*
request:    DELETE "/"
decision:   denied: dns:"x.batch.internal" DELETE "/" is denied by rules.acl:5: deny *.internal DELETE
its rules:  rules.acl:1: allow *.batch.internal GET /reports/*
its rules:  rules.acl:5: deny *.internal DELETE
`},
		{rules, peer(t, "wbe.prod.internal"), "", `peer:       dns:"wbe.prod.internal"
connection: denied: no rule allows dns:"wbe.prod.internal"; "web.prod.internal" (rules.acl:2) comes nearest
its rules:  rules.acl:5: deny *.internal DELETE
`},
		{acl.Allow("b", "a"), peer(t, "a"), "", "peer:       dns:\"a\"\nconnection: allowed by pattern 2 of acl.Allow: allow a\nits rules:  pattern 2 of acl.Allow: allow a\n"},
		{acl.Anyone(), peer(t, "a"), "GET /", "peer:       dns:\"a\"\nconnection: allowed\nrequest:    GET \"/\"\ndecision:   allowed\n"},
		{acl.Func(nil), peer(t, "a"), "", "peer:       dns:\"a\"\nconnection: denied: dns:\"a\" is not allowed: the program's own function says no\n"},
	} {
		if got := acl.Explain(c.policy, c.who, request(c.r)); got != c.want {
			t.Errorf("%s\nwant\n%s", got, c.want)
		}
	}
	many := strings.Repeat("allow web GET\n", 3) + strings.Repeat("deny web POST\n", 30)
	if got := acl.Explain(mustParse(t, many), peer(t, "web"), acl.Request{}); strings.Count(got, "its rules:") != 8 || !strings.HasSuffix(got, "and more\n") {
		t.Errorf("thirty rules are told as %s", got)
	}
}

// Rules print as they parse, and deciding about anything panics nowhere.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"allow web.prod.internal\nallow *.batch.internal  GET,HEAD /reports/*        # methods and path\ndeny  old.batch.internal\n",
		"allow spiffe://prod.internal/ns/web/sa/*  /pkg.Service/*\r\nallow 10.2.0.0/16\n2001:db8::/32",
		"*\n* GET\n* /*\ndeny *\n", "allow allow\ndeny deny", "allow\xff", "a\x00", "allow a #\u202e", "allow spiffe://*/\n", "allow ::ffff:0.0.0.0/0",
	} {
		f.Add(text)
	}
	peers := []*acl.Peer{peer(f, "web.prod.internal"), peer(f, "*.batch.internal", "uri:spiffe://prod.internal/ns/web/sa/a"), peer(f, "ip:10.2.1.1", "ip:2001:db8::1")}
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := acl.Parse("x", []byte(text))
		if err != nil {
			if rules != nil || !strings.HasPrefix(err.Error(), "x:") {
				t.Fatalf("%v, %v", rules, err)
			}
			return
		}
		printed := rules.String()
		again, err := acl.Parse("x", []byte(printed))
		if err != nil || again.String() != printed {
			t.Fatalf("%q is printed as %q, and that as %q (%v)", text, printed, again, err)
		}
		rules.Warnings()
		for _, p := range peers {
			r := acl.Request{Method: "GET", Path: "/reports/a"}
			if (rules.Allow(p) == nil) != (again.Allow(p) == nil) || (rules.AllowRequest(p, r) == nil) != (again.AllowRequest(p, r) == nil) {
				t.Fatalf("%q decides otherwise than %q", text, printed)
			}
			if acl.Explain(rules, p, r) == "" {
				t.Fatal("no text")
			}
		}
	})
}

// A name that a suffix rule lets in is below the suffix, letter by letter.
func FuzzNames(f *testing.F) {
	for _, name := range []string{"web.prod.internal", "a..prod.internal", "x.prod.internal.", "\x00.prod.internal", "*.prod.internal", "K.PROD.internal"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		p := &acl.Peer{DNSNames: []string{name}}
		if acl.Allow("*.prod.internal").Allow(p) == nil {
			above, ok := strings.CutSuffix(strings.ToLower(name), ".prod.internal")
			if !ok || strings.Trim(above, "abcdefghijklmnopqrstuvwxyz0123456789-_.*") != "" || len(name) > 253 || strings.Contains(name, "..") {
				t.Fatalf("%q is let in", name)
			}
		}
		// A name is a pattern for itself, or neither.
		itself := acl.Allow(name)
		if in := itself.Allow(p) == nil; in != (itself.Err() == nil) && name != "*" && !strings.ContainsAny(name, ":/") && strings.Trim(name, "0123456789.") != "" {
			t.Fatalf("%q as a pattern: %v; as a name: %v", name, itself.Err(), in)
		}
		if p.String() == "" || fmt.Sprint(p.LogValue()) == "" {
			t.Fatal("no text")
		}
	})
}
