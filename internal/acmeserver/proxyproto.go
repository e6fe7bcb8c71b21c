package acmeserver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// ProxyListener takes connections from balancers that put a PROXY protocol
// header, version 2, before what they pass on (the HAProxy project's
// specification), and gives each connection the client's address. A
// connection from an address in trusted must begin with a header, or it ends
// with an error at its first Read; one from elsewhere is never looked at: a
// header on it reaches the TLS handshake, which fails. Accept never waits for
// a header: the goroutine that serves the connection does, for
// proxyHeaderTimeout at most.
func ProxyListener(l net.Listener, trusted []netip.Prefix) net.Listener {
	if len(trusted) == 0 {
		return l
	}
	return &proxyListener{Listener: l, trusted: slices.Clone(trusted)}
}

type proxyListener struct {
	net.Listener
	trusted []netip.Prefix
}

// Accept returns the next connection.
func (l *proxyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	peer, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return c, nil
	}
	from := peer.Addr().Unmap()
	if slices.ContainsFunc(l.trusted, func(p netip.Prefix) bool { return p.Contains(from) }) {
		return &proxyConn{Conn: c}, nil
	}
	return c, nil
}

// proxyConn reads the header when its first byte or its address is asked for,
// whichever comes first; net/http asks for the address before anything else,
// and before it sets a deadline.
type proxyConn struct {
	net.Conn
	once   sync.Once
	client netip.AddrPort // zero: the connection is the balancer's own
	err    error
}

// proxyHeaderTimeout: the balancer sends its header with the first packet.
const proxyHeaderTimeout = 5 * time.Second

func (c *proxyConn) readHeader() {
	_ = c.Conn.SetReadDeadline(time.Now().Add(proxyHeaderTimeout))
	if c.client, c.err = readProxyHeader(c.Conn); c.err == nil {
		c.err = c.Conn.SetReadDeadline(time.Time{})
	}
}

// Read reads what follows the header. It fails where the header was bad.
func (c *proxyConn) Read(b []byte) (int, error) {
	if c.once.Do(c.readHeader); c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(b)
}

// RemoteAddr is the client's address, or the balancer's where it has said
// that it speaks for itself. It waits for the header.
func (c *proxyConn) RemoteAddr() net.Addr {
	if c.once.Do(c.readHeader); c.client.IsValid() {
		return net.TCPAddrFromAddrPort(c.client)
	}
	return c.Conn.RemoteAddr()
}

// The binary header (specification section 2.2): signature, version and
// command, family and protocol, length of the rest; then addresses and TLVs.
const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	// maxProxyRest bounds addresses and TLVs: the specification wants at
	// least 536 bytes to go through, and a TLS client's subject fits too.
	maxProxyRest = 2 << 10

	proxyLocal = 0x20 // version 2, LOCAL: a health check of the balancer's own
	proxyProxy = 0x21 // version 2, PROXY: on behalf of a client
	familyNone = 0x00
	familyTCP4 = 0x11
	familyTCP6 = 0x21
)

// readProxyHeader reads one header and nothing beyond it. The address is zero
// for a connection of the balancer's own and for one whose client it doesn't
// know. TLVs are skipped.
func readProxyHeader(r io.Reader) (netip.AddrPort, error) {
	var head [16]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("PROXY protocol header: %w", err)
	}
	if !bytes.Equal(head[:12], []byte(proxySignature)) {
		return netip.AddrPort{}, errors.New("no PROXY protocol header, version 2, from a trusted proxy; make it send one (HAProxy: send-proxy-v2)")
	}
	length := binary.BigEndian.Uint16(head[14:])
	if length > maxProxyRest {
		return netip.AddrPort{}, fmt.Errorf("PROXY protocol header of %d bytes; the most is %d", length, maxProxyRest)
	}
	rest := make([]byte, length)
	if _, err := io.ReadFull(r, rest); err != nil {
		return netip.AddrPort{}, fmt.Errorf("PROXY protocol header: %w", err)
	}
	switch head[12] {
	case proxyLocal:
		return netip.AddrPort{}, nil
	case proxyProxy:
		return proxySource(head[13], rest)
	}
	return netip.AddrPort{}, fmt.Errorf("PROXY protocol header with version and command %#x", head[12])
}

// proxySource takes the client's address out of the address block, which is
// source, destination, source port, destination port.
func proxySource(family byte, block []byte) (netip.AddrPort, error) {
	size := 0
	switch family {
	case familyNone:
		return netip.AddrPort{}, nil
	case familyTCP4:
		size = net.IPv4len
	case familyTCP6:
		size = net.IPv6len
	default:
		return netip.AddrPort{}, fmt.Errorf("PROXY protocol header for family and protocol %#x; TCP over IP is expected", family)
	}
	if len(block) < 2*size+4 {
		return netip.AddrPort{}, fmt.Errorf("PROXY protocol header with %d bytes of addresses; %d are needed", len(block), 2*size+4)
	}
	addr, _ := netip.AddrFromSlice(block[:size])
	return netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(block[2*size:])), nil
}
