package catest_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/chancery-pki/chancery/catest"
	"github.com/chancery-pki/chancery/mtls/acme"
)

func portOf(t testing.TB, address string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Solvers are looked at where the test says, and have to be right.
func TestHTTPChallenge(t *testing.T) {
	solver := new(acme.HTTP01Solver)
	site := httptest.NewServer(solver)
	defer site.Close()
	ca := catest.New(t, catest.WithChallenges(catest.Challenges{HTTPPort: portOf(t, site.Listener.Addr().String())}))
	c := ca.Config("web.test", "other.test", "127.0.0.1")
	if c.CAs[0].EAB != nil {
		t.Error("Config has a key, so that nothing is proven")
	}
	mustObtain(t, c, solver)
	begun := time.Now()
	site.Config.Handler = http.NotFoundHandler()
	if _, _, err := obtain(t, c, solver); err == nil {
		t.Error("issued without proof")
	} else if took := time.Since(begun); took > 10*time.Second || !strings.Contains(err.Error(), "web.test") {
		t.Errorf("after %v: %v", took, err)
	}
	c.CAs[0].EAB = ca.EAB() // proof enough still
	mustObtain(t, c)
}

func TestTLSChallenge(t *testing.T) {
	solver := new(acme.TLSALPN01Solver)
	l, err := tls.Listen("tcp", "127.0.0.1:0", solver.TLSConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.(*tls.Conn).Handshake()
			}()
		}
	}()
	ca := catest.New(t, catest.WithChallenges(catest.Challenges{TLSPort: portOf(t, l.Addr().String())}), catest.StoppedAt(noon))
	c := ca.Config("web.test")
	mustObtain(t, c, solver)
	if _, _, err := obtain(t, c, new(acme.HTTP01Solver)); err == nil {
		t.Error("http-01 is offered too")
	}
}

// records is a DNS server with TXT records, and a solver that fills it.
type records struct {
	mu  sync.Mutex
	txt map[string]string
}

func (*records) Type() string { return acme.DNS01 }

func (r *records) Present(_ context.Context, p acme.Proof) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.txt[acme.DNS01Name(p.Authorization.Identifier.Value)+"."] = acme.DNS01Value(p.KeyAuthorization)
	return nil, nil
}

func (r *records) CleanUp(context.Context, acme.Proof) error { return nil }

func (r *records) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := new(dns.Msg).SetReply(q)
	if text, ok := r.txt[q.Question[0].Name]; ok && q.Question[0].Qtype == dns.TypeTXT {
		a.Answer = append(a.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{text}})
	}
	w.WriteMsg(a)
}

func TestDNSChallenge(t *testing.T) {
	r := &records{txt: map[string]string{}}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: r}
	go server.ActivateAndServe()
	defer server.Shutdown()
	ca := catest.New(t, catest.WithChallenges(catest.Challenges{DNS: conn.LocalAddr().String()}))
	mustObtain(t, ca.Config("*.web.test"), r)
}

// A CA that offers no challenge at all is a mistake.
func TestNoChallenge(t *testing.T) {
	f := &failing{TB: t}
	func() {
		defer func() { recover() }()
		catest.New(f, catest.WithChallenges(catest.Challenges{}))
	}()
	if !strings.Contains(f.said, "at least one challenge") {
		t.Errorf("%q", f.said)
	}
}
