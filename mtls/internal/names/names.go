// Package names knows the names that certificates are for. It is pure.
//
// It imports the standard library only. Sources: RFC 1123 section 2.1 (host
// names), RFC 5952 (addresses as text), RFC 9525 (wildcards).
package names

import (
	"fmt"
	"net/netip"
	"strings"
)

// Canonical returns an address as RFC 5952 has it, or a dns name in lower
// case.
func Canonical(name string) (string, error) {
	if addr, err := netip.ParseAddr(name); err == nil {
		if addr.Zone() != "" {
			return "", fmt.Errorf("%q has a zone, which no certificate can carry", name)
		}
		return addr.Unmap().String(), nil
	}
	name = strings.ToLower(name)
	if !IsDNS(strings.TrimPrefix(name, "*.")) {
		return "", fmt.Errorf("%q is neither a dns name nor an IP address; write international names in punycode (xn--…)", name)
	}
	return name, nil
}

// IsDNS holds a name in lower case to the syntax of host names (RFC 1123
// section 2.1), underscores allowed.
func IsDNS(name string) bool {
	if len(name) == 0 || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// Cover reports whether a name is among names, wildcards counted.
func Cover(names []string, name string) bool {
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return true
		}
		if suffix, ok := strings.CutPrefix(n, "*"); ok {
			if i := strings.IndexByte(name, '.'); i > 0 && strings.EqualFold(name[i:], suffix) {
				return true
			}
		}
	}
	return false
}
