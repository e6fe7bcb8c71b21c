package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/mtls/acl"
)

// greeter is a program on raw TCP: it counts who reaches it and greets them.
type greeter struct {
	addr    string
	reached atomic.Int64
}

// greet runs a greeter on connections that crypto/tls makes of the
// configuration.
func greet(t *testing.T, config *tls.Config) *greeter {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	return greetOn(t, l)
}

func greetOn(t *testing.T, l net.Listener) *greeter {
	g := &greeter{addr: l.Addr().String()}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(20 * time.Second))
				if err := conn.(*tls.Conn).Handshake(); err != nil {
					return
				}
				g.reached.Add(1)
				conn.Write([]byte("hello"))
				io.Copy(io.Discard, conn)
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return g
}

// visit connects and returns what the greeter said.
func (g *greeter) visit(t *testing.T, config *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	raw, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(20 * time.Second))
	conn := tls.Client(raw, config)
	word := make([]byte, 5)
	if _, err := io.ReadFull(conn, word); err != nil {
		return conn.ConnectionState(), err
	}
	if string(word) != "hello" {
		t.Errorf("greeted with %q", word)
	}
	return conn.ConnectionState(), nil
}

// shake makes a handshake and no more.
func (g *greeter) shake(config *tls.Config) (tls.ConnectionState, error) {
	conn, err := tls.Dial("tcp", g.addr, config)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.ConnectionState(), nil
}

// as is a foreign client's configuration, one that takes any server.
func as(cert *tls.Certificate) *tls.Config {
	c := &tls.Config{InsecureSkipVerify: true, ServerName: "web.prod.internal"}
	if cert != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return c
}

func TestServerLetsInWhomItAllows(t *testing.T) {
	h := newHouse(t, "Example")
	id := h.identity("web.prod.internal")
	log := id.journal()
	var shaken []Handshake
	id.hooks.Shaken = func(s Handshake) { shaken = append(shaken, s) }
	g := greet(t, id.Server(acl.Allow("*.batch.internal")))
	cs, err := g.visit(t, as(h.leaf("a.batch.internal")))
	if err != nil {
		t.Fatal(err)
	}
	if cs.Version != tls.VersionTLS13 || cs.NegotiatedProtocol != "" {
		t.Errorf("%s, %q", tls.VersionName(cs.Version), cs.NegotiatedProtocol)
	}
	if len(shaken) != 1 || shaken[0] != (Handshake{Server: true, Peer: "a.batch.internal"}) {
		t.Errorf("%+v", shaken)
	}
	if log.String() != "" {
		t.Errorf("it complains: %s", log)
	}
}

// Each refusal leaves a line an operator can act on, and tells the peer an
// alert that is the same for all.
func TestServerRefuses(t *testing.T) {
	h, stranger := newHouse(t, "Example"), newHouse(t, "Stranger")
	const name = "a.batch.internal"
	hour := func(from, to time.Duration) *tls.Certificate {
		return h.odd(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(from*time.Hour), time.Now().Add(to*time.Hour)
		}, name)
	}
	old := as(h.leaf(name))
	old.MaxVersion = tls.VersionTLS12
	for _, v := range []struct {
		what   string
		client *tls.Config
		policy acl.Policy
		logged []string
		alert  string
	}{
		{"no certificate", as(nil), nil, []string{"no certificate"}, "bad certificate"},
		{"wrong CA", as(stranger.leaf(name)), nil, []string{"Stranger", "trusted", "names=", name}, "bad certificate"},
		{"expired", as(hour(-3, -1)), nil, []string{"expired", "not_after=" + time.Now().Format("2006")}, "bad certificate"},
		{"not yet valid", as(hour(1, 3)), nil, []string{"valid", name}, "bad certificate"},
		{"CA certificate", as(&tls.Certificate{Certificate: h.issuing.Certificate, PrivateKey: h.issuing.PrivateKey, Leaf: h.issuing.Leaf}), nil,
			[]string{"CA certificate", "Example root"}, "bad certificate"},
		{"server's certificate", as(h.odd(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, name)), nil,
			[]string{"usage", name}, "bad certificate"},
		{"name not allowed", as(h.leaf("a.other.internal")), nil, []string{"no rule", "a.other.internal"}, "bad certificate"},
		{"TLS 1.2", old, nil, []string{"TLS 1.3"}, "protocol version"},
		{"nobody is allowed", as(h.leaf(name)), (acl.Policy)(nil), []string{"no policy", name}, "bad certificate"},
	} {
		t.Run(v.what, func(t *testing.T) {
			id := h.identity("web.prod.internal")
			log := id.journal()
			policy := v.policy
			if v.what != "nobody is allowed" {
				policy = acl.Allow("*.batch.internal")
			}
			g := greet(t, id.Server(policy))
			_, err := g.visit(t, v.client)
			if err == nil || g.reached.Load() != 0 {
				t.Fatal("it was let in")
			}
			if err.Error() != "remote error: tls: "+v.alert && err.Error() != "remote error: tls: "+v.alert+" not supported" {
				t.Errorf("the peer is told %q", err)
			}
			line := log.String()
			for _, want := range append(v.logged, "level=WARN", "peer=127.0.0.1:") {
				if !strings.Contains(line, want) {
					t.Errorf("the log says nothing of %q: %s", want, line)
				}
			}
			if strings.Count(line, "\n") != 1 {
				t.Errorf("not one line: %s", line)
			}
		})
	}
}

