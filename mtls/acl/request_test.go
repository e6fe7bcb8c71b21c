package acl_test

import (
	"net/url"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/chancery-pki/chancery/mtls/acl"
)

func request(text string) acl.Request {
	method, path, _ := strings.Cut(text, " ")
	return acl.Request{Method: method, Path: path}
}

func TestRequests(t *testing.T) {
	rules := mustParse(t, `
		allow a.internal
		allow b.internal  GET
		allow c.internal  /reports/*
		allow d.internal  POST,PUT /reports/2026
		allow e.internal  /pkg.Service/*
		allow f.internal  /*
		allow g.internal  HEAD /x
		allow h.internal
		deny  h.internal  /admin/*
		deny  h.internal  DELETE
		deny  h.internal  GET /secret
		deny  h.internal  PUT /dir/
		deny  *           GET,PUT /nobody`)
	for _, c := range []struct {
		who         string
		may, mayNot []string
	}{
		{"a.internal", []string{"GET /", "POST /../x", "POST ", "POST /nobody", "M-SEARCH //"}, []string{"GET /nobody", "PUT /nobody/", "get /nobody", " /nobody", "GET /../x", "GET ", " "}},
		{"b.internal", []string{"GET /any", "GET /reports/2026", "HEAD /any"}, []string{"POST /any", "get /any", " /any", "GET  /any ", "GETX /any", "GE /any", "GET /nobody"}},
		{"c.internal",
			[]string{"GET /reports/", "POST /reports/a", "X /reports/a/b/", "GET /reports/caf%C3%A9", "GET /reports/%F0%9F%98%80%EF%BF%BD%E2%82%ACx", "GET /reports/a%20b", "GET /reports/a,b:c@d"},
			[]string{"GET /reports", "GET /Reports/a", "GET /reportsx/a", "GET /", "GET ", " ", "GET reports/a"}},
		{"d.internal", []string{"POST /reports/2026", "PUT /reports/2026"}, []string{"GET /reports/2026", "POST /reports/2026/", "POST /reports/20266", "POST /reports", "post /reports/2026"}},
		{"e.internal", []string{"POST /pkg.Service/Get"}, []string{"POST /pkg.Service", "POST /pkg.ServiceX/Get", "POST /x/pkg.Service/Get", "POST pkg.Service/Get"}},
		{"f.internal", []string{"GET /", "GET /a/b"}, []string{"GET ", "OPTIONS *", "GET /a//b"}},
		{"g.internal", []string{"HEAD /x"}, []string{"GET /x"}},
		{"h.internal",
			[]string{"GET /", "POST /secret", "PUT /admins", "PUT /secret", "GET /dir/"},
			[]string{"GET /admin/", "GET /admin/x", "GET /admin", "DELETE /", "GET /secret", "HEAD /secret", "GET /secret/", "PUT /dir/", "PUT /dir", "delete /", "get /secret"}},
		{"nobody.internal", nil, []string{"GET /", "GET /nobody"}},
	} {
		for _, text := range c.may {
			if err := rules.AllowRequest(peer(t, c.who), request(text)); err != nil {
				t.Errorf("%s %q: %v", c.who, text, err)
			}
		}
		for _, text := range c.mayNot {
			if rules.AllowRequest(peer(t, c.who), request(text)) == nil {
				t.Errorf("%s may %q", c.who, text)
			}
		}
		if err := rules.Allow(peer(t, c.who)); (err == nil) != (len(c.may) > 0) {
			t.Errorf("%s connects: %v", c.who, err)
		}
	}
}

// trickyPaths are what one server takes for another path than the next does.
var trickyPaths = []string{
	"", "*", "reports/a", "//", "//reports/a", "/reports//a", "/reports/a//", "/reports/.", "/reports/..", "/reports/../admin", "/reports/./a", "/./reports/a",
	"/reports/%2e%2e/admin", "/reports/%2E%2E/admin", "/reports/.%2E/admin", "/reports/..%2Fadmin", "/reports/..%2fadmin", "/reports%2Fa", "/reports/a%2Fb",
	"/reports/..%5Cadmin", "/reports/..\\admin", "/reports\\a", "/reports/%252e%252e/admin", "/reports/a%25", "/reports/..;/admin", "/reports/a;v=1", "/reports;/a", "/reports/a%3Bb",
	"/reports/a%00", "/reports/a\x00", "/reports/a%0A", "/reports/a\n", "/reports/a%7F", "/reports/a b", "/reports/a%", "/reports/a%4", "/reports/a%4G", "/reports/a%zz",
	"/reports/%61", "/reports/%7E", "/reports/%c3%a9", "/reports/é", "/reports/%C3", "/reports/%C3x", "/reports/%C0%AF", "/reports/%E0%80%AF", "/reports/%FF", "/reports/%ED%A0%80", "/reports/%F0%9F%98", "/reports/%F0%9Fx%98%80", "/reports/%F0%9F/%98%80", "/reports/%80",
	"/reports/a?b", "/reports/a#b", "/reports/<a>", "/reports/[a]", "/reports/" + strings.Repeat("a", 4096),
	"/reports/a/.", "/reports/a/..", "http://reports/a",
}

