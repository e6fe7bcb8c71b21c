package protocol

import "net/netip"

// Address is how a client's address is written in the audit log: without its
// port, an IPv4 one as such; "" for none.
func Address(p netip.AddrPort) string {
	if !p.IsValid() {
		return ""
	}
	return p.Addr().Unmap().String()
}

// Network is what rate limits count by: an IPv4 address, or the /64 that one
// IPv6 host has to itself (RFC 4291 section 2.5.4); "" for none.
func Network(p netip.AddrPort) string {
	a := p.Addr().Unmap()
	if !a.Is6() {
		return Address(p)
	}
	prefix, err := a.WithZone("").Prefix(64)
	if err != nil {
		return Address(p)
	}
	return prefix.String()
}
