package challenge

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/chancery-pki/chancery/internal/protocol"
)

const (
	testToken = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
	testThumb = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
	testName  = "www.example.test"
)

func testValidation() protocol.Validation {
	return protocol.Validation{
		Identifier: protocol.Identifier{Type: protocol.DNS, Value: testName},
		Token:      testToken,
		Thumbprint: testThumb,
		AccountURL: "https://ca.example/acct/123",
	}
}

// zone is a DNS server's data: what a name has, and how often it was asked.
type zone struct {
	mu      sync.Mutex
	records map[string][]string // "name. TYPE" to records in zone file form
	rcode   map[string]int
	asked   map[string]int
	hook    func(w dns.ResponseWriter, q *dns.Msg) bool // true: it has answered
}

func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	z.mu.Lock()
	hook := z.hook
	z.mu.Unlock()
	if hook != nil && hook(w, q) {
		return
	}
	m := new(dns.Msg).SetReply(q)
	z.mu.Lock()
	defer z.mu.Unlock()
	name := dns.CanonicalName(q.Question[0].Name)
	key := name + " " + dns.TypeToString[q.Question[0].Qtype]
	z.asked[key]++
	m.Rcode = z.rcode[key]
	for _, text := range z.records[key] {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	if len(m.Answer) == 0 {
		for _, text := range z.records[name+" CNAME"] {
			rr, _ := dns.NewRR(text)
			m.Answer = append(m.Answer, rr)
		}
	}
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		m.Truncate(udpSize)
	}
	w.WriteMsg(m)
}

func (z *zone) set(key string, records ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.records[key] = records
}

func (z *zone) setHook(hook func(dns.ResponseWriter, *dns.Msg) bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.hook = hook
}

func (z *zone) count(key string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[key]
}

// serveDNS starts a real DNS server on loopback, UDP and TCP on one port.
func serveDNS(t testing.TB) (*zone, *Resolver) {
	t.Helper()
	z := &zone{records: map[string][]string{}, rcode: map[string]int{}, asked: map[string]int{}}
	tcp := listen(t, "127.0.0.1:0")
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	for range 20 { // until a port is free for both
		if err == nil {
			break
		}
		tcp = listen(t, "127.0.0.1:0")
		udp, err = net.ListenPacket("udp", tcp.Addr().String())
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{Listener: tcp, Handler: z}, {PacketConn: udp, Handler: z}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	r, err := NewResolver(ResolverConfig{Servers: []string{tcp.Addr().String()}, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return z, r
}

func listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// serveTCP hands each connection to a function and closes it after.
func serveTCP(t testing.TB, l net.Listener, serve func(net.Conn)) int {
	var conns sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			conns.Go(func() {
				defer c.Close()
				serve(c)
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		conns.Wait()
	})
	return port(l)
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// hold keeps a connection open until the peer closes it, reading all it sends.
func hold(c net.Conn) {
	var b [512]byte
	for {
		if _, err := c.Read(b[:]); err != nil {
			return
		}
	}
}

func prefixes(s ...string) (all []netip.Prefix) {
	for _, p := range s {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func loopback() []netip.Prefix { return prefixes("127.0.0.0/8", "::1/128") }

// wantNo checks a refusal's type, whether it may be retried, and words in it.
func wantNo(t *testing.T, err error, typ protocol.ProblemType, retryable bool, words ...string) {
	t.Helper()
	v, ok := errors.AsType[*protocol.ValidationError](err)
	if !ok {
		t.Fatalf("got error %v, want a ValidationError of type %s", err, typ)
	}
	if v.Problem.Type != typ || v.Retryable != retryable {
		t.Errorf("got %q (retryable %v), want type %s (retryable %v)", v, v.Retryable, typ, retryable)
	}
	for _, w := range words {
		if !strings.Contains(v.Problem.Detail, w) {
			t.Errorf("the detail %q doesn't say %q", v.Problem.Detail, w)
		}
	}
}
