package acmeserver

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// proxyHeader writes a header of the specification's section 2.2.
func proxyHeader(command, family byte, rest []byte) []byte {
	b := append([]byte("\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A"), command, family)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(rest))), rest...)
}

func addresses(from, to string) []byte {
	a, b := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	block := append(a.Addr().AsSlice(), b.Addr().AsSlice()...)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(block, a.Port()), b.Port())
}

var (
	tcp4 = addresses("192.0.2.7:4711", "198.51.100.1:443")
	tcp6 = addresses("[2001:db8::7]:4711", "[2001:db8::1]:443")
)

func TestProxyHeader(t *testing.T) {
	tlv := append([]byte{0x02, 0, 7}, "ca.test"...) // PP2_TYPE_AUTHORITY
	mapped := addresses("[::ffff:192.0.2.7]:4711", "[::1]:443")
	for name, tt := range map[string]struct {
		header []byte
		client string // "" for the balancer's own
		fault  string // "" for none
	}{
		"IPv4":                                 {proxyHeader(0x21, 0x11, tcp4), "192.0.2.7:4711", ""},
		"IPv6":                                 {proxyHeader(0x21, 0x21, tcp6), "[2001:db8::7]:4711", ""},
		"IPv4 in IPv6":                         {proxyHeader(0x21, 0x21, mapped), "192.0.2.7:4711", ""},
		"with TLVs":                            {proxyHeader(0x21, 0x11, append(bytes.Clone(tcp4), tlv...)), "192.0.2.7:4711", ""},
		"health check":                         {proxyHeader(0x20, 0x00, nil), "", ""},
		"LOCAL with an address, to be ignored": {proxyHeader(0x20, 0x11, tcp4), "", ""},
		"unknown client":                       {proxyHeader(0x21, 0x00, nil), "", ""},
		"UDP":                                  {proxyHeader(0x21, 0x12, tcp4), "", "family"},
		"unix":                                 {proxyHeader(0x21, 0x31, make([]byte, 216)), "", "family"},
		"version 1 in binary":                  {proxyHeader(0x11, 0x11, tcp4), "", "version"},
		"unknown command":                      {proxyHeader(0x22, 0x11, tcp4), "", "version"},
		"too short for IPv4":                   {proxyHeader(0x21, 0x11, tcp4[:11]), "", "12 are needed"},
		"too short for IPv6":                   {proxyHeader(0x21, 0x21, tcp4), "", "36 are needed"},
		"too long":                             {proxyHeader(0x21, 0x11, make([]byte, maxProxyRest+1)), "", "the most is"},
		"text":                                 {[]byte("PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n"), "", "send-proxy-v2"},
		"no header":                            {[]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdef"), "", "send-proxy-v2"},
		"cut short":                            {proxyHeader(0x21, 0x11, tcp4)[:20], "", "EOF"},
		"nothing":                              {nil, "", "EOF"},
	} {
		rest := strings.NewReader(string(tt.header) + "hello")
		if tt.fault == "EOF" {
			rest = strings.NewReader(string(tt.header))
		}
		client, err := readProxyHeader(rest)
		switch {
		case tt.fault != "" && (err == nil || !strings.Contains(err.Error(), tt.fault)):
			t.Errorf("%s: %v, want %q", name, err, tt.fault)
		case tt.fault == "" && (err != nil || tt.client == "" && client.IsValid() || tt.client != "" && client.String() != tt.client):
			t.Errorf("%s: %v %v", name, client, err)
		case tt.fault == "":
			if after, _ := io.ReadAll(rest); string(after) != "hello" {
				t.Errorf("%s: what follows is %q", name, after)
			}
		}
	}
}

func FuzzProxyHeader(f *testing.F) {
	f.Add(proxyHeader(0x21, 0x11, tcp4))
	f.Add(proxyHeader(0x21, 0x21, tcp6))
	f.Add(proxyHeader(0x20, 0x00, nil))
	f.Add([]byte("PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		client, err := readProxyHeader(r)
		if read := len(b) - r.Len(); read > 16+maxProxyRest {
			t.Fatalf("%d bytes read", read)
		}
		if err != nil && client.IsValid() {
			t.Fatal("an address and an error")
		}
		if err == nil && client.IsValid() && (client.Addr().Is4In6() || client.Addr().Zone() != "") {
			t.Fatalf("%v", client)
		}
	})
}

// dialProxy returns both ends of a connection through a ProxyListener.
func dialProxy(t *testing.T, trusted string, send []byte) (server, client net.Conn) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	l := ProxyListener(inner, []netip.Prefix{netip.MustParsePrefix(trusted)})
	if client, err = net.Dial("tcp", inner.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if _, err := client.Write(send); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server, client
}

func TestProxyListener(t *testing.T) {
	header := proxyHeader(0x21, 0x11, tcp4)
	t.Run("trusted", func(t *testing.T) {
		s, _ := dialProxy(t, "127.0.0.0/8", append(bytes.Clone(header), "hello"...))
		if got := s.RemoteAddr().String(); got != "192.0.2.7:4711" {
			t.Errorf("address %s", got)
		}
		var b [5]byte
		if _, err := io.ReadFull(s, b[:]); err != nil || string(b[:]) != "hello" {
			t.Errorf("%q %v", b, err)
		}
	})
	t.Run("trusted, read first", func(t *testing.T) {
		s, _ := dialProxy(t, "127.0.0.1/32", append(bytes.Clone(header), "hello"...))
		var b [5]byte
		if _, err := io.ReadFull(s, b[:]); err != nil || string(b[:]) != "hello" || s.RemoteAddr().String() != "192.0.2.7:4711" {
			t.Errorf("%q %v %v", b, err, s.RemoteAddr())
		}
	})
	t.Run("trusted, without a header", func(t *testing.T) {
		s, c := dialProxy(t, "127.0.0.0/8", []byte("GET / HTTP/1.1\r\n\r\n"))
		if _, err := s.Read(make([]byte, 1)); err == nil {
			t.Error("a connection without a header is served")
		}
		if s.RemoteAddr().String() != c.LocalAddr().String() {
			t.Errorf("address %v", s.RemoteAddr())
		}
	})
	t.Run("stranger", func(t *testing.T) {
		s, c := dialProxy(t, "192.0.2.0/24", header)
		if s.RemoteAddr().String() != c.LocalAddr().String() {
			t.Errorf("a stranger's header is believed: %v", s.RemoteAddr())
		}
		b := make([]byte, len(header))
		if _, err := io.ReadFull(s, b); err != nil || !bytes.Equal(b, header) {
			t.Errorf("%x %v", b, err)
		}
	})
	t.Run("nobody is trusted", func(t *testing.T) {
		inner, _ := net.Listen("tcp", "127.0.0.1:0")
		defer inner.Close()
		if ProxyListener(inner, nil) != inner {
			t.Error("a listener that trusts nobody is wrapped")
		}
	})
}

// TestSlowProxyHeader: the header has a time of its own, and the deadline is
// gone afterwards.
func TestSlowProxyHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		begun := time.Now()
		c := &proxyConn{Conn: a}
		if _, err := c.Read(make([]byte, 1)); err == nil || time.Since(begun) != proxyHeaderTimeout {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		c := &proxyConn{Conn: a}
		go func() {
			_, _ = b.Write(proxyHeader(0x21, 0x11, tcp4))
			time.Sleep(time.Minute)
			_, _ = b.Write([]byte("x"))
		}()
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
	})
}
