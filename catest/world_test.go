package catest_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/catest"
	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
)

// program is an identity under test, with its log.
type program struct {
	*mtls.Identity
	log *record
}

// start has a program of a Config, which ends with the test.
func start(t *testing.T, c mtls.Config) *program {
	t.Helper()
	p := &program{log: new(record)}
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(p.log, nil))
	}
	var err error
	if p.Identity, err = mtls.Start(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// run is start, until the certificates are there.
func run(t *testing.T, c mtls.Config) *program {
	t.Helper()
	p := start(t, c)
	p.ready(t)
	return p
}

func (p *program) ready(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Ready(ctx); err != nil {
		t.Fatalf("%v\n%s", err, p.log)
	}
}

// record is a log that tests read.
type record struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

// wires are the two ends of a connection in memory. Unlike net.Pipe's they
// hold what was written, as a kernel does: a server may refuse while the client
// writes.
func wires() (here, there net.Conn) {
	up, down := newWire(), newWire()
	return &end{in: down, out: up}, &end{in: up, out: down}
}

// wire is one direction.
type wire struct {
	mu     sync.Mutex
	more   *sync.Cond
	buf    bytes.Buffer
	closed bool
}

func newWire() *wire {
	w := new(wire)
	w.more = sync.NewCond(&w.mu)
	return w
}

type end struct {
	net.Conn // nil: there is no more to it
	in, out  *wire
}

func (e *end) Read(p []byte) (int, error) {
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	for e.in.buf.Len() == 0 && !e.in.closed {
		e.in.more.Wait()
	}
	return e.in.buf.Read(p)
}

func (e *end) Write(p []byte) (int, error) {
	e.out.mu.Lock()
	defer e.out.mu.Unlock()
	if e.out.closed {
		return 0, net.ErrClosed
	}
	e.out.more.Broadcast()
	return e.out.buf.Write(p)
}

func (e *end) Close() error {
	for _, w := range []*wire{e.in, e.out} {
		w.mu.Lock()
		w.closed = true
		w.more.Broadcast()
		w.mu.Unlock()
	}
	return nil
}

func (e *end) LocalAddr() net.Addr              { return &net.IPAddr{IP: net.IPv4(192, 0, 2, 1)} }
func (e *end) RemoteAddr() net.Addr             { return &net.IPAddr{IP: net.IPv4(192, 0, 2, 2)} }
func (e *end) SetDeadline(time.Time) error      { return nil }
func (e *end) SetReadDeadline(time.Time) error  { return nil }
func (e *end) SetWriteDeadline(time.Time) error { return nil }

// call is a connection that two peers have agreed on.
type call struct {
	server, client *tls.Conn
	heard          chan string // by the client, line by line
}

// dial makes a connection in memory. The error is the client's, or, since a TLS
// 1.3 client is done before its certificate is looked at, the server's; both if
// both have one.
func dial(t *testing.T, server, client *tls.Config) (*call, error) {
	t.Helper()
	here, there := wires()
	c := &call{server: tls.Server(there, server), client: tls.Client(here, client), heard: make(chan string, 1)}
	t.Cleanup(func() { here.Close(); there.Close() })
	served := make(chan error, 1)
	go func() {
		err := c.server.Handshake()
		if err != nil {
			there.Close()
		}
		served <- err
	}()
	if err := c.client.Handshake(); err != nil {
		here.Close()
		return nil, errors.Join(err, <-served)
	}
	go func() { // the server's alert too, which it wouldn't get rid of else
		defer close(c.heard)
		for lines := bufio.NewScanner(c.client); lines.Scan(); {
			c.heard <- lines.Text()
		}
	}()
	if err := <-served; err != nil {
		return nil, err
	}
	return c, nil
}

// talk sends a line either way; it fails the test where nothing arrives.
func (c *call) talk(t *testing.T) {
	t.Helper()
	go fmt.Fprintln(c.server, "hello")
	if line := <-c.heard; line != "hello" {
		t.Errorf("the client got %q", line)
	}
	go fmt.Fprintln(c.client, "hello")
	heard := make([]byte, 6)
	if _, err := io.ReadFull(c.server, heard); string(heard) != "hello\n" || err != nil {
		t.Errorf("the server got %q, %v", heard, err)
	}
}

// shown is the server's certificate.
func (c *call) shown() *x509.Certificate { return c.client.ConnectionState().PeerCertificates[0] }

// came is the client's.
func (c *call) came() *x509.Certificate { return c.server.ConnectionState().PeerCertificates[0] }

// callSelf has a program call itself by the name web.test.
func callSelf(t *testing.T, p *program) (*call, error) {
	t.Helper()
	return dial(t, p.Server(acl.Allow("web.test")), p.ClientTo("web.test"))
}

func mustCallSelf(t *testing.T, p *program) *call {
	t.Helper()
	c, err := callSelf(t, p)
	if err != nil {
		t.Fatalf("%v\n%s", err, p.log)
	}
	return c
}

// together is a Config for several CAs of one clock, and a Trust in them all.
func together(t *testing.T, cas ...*catest.CA) mtls.Config {
	t.Helper()
	c := cas[0].Config("web.test")
	var roots []mtls.Roots
	for i, ca := range cas {
		if roots = append(roots, mtls.RootsPEM(ca.RootPEM())); i > 0 {
			c.CAs = append(c.CAs, ca.Config().CAs...)
		}
	}
	c.Trust = trusting(t, mtls.TrustConfig{Servers: roots, Clients: roots, Clock: c.Clock})
	return c
}

func trusting(t *testing.T, c mtls.TrustConfig) *mtls.Trust {
	t.Helper()
	trust, err := mtls.NewTrust(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { trust.Close() })
	return trust
}

// tells holds an error to what it is to say.
func tells(t *testing.T, what string, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: it went well", what)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: %v; it lacks %q", what, err, w)
		}
	}
}

// quiet is for what a test doesn't look at.
var quiet = slog.New(slog.DiscardHandler)
