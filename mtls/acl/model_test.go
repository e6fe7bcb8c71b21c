package acl_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/mtls/acl"
)

// plain is the rules as the package comment tells them, one after the other,
// without an index.
type plain []plainRule

type plainRule struct {
	deny       bool
	whom, path string
	methods    []string
}

func (r plainRule) String() string {
	return strings.Join(strings.Fields(fmt.Sprint(map[bool]string{true: "deny", false: "allow"}[r.deny], " ", r.whom, " ", strings.Join(r.methods, ","), " ", r.path)), " ")
}

func (r plainRule) isAbout(name string) bool {
	name = strings.ToLower(name)
	if addr, err := netip.ParseAddr(name); err == nil {
		if network, err := netip.ParsePrefix(r.whom); err == nil {
			return network.Contains(addr)
		}
		return r.whom == "*" || r.whom == name
	}
	wild := strings.HasPrefix(name, "*.")
	switch {
	case r.whom == "*", r.whom == name:
		return true
	case strings.HasPrefix(r.whom, "*."):
		return strings.HasSuffix(name, r.whom[1:])
	case strings.HasSuffix(r.whom, "/*"):
		return strings.HasPrefix(name, strings.TrimSuffix(r.whom, "*"))
	case wild && r.deny:
		_, parent, _ := strings.Cut(r.whom, ".")
		return parent == name[2:]
	}
	return false
}

func (r plainRule) isFor(q acl.Request, normal bool) bool {
	methods := r.methods
	if slices.Contains(methods, "GET") {
		methods = append(slices.Clone(methods), "HEAD")
	}
	if len(methods) > 0 && !slices.Contains(methods, q.Method) && (!r.deny || q.Method == strings.ToUpper(q.Method)) {
		return false
	}
	switch {
	case r.path == "":
		return true
	case !normal:
		return r.deny
	case strings.HasSuffix(r.path, "*"):
		above := strings.TrimSuffix(r.path, "*")
		return strings.HasPrefix(q.Path, above) || r.deny && above != "/" && q.Path+"/" == above
	case r.deny && r.path != "/":
		return strings.TrimSuffix(q.Path, "/") == strings.TrimSuffix(r.path, "/")
	}
	return q.Path == r.path
}

func (rules plain) allow(names []string, connect bool, q acl.Request, normal bool) (allowed bool) {
	for _, r := range rules {
		if !slices.ContainsFunc(names, r.isAbout) {
			continue
		}
		switch {
		case connect && r.deny && len(r.methods) == 0 && r.path == "", !connect && r.deny && r.isFor(q, normal):
			return false
		case !r.deny && (connect || r.isFor(q, normal)):
			allowed = true
		}
	}
	return allowed
}

// The compiled rules decide as the rules read.
func TestModel(t *testing.T) {
	whom := []string{"*", "a", "b.a", "c.b.a", "d.a", "*.a", "*.b.a", "*.d.a", "1.2.3.4", "1.2.3.0/24", "1.0.0.0/8", "::/0", "1::/16", "spiffe://a/x", "spiffe://a/x/y", "spiffe://a/*", "spiffe://a/x/*", "spiffe://b/*"}
	names := []string{"a", "b.a", "C.b.A", "d.a", "e.d.a", "x", "*.a", "*.b.a", "*.d.a", "1.2.3.4", "1.2.4.4", "2.2.3.4", "1::1", "2::1"}
	ids := []string{"", "", "spiffe://a/x", "spiffe://a/x/y", "spiffe://a/x/y/z", "spiffe://b/x", "spiffe://c/x"}
	paths := []string{"", "", "/", "/*", "/p", "/p/", "/p/*", "/p/q", "/p/q/*", "/r"}
	asked := []string{"/", "/p", "/p/", "/p/q", "/p/q/", "/p/q/s", "/pp", "/r", "/r/"}
	odd := []string{"//", "", "/p/../r", "/p%2Fq"}
	methods := [][]string{nil, nil, {"GET"}, {"HEAD"}, {"POST", "PUT"}}
	pick := func(of []string) string { return of[rand.IntN(len(of))] }
	yes := 0
	for range 20_000 {
		var rules plain
		var text strings.Builder
		for range 1 + rand.IntN(6) {
			r := plainRule{rand.IntN(3) == 0, pick(whom), pick(paths), methods[rand.IntN(len(methods))]}
			rules = append(rules, r)
			fmt.Fprintln(&text, r)
		}
		who := []string{pick(names)}
		if rand.IntN(2) == 0 {
			who = append(who, pick(names))
		}
		if id := pick(ids); id != "" {
			who = append(who, id)
		}
		written := slices.Clone(who)
		for i, name := range written {
			if strings.Contains(name, "//") {
				written[i] = "uri:" + name
			} else if _, err := netip.ParseAddr(name); err == nil {
				written[i] = "ip:" + name
			}
		}
		p, compiled := peer(t, written...), mustParse(t, text.String())
		q, normal := acl.Request{Method: pick([]string{"GET", "HEAD", "POST", "PUT", "get", "DELETE"}), Path: pick(asked)}, true
		if rand.IntN(5) == 0 {
			q.Path, normal = pick(odd), false
		}
		if got, want := compiled.Allow(p) == nil, rules.allow(who, true, q, normal); got != want {
			t.Fatalf("%s%v connects: %v, want %v", text.String(), who, got, want)
		}
		got, want := compiled.AllowRequest(p, q) == nil, rules.allow(who, false, q, normal)
		if got != want {
			t.Fatalf("%s%v asks %s: %v, want %v", text.String(), who, q, got, want)
		}
		if got {
			yes++
			if compiled.Allow(p) != nil {
				t.Fatalf("%s%v may ask %s but not connect", text.String(), who, q)
			}
		}
		for _, warning := range compiled.Warnings() {
			line := warning[strings.Index(warning, ": allow")+2:]
			if line, _, useless := strings.Cut(line, ": allows nothing"); useless && got {
				alone := plain{rules[slices.IndexFunc(rules, func(r plainRule) bool { return mustParse(t, r.String()).String() == line+"\n" })]}
				others := slices.DeleteFunc(slices.Clone(rules), func(r plainRule) bool { return !r.deny })
				if alone.allow(who, false, q, normal) && append(others, alone...).allow(who, false, q, normal) {
					t.Fatalf("%s%q, but it lets %v %s", text.String(), warning, who, q)
				}
			}
		}
	}
	if yes < 1000 || yes > 19_000 {
		t.Errorf("%d of 20,000 were allowed: the test says little", yes)
	}
}
