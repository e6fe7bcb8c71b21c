package prove

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
)

const (
	// handshakeTime bounds one connection, maxConns how many there are.
	handshakeTime = 10 * time.Second
	maxConns      = 32
)

// ListenALPN answers tls-alpn-01 for the solver on a listener of its own until
// the returned function is called, which waits for what it started. Nothing
// but the handshake happens on a connection.
func ListenALPN(address string, solver *acme.TLSALPN01Solver) (addr net.Addr, stop func(), err error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, nil, fmt.Errorf("tls-alpn-01: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { serveALPN(ctx, listener, solver.TLSConfig(), &running) })
	return listener.Addr(), func() {
		cancel()
		listener.Close()
		running.Wait()
	}, nil
}

func serveALPN(ctx context.Context, listener net.Listener, config *tls.Config, running *sync.WaitGroup) {
	slots := make(chan struct{}, maxConns)
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return
		}
		if err != nil { // out of file descriptors, say
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		running.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			ctx, cancel := context.WithTimeout(ctx, handshakeTime)
			defer cancel()
			_ = tls.Server(conn, config).HandshakeContext(ctx) // whoever asks sees what went wrong
		})
	}
}
