package mtls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/mtls/acl"
)

// network is an Identity's part for connections. Its zero value is ready.
type network struct {
	refusals refusals
	mu       sync.Mutex
	client   *http.Client // made when it is first asked for; guarded by mu
}

// close lets go of idle connections.
func (n *network) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.client != nil {
		n.client.CloseIdleConnections()
	}
}

// A connection gets this long to be dialled, and this long for its handshake.
const (
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
)

// HTTPClient returns the identity's client for HTTP/1.1 and HTTP/2, the same
// one each time: it shows the client certificate, and checks servers by the
// name or address of the URL. It gives a connection 10 s to be dialled and 10
// s for its handshake; how long an answer may take is for the request's
// context to say. Proxies are taken from the environment; beyond one, servers
// are called by name only.
func (id *Identity) HTTPClient() *http.Client {
	n := &id.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.client == nil {
		n.client = &http.Client{Transport: id.transport()}
	}
	return n.client
}

func (id *Identity) transport() *http.Transport {
	dialer := net.Dialer{Timeout: dialTimeout}
	return &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: dialer.DialContext,
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return id.dial(ctx, network, addr, "h2", "http/1.1")
		},
		TLSClientConfig:       id.Client(), // for servers beyond a proxy
		TLSHandshakeTimeout:   handshakeTimeout,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          100,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second}, // a peer that went away is noticed
	}
}

// Dial connects to a server, shows it the client certificate, and checks it by
// the name or address in addr. It waits at most 10 s for the connection and 10
// s for the handshake, less if ctx ends. In TLS 1.3 a server that refuses us
// says so after our part of the handshake: the first Read tells. The
// connection is a *tls.Conn.
func (id *Identity) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return id.dial(ctx, network, addr)
}

func (id *Identity) dial(ctx context.Context, network, addr string, protos ...string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("mtls: dial: %w", err)
	}
	if host == "" {
		return nil, fmt.Errorf("mtls: dial %s: say which host: its certificate is checked by that", addr)
	}
	config := id.ClientTo(host)
	config.NextProtos = protos
	dialer := net.Dialer{Timeout: dialTimeout}
	raw, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("mtls: %s: %w", addr, err)
	}
	return conn, nil
}

// Listen listens for clients that p allows, as Server says, for raw TCP: what
// comes out of Accept is a *tls.Conn whose handshake is done. Handshakes are
// made while Accept isn't called, too, each beside the others, so a slow
// client delays nobody; one that takes 10 s is hung up on. What is refused or
// fails is logged and never comes out of Accept. Nobody asks p about requests
// here, so rules with a method or a path let nobody in.
func (id *Identity) Listen(network, addr string, p acl.Policy) (net.Listener, error) {
	inner, err := net.Listen(network, addr)
	if err != nil {
		return nil, err
	}
	return id.listen(inner, p), nil
}

func (id *Identity) listen(inner net.Listener, p acl.Policy) net.Listener {
	if p != nil {
		p = connections{p}
	}
	l := &listener{Listener: inner, id: id, config: id.Server(p), slots: make(chan struct{}, maxShaking), ready: make(chan *tls.Conn)}
	l.ctx, l.end = context.WithCancelCause(context.Background())
	go l.run()
	return l
}

// connections is a policy that is asked once for all that a connection may
// bring.
type connections struct{ acl.Policy }

// Allow asks for everything at once.
func (c connections) Allow(p *acl.Peer) error { return c.Policy.AllowRequest(p, acl.Request{}) }

// Err is the policy's own, if it has one.
func (c connections) Err() error { return faultOf(c.Policy) }

// maxShaking bounds the connections between the kernel's queue and the
// program: 1,024 that send nothing hold about 10 MiB. When half of them are
// taken, those who come have less time, so that the silent ones go first.
const (
	maxShaking     = 1024
	crowdedTimeout = time.Second
)

// listener makes handshakes before Accept.
type listener struct {
	net.Listener // its Accept is run's alone
	id           *Identity
	config       *tls.Config
	slots        chan struct{}   // one for each connection that Accept hasn't returned
	ready        chan *tls.Conn  // handshakes that went well
	ctx          context.Context // ends with the listener
	end          context.CancelCauseFunc
}

// Accept returns the next connection whose handshake is done.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case <-l.ctx.Done():
		return nil, context.Cause(l.ctx)
	}
}

// Close ends the listener, and hangs up on the connections that Accept hasn't
// returned.
func (l *listener) Close() error {
	l.end(net.ErrClosed)
	return l.Listener.Close()
}

// run takes connections from the kernel until the listener ends.
func (l *listener) run() {
	for pause := time.Duration(0); ; {
		raw, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no files left, say: it passes
			l.id.log.Error("mtls: cannot take connections", "address", l.Addr(), "error", err)
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			time.Sleep(pause)
			continue
		}
		pause = 0
		select {
		case l.slots <- struct{}{}:
			go l.shake(raw)
		case <-l.ctx.Done():
			raw.Close()
		}
	}
}

// shake makes one handshake and hands the connection over.
func (l *listener) shake(raw net.Conn) {
	defer func() { <-l.slots }()
	timeout := handshakeTimeout
	if len(l.slots) > maxShaking/2 {
		timeout = crowdedTimeout
	}
	ctx, cancel := context.WithTimeout(l.ctx, timeout)
	defer cancel()
	conn := tls.Server(raw, l.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		if l.ctx.Err() == nil {
			l.id.report(raw.RemoteAddr(), nil, err)
		}
		return
	}
	select {
	case l.ready <- conn:
	case <-l.ctx.Done():
		conn.Close()
	}
}
