package catest

import (
	"context"
	"errors"
	"net"
	"sync"
)

// wire is all connections to a CA, which a test can cut.
type wire struct {
	mu    sync.Mutex
	down  bool
	alive map[net.Conn]struct{}
}

func (w *wire) set(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
	if !down {
		return
	}
	for c := range w.alive {
		reset(c)
	}
	clear(w.alive)
}

// take says whether a new connection may stay.
func (w *wire) take(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		reset(c)
		return false
	}
	w.alive[c] = struct{}{}
	return true
}

func (w *wire) leave(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.alive, c)
}

// reset ends a connection without a farewell.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0) // RST in place of FIN
	}
	c.Close()
}

// cuttable is a listener whose connections hang on a wire. While that is down
// the port stays ours, since another program could take it, and each
// connection is reset.
type cuttable struct {
	net.Listener
	wire *wire
}

func (l cuttable) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.wire.take(c) {
			return &cuttableConn{c, l.wire}, nil
		}
	}
}

type cuttableConn struct {
	net.Conn
	wire *wire
}

func (c *cuttableConn) Close() error {
	c.wire.leave(c.Conn)
	return c.Conn.Close()
}

// loopback is where connections in memory seem to come from and go to.
var loopback = net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}

// pipes is a listener in memory.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{accept: make(chan net.Conn), closed: make(chan struct{})} }

var errPipesClosed = errors.New("catest: the test's CA is gone")

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.accept <- pipe{theirs}:
		return pipe{ours}, nil
	case <-p.closed:
		return nil, errPipesClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &loopback }

// pipe is a net.Pipe with addresses, since servers want to know who is asking.
type pipe struct{ net.Conn }

func (pipe) LocalAddr() net.Addr  { return &loopback }
func (pipe) RemoteAddr() net.Addr { return &loopback }