// Resumed sessions obey today's rules and today's roots, where the program
// has turned tickets on. (VerifyPeerCertificate would not even be called.)
func TestResumedSessionsObey(t *testing.T) {
	h := newHouse(t, "Example")
	for _, v := range []struct {
		what   string
		change func(id *Identity, rules *changing)
		reason Refusal
	}{
		{"rules", func(_ *Identity, rules *changing) { rules.Store(acl.Allow("b.batch.internal")) }, RefusedPolicy},
		{"roots", func(id *Identity, _ *changing) { setRoots(t, id, UsageClient, newHouse(t, "Other").root) }, RefusedUnknownCA},
	} {
		t.Run(v.what, func(t *testing.T) {
			id := h.identity("web.prod.internal")
			var last atomic.Pointer[Handshake]
			id.hooks.Shaken = func(s Handshake) { last.Store(&s) }
			rules := new(changing)
			rules.Store(acl.Allow("a.batch.internal"))
			config := id.Server(rules)
			config.SessionTicketsDisabled = false
			g := greet(t, config)
			client := as(h.leaf("a.batch.internal"))
			client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			for i := range 3 {
				cs, err := g.visit(t, client)
				if err != nil || cs.DidResume != (i > 0) || last.Load().Resumed != (i > 0) {
					t.Fatalf("connection %d: resumed %t, %v", i, cs.DidResume, err)
				}
			}
			v.change(id, rules)
			cs, err := g.visit(t, client)
			e, ok := errors.AsType[*PeerError](last.Load().Err)
			if !cs.DidResume || err == nil || !last.Load().Resumed || !ok || e.Reason != v.reason || g.reached.Load() != 3 {
				t.Errorf("resumed %t, the client sees %v, the server %+v", cs.DidResume, err, last.Load())
			}
		})
	}
}

func TestNoTicketsByDefault(t *testing.T) {
	h := newHouse(t, "Example")
	g := greet(t, h.identity("web.prod.internal").Server(acl.Allow("a.batch.internal")))
	client := as(h.leaf("a.batch.internal"))
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 2 {
		if cs, err := g.visit(t, client); err != nil || cs.DidResume {
			t.Fatal(cs.DidResume, err)
		}
	}
}

