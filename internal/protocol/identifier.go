package protocol

import (
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// IdentifierType is the kind of a name (RFC 8555 section 9.7.7).
type IdentifierType string

// The identifier types this server knows.
const (
	DNS IdentifierType = "dns" // RFC 8555 section 9.7.7
	IP  IdentifierType = "ip"  // RFC 8738
	// PermanentIdentifier names a device, or the person who has it
	// (draft-ietf-acme-device-attest section 3).
	PermanentIdentifier IdentifierType = "permanent-identifier"
)

// Identifier is a name in canonical form: dns names in lower case without a
// trailing dot, addresses as RFC 5952 writes them. A wildcard keeps its "*."
// in an order and loses it in its authorization (RFC 8555 section 7.1.4).
type Identifier struct {
	Type  IdentifierType `json:"type"`
	Value string         `json:"value"`
}

// String returns "dns:example.com", the form used in logs and the database.
func (id Identifier) String() string { return string(id.Type) + ":" + id.Value }

// IsWildcard reports whether the identifier is a dns name that begins "*.".
func (id Identifier) IsWildcard() bool {
	return id.Type == DNS && strings.HasPrefix(id.Value, "*.")
}

// Base is the identifier without its "*.": what an authorization is about.
func (id Identifier) Base() Identifier {
	if id.IsWildcard() {
		id.Value = id.Value[2:]
	}
	return id
}

// Values is how identifiers are written in logs and the audit: bare values,
// which can't be mistaken for one another.
func Values(ids []Identifier) []string {
	values := make([]string, len(ids))
	for i, id := range ids {
		values[i] = id.Value
	}
	return values
}

// Bounds of RFC 1035 section 2.3.4, in the textual form without a root dot.
const (
	maxNameLength  = 253
	maxLabelLength = 63
)

// digits are what a device's serial number is written with.
const digits = "0123456789"

// ParseIdentifier brings an identifier from outside into canonical form. A
// permanent-identifier is a person ([ParseOwner]) or a device's serial number,
// which is digits alone. It answers problems of type unsupportedIdentifier (a
// type we don't know) and malformed (a value that can't be one), each saying
// what would be right.
func ParseIdentifier(typ, value string) (Identifier, error) {
	switch IdentifierType(typ) {
	case DNS:
		name, err := parseDNS(value)
		if err != nil {
			return Identifier{}, err.For(Identifier{DNS, printable(value)})
		}
		return Identifier{DNS, name}, nil
	case IP:
		addr, err := parseIP(value)
		if err != nil {
			return Identifier{}, err.For(Identifier{IP, printable(value)})
		}
		return Identifier{IP, addr}, nil
	case PermanentIdentifier:
		name, err := parsePermanent(value)
		if err != nil {
			return Identifier{}, err.For(Identifier{PermanentIdentifier, printable(value)})
		}
		return Identifier{PermanentIdentifier, name}, nil
	}
	return Identifier{}, NewProblem(UnsupportedIdentifier,
		"identifier type %q is not supported here; use \"dns\", \"ip\" or, where devices prove, \"permanent-identifier\"", printable(typ))
}

func parsePermanent(value string) (string, *Problem) {
	if strings.Trim(value, digits) == "" && value != "" {
		serial, err := strconv.ParseUint(value, 10, 32)
		if err != nil || strconv.FormatUint(serial, 10) != value || serial == 0 {
			return "", NewProblem(Malformed, "%q is not a device's serial number, which is written without leading zeros and at most 4294967295", printable(value))
		}
		return value, nil
	}
	owner, err := ParseOwner(value)
	if err != nil {
		return "", AsProblem(err)
	}
	return owner, nil
}

func parseIP(value string) (string, *Problem) {
	addr, err := netip.ParseAddr(value)
	switch {
	case err != nil:
		return "", NewProblem(Malformed, "%q is not an IP address (RFC 8738 section 3)", printable(value))
	case addr.Zone() != "":
		return "", NewProblem(Malformed, "%q has a zone, which a certificate can't carry", printable(value))
	case addr.Is4In6():
		return "", NewProblem(Malformed, "%q is an IPv4-mapped address; write it as %s", printable(value), addr.Unmap())
	}
	return addr.String(), nil
}

func parseDNS(value string) (string, *Problem) {
	name := strings.ToLower(value)
	base := strings.TrimPrefix(name, "*.")
	switch {
	case base == "":
		return "", NewProblem(Malformed, "a dns identifier is empty")
	case len(name) > maxNameLength:
		return "", NewProblem(Malformed, "a dns identifier is longer than %d characters", maxNameLength)
	case strings.HasSuffix(base, "."):
		return "", NewProblem(Malformed, "%q ends with a dot; leave it out", printable(value))
	case strings.Contains(base, "*"):
		return "", NewProblem(Malformed, "%q: a wildcard stands only for the whole first label, as in \"*.example.com\"", printable(value))
	}
	if _, err := netip.ParseAddr(base); err == nil {
		return "", NewProblem(Malformed, "%q is an IP address; use identifier type \"ip\"", printable(value))
	}
	labels := strings.Split(base, ".")
	for _, label := range labels {
		if why := labelFault(label); why != "" {
			return "", NewProblem(Malformed, "%q is not a host name: %s", printable(value), why)
		}
	}
	// RFC 3696 section 2: no top-level name is all digits, so such a name
	// is an address in disguise (inet_aton takes "127.1" and "2130706433").
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" || isHexNumber(last) {
		return "", NewProblem(Malformed, "%q ends in a number, which no host name does", printable(value))
	}
	return name, nil
}

// isHexNumber finds "0x7f000001", which inet_aton takes for an address.
func isHexNumber(label string) bool {
	rest, ok := strings.CutPrefix(label, "0x")
	return ok && strings.Trim(rest, "0123456789abcdef") == ""
}

// labelFault says what keeps a lower-case label from being letters, digits
// and hyphens (RFC 5890 section 2.3.1), or "".
func labelFault(label string) string {
	switch {
	case label == "":
		return "a label is empty"
	case len(label) > maxLabelLength:
		return "a label is longer than 63 characters"
	case label[0] == '-' || label[len(label)-1] == '-':
		return "a label begins or ends with a hyphen"
	}
	for i := range len(label) {
		c := label[i]
		if c >= 0x80 {
			return "it has characters outside ASCII; use the xn-- form"
		}
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
			return "a label has a character other than letters, digits and hyphens"
		}
	}
	if len(label) >= 4 && label[2:4] == "--" {
		if !strings.HasPrefix(label, "xn--") {
			return "a label has hyphens in its third and fourth place without being an xn-- label"
		}
		if u, err := idna.Lookup.ToUnicode(label); err != nil || u == label {
			return "an xn-- label is not valid Punycode"
		}
	}
	return ""
}

// printable bounds and cleans text from outside before it is put into a
// message: no control characters, no invalid UTF-8, at most 100 bytes.
func printable(s string) string {
	const most = 100
	cut := len(s) > most
	if cut {
		s = s[:most]
	}
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r == '\uFFFD' {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if cut {
		s += "…"
	}
	return s
}
