package acl

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

const (
	everyone  = "*"
	scheme    = "spiffe://"
	maxDNS    = 253  // RFC 1035 section 2.3.4
	maxLabel  = 63   // the same
	maxDomain = 255  // SPIFFE-ID section 2.3
	maxSPIFFE = 2048 // SPIFFE-ID section 2.3
)

// subject is whom a rule is about, in canonical form: a dns name, "*." and a
// name, a SPIFFE ID, a SPIFFE ID and "/*", an address or network, or "*".
type subject struct {
	text    string
	network netip.Prefix // an address is a network of one
}

// isHost reports whether it is one dns name.
func (s subject) isHost() bool {
	return !s.network.IsValid() && !strings.ContainsAny(s.text, "*/")
}

// parseSubject reads a pattern; fault says what is wrong with it and what
// would be right.
func parseSubject(word string) (s subject, fault string) {
	switch {
	case word == everyone:
		return subject{text: word}, ""
	case len(word) >= len(scheme) && strings.EqualFold(word[:len(scheme)], scheme):
		return parseSPIFFE(word)
	case strings.Contains(word, "://"):
		return s, fmt.Sprintf("%q: of URIs only SPIFFE IDs can be named, as in \"spiffe://prod.internal/ns/web\"", shortened(word))
	case strings.Contains(word, "/"):
		return parseNetwork(word)
	}
	if addr, err := netip.ParseAddr(word); err == nil {
		return parseAddress(addr)
	}
	return parseDNS(word)
}

func parseAddress(addr netip.Addr) (s subject, fault string) {
	switch {
	case addr.Zone() != "":
		return s, fmt.Sprintf("%q has a zone, which no certificate has; write %q", addr, addr.WithZone(""))
	case addr.Is4In6():
		return s, fmt.Sprintf("%q is an IPv4-mapped address; write %q", addr, addr.Unmap())
	}
	return subject{addr.String(), netip.PrefixFrom(addr, addr.BitLen())}, ""
}

func parseNetwork(word string) (s subject, fault string) {
	network, err := netip.ParsePrefix(word)
	switch {
	case err != nil:
		return s, fmt.Sprintf("%q is not a network; write it as in \"10.0.0.0/8\"; a path comes after a name", shortened(word))
	case network.Addr().Is4In6():
		return s, fmt.Sprintf("%q is an IPv4-mapped network; write the IPv4 network itself", word)
	case network != network.Masked():
		return s, fmt.Sprintf("%q has bits set beyond its length; write %q, or the address alone", word, network.Masked())
	case network.IsSingleIP():
		return parseAddress(network.Addr()) // one form for one thing
	}
	return subject{network.String(), network}, ""
}

func parseDNS(word string) (s subject, fault string) {
	host, _, _ := strings.Cut(word, ":")
	switch why := dnsFault(word); {
	case why == "":
		return subject{text: strings.ToLower(word)}, ""
	case strings.HasPrefix(word, "."):
		return s, fmt.Sprintf("%q: for every name below a domain write %q", shortened(word), "*"+shortened(word))
	case host != word && dnsFault(host) == "":
		return s, fmt.Sprintf("%q: a port can't be part of it; write %q", shortened(word), host)
	default:
		return s, fmt.Sprintf("%q: %s", shortened(word), why)
	}
}

func parseSPIFFE(word string) (s subject, fault string) {
	domain, path := word[len(scheme):], ""
	if i := strings.IndexByte(domain, '/'); i >= 0 {
		domain, path = domain[:i], domain[i:]
	}
	canonical := scheme + strings.ToLower(domain) + path
	above, _ := strings.CutSuffix(path, "/*")
	switch why := cmp.Or(domainFault(domain), spiffePathFault(above)); {
	case path == "" || path == "/":
		return s, fmt.Sprintf("%q names a trust domain; for all in it write \"spiffe://%s/*\"", shortened(word), shortened(domain))
	case why != "":
		return s, fmt.Sprintf("%q: %s", shortened(word), why)
	case len(canonical) > maxSPIFFE:
		return s, "a SPIFFE ID has at most 2048 characters"
	}
	return subject{text: canonical}, ""
}

