package policy

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/chancery-pki/chancery/internal/protocol"
)

func dns(v string) protocol.Identifier { return protocol.Identifier{Type: protocol.DNS, Value: v} }
func ip(v string) protocol.Identifier  { return protocol.Identifier{Type: protocol.IP, Value: v} }

// name is dns or, where the text is an address, ip.
func name(v string) protocol.Identifier {
	if id, err := protocol.ParseIdentifier("ip", v); err == nil {
		return id
	}
	return dns(v)
}

func set(t testing.TB, patterns ...string) NameSet {
	t.Helper()
	s, err := NewNameSet(patterns...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCanonical(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"*", "*"},
		{"API.Prod.Internal", "api.prod.internal"},
		{"*.Prod.Internal", "*.prod.internal"},
		{"printer", "printer"},
		{"*.internal", "*.internal"},
		{"10.0.0.0/8", "10.0.0.0/8"},
		{"0.0.0.0/0", "0.0.0.0/0"},
		{"FD00:0::/8", "fd00::/8"},
		{"10.1.2.3", "10.1.2.3"},
		{"2001:DB8:0::1", "2001:db8::1"},
		{"xn--bcher-kva.internal", "xn--bcher-kva.internal"},
	} {
		if got, err := Canonical(c.in); err != nil || got != c.want {
			t.Errorf("Canonical(%q) = %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func TestCanonicalRefuses(t *testing.T) {
	for _, c := range []struct{ in, says string }{
		{"", "empty"},
		{".prod.internal", `"*.prod.internal"`},
		{"*.", "empty"},
		{"*.*.internal", "wildcard stands only"},
		{"a*.internal", "wildcard stands only"},
		{"api.*.internal", "wildcard stands only"},
		{"**", "wildcard stands only"},
		{"prod.internal.", "ends with a dot"},
		{"a..b", "label is empty"},
		{"a_b.internal", "letters, digits and hyphens"},
		{"bücher.internal", "xn--"},
		{"10.0.0.1/8", `"10.0.0.0/8"`},
		{"10.0.0.0/33", "not a network"},
		{"::ffff:10.0.0.0/104", "IPv4-mapped"},
		{"::ffff:10.0.0.1", "IPv4-mapped"},
		{"fe80::1%eth0", "zone"},
		{"*.10.0.0.1", "IP address"},
		{"10.0.0", "ends in a number"},
		{"api.internal/24", "not a network"},
		{strings.Repeat("a", 64) + ".internal", "63"},
		{"spiffe://x", "not a network"},
	} {
		got, err := Canonical(c.in)
		if err == nil {
			t.Errorf("Canonical(%q) = %q; want an error", c.in, got)
		} else if !strings.Contains(err.Error(), c.says) {
			t.Errorf("Canonical(%q): %q doesn't say %q", c.in, err, c.says)
		}
		if _, err := NewNameSet("good.internal", c.in); err == nil {
			t.Errorf("NewNameSet took %q", c.in)
		}
	}
}

// The rules of the package comment, by the compiled set and by single
// patterns, which must agree.
func TestCovers(t *testing.T) {
	for _, c := range []struct {
		pattern string
		yes, no []string
	}{
		{"api.prod.internal",
			[]string{"api.prod.internal"},
			[]string{"prod.internal", "x.api.prod.internal", "*.prod.internal", "*.api.prod.internal", "xapi.prod.internal", "api.prod.internal.evil.example", "10.0.0.1"}},
		{"*.prod.internal",
			[]string{"a.prod.internal", "a.b.prod.internal", "*.prod.internal", "*.b.prod.internal"},
			[]string{"prod.internal", "xprod.internal", "a.xprod.internal", "internal", "*.internal", "a.prod.internal.evil.example", "1.2.3.4"}},
		{"*.internal", []string{"prod.internal", "a.b.internal", "*.internal"}, []string{"internal", "a.internal.example"}},
		{"printer", []string{"printer"}, []string{"a.printer", "*.printer", "print"}},
		{"10.0.0.0/8", []string{"10.0.0.0", "10.255.255.255"}, []string{"11.0.0.0", "9.255.255.255", "a10.internal", "::a00:1", "fd00::1"}},
		{"10.1.2.3", []string{"10.1.2.3"}, []string{"10.1.2.4"}},
		{"0.0.0.0/0", []string{"1.2.3.4", "255.255.255.255"}, []string{"::1", "a.internal"}},
		{"fd00::/8", []string{"fd12::1"}, []string{"fe00::1", "10.0.0.1"}},
		{"::/0", []string{"::1", "fd00::1"}, []string{"10.0.0.1", "a.internal"}},
		{"*", []string{"a", "a.internal", "*.internal", "10.0.0.1", "::1"}, nil},
	} {
		s := set(t, c.pattern)
		for _, v := range c.yes {
			if !s.Covers(name(v)) || !covers(c.pattern, name(v)) {
				t.Errorf("%q doesn't cover %q (set: %v)", c.pattern, v, s.Covers(name(v)))
			}
		}
		for _, v := range c.no {
			if s.Covers(name(v)) || covers(c.pattern, name(v)) {
				t.Errorf("%q covers %q (set: %v)", c.pattern, v, s.Covers(name(v)))
			}
		}
	}
}

func TestCoversPattern(t *testing.T) {
	s := set(t, "*.prod.internal", "api.internal", "10.0.0.0/8", "fd00::1")
	for pattern, want := range map[string]bool{
		"*": false, "*.prod.internal": true, "*.a.prod.internal": true, "a.prod.internal": true, "prod.internal": false, "*.internal": false,
		"api.internal": true, "*.api.internal": false, "10.0.0.0/8": true, "10.1.0.0/16": true, "10.1.2.3": true, "10.0.0.0/7": false, "0.0.0.0/0": false,
		"fd00::1": true, "fd00::1/128": true, "fd00::/64": false, "::/8": false,
	} {
		if s.CoversPattern(pattern) != want {
			t.Errorf("CoversPattern(%q) = %v", pattern, !want)
		}
	}
	if all := set(t, "*"); !all.CoversPattern("*") || !all.CoversPattern("10.0.0.0/8") || (NameSet{}).CoversPattern("*") {
		t.Error("* covers all, nothing covers nothing")
	}
}

func TestEmptyAndForeignCoverNothing(t *testing.T) {
	var zero NameSet
	for _, id := range []protocol.Identifier{dns("a"), ip("10.0.0.1"), dns("*.a"), {}, {Type: "permanent-identifier", Value: "a"}} {
		if zero.Covers(id) || (Names{}).Permits(id) {
			t.Errorf("nothing covers %v", id)
		}
	}
	device := protocol.Identifier{Type: "permanent-identifier", Value: "a.internal"}
	if s := set(t, "a.internal", "*.internal", "0.0.0.0/0"); s.Covers(device) {
		t.Error("a dns pattern covers another identifier type")
	}
	if s := set(t, "10.0.0.0/8"); s.Covers(ip("not an address")) || covers("10.0.0.0/8", ip("not an address")) {
		t.Error("a network covers what is no address")
	}
	if covers("10.0.0.0/8", dns("10.0.0.1")) || set(t, "10.0.0.0/8").Covers(dns("10.0.0.1")) {
		t.Error("a network covers a dns identifier that looks like an address")
	}
}

func TestPermits(t *testing.T) {
	allow := set(t, "*.prod.internal", "10.0.0.0/8")
	for _, c := range []struct {
		deny      []string
		wildcards bool
		id        string
		want      bool
	}{
		{nil, false, "a.prod.internal", true},
		{nil, false, "*.prod.internal", false},
		{nil, true, "*.prod.internal", true},
		{nil, true, "*.other.internal", false},
		{[]string{"api.prod.internal"}, true, "api.prod.internal", false},
		{[]string{"api.prod.internal"}, true, "x.api.prod.internal", true},
		// A wildcard would be good for the denied name.
		{[]string{"api.prod.internal"}, true, "*.prod.internal", false},
		{[]string{"api.prod.internal"}, true, "*.api.prod.internal", true},
		// It stands for one label only, so deeper names don't matter.
		{[]string{"x.api.prod.internal"}, true, "*.prod.internal", true},
		{[]string{"*.api.prod.internal"}, true, "*.prod.internal", true},
		{[]string{"*.api.prod.internal"}, true, "*.api.prod.internal", false},
		{[]string{"*.prod.internal"}, true, "*.api.prod.internal", false},
		{[]string{"*"}, true, "a.prod.internal", false},
		{[]string{"10.9.0.0/16"}, true, "10.9.1.1", false},
		{[]string{"10.9.0.0/16"}, true, "10.8.1.1", true},
		{[]string{"10.9.0.1"}, true, "10.9.0.1", false},
	} {
		n := Names{Allow: allow, Deny: set(t, c.deny...), Wildcards: c.wildcards}
		if got := n.Permits(name(c.id)); got != c.want {
			t.Errorf("deny %q, wildcards %v: Permits(%q) = %v", c.deny, c.wildcards, c.id, got)
		}
	}
}

// Whatever the patterns, a permitted wildcard never stands for a denied name.
func TestWildcardNeverReachesDenied(t *testing.T) {
	label := rapid.SampledFrom([]string{"a", "b", "c"})
	host := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(label, 1, 4).Draw(t, "labels"), ".")
	})
	pattern := rapid.Custom(func(t *rapid.T) string {
		return rapid.SampledFrom([]string{"", "*."}).Draw(t, "star") + host.Draw(t, "host")
	})
	rapid.Check(t, func(rt *rapid.T) {
		allowed := rapid.SliceOfN(pattern, 0, 4).Draw(rt, "allow")
		denied := rapid.SliceOfN(pattern, 0, 4).Draw(rt, "deny")
		n := Names{Allow: set(t, allowed...), Deny: set(t, denied...), Wildcards: true}
		base := host.Draw(rt, "base")
		permitted := n.Permits(dns("*." + base))
		children := true
		for _, l := range []string{"a", "b", "c"} {
			child := dns(l + "." + base)
			children = children && n.Permits(child)
			any := func(patterns []string) bool {
				for _, p := range patterns {
					if covers(p, child) {
						return true
					}
				}
				return false
			}
			if want := any(allowed) && !any(denied); n.Permits(child) != want {
				rt.Fatalf("allow %q deny %q: Permits(%v) = %v", allowed, denied, child, !want)
			}
		}
		if permitted && !children {
			rt.Fatalf("allow %q deny %q: *.%s is permitted, one of its names is not", allowed, denied, base)
		}
	})
}

