package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/mtls/acl"
)

// site is a web server that says who called, in which protocol.
func site(t testing.TB, id *Identity, p acl.Policy, change func(*http.Server)) (addr string) {
	t.Helper()
	srv := &http.Server{
		TLSConfig: id.Server(p), ErrorLog: id.ErrorLog(),
		Handler: id.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			peer, ok := PeerFromContext(r.Context())
			fmt.Fprintf(w, "%s %t %s", peer.Name(), ok, r.Proto)
		}), p),
	}
	if change != nil {
		change(srv)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { srv.ServeTLS(l, "", ""); close(done) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return l.Addr().String()
}

// fetch makes one GET.
func fetch(t testing.TB, client *http.Client, url string) (status int, body string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(bounded30(t), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	return res.StatusCode, string(b), err
}

func TestHTTP(t *testing.T) {
	h := newHouse(t, "Example")
	// localhost resolves without a DNS server; the address needs no name.
	web, batch, other := h.identity("localhost", "127.0.0.1"), h.identity("a.batch.internal"), h.identity("a.other.internal")
	p := acl.Allow("a.batch.internal")
	_, port, _ := net.SplitHostPort(site(t, web, p, nil))
	for _, host := range []string{"localhost", "127.0.0.1"} {
		status, body, err := fetch(t, batch.HTTPClient(), "https://"+host+":"+port+"/")
		if err != nil || status != 200 || body != "a.batch.internal true HTTP/2.0" {
			t.Errorf("%s: %d %q %v", host, status, body, err)
		}
	}
	if _, _, err := fetch(t, other.HTTPClient(), "https://localhost:"+port+"/"); err == nil {
		t.Error(err)
	}
	if again := batch.HTTPClient(); again != batch.HTTPClient() {
		t.Error("two clients, and so two pools of connections")
	}
	// A server of other names is called by none of them.
	_, port, _ = net.SplitHostPort(site(t, h.identity("db.prod.internal", "127.0.0.2"), p, nil))
	for _, host := range []string{"localhost", "127.0.0.1"} {
		if _, _, err := fetch(t, batch.HTTPClient(), "https://"+host+":"+port+"/"); err == nil || !strings.Contains(err.Error(), "db.prod.internal") && !strings.Contains(err.Error(), "127.0.0.2") {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// Beyond a proxy servers are held against their names, too.
func TestHTTPBeyondAProxy(t *testing.T) {
	h := newHouse(t, "Example")
	_, port, _ := net.SplitHostPort(site(t, h.identity("web.prod.internal"), acl.Anyone(), nil))
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := net.Dial("tcp", "127.0.0.1:"+port) // every name is ours
		if err != nil || r.Method != http.MethodConnect {
			t.Error(r.Method, err)
			return
		}
		in, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(out, in); out.Close() }()
		go func() { io.Copy(in, out); in.Close() }()
	}))
	defer proxy.Close()
	transport := h.identity("a.batch.internal").HTTPClient().Transport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	transport.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse(proxy.URL) }
	client := &http.Client{Transport: transport}
	if _, body, err := fetch(t, client, "https://web.prod.internal/"); err != nil || body != "a.batch.internal true HTTP/2.0" {
		t.Error(body, err)
	}
	for host, want := range map[string]string{"db.prod.internal": "web.prod.internal", "10.0.0.1": "no server name"} {
		if _, _, err := fetch(t, client, "https://"+host+"/"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// HTTP/1.1 alone, by the configuration's protocols, as the documentation says.
func TestHTTP1(t *testing.T) {
	h := newHouse(t, "Example")
	addr := site(t, h.identity("127.0.0.1"), acl.Anyone(), func(s *http.Server) { s.TLSConfig.NextProtos = []string{"http/1.1"} })
	if _, body, err := fetch(t, h.identity("a.batch.internal").HTTPClient(), "https://"+addr+"/"); err != nil || body != "a.batch.internal true HTTP/1.1" {
		t.Error(body, err)
	}
}

// Servers may share a configuration, though net/http writes to it whenever one
// more of them starts, while others shake hands with it.
func TestServersShareAConfiguration(t *testing.T) {
	h := newHouse(t, "Example")
	id, caller := h.identity("127.0.0.1"), h.identity("a.batch.internal")
	legal := h.leaf("a.batch.internal")
	shared := id.Server(acl.Anyone())
	var all sync.WaitGroup
	for range 4 {
		addr := site(t, id, acl.Anyone(), func(s *http.Server) { s.TLSConfig = shared })
		if _, _, err := fetch(t, caller.HTTPClient(), "https://"+addr+"/"); err != nil {
			t.Error(err)
		}
		all.Go(func() {
			for range 20 {
				if _, err := (&greeter{addr: addr}).shake(as(legal)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestRequests(t *testing.T) {
	h := newHouse(t, "Example")
	web, caller := h.identity("127.0.0.1"), h.identity("a.batch.internal")
	log := web.journal()
	rules, err := acl.Parse("rules", []byte("allow a.batch.internal GET /open\n"))
	if err != nil {
		t.Fatal(err)
	}
	reached := 0
	addr := site(t, web, rules, func(s *http.Server) {
		s.Handler = web.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { reached++ }), rules)
	})
	for path, want := range map[string]int{"/open": 200, "/closed": 403, "/open%2f..%2fclosed": 403} {
		status, body, err := fetch(t, caller.HTTPClient(), "https://"+addr+path)
		if err != nil || status != want || want == 403 && body != "forbidden\n" {
			t.Errorf("%s: %d %q %v", path, status, body, err)
		}
	}
	if reached != 1 {
		t.Errorf("%d requests reached the program", reached)
	}
	if n := strings.Count(log.String(), "request denied"); n != 2 || !strings.Contains(log.String(), "a.batch.internal") ||
		!strings.Contains(log.String(), "/closed") || !strings.Contains(log.String(), "peer=127.0.0.1:") {
		t.Errorf("%d lines: %s", n, log)
	}
}

// Without TLS, or without a policy, nobody is anybody.
func TestHandlerWithoutTLS(t *testing.T) {
	h := newHouse(t, "Example")
	id := h.identity("127.0.0.1")
	chain := []*x509.Certificate{h.leaf("a.batch.internal").Leaf}
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was passed on") })
	for what, r := range map[string]*http.Request{
		"no TLS":         {},
		"no certificate": {TLS: &tls.ConnectionState{HandshakeComplete: true}},
		"no policy":      {TLS: &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: chain}},
		"no handshake":   {TLS: &tls.ConnectionState{PeerCertificates: chain}},
	} {
		p := acl.Anyone()
		if what == "no policy" {
			p = nil
		}
		req, err := http.NewRequest(http.MethodGet, "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.TLS = r.TLS
		w := &answer{header: http.Header{}}
		id.Handler(next, p).ServeHTTP(w, req)
		if w.status != 403 {
			t.Errorf("%s: %d", what, w.status)
		}
	}
	if _, ok := PeerFromContext(t.Context()); ok {
		t.Error("a peer from nowhere")
	}
	if _, ok := PeerFromContext(WithPeer(t.Context(), nil)); ok {
		t.Error("a peer that is nil")
	}
}

type answer struct {
	header http.Header
	status int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return len(b), nil }

func TestDialAndListen(t *testing.T) {
	h := newHouse(t, "Example")
	web, batch := h.identity("localhost", "127.0.0.1"), h.identity("a.batch.internal")
	l, err := web.Listen("tcp", "127.0.0.1:0", acl.Allow("a.batch.internal"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, host := range []string{"localhost", "127.0.0.1"} {
		out, err := batch.Dial(bounded30(t), "tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Fatal(host, err)
		}
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if peer, ok := PeerOf(in); !ok || peer.Name() != "a.batch.internal" {
			t.Errorf("%v %t", peer, ok)
		}
		if peer, ok := PeerOf(out); !ok || peer.Name() != "localhost" {
			t.Errorf("%v %t", peer, ok)
		}
		out.Close()
		in.Close()
	}
	for addr, want := range map[string]string{"localhost": "missing port", ":" + port: "which host", "127.0.0.2:" + port: ""} {
		if conn, err := batch.Dial(bounded30(t), "tcp", addr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", addr, conn, err)
		}
	}
	if _, ok := PeerOf(&net.TCPConn{}); ok {
		t.Error("a peer without TLS")
	}
	if _, ok := PeerOf(tls.Client(&net.TCPConn{}, &tls.Config{ServerName: "x"})); ok {
		t.Error("a peer before the handshake")
	}
}

// Peers that send nothing, refused ones and CAs don't keep Accept from
// those that come after them, and never come out of it.
func TestSlowPeersDelayNobody(t *testing.T) {
	h := newHouse(t, "Example")
	web, batch := h.identity("127.0.0.1"), h.identity("a.batch.internal")
	log := web.journal()
	web.pending(t, "127.0.0.1")
	l, err := web.Listen("tcp", "127.0.0.1:0", acl.Allow("a.batch.internal"))
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	for range 50 {
		silent, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	g := &greeter{addr: addr}
	if _, err := tls.Dial("tcp", addr, validator("1.0.0.127.in-addr.arpa")); err != nil {
		t.Error(err)
	}
	refusedOnes := make(chan error, 1)
	go func() { _, err := g.visit(t, as(nil)); refusedOnes <- err }()
	if err := <-refusedOnes; err == nil {
		t.Error("a peer without a certificate came in")
	}
	begun := time.Now()
	out, err := batch.Dial(bounded30(t), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if peer, _ := PeerOf(in); peer.Name() != "a.batch.internal" || time.Since(begun) > handshakeTimeout/2 {
		t.Errorf("%s after %s", peer.Name(), time.Since(begun))
	}
	in.Close()
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "no certificate") {
		t.Errorf("%d lines: %s", n, log)
	}
	l.Close()
}

// A peer that sends nothing is hung up on, and the log says so.
func TestSilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id := newHouse(t, "Example").identity("web.prod.internal")
		log := id.journal()
		inner := newPipeListener()
		l := id.listen(inner, acl.Anyone())
		peer := inner.dial()
		begun := time.Now()
		if _, err := peer.Read(make([]byte, 1)); err == nil || time.Since(begun) != handshakeTimeout {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		synctest.Wait()
		if !strings.Contains(log.String(), "deadline exceeded") {
			t.Errorf("%s", log)
		}
		// In a crowd of them each has less time.
		var crowd []net.Conn
		for range maxShaking {
			crowd = append(crowd, inner.dial())
		}
		begun = time.Now()
		if _, err := crowd[len(crowd)-1].Read(make([]byte, 1)); err == nil || time.Since(begun) != crowdedTimeout {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		lines := log.String()
		late := inner.dial()
		begun = time.Now()
		l.Close()
		if _, err := late.Read(make([]byte, 1)); err == nil || time.Since(begun) != 0 {
			t.Errorf("after Close: %v after %s", err, time.Since(begun))
		}
		synctest.Wait()
		if log.String() != lines {
			t.Errorf("Close is no news: %s", log)
		}
	})
}

// pipeListener is a listener within the process.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	fail   chan error
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{}), fail: make(chan error)}
}

func (p *pipeListener) dial() net.Conn {
	here, there := net.Pipe()
	p.conns <- there
	return here
}

func (p *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case err := <-p.fail:
		return nil, err
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipeListener) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// No files left: a listener waits for better times, and tells.
func TestAcceptFailsForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, "Example")
		id, caller := h.identity("127.0.0.1"), h.identity("a.batch.internal")
		log := id.journal()
		inner := newPipeListener()
		l := id.listen(inner, acl.Anyone())
		for range 5 {
			inner.fail <- errors.New("too many open files")
		}
		peer := inner.dial()
		go tls.Client(peer, caller.ClientTo("127.0.0.1")).Handshake()
		if _, err := l.Accept(); err != nil {
			t.Error(err)
		}
		if !strings.Contains(log.String(), "too many open files") {
			t.Errorf("%s", log)
		}
		peer.Close()
		l.Close()
	})
}

// Close ends Accept and whatever is under way.
func TestCloseListener(t *testing.T) {
	h := newHouse(t, "Example")
	web, batch := h.identity("127.0.0.1"), h.identity("a.batch.internal")
	before := runtime.NumGoroutine()
	l, err := web.Listen("tcp", "127.0.0.1:0", acl.Anyone())
	if err != nil {
		t.Fatal(err)
	}
	var waiting []net.Conn
	for range 3 { // through their handshakes, with no Accept
		c, err := batch.Dial(bounded30(t), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, c)
	}
	ended := make(chan error)
	for range 5 {
		go func() {
			for {
				if _, err := l.Accept(); err != nil {
					ended <- err
					return
				}
			}
		}()
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for range 5 {
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
	for _, c := range waiting {
		c.Close()
	}
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
}

// A context that ends ends a dialling, also while a server says nothing.
func TestDialObeysItsContext(t *testing.T) {
	h := newHouse(t, "Example")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { l.Accept(); cancel() }()
	if _, err := h.identity("a").Dial(ctx, "tcp", l.Addr().String()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// After Close nothing works and nothing panics.
func TestClosedIdentity(t *testing.T) {
	id := newHouse(t, "Example").identity("127.0.0.1")
	id.HTTPClient()
	id.Close()
	g := greet(t, id.Server(acl.Anyone()))
	if _, _, err := fetch(t, id.HTTPClient(), "https://"+g.addr+"/"); err == nil {
		t.Error("it works")
	}
}

// What http.Server has to say reaches the identity's log, once.
func TestErrorLog(t *testing.T) {
	h := newHouse(t, "Example")
	id := h.identity("127.0.0.1")
	log := id.journal()
	addr := site(t, id, acl.Allow("a.batch.internal"), nil)
	g := &greeter{addr: addr}
	g.visit(t, as(nil))
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	io.Copy(io.Discard, conn)
	conn.Close()
	if n := strings.Count(log.String(), "no certificate"); n != 1 {
		t.Errorf("%d lines: %s", n, log)
	}
	if _, err := tls.Dial("tcp", addr, &tls.Config{MaxVersion: tls.VersionTLS12, InsecureSkipVerify: true}); err == nil {
		t.Error("TLS 1.2 is spoken")
	}
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(log.String(), "HTTP request to an HTTPS server"); {
		if runtime.Gosched(); time.Now().After(deadline) {
			t.Fatalf("%s", log)
		}
	}
	if text := log.String(); strings.Count(text, "TLS 1.3") != 1 || strings.Contains(text, oldVersion) {
		t.Errorf("not one line about the old client: %s", text)
	}
}

// A rule about some requests lets nobody have a whole connection: nobody asks
// about requests on a raw listener.
func TestListenAsksForAll(t *testing.T) {
	h := newHouse(t, "Example")
	web, batch, other := h.identity("127.0.0.1"), h.identity("a.batch.internal"), h.identity("b.batch.internal")
	rules, err := acl.Parse("rules.acl", []byte("allow a.batch.internal GET /reports/*\nallow b.batch.internal\n"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := web.Listen("tcp", "127.0.0.1:0", rules)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if conn, err := batch.Dial(bounded30(t), "tcp", l.Addr().String()); err == nil { // TLS 1.3 says no at the first Read
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a rule for one path opened a raw connection")
		}
		conn.Close()
	}
	out, err := other.Dial(bounded30(t), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if peer, _ := PeerOf(in); peer.Name() != "b.batch.internal" {
		t.Error(peer)
	}
}

// Rules with a fault let nobody in, and the log says at once what is wrong
// with them.
func TestFaultyRules(t *testing.T) {
	h := newHouse(t, "Example")
	web := h.identity("127.0.0.1")
	log := web.journal()
	web.Server(acl.Allow("web..internal"))
	l, err := web.Listen("tcp", "127.0.0.1:0", acl.Allow("*web"))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, want := range []string{"web..internal", "*web"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log says nothing of %q: %s", want, log)
		}
	}
}
