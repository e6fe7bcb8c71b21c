package challenge

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/chancery-pki/chancery/internal/protocol"
)

func TestRefusedAddresses(t *testing.T) {
	for addr, reachable := range map[string]bool{
		// A private CA validates in private networks.
		"10.1.2.3": true, "172.16.0.1": true, "192.168.1.1": true, "100.64.0.1": true, "fd12:3456::1": true,
		"192.0.2.1": true, "2001:db8::1": true, "198.51.100.7": true,
		// Special addresses.
		"127.0.0.1": false, "127.255.255.254": false, "::1": false,
		"0.0.0.0": false, "0.1.2.3": false, "::": false,
		"169.254.169.254": false, "169.254.0.1": false, "fe80::1": false, "fe80::1%lo": false, "fec0::1": false,
		"224.0.0.1": false, "239.255.255.255": false, "ff02::1": false,
		"255.255.255.255": false, "240.0.0.1": false,
		"fd00:ec2::254": false, "fd20:ce::254": false, "fd00:42::42": false,
		"168.63.129.16": false, "100.100.100.200": false, "192.0.0.192": false,
		// The same inside IPv6.
		"::ffff:127.0.0.1": false, "::ffff:169.254.169.254": false, "::ffff:10.0.0.1": true,
		"::127.0.0.1": false, "::2": false,
		"64:ff9b::7f00:1": false, "64:ff9b::a9fe:a9fe": false, "64:ff9b::10.0.0.1": true,
		"64:ff9b:1::10.0.0.1": false, "64:ff9b:1:7f00:0:100::": false,
		"2002:7f00:1::1": false, "2002:a00:1::1": true,
		"2001:0:7f00:1:0:ffff:f5ff:fffe": false, // Teredo with server 127.0.0.1
		"2001:0:a00:1:0:ffff:80ff:fffe":  false, // Teredo with client 127.0.0.1
		"2001:0:a00:1:0:ffff:f5ff:fffe":  true,
		"2001:db8::5efe:127.0.0.1":       false, "2001:db8::200:5efe:127.0.0.1": false,
	} {
		why := new(Network).refuses(netip.AddrPortFrom(netip.MustParseAddr(addr), 80))
		if (why == "") != reachable {
			t.Errorf("%s: refused because %q, want reachable %v", addr, why, reachable)
		}
	}
}

func TestAllowDenyOwn(t *testing.T) {
	own := func(s ...string) (all []netip.AddrPort) {
		for _, a := range s {
			all = append(all, netip.MustParseAddrPort(a))
		}
		return all
	}
	for _, c := range []struct {
		name      string
		network   Network
		to        string
		reachable bool
	}{
		{"allowed", Network{Allow: loopback()}, "127.0.0.1:80", true},
		{"allowed in IPv4-mapped form", Network{Allow: loopback()}, "[::ffff:127.0.0.1]:80", true},
		{"another one allowed", Network{Allow: prefixes("127.0.0.2/32")}, "127.0.0.1:80", false},
		{"denied", Network{Deny: prefixes("10.0.0.0/8")}, "10.1.2.3:80", false},
		{"denied in IPv4-mapped form", Network{Deny: prefixes("10.0.0.0/8")}, "[::ffff:10.1.2.3]:80", false},
		{"denied behind NAT64", Network{Deny: prefixes("10.0.0.0/8")}, "[64:ff9b::10.1.2.3]:80", false},
		{"denied behind an allowed NAT64", Network{Deny: prefixes("10.0.0.0/8"), Allow: prefixes("64:ff9b::/96")}, "[64:ff9b::10.1.2.3]:80", false},
		{"deny wins over allow", Network{Deny: prefixes("10.0.0.0/8"), Allow: prefixes("10.1.2.3/32")}, "10.1.2.3:80", false},
		{"own", Network{Own: own("10.0.0.5:5432")}, "10.0.0.5:5432", false},
		{"own, another port", Network{Own: own("10.0.0.5:5432")}, "10.0.0.5:80", true},
		{"own, every port", Network{Own: own("10.0.0.5:0")}, "10.0.0.5:80", false},
		{"own in IPv4-mapped form", Network{Own: own("10.0.0.5:0")}, "[::ffff:10.0.0.5]:80", false},
		{"own in a wide allow", Network{Own: own("127.0.0.1:80"), Allow: loopback()}, "127.0.0.1:80", false},
		{"own, allowed by itself", Network{Own: own("127.0.0.1:80"), Allow: prefixes("127.0.0.1/32")}, "127.0.0.1:80", true},
		{"own on all addresses", Network{Own: own("[::]:443"), Allow: loopback()}, "127.0.0.1:443", false},
		{"own on all addresses, elsewhere", Network{Own: own("0.0.0.0:443")}, "192.0.2.1:443", true},
	} {
		if why := c.network.refuses(netip.MustParseAddrPort(c.to)); (why == "") != c.reachable {
			t.Errorf("%s: refused because %q, want reachable %v", c.name, why, c.reachable)
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs { // a listener on 0.0.0.0 is also one on the address of the network card
		local, _ := netip.AddrFromSlice(a.(*net.IPNet).IP)
		n := Network{Own: own("0.0.0.0:443"), Allow: prefixes("0.0.0.0/0", "::/0")}
		if n.refuses(netip.AddrPortFrom(local, 443)) == "" {
			t.Errorf("our own listener can be reached at %s", local)
		}
	}
}

// The dialer checks the very address it connects to, whoever calls it.
func TestDialChecks(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	to := l.Addr().(*net.TCPAddr).AddrPort()
	if _, err := new(Network).dial(context.Background(), to); err == nil {
		t.Fatal("dialled loopback")
	} else {
		wantNo(t, err, protocol.ConnectionFailed, false, "loopback")
	}
	c, err := (&Network{Allow: loopback()}).dial(context.Background(), to)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	// The second check, which nothing reaches that the first one refuses.
	wantNo(t, new(Network).control(context.Background(), "tcp4", "127.0.0.1:80", nil), protocol.ConnectionFailed, false, "loopback")
	if err := new(Network).control(context.Background(), "tcp4", "192.0.2.1:80", nil); err != nil {
		t.Error(err)
	}
	if new(Network).control(context.Background(), "tcp4", "example.com:80", nil) == nil {
		t.Error("dials a name")
	}
}