// Such a path meets no allow rule with a path and every deny rule with one.
func TestTrickyPaths(t *testing.T) {
	allows := mustParse(t, "allow web /*\nallow web GET /reports/*\nallow web POST /reports/a\n")
	denies := mustParse(t, "allow web\ndeny web GET /some/where/else\n")
	all := mustParse(t, "allow web\n")
	for _, p := range trickyPaths {
		r := acl.Request{Method: "GET", Path: p}
		if allows.AllowRequest(peer(t, "web"), r) == nil {
			t.Errorf("%q is allowed", p)
		}
		err := denies.AllowRequest(peer(t, "web"), r)
		if err == nil {
			t.Errorf("%q isn't denied", p)
		} else if strings.ContainsAny(err.Error(), "\x00\n") {
			t.Errorf("%q gets into the log as it is", p)
		}
		if err := denies.AllowRequest(peer(t, "web"), acl.Request{Method: "POST", Path: p}); err != nil {
			t.Errorf("%q: another method's rule denies it: %v", p, err)
		}
		if err := all.AllowRequest(peer(t, "web"), r); err != nil {
			t.Errorf("%q: a rule for all requests doesn't allow it: %v", p, err)
		}
		if _, err := acl.Parse("x", []byte("allow web "+strings.ReplaceAll(p, "\n", "\x00"))); err == nil && p != "" && !strings.HasPrefix(p, "/reports/a#") {
			t.Errorf("%q can stand in a rule", p)
		}
	}
}

// A listener that doesn't look at requests asks with the zero Request: only
// who may everything passes.
func TestZeroRequest(t *testing.T) {
	rules := mustParse(t, "allow a\nallow b /x\nallow c GET\nallow d\ndeny d /x\nallow e\ndeny e GET\nallow f /*\n")
	for who, allowed := range map[string]bool{"a": true, "b": false, "c": false, "d": false, "e": false, "f": false} {
		if err := rules.AllowRequest(peer(t, who), acl.Request{}); (err == nil) != allowed {
			t.Errorf("%s: %v", who, err)
		}
		if err := rules.Allow(peer(t, who)); err != nil {
			t.Errorf("%s can't even connect: %v", who, err)
		}
	}
}

// A path that rules compare is the only way to write what it means.
func FuzzPath(f *testing.F) {
	for _, p := range trickyPaths {
		f.Add(p)
	}
	f.Add("/")
	f.Add("/reports/caf%C3%A9/%20/a,b")
	rules, err := acl.Parse("x", []byte("allow web /*\n"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if rules.AllowRequest(&acl.Peer{DNSNames: []string{"web"}}, acl.Request{Method: "GET", Path: p}) != nil {
			return
		}
		u, err := url.ParseRequestURI(p)
		if err != nil || u.EscapedPath() != p || u.RawQuery != "" {
			t.Fatalf("%q is %+v, %v", p, u, err)
		}
		again, err := url.PathUnescape(u.Path)
		if err != nil || again != u.Path {
			t.Fatalf("%q decodes twice", p)
		}
		if clean := path.Clean(u.Path); clean != u.Path && clean+"/" != u.Path {
			t.Fatalf("%q is cleaned to %q", p, clean)
		}
		if !utf8.ValidString(u.Path) {
			t.Fatalf("%q is not UTF-8", p)
		}
		if strings.Count(p, "/") != strings.Count(u.Path, "/") || strings.ContainsAny(u.Path, "\\;\x00\r\n") {
			t.Fatalf("%q hides something: %q", p, u.Path)
		}
	})
}