// Clients are told which roots are trusted today, so that one with two chains
// shows the right one while a CA rotates.
func TestHintsFollowTheRoots(t *testing.T) {
	h, next := newHouse(t, "Example"), newHouse(t, "Next")
	id := h.identity("web.prod.internal")
	g := greet(t, id.Server(acl.Allow("a.batch.internal")))
	old, young := h.leaf("a.batch.internal"), next.leaf("a.batch.internal")
	client := as(nil)
	var hints [][]byte
	client.GetClientCertificate = func(req *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		hints = req.AcceptableCAs
		for _, c := range []*tls.Certificate{old, young} { // issuing CAs are ours: the root tells
			root := h.root
			if c == young {
				root = next.root
			}
			if slices.ContainsFunc(hints, func(dn []byte) bool { return string(dn) == string(root.RawSubject) }) {
				return c, nil
			}
		}
		return new(tls.Certificate), nil
	}
	for i, roots := range [][]*x509.Certificate{{h.root}, {h.root, next.root}, {next.root}} {
		setRoots(t, id, UsageClient, roots...)
		if _, err := g.visit(t, client); err != nil || len(hints) != len(roots) {
			t.Errorf("step %d: %d hints, %v", i, len(hints), err)
		}
	}
}

// What the program may change, it may; what it may not doesn't open the door.
func TestProgramChangesTheConfiguration(t *testing.T) {
	h, public := newHouse(t, "Example"), newHouse(t, "Public")
	id := h.identity("web.prod.internal")
	client := as(h.leaf("a.batch.internal"))
	p := acl.Allow("*.batch.internal")

	t.Run("a public CA's certificate", func(t *testing.T) {
		config := id.Server(p)
		shown := public.leaf("www.example.org")
		config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown, nil }
		g := greet(t, config)
		cs, err := g.visit(t, client)
		if err != nil || !cs.PeerCertificates[0].Equal(shown.Leaf) {
			t.Error(err)
		}
		if _, err := g.visit(t, as(public.leaf("a.batch.internal"))); err == nil {
			t.Error("the public CA's clients come in")
		}
		config = id.Server(p)
		config.GetCertificate, config.Certificates = nil, []tls.Certificate{*shown}
		if cs, err := greet(t, config).visit(t, client); err != nil || !cs.PeerCertificates[0].Equal(shown.Leaf) {
			t.Error(err)
		}
	})
	t.Run("protocols", func(t *testing.T) {
		config, client := id.Server(p), client.Clone()
		config.NextProtos, client.NextProtos = []string{"ours"}, []string{"ours"}
		if cs, err := greet(t, config).visit(t, client); err != nil || cs.NegotiatedProtocol != "ours" {
			t.Error(cs.NegotiatedProtocol, err)
		}
	})
	t.Run("a check of its own", func(t *testing.T) {
		config := id.Server(p)
		calls := 0
		config.VerifyConnection = func(cs tls.ConnectionState) error {
			calls++
			if cs.PeerCertificates[0].DNSNames[0] != "a.batch.internal" {
				return errors.New("not today")
			}
			return nil
		}
		g := greet(t, config)
		if _, err := g.visit(t, client); err != nil || calls != 1 {
			t.Error(calls, err)
		}
		if _, err := g.visit(t, as(h.leaf("b.batch.internal"))); err == nil || calls != 2 {
			t.Error("its check says no:", calls, err)
		}
		if _, err := g.visit(t, as(h.leaf("c.other.internal"))); err == nil || calls != 2 {
			t.Error("ours says no first:", calls, err)
		}
	})
	for what, change := range map[string]func(*tls.Config){
		"no client authentication": func(c *tls.Config) { c.ClientAuth = tls.NoClientCert },
		"a check that says yes":    func(c *tls.Config) { c.VerifyConnection = func(tls.ConnectionState) error { return nil } },
		"other roots":              func(c *tls.Config) { c.ClientCAs = nil },
		"no hook":                  func(c *tls.Config) { c.GetConfigForClient = nil },
		"old versions":             func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
	} {
		t.Run(what, func(t *testing.T) {
			config := id.Server(p)
			change(config)
			g := greet(t, config)
			old := as(h.leaf("a.batch.internal"))
			old.MaxVersion = tls.VersionTLS12
			for who, client := range map[string]*tls.Config{"nobody": as(nil), "another": as(h.leaf("a.other.internal")), "TLS 1.2": old} {
				if _, err := g.visit(t, client); err == nil || g.reached.Load() != 0 {
					t.Errorf("%s comes in", who)
				}
			}
		})
	}
}