// dnsFault says what keeps a name, or "*." and a name, from being one that
// can be compared, or "". Underscores are no host name's, but are in use.
func dnsFault(name string) string {
	rest, _ := strings.CutPrefix(name, "*.")
	if rest == "" || len(name) > maxDNS {
		return "a dns name has 1 to 253 characters"
	}
	label := 0 // where it starts
	for i := 0; i <= len(rest); i++ {
		if i < len(rest) && rest[i] != '.' {
			if why := letterFault(rest[i]); why != "" {
				return why
			}
			continue
		}
		switch {
		case i == label:
			return "a label is empty: two dots in a row, or one at an end"
		case i-label > maxLabel:
			return "a label is longer than 63 characters"
		case rest[label] == '-' || rest[i-1] == '-':
			return "a label begins or ends with \"-\""
		}
		label = i + 1
	}
	if isNumber(rest[strings.LastIndexByte(rest, '.')+1:]) {
		return "a dns name doesn't end in a number; is it an address?"
	}
	return ""
}

func letterFault(c byte) string {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		return ""
	case c == '*':
		return "a wildcard stands only for the whole beginning, as in \"*.prod.internal\""
	case c >= 0x80:
		return "write names of other alphabets in their \"xn--\" form (RFC 5890)"
	}
	return "a dns name has letters, digits, \"-\" and dots only"
}

// isNumber finds names that inet_aton takes for addresses: "127.1",
// "2130706433", "0x7f000001" (RFC 3696 section 2: no top-level name is).
func isNumber(label string) bool {
	if last := label[len(label)-1] | 0x20; last > 'f' && last != 'x' {
		return false // nearly all names, quickly
	}
	if len(label) >= 2 && label[0] == '0' && label[1]|0x20 == 'x' {
		return strings.Trim(label[2:], "0123456789abcdefABCDEF") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// spiffeFault says what keeps a URI that claims the scheme from being the
// SPIFFE ID of a leaf certificate (X509-SVID section 5.2), or "".
func spiffeFault(u *url.URL) string {
	switch {
	case u.Opaque != "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.RawPath != "":
		return "a SPIFFE ID is a trust domain and a path, nothing more, and nothing encoded"
	case len(scheme)+len(u.Host)+len(u.Path) > maxSPIFFE:
		return "a SPIFFE ID has at most 2048 characters"
	case u.Path == "":
		return "it names a trust domain, which no leaf certificate does"
	}
	return cmp.Or(domainFault(u.Host), spiffePathFault(u.Path))
}

// domainFault checks a trust domain (SPIFFE-ID section 2.1), in any case:
// section 2.4 says that it doesn't matter.
func domainFault(domain string) string {
	if domain == "" || len(domain) > maxDomain {
		return "a trust domain has 1 to 255 characters"
	}
	for i := 0; i < len(domain); i++ {
		if !spiffeLetter(domain[i]) {
			return "a trust domain has letters, digits, \".\", \"-\" and \"_\" only"
		}
	}
	return ""
}

// spiffePathFault checks a path of segments, each behind its slash (SPIFFE-ID
// section 2.2); "" is one.
func spiffePathFault(path string) string {
	for len(path) > 0 {
		segment, _, _ := strings.Cut(path[1:], "/")
		if path[0] != '/' || segment == "" || segment == "." || segment == ".." {
			return "a SPIFFE ID has no empty segments, no \".\" and \"..\", and no slash at the end"
		}
		for i := 0; i < len(segment); i++ {
			if !spiffeLetter(segment[i]) {
				return "a SPIFFE ID's path has letters, digits, \".\", \"-\" and \"_\", in a rule \"/*\" at its end"
			}
		}
		path = path[1+len(segment):]
	}
	return ""
}

func spiffeLetter(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_'
}

// appendLower appends s in lower case; only ASCII comes here.
func appendLower(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		b = append(b, c)
	}
	return b
}
