package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// everything is the pattern that covers all names and addresses.
const everything = "*"

// Canonical brings one name pattern into the form in which it is compared and
// stored: lower case, addresses as RFC 5952 writes them. The error says what
// would be right.
func Canonical(pattern string) (string, error) {
	switch {
	case pattern == everything:
		return pattern, nil
	case strings.Contains(pattern, "/"):
		return canonicalNetwork(pattern)
	case strings.HasPrefix(pattern, "."):
		return "", fmt.Errorf("%q: for every name below a domain write %q", pattern, "*"+pattern)
	}
	if _, err := netip.ParseAddr(pattern); err == nil {
		return canonicalName(protocol.IP, pattern)
	}
	return canonicalName(protocol.DNS, pattern)
}

func canonicalName(typ protocol.IdentifierType, pattern string) (string, error) {
	id, err := protocol.ParseIdentifier(string(typ), pattern)
	if err != nil {
		return "", fmt.Errorf("not a name pattern: %s", protocol.AsProblem(err).Detail)
	}
	return id.Value, nil
}

func canonicalNetwork(pattern string) (string, error) {
	network, err := netip.ParsePrefix(pattern)
	switch {
	case err != nil:
		return "", fmt.Errorf("%q is not a network; write it as in \"10.0.0.0/8\"", pattern)
	case network.Addr().Is4In6():
		return "", fmt.Errorf("%q is an IPv4-mapped network; write the IPv4 network itself", pattern)
	case network != network.Masked():
		return "", fmt.Errorf("%q has bits set beyond its length; write %q or a single address", pattern, network.Masked())
	}
	return network.String(), nil
}

// covers reports whether one canonical pattern covers every name that the
// identifier stands for. It allocates nothing, so that an EAB key's few
// patterns need no compiling; a pattern that isn't canonical covers nothing.
func covers(pattern string, id protocol.Identifier) bool {
	if pattern == everything {
		return true
	}
	if id.Type == protocol.IP {
		if !strings.Contains(pattern, "/") {
			return pattern == id.Value // both canonical
		}
		network, wrong := netip.ParsePrefix(pattern)
		addr, err := netip.ParseAddr(id.Value)
		return wrong == nil && err == nil && network.Contains(addr)
	}
	if id.Type != protocol.DNS {
		return false
	}
	if below, ok := strings.CutPrefix(pattern, "*."); ok {
		rest, ok := strings.CutSuffix(id.Value, below)
		return ok && len(rest) > 1 && strings.HasSuffix(rest, ".")
	}
	return pattern == id.Value
}

// NameSet is a set of names, compiled from patterns so that a decision costs
// the same with one pattern as with ten thousand and allocates nothing. The
// zero value covers nothing.
type NameSet struct {
	patterns []string // canonical, as given
	all      bool
	exact    map[string]struct{} // dns names
	parents  map[string]struct{} // the exact names without their first label
	below    map[string]struct{} // "prod.internal" for "*.prod.internal"
	networks map[netip.Prefix]struct{}
	v4, v6   []int // the lengths that occur in networks
}

// NewNameSet compiles patterns; it fails at the first that Canonical refuses.
func NewNameSet(patterns ...string) (NameSet, error) {
	s := NameSet{
		exact:    map[string]struct{}{},
		parents:  map[string]struct{}{},
		below:    map[string]struct{}{},
		networks: map[netip.Prefix]struct{}{},
	}
	for _, p := range patterns {
		canonical, err := Canonical(p)
		if err != nil {
			return NameSet{}, err
		}
		s.patterns = append(s.patterns, canonical)
		s.add(canonical)
	}
	return s, nil
}

