package loopdns

import (
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Server answers every question for an address with 127.0.0.1, and every other
// one with nothing.
type Server struct{ conn *net.UDPConn }

// Start starts a server on a free port of loopback, UDP only, until Close.
func Start() (*Server, error) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	d := &Server{conn}
	go d.serve()
	return d, nil
}

// Addr is where it is asked: an IP address and a port.
func (d *Server) Addr() string { return d.conn.LocalAddr().String() }

// Close ends it.
func (d *Server) Close() error { return d.conn.Close() }

func (d *Server) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := d.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if answer, ok := loopbackAnswer(buf[:n]); ok {
			d.conn.SetWriteDeadline(time.Now().Add(time.Second))
			d.conn.WriteToUDPAddrPort(answer, from) // UDP: a lost answer is asked for again
		}
	}
}

func loopbackAnswer(query []byte) ([]byte, bool) {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response {
		return nil, false
	}
	q, err := p.Question()
	if err != nil {
		return nil, false
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: h.ID, Response: true, Authoritative: true, RecursionAvailable: true})
	b.EnableCompression()
	if b.StartQuestions() != nil || b.Question(q) != nil || b.StartAnswers() != nil {
		return nil, false
	}
	rh := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}
	if q.Type == dnsmessage.TypeA {
		err = b.AResource(rh, dnsmessage.AResource{A: netip.MustParseAddr("127.0.0.1").As4()})
	}
	if err != nil {
		return nil, false
	}
	answer, err := b.Finish()
	return answer, err == nil
}
