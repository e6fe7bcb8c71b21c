package setup

import (
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// demoDNS answers every question for an address with loopback, so that the
// demo's names need no entry anywhere. It serves the demo only.
type demoDNS struct{ conn *net.UDPConn }

func startDNS() (*demoDNS, error) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	d := &demoDNS{conn}
	go d.serve()
	return d, nil
}

func (d *demoDNS) addr() string { return d.conn.LocalAddr().String() }

// Close ends it.
func (d *demoDNS) Close() error { return d.conn.Close() }

func (d *demoDNS) serve() {
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
