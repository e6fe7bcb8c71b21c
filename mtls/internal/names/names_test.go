package names

import (
	"strings"
	"testing"
)

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		"A.Test": "a.test", "a": "a", "*.A.test": "*.a.test", "_x.a.test": "_x.a.test", "xn--mnchen-3ya.test": "xn--mnchen-3ya.test", "1.2.3": "1.2.3",
		"192.0.2.1": "192.0.2.1", "2001:DB8:0::1": "2001:db8::1", "::ffff:192.0.2.1": "192.0.2.1",
		"": "", "*": "", "*.": "", "a..b": "", "a.": "", ".a": "", "-a": "", "a-.b": "", "a*.b": "", "a.*.b": "", "**.b": "", "a b": "", "ä": "", "a\x00b": "",
		"fe80::1%1": "", "https://a": "", "a:443": "", strings.Repeat("a", 64): "", strings.Repeat("a.", 127): "", "[::1]": "",
	} {
		got, err := Canonical(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestCover(t *testing.T) {
	names := []string{"a.test", "*.w.test", "192.0.2.1"}
	for name, want := range map[string]bool{
		"a.test": true, "A.TEST": true, "x.w.test": true, "X.W.test": true,
		"b.test": false, "x.a.test": false, "w.test": false, ".w.test": false, "x.y.w.test": false, "xw.test": false, "*.w.test": true,
	} {
		if Cover(names, name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