func TestRegistered(t *testing.T) {
	s := set(t, "*.prod.internal", "*.internal", "exact.one.internal", "10.0.0.0/8")
	for in, want := range map[string]string{
		"b.prod.internal":       "b.prod.internal",
		"a.b.prod.internal":     "b.prod.internal",
		"x.a.b.prod.internal":   "b.prod.internal",
		"*.b.prod.internal":     "b.prod.internal",
		"*.prod.internal":       "*.prod.internal",
		"prod.internal":         "prod.internal",
		"x.y.internal":          "y.internal",
		"exact.one.internal":    "exact.one.internal",
		"x.exact.one.internal":  "one.internal",
		"10.1.2.3":              "10.1.2.3",
		"elsewhere.example.com": "example.com",
	} {
		if got := s.Registered(name(in)); got != want {
			t.Errorf("Registered(%q) = %q, want %q", in, got, want)
		}
	}
	all := set(t, "*")
	for in, want := range map[string]string{"printer": "printer", "a.b": "a.b", "x.a.b": "a.b", "::1": "::1"} {
		if got := all.Registered(name(in)); got != want {
			t.Errorf("under *: Registered(%q) = %q, want %q", in, got, want)
		}
	}
}

func manyPatterns(n int) []string {
	patterns := make([]string, 0, n)
	for i := range n / 4 {
		patterns = append(patterns,
			fmt.Sprintf("host%d.prod.internal", i), fmt.Sprintf("*.team%d.internal", i),
			fmt.Sprintf("10.%d.%d.0/24", i/256%256, i%256), fmt.Sprintf("fd00:%x::/32", i))
	}
	return patterns
}

