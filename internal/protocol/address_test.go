package protocol

import (
	"net/netip"
	"testing"
)

// One IPv6 host has a /64 to itself, an IPv4 host one address.
func TestNetwork(t *testing.T) {
	for from, want := range map[string][2]string{
		"192.0.2.7:1":               {"192.0.2.7", "192.0.2.7"},
		"[::ffff:192.0.2.7]:1":      {"192.0.2.7", "192.0.2.7"},
		"[2001:db8:1:2:3:4:5:6]:1":  {"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		"[fe80::1%eth0]:1":          {"fe80::1%eth0", "fe80::/64"},
		"[2001:db8:1:2::ffff]:4711": {"2001:db8:1:2::ffff", "2001:db8:1:2::/64"},
	} {
		p := netip.MustParseAddrPort(from)
		if address, network := Address(p), Network(p); address != want[0] || network != want[1] {
			t.Errorf("%s: %s in %s, want %s in %s", from, address, network, want[0], want[1])
		}
	}
	if Address(netip.AddrPort{}) != "" || Network(netip.AddrPort{}) != "" {
		t.Error("no address")
	}
}