func (s *NameSet) add(pattern string) {
	if pattern == everything {
		s.all = true
		return
	}
	if below, ok := strings.CutPrefix(pattern, "*."); ok {
		s.below[below] = struct{}{}
		return
	}
	network, err := netip.ParsePrefix(pattern)
	if addr, bad := netip.ParseAddr(pattern); bad == nil {
		network, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if err != nil {
		s.exact[pattern] = struct{}{}
		if _, parent, ok := strings.Cut(pattern, "."); ok {
			s.parents[parent] = struct{}{}
		}
		return
	}
	s.networks[network] = struct{}{}
	lengths := &s.v6
	if network.Addr().Is4() {
		lengths = &s.v4
	}
	if !slices.Contains(*lengths, network.Bits()) {
		*lengths = append(*lengths, network.Bits())
	}
}

// Patterns returns the patterns in canonical form, in the order given. The
// caller must not change them.
func (s NameSet) Patterns() []string { return s.patterns }

// Covers reports whether the set has every name that the identifier stands
// for. A wildcard identifier is covered only by a suffix or by "*".
func (s NameSet) Covers(id protocol.Identifier) bool {
	if s.all {
		return true
	}
	switch id.Type {
	case protocol.DNS:
		if _, ok := s.exact[id.Value]; ok {
			return true
		}
		return s.suffix(id.Value) != ""
	case protocol.IP:
		return s.coversAddr(id.Value)
	}
	return false
}

// CoversPattern reports whether the set covers all that one canonical pattern
// covers, by a single pattern of its own.
func (s NameSet) CoversPattern(pattern string) bool {
	if s.all || pattern == everything {
		return s.all
	}
	network, err := netip.ParsePrefix(pattern)
	if err == nil {
		return s.coversNetwork(network)
	}
	if _, err := netip.ParseAddr(pattern); err == nil {
		return s.Covers(protocol.Identifier{Type: protocol.IP, Value: pattern})
	}
	return s.Covers(protocol.Identifier{Type: protocol.DNS, Value: pattern})
}

func (s NameSet) coversNetwork(network netip.Prefix) bool {
	lengths := s.v6
	if network.Addr().Is4() {
		lengths = s.v4
	}
	for _, bits := range lengths {
		around, err := network.Addr().Prefix(bits)
		if err != nil || bits > network.Bits() {
			continue
		}
		if _, ok := s.networks[around]; ok {
			return true
		}
	}
	return false
}

// touches reports whether the set has at least one of the names that the
// identifier stands for: what denying asks. A wildcard covers one label
// (RFC 6125 section 6.4.3), so names further down don't matter to it.
func (s NameSet) touches(id protocol.Identifier) bool {
	if s.Covers(id) {
		return true
	}
	if !id.IsWildcard() {
		return false
	}
	_, child := s.parents[id.Value[2:]]
	return child
}

// suffix returns the longest suffix pattern that covers the name, without its
// "*.", or "".
func (s NameSet) suffix(name string) string {
	for len(s.below) > 0 {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			break
		}
		if _, ok := s.below[rest]; ok {
			return rest
		}
		name = rest
	}
	return ""
}

func (s NameSet) coversAddr(value string) bool {
	if len(s.networks) == 0 {
		return false
	}
	addr, err := netip.ParseAddr(value)
	if err != nil {
		return false
	}
	return s.coversNetwork(netip.PrefixFrom(addr, addr.BitLen()))
}

// hasAddresses reports whether any pattern is about IP addresses.
func (s NameSet) hasAddresses() bool { return s.all || len(s.networks) > 0 }

// Registered returns the name under which certificates are counted for rate
// limits. There is no public suffix list for private names; the operator's
// own patterns say where one owner's names end and the next one's begin: with
// "*.prod.internal" allowed, a.b.prod.internal counts as b.prod.internal. A
// name that is allowed exactly counts as itself, under "*" the last two
// labels count, and an address counts as itself.
func (s NameSet) Registered(id protocol.Identifier) string {
	if _, ok := s.exact[id.Value]; ok || id.Type != protocol.DNS {
		return id.Value
	}
	if suffix := s.suffix(id.Value); suffix != "" {
		above := id.Value[:len(id.Value)-len(suffix)-1]
		return id.Value[strings.LastIndexByte(above, '.')+1:]
	}
	first := strings.LastIndexByte(id.Value, '.')
	if first < 0 {
		return id.Value
	}
	return id.Value[strings.LastIndexByte(id.Value[:first], '.')+1:]
}

// Names is what a directory issues for. The zero value permits nothing.
type Names struct {
	Allow     NameSet
	Deny      NameSet
	Wildcards bool // wildcard identifiers too, where Allow covers them
}

// Permits reports whether the identifier, and every name that it stands for,
// is allowed and none of them denied.
func (n Names) Permits(id protocol.Identifier) bool {
	if id.IsWildcard() && !n.Wildcards {
		return false
	}
	return n.Allow.Covers(id) && !n.Deny.touches(id)
}