// A QUIC server has no net.Conn to ask for an address.
func TestConfigurationWithoutConnection(t *testing.T) {
	h := newHouse(t, "Example")
	id := h.identity("web.prod.internal")
	id.journal()
	for _, protos := range [][]string{nil, {"acme-tls/1"}} {
		hello := &tls.ClientHelloInfo{SupportedProtos: protos, SupportedVersions: []uint16{tls.VersionTLS12}}
		if c, err := id.Server(nil).GetConfigForClient(hello); err != nil || c.ClientAuth == tls.NoClientCert {
			t.Error(c, err)
		}
	}
}

// As is a peer's certificate that was stolen from the wire: without its key
// nobody comes in.
func TestCertificateWithoutItsKey(t *testing.T) {
	h := newHouse(t, "Example")
	id := h.identity("web.prod.internal")
	g := greet(t, id.Server(acl.Allow("a.batch.internal")))
	stolen := *h.leaf("a.batch.internal")
	stolen.PrivateKey = h.leaf("thief").PrivateKey
	if _, err := g.visit(t, as(&stolen)); err == nil || g.reached.Load() != 0 {
		t.Error("it was let in")
	}
}

func TestClientChecksServers(t *testing.T) {
	h, stranger := newHouse(t, "Example"), newHouse(t, "Stranger")
	id := h.identity("a.batch.internal")
	shown := map[string]*tls.Certificate{
		"its name":             h.leaf("web.prod.internal"),
		"another's name":       h.leaf("db.prod.internal"),
		"another CA":           stranger.leaf("web.prod.internal"),
		"a CA's certificate":   {Certificate: h.issuing.Certificate, PrivateKey: h.issuing.PrivateKey},
		"a client's":           h.odd(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, "web.prod.internal"),
		"an expired one":       h.odd(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, "web.prod.internal"),
		"a SPIFFE ID":          h.leaf("spiffe://prod/web"),
		"the address, no name": h.leaf("127.0.0.1"),
	}
	named := func(c *tls.Config, name string) *tls.Config { c.ServerName = name; return c }
	for _, v := range []struct {
		what, shown string
		client      *tls.Config
		want        string // part of the error; "": it works
	}{
		{"by name", "its name", named(id.Client(), "web.prod.internal"), ""},
		{"by name with a dot", "its name", named(id.Client(), "web.prod.internal."), ""},
		{"another's name", "another's name", named(id.Client(), "web.prod.internal"), "db.prod.internal"},
		{"another CA", "another CA", named(id.Client(), "web.prod.internal"), "trusted"},
		{"a CA's certificate", "a CA's certificate", named(id.Client(), "web.prod.internal"), "CA certificate"},
		{"a client's certificate", "a client's", named(id.Client(), "web.prod.internal"), "usage"},
		{"expired", "an expired one", named(id.Client(), "web.prod.internal"), "expired"},
		{"no name", "its name", id.Client(), "no server name"},
		{"one server", "its name", id.ClientTo("web.prod.internal"), ""},
		{"one server by its address", "the address, no name", id.ClientTo("127.0.0.1"), ""},
		{"one server dialled as another", "its name", named(id.ClientTo("web.prod.internal"), "db.prod.internal"), ""},
		{"another than the one server", "another's name", id.ClientTo("web.prod.internal"), "db.prod.internal"},
		{"no server at all", "its name", named(id.ClientTo(""), "web.prod.internal"), "no server name"},
		{"any server", "its name", named(id.ClientTo(anyName), "web.prod.internal"), "no server name"},
		{"any name", "its name", named(id.Client(), anyName), "no server name"},
		{"an address", "the address, no name", named(id.Client(), "127.0.0.1"), "HTTPClient"},
		{"by policy", "a SPIFFE ID", id.ClientFor(acl.Allow("spiffe://prod/web")), ""},
		{"by policy, at an address", "a SPIFFE ID", named(id.ClientFor(acl.Allow("spiffe://prod/web")), "127.0.0.1"), ""},
		{"not by policy", "its name", named(id.ClientFor(acl.Allow("spiffe://prod/web")), "web.prod.internal"), "no rule"},
		{"by policy, another CA", "another CA", id.ClientFor(acl.Allow("web.prod.internal")), "trusted"},
		{"by no policy", "its name", named(id.ClientFor(nil), "web.prod.internal"), "no policy"},
	} {
		t.Run(v.what, func(t *testing.T) {
			var shaken Handshake
			id.hooks.Shaken = func(s Handshake) { shaken = s }
			cert := shown[v.shown]
			g := greet(t, &tls.Config{Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequireAnyClientCert})
			_, err := g.visit(t, v.client)
			if (err == nil) != (v.want == "") || err != nil && !strings.Contains(err.Error(), v.want) {
				t.Errorf("%v, want %q", err, v.want)
			}
			if shaken.Server || shaken.Err != nil != (err != nil) {
				t.Errorf("%+v", shaken)
			}
		})
	}
	t.Run("TLS 1.2", func(t *testing.T) {
		g := greet(t, &tls.Config{Certificates: []tls.Certificate{*shown["its name"]}, MaxVersion: tls.VersionTLS12})
		if _, err := g.visit(t, named(id.Client(), "web.prod.internal")); err == nil {
			t.Error("it works")
		}
	})
}

