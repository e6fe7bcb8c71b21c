package challenge

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/chancery-pki/chancery/internal/protocol"
)

func TestResolverConfig(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.53":               "192.0.2.53:53",
		"192.0.2.53:5353":          "192.0.2.53:5353",
		"2001:db8::53":             "[2001:db8::53]:53",
		"[2001:db8::53]":           "[2001:db8::53]:53",
		"[2001:db8::53]:5353":      "[2001:db8::53]:5353",
		"tls://192.0.2.53":         "192.0.2.53:853 192.0.2.53",
		"tls://dns.internal":       "dns.internal:853 dns.internal",
		"tls://[2001:db8::53]:853": "[2001:db8::53]:853 2001:db8::53",
		"":                         "error",
		"dns.internal":             "error", // who resolves the resolver?
		"udp://192.0.2.53":         "error",
		"tls://":                   "error",
		"https://dns.internal/q":   "error",
	} {
		got := "error"
		if r, err := NewResolver(ResolverConfig{Servers: []string{in}}); err == nil {
			got = r.servers[0].addr
			if c := r.servers[0].tls; c != nil {
				got += " " + c.ServerName
			}
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestAddresses(t *testing.T) {
	z, r := serveDNS(t)
	z.set("both.test. A", "both.test. 1 IN A 192.0.2.1")
	z.set("both.test. AAAA", "both.test. 1 IN AAAA 2001:db8::1")
	z.set("half.test. A", "half.test. 1 IN A 192.0.2.1")
	z.rcode["half.test. AAAA"] = dns.RcodeServerFailure
	z.rcode["gone.test. A"] = dns.RcodeNameError
	z.rcode["gone.test. AAAA"] = dns.RcodeNameError
	z.rcode["broken.test. A"] = dns.RcodeServerFailure
	z.rcode["refused.test. A"] = dns.RcodeRefused
	z.set("alias.test. CNAME", "alias.test. 1 IN CNAME both.test.") // the rest is left to us
	z.set("chain.test. A", "chain.test. 1 IN CNAME x.test.", "x.test. 1 IN CNAME Y.test.", "y.test. 1 IN A 192.0.2.7")
	z.set("circle.test. CNAME", "circle.test. 1 IN CNAME circle2.test.", "circle2.test. 1 IN CNAME circle.test.")
	z.set("self.test. CNAME", "self.test. 1 IN CNAME self.test.")
	z.set("dangling.test. CNAME", "dangling.test. 1 IN CNAME empty.test.")
	z.set("lost.test. A", "lost.test. 1 IN CNAME nowhere.test.")
	z.rcode["lost.test. A"] = dns.RcodeNameError              // of the alias's target, RFC 2308 section 2.1
	z.set("stranger.test. A", "other.test. 1 IN A 192.0.2.9") // an answer to another question
	z.set("single. A", "single. 1 IN A 192.0.2.3")
	for i := range 12 {
		z.set(fmt.Sprintf("n%d.test. CNAME", i), fmt.Sprintf("n%d.test. 1 IN CNAME n%d.test.", i, i+1))
	}
	var many []string
	for i := range 70 {
		many = append(many, fmt.Sprintf("many.test. 1 IN A 192.0.2.%d", i))
	}
	z.set("many.test. A", many...) // truncated, then by TCP
	for name, want := range map[string]string{
		"both.test":     "[192.0.2.1 2001:db8::1]",
		"BOTH.test":     "[192.0.2.1 2001:db8::1]",
		"half.test":     "[192.0.2.1]",
		"gone.test":     "[]",
		"empty.test":    "[]",
		"alias.test":    "[192.0.2.1 2001:db8::1]",
		"chain.test":    "[192.0.2.7]",
		"dangling.test": "[]",
		"stranger.test": "[]",
		"lost.test":     "[]",
		"single":        "[192.0.2.3]",
		"many.test":     "32",
		"broken.test":   "SERVFAIL, retry",
		"refused.test":  "REFUSED, retry",
		"circle.test":   "circle",
		"self.test":     "circle",
		"n0.test":       "circle",
	} {
		found, err := r.Addresses(t.Context(), name)
		slices.SortFunc(found, func(a, b netip.Addr) int { return a.Compare(b) })
		switch {
		case strings.HasPrefix(want, "["):
			if err != nil || fmt.Sprint(found) != want {
				t.Errorf("%s: got %v, %v; want %s", name, found, err, want)
			}
		case want == "32":
			if err != nil || len(found) != maxAddresses {
				t.Errorf("%s: got %d addresses, %v", name, len(found), err)
			}
		default:
			word, retry, _ := strings.Cut(want, ", ")
			wantNo(t, err, protocol.DNSFailed, retry != "", word, name, "A")
		}
	}
	if n := z.count("single.example. A"); n > 0 {
		t.Error("a search domain was used")
	}
	if z.count("nowhere.test. A") > 0 {
		t.Error("a name that is known not to exist was asked for")
	}
	if n := z.count("broken.test. A"); n != 1 {
		t.Errorf("a server that says SERVFAIL was asked %d times in one lookup", n)
	}
}

// A lost packet is sent again; a server that is down is passed over.
func TestResolverRetries(t *testing.T) {
	z, good := serveDNS(t)
	z.set("a.test. A", "a.test. 1 IN A 192.0.2.1")
	var lost atomic.Int32
	z.setHook(func(w dns.ResponseWriter, q *dns.Msg) bool { return lost.Add(1) <= 2 })
	good.timeout = 1500 * time.Millisecond
	if found, err := good.Addresses(t.Context(), "a.test"); err != nil || len(found) != 1 {
		t.Errorf("got %v, %v after packets were lost", found, err)
	}
	z.setHook(nil)
	down := listen(t, "127.0.0.1:0")
	down.Close()
	r, _ := NewResolver(ResolverConfig{Servers: []string{down.Addr().String(), good.servers[0].addr}, Timeout: 3 * time.Second})
	if found, err := r.Addresses(t.Context(), "a.test"); err != nil || len(found) != 1 {
		t.Errorf("got %v, %v with the first server down", found, err)
	}
	z.setHook(func(dns.ResponseWriter, *dns.Msg) bool { return true })
	good.timeout = 600 * time.Millisecond
	start := time.Now()
	_, err := good.TXT(t.Context(), "a.test")
	wantNo(t, err, protocol.DNSFailed, true, "TXT", "a.test", "timed out")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

// Only the answer to our question counts: right id, name, type, and a
// response at all (RFC 5452 section 9.1).
func TestResolverForgery(t *testing.T) {
	z, r := serveDNS(t)
	r.timeout = 3 * time.Second
	forged := func(q *dns.Msg, change func(*dns.Msg)) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + " 1 IN TXT forged")
		m.Answer = []dns.RR{rr}
		change(m)
		return m
	}
	for name, change := range map[string]func(*dns.Msg){
		"id":       func(m *dns.Msg) { m.Id++ },
		"name":     func(m *dns.Msg) { m.Question[0].Name = "b.test." },
		"type":     func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeA },
		"class":    func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		"question": func(m *dns.Msg) { m.Question = nil },
		"query":    func(m *dns.Msg) { m.Response = false },
	} {
		z.setHook(func(w dns.ResponseWriter, q *dns.Msg) bool {
			w.WriteMsg(forged(q, change))
			w.Write([]byte{1, 2, 3})
			return false
		})
		z.set("a.test. TXT", "a.test. 1 IN TXT real")
		if got, err := r.TXT(t.Context(), "a.test"); err != nil || !slices.Equal(got, []string{"real"}) {
			t.Errorf("another %s: got %v, %v", name, got, err)
		}
	}
	z.setHook(func(w dns.ResponseWriter, q *dns.Msg) bool {
		for range 3 * maxStray { // somebody is guessing; the real one after that comes too late
			w.WriteMsg(forged(q, func(m *dns.Msg) { m.Id++ }))
		}
		return false
	})
	_, err := r.TXT(t.Context(), "a.test")
	wantNo(t, err, protocol.DNSFailed, true)
	// The real answer twice is one answer.
	z.setHook(func(w dns.ResponseWriter, q *dns.Msg) bool {
		for range 2 {
			w.WriteMsg(forged(q, func(*dns.Msg) {}))
		}
		return true
	})
	if _, err := r.TXT(t.Context(), "a.test"); err != nil {
		t.Error(err)
	}
}