func TestDecisionsDoNotAllocate(t *testing.T) {
	n := Names{Allow: set(t, manyPatterns(10000)...), Deny: set(t, "secret.team7.internal"), Wildcards: true}
	eab := &protocol.EABKey{Names: []string{"*.team7.internal", "10.0.0.0/8", "a.internal"}}
	ids := []protocol.Identifier{dns("a.b.c.d.team7.internal"), dns("*.b.team7.internal"), dns("no.example.com"), ip("10.0.3.9"), ip("fd00:7::1"), ip("192.0.2.1")}
	if got := testing.AllocsPerRun(100, func() {
		for _, id := range ids {
			n.Permits(id)
			eabCovers(eab, id)
		}
	}); got != 0 {
		t.Errorf("%v allocations per round of decisions", got)
	}
}

func BenchmarkPermits(b *testing.B) {
	for _, size := range []int{4, 10000} {
		n := Names{Allow: set(b, manyPatterns(size)...)}
		for _, id := range []protocol.Identifier{dns("a.b.team0.internal"), dns("a.b.c.d.example.com"), ip("192.0.2.1")} {
			b.Run(fmt.Sprintf("%d/%s", size, id.Value), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					n.Permits(id)
				}
			})
		}
	}
}

// Whatever is accepted as a pattern is stable, compiles, and means the same
// compiled and alone.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"*", "*.prod.internal", "api.prod.internal", "10.0.0.0/8", "fd00::/8", "10.1.2.3", ".x", "a/b", "::ffff:1.2.3.4/96"} {
		f.Add(s, "a.prod.internal")
		f.Add(s, "10.1.2.3")
	}
	f.Fuzz(func(t *testing.T, pattern, value string) {
		canonical, err := Canonical(pattern)
		if err != nil {
			return
		}
		if again, err := Canonical(canonical); err != nil || again != canonical {
			t.Fatalf("Canonical(%q) = %q, then %q, %v", pattern, canonical, again, err)
		}
		s, err := NewNameSet(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, typ := range []string{"dns", "ip"} {
			id, err := protocol.ParseIdentifier(typ, value)
			if err != nil {
				continue
			}
			if s.Covers(id) != covers(canonical, id) {
				t.Fatalf("pattern %q and %v: set %v, alone %v", canonical, id, s.Covers(id), covers(canonical, id))
			}
			s.Registered(id)
		}
	})
}
