package challenge

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"time"
)

// Network says where the validations of one directory may connect, and how.
// Its zero value, with a Resolver, is safe: the standard ports, ten seconds,
// no special networks. It must not change once in use.
//
// An address is judged in this order:
//
//  1. Deny always wins.
//  2. Own is refused, unless an Allow entry is exactly that one address: a
//     wider one was written with others in mind.
//  3. Allow is reachable.
//  4. Special addresses are refused: loopback, unspecified, link-local, cloud
//     metadata, multicast, broadcast and reserved ones.
//  5. All else is reachable, private networks (RFC 1918, RFC 4193) included:
//     a private CA is for them.
//
// IPv6 addresses that carry an IPv4 address (mapped, compatible, NAT64, 6to4,
// Teredo, ISATAP) are refused where either is. A translator with a prefix of
// its own can't be recognised; where there is one, it belongs into Deny.
type Network struct {
	Resolver  *Resolver
	HTTPPort  int // http-01, and a redirect's port; 0 means 80
	TLSPort   int // tls-alpn-01, and a redirect's port; 0 means 443
	Allow     []netip.Prefix
	Deny      []netip.Prefix
	Own       []netip.AddrPort // our listeners, the database, the Kubernetes API; port 0: all ports; an unspecified address: every local one
	ProbeAny  int              // 0: the first address that connects decides; N: up to N (at most 16) are asked until one answers for the account
	Timeout   time.Duration    // one validation, DNS included; 0 means 10 s
	UserAgent string           // of http-01, should name the CA; "" means "chancery"
}

// defaultTimeout leaves room for a slow target and a second address, and is
// what public CAs give.
const defaultTimeout = 10 * time.Second

func (n *Network) timeout() time.Duration {
	if n.Timeout > 0 {
		return n.Timeout
	}
	return defaultTimeout
}

func (n *Network) httpPort() uint16 { return portOr(n.HTTPPort, 80) }
func (n *Network) tlsPort() uint16  { return portOr(n.TLSPort, 443) }

func portOr(port int, otherwise uint16) uint16 {
	if port > 0 && port <= 0xffff {
		return uint16(port)
	}
	return otherwise
}

// refuses says why validation may not connect to an address, or "".
func (n *Network) refuses(to netip.AddrPort) string {
	addr := to.Addr().Unmap()
	if !addr.IsValid() || addr.Zone() != "" {
		return "not an address that can be reached from anywhere"
	}
	forms := [3]netip.Addr{addr}
	all := append(forms[:1], embedded(addr)...)
	for _, a := range all {
		if contains(n.Deny, a) {
			return "in a network that this server is told not to validate in"
		}
	}
	for _, a := range all {
		if n.isOwn(netip.AddrPortFrom(a, to.Port())) && !slices.ContainsFunc(n.Allow, func(p netip.Prefix) bool {
			return p.IsSingleIP() && p.Contains(a)
		}) {
			return "one of the certificate authority's own services"
		}
	}
	if contains(n.Allow, addr) {
		return ""
	}
	for _, a := range all {
		if why := special(a); why != "" && !contains(n.Allow, a) {
			return why
		}
	}
	return ""
}

func contains(in []netip.Prefix, a netip.Addr) bool {
	for _, p := range in {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func (n *Network) isOwn(to netip.AddrPort) bool {
	for _, own := range n.Own {
		if own.Port() != 0 && own.Port() != to.Port() {
			continue
		}
		if own.Addr().Unmap() == to.Addr() || own.Addr().IsUnspecified() && isLocal(to.Addr()) {
			return true
		}
	}
	return false
}

// isLocal reports whether the address is one of this machine's. It asks the
// kernel each time, since addresses come and go; isOwn has compared the port
// first. Where the kernel won't say, the answer is the safe one.
func isLocal(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	return slices.ContainsFunc(addrs, func(x net.Addr) bool {
		ipNet, ok := x.(*net.IPNet)
		if !ok {
			return false
		}
		local, ok := netip.AddrFromSlice(ipNet.IP)
		return ok && local.Unmap() == a
	})
}

// special says which address, set apart by IANA's special-purpose registries
// (RFC 6890) or by a cloud's manual, this is; or "".
func special(a netip.Addr) string {
	switch {
	case a.IsLoopback():
		return "a loopback address"
	case a.IsUnspecified():
		return "the unspecified address"
	case a.IsLinkLocalUnicast(): // 169.254.169.254 among them
		return "a link-local address"
	case a.IsMulticast():
		return "a multicast address"
	}
	if a.Is4() {
		switch b := a.As4(); {
		case b[0] == 0: // RFC 791: this network; Linux takes 0.0.0.0 for loopback
			return "an address of \"this network\""
		case b[0] >= 240: // 240.0.0.0/4 and the broadcast address
			return "a reserved or broadcast address"
		}
	} else {
		switch b := a.As16(); {
		case b[0] == 0xfe && b[1]&0xc0 == 0xc0: // RFC 3879
			return "a site-local address"
		case localNAT64.Contains(a):
			return "an address of a local translator (RFC 8215), whose target can't be known"
		}
	}
	if slices.Contains(metadata[:], a) {
		return "a cloud's metadata service"
	}
	return ""
}

var localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")

// metadata services outside the link-local range: whoever reaches one may act
// as the machine.
var metadata = [...]netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),   // AWS
	netip.MustParseAddr("fd20:ce::254"),    // Google Cloud
	netip.MustParseAddr("fd00:42::42"),     // Scaleway
	netip.MustParseAddr("168.63.129.16"),   // Azure
	netip.MustParseAddr("100.100.100.200"), // Alibaba Cloud
	netip.MustParseAddr("192.0.0.192"),     // Oracle Cloud
}

// embedded returns the IPv4 addresses (at most two) that an IPv6 address
// leads to by a mechanism with a well-known form.
func embedded(a netip.Addr) []netip.Addr {
	if !a.Is6() {
		return nil
	}
	b := a.As16()
	v4 := func(at int) netip.Addr { return netip.AddrFrom4([4]byte(b[at : at+4])) }
	zeros := func(from, to int) bool { return len(bytes.Trim(b[from:to], "\x00")) == 0 }
	switch {
	case b[0] == 0x20 && b[1] == 0x02: // 6to4, RFC 3056
		return []netip.Addr{v4(2)}
	case b[0] == 0x20 && b[1] == 0x01 && zeros(2, 4): // Teredo, RFC 4380: server, and client with every bit turned
		for i := range 4 {
			b[12+i] ^= 0xff
		}
		return []netip.Addr{v4(4), v4(12)}
	case b[0] == 0 && b[1] == 0x64 && b[2] == 0xff && b[3] == 0x9b && zeros(4, 12): // NAT64, RFC 6052
		return []netip.Addr{v4(12)}
	case zeros(0, 12) && !a.IsUnspecified() && !a.IsLoopback(): // IPv4-compatible, RFC 4291
		return []netip.Addr{v4(12)}
	case b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe: // ISATAP, RFC 5214
		return []netip.Addr{v4(12)}
	}
	return nil
}