// RFC 7858: DNS over TLS, with the server's name and roots.
func TestResolverTLS(t *testing.T) {
	z, _ := serveDNS(t)
	z.set("a.test. A", "a.test. 1 IN A 192.0.2.1")
	certs := httptest.NewUnstartedServer(nil)
	certs.StartTLS()
	defer certs.Close()
	l := tls.NewListener(listen(t, "127.0.0.1:0"), &tls.Config{Certificates: certs.TLS.Certificates})
	s := &dns.Server{Listener: l, Handler: z}
	started := make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	go s.ActivateAndServe()
	<-started
	t.Cleanup(func() { s.Shutdown() })
	roots := x509.NewCertPool()
	roots.AddCert(certs.Certificate())
	url := "tls://" + l.Addr().(*net.TCPAddr).String()
	for _, c := range []struct {
		name   string
		config ResolverConfig
		ok     bool
	}{
		{"by address", ResolverConfig{Roots: roots}, true},
		{"by name", ResolverConfig{Roots: roots, ServerName: "example.com"}, true},
		{"another name", ResolverConfig{Roots: roots, ServerName: "dns.internal"}, false},
		{"unknown root", ResolverConfig{Roots: x509.NewCertPool()}, false},
	} {
		c.config.Servers, c.config.Timeout = []string{url}, 5*time.Second
		r, err := NewResolver(c.config)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second resumes the session
			found, err := r.Addresses(t.Context(), "a.test")
			if c.ok && (err != nil || len(found) != 1) {
				t.Errorf("%s: %v, %v", c.name, found, err)
			}
			if !c.ok {
				wantNo(t, err, protocol.DNSFailed, true, "TLS")
			}
		}
	}
}

// Without servers, addresses come from where other programs get them.
func TestSystemResolver(t *testing.T) {
	r, err := NewResolver(ResolverConfig{})
	if err != nil {
		t.Fatal(err)
	}
	found, err := r.Addresses(t.Context(), "localhost") // in every /etc/hosts
	if err != nil || len(found) == 0 || !found[0].Unmap().IsLoopback() {
		t.Errorf("localhost: %v, %v", found, err)
	}
	n := &Network{Resolver: r}
	v := testValidation()
	v.Identifier.Value = "localhost"
	_, err = HTTP01{n}.Validate(t.Context(), v)
	wantNo(t, err, protocol.ConnectionFailed, false, "loopback")
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		`plain`: "plain", `a\009b`: "a\tb", `a\"b`: `a"b`, `a\\009`: `a\009`, `\255`: "\xff", `\`: `\`, `\2`: "2", `\99`: "99", `\999`: "999",
	} {
		if got := unescape(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