func TestResumedServersObey(t *testing.T) {
	h := newHouse(t, "Example")
	id := h.identity("a.batch.internal")
	g := greet(t, &tls.Config{Certificates: []tls.Certificate{*h.leaf("web.prod.internal")}})
	client := id.Client()
	client.ServerName, client.ClientSessionCache = "web.prod.internal", tls.NewLRUClientSessionCache(1)
	for i := range 2 {
		if cs, err := g.visit(t, client); err != nil || cs.DidResume != (i > 0) {
			t.Fatal(cs.DidResume, err)
		}
	}
	setRoots(t, id, UsageServer, newHouse(t, "Other").root)
	if cs, err := g.visit(t, client); err == nil || !cs.DidResume || !strings.Contains(err.Error(), "trusted") {
		t.Error(cs.DidResume, err)
	}
}

// turned is a clock that tests turn.
type turned struct{ now atomic.Int64 }

func (c *turned) Now() time.Time                         { return time.Unix(c.now.Load(), 0) }
func (c *turned) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Strangers can't fill the log, nor drown a refusal of another kind.
func TestLogIsBounded(t *testing.T) {
	h := newHouse(t, "Example")
	id := h.identity("web.prod.internal")
	log, clock := id.journal(), new(turned)
	clock.now.Store(time.Now().Unix())
	id.clock = clock
	knock := func(why Refusal, times int) {
		for range times {
			id.report(nil, nil, &PeerError{Reason: why, Text: "knock " + string(why)})
		}
	}
	lines := func(why Refusal) int { return strings.Count(log.String(), "knock "+string(why)) }
	knock(RefusedNoCertificate, 1000)
	knock(RefusedPolicy, 3)
	if n, m := lines(RefusedNoCertificate), lines(RefusedPolicy); n != linesAtOnce || m != 3 {
		t.Errorf("%d and %d lines", n, m)
	}
	clock.now.Add(2)
	knock(RefusedNoCertificate, 5)
	if n := lines(RefusedNoCertificate); n != linesAtOnce+2 || !strings.Contains(log.String(), "skipped_before=990") {
		t.Errorf("%d lines: %s", n, log)
	}
	clock.now.Add(1e6)
	knock(RefusedNoCertificate, 100)
	if n := lines(RefusedNoCertificate); n != 2*linesAtOnce+2 {
		t.Errorf("%d lines", n)
	}
}

// What strangers put into a certificate doesn't fill the log.
func TestLogLineIsBounded(t *testing.T) {
	stranger := newHouse(t, "Stranger"+strings.Repeat("x", 10_000))
	var names []string
	for i := range 1000 {
		names = append(names, fmt.Sprintf("%s%d.example", strings.Repeat("a", 50), i))
	}
	id := newHouse(t, "Example").identity("web.prod.internal")
	log := id.journal()
	id.report(nil, []*x509.Certificate{stranger.leaf(names...).Leaf}, errors.New("no"))
	if n := len(log.String()); n < 100 || n > 5000 {
		t.Errorf("%d bytes", n)
	}
}
