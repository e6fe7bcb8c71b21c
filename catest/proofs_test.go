package catest_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/chancery-pki/chancery/catest"
	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// tls-alpn-01 on the program's own listener, which serves before there is a
// certificate: net/http and raw TCP. No such connection comes out of them.
func TestProofOnOwnListener(t *testing.T) {
	for _, kind := range []string{"net/http", "raw TCP"} {
		t.Run(kind, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ca := catest.New(t, catest.WithChallenges(catest.Challenges{TLSPort: portOf(t, l.Addr().String())}))
			id := start(t, ca.Config("web.test", "other.test"))
			rules := acl.Allow("web.test")
			came := make(chan string, 16)
			if kind == "net/http" {
				srv := &http.Server{TLSConfig: id.Server(rules), ErrorLog: id.ErrorLog(), Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { came <- "a request" })}
				t.Cleanup(func() { srv.Close() })
				go srv.ServeTLS(l, "", "")
			} else {
				address := l.Addr().String()
				l.Close()
				ours, err := id.Listen("tcp", address, rules)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { ours.Close() })
				go func() {
					for {
						conn, err := ours.Accept()
						if err != nil {
							return
						}
						came <- conn.RemoteAddr().String()
						conn.Close()
					}
				}()
			}
			id.ready(t)
			if len(came) > 0 {
				t.Errorf("the CA's connection came out: %s", <-came)
			}
			mustCallSelf(t, id).talk(t)
		})
	}
}

// The identity listens by itself until its first certificates are there, and
// then lets go of the address.
func TestProofBeforeOwnListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	ca := catest.New(t, catest.WithChallenges(catest.Challenges{TLSPort: portOf(t, address)}))
	l.Close()
	c := ca.Config("web.test")
	c.Proof.ListenALPN = address
	id := run(t, c)
	ours, err := id.Listen("tcp", address, acl.Allow("web.test"))
	if err != nil {
		t.Fatal(err)
	}
	ours.Close()
}

// http-01 by a solver in the program's own plain server.
func TestProofByHTTP(t *testing.T) {
	solver := new(acme.HTTP01Solver)
	site := httptest.NewServer(solver)
	defer site.Close()
	ca := catest.New(t, catest.WithChallenges(catest.Challenges{HTTPPort: portOf(t, site.Listener.Addr().String())}))
	c := ca.Config("web.test")
	c.Proof.Solvers = []acme.Solver{solver}
	mustCallSelf(t, run(t, c)).talk(t)
}

// zone is a DNSProvider, and the server of its zone.
type zone struct {
	mu  sync.Mutex
	txt map[string][]string
}

func (z *zone) Present(_ context.Context, name, value string) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.txt[name+"."] = append(z.txt[name+"."], value)
	return nil
}

func (z *zone) CleanUp(_ context.Context, name, value string) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	kept := z.txt[name+"."][:0]
	for _, v := range z.txt[name+"."] {
		if v != value {
			kept = append(kept, v)
		}
	}
	z.txt[name+"."] = kept
	return nil
}

func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	a := new(dns.Msg).SetReply(q)
	if name := q.Question[0].Name; q.Question[0].Qtype == dns.TypeTXT {
		for _, v := range z.txt[name] {
			a.Answer = append(a.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{v}})
		}
	}
	w.WriteMsg(a)
}

// dns-01 by a provider, for a wildcard beside its own name: two records at one
// name, and nothing left in the zone.
func TestProofByDNS(t *testing.T) {
	z := &zone{txt: map[string][]string{}}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: pc, Handler: z}
	go server.ActivateAndServe()
	defer server.Shutdown()
	ca := catest.New(t, catest.WithChallenges(catest.Challenges{DNS: pc.LocalAddr().String()}))
	c := ca.Config("web.test", "*.web.test")
	c.Proof.Solvers = []acme.Solver{mtls.DNS01(z)}
	c.Usage = mtls.UsageServer
	run(t, c)
	z.mu.Lock()
	defer z.mu.Unlock()
	for name, left := range z.txt {
		if len(left) > 0 {
			t.Errorf("%s still has %q", name, left)
		}
	}
}
