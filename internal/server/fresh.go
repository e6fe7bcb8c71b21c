package server

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// freshGrace is how long a stopping server waits for the first request of a
// connection that has made none. http.Server.Shutdown alone waits five seconds
// for each, and clients keep such connections in reserve.
const freshGrace = 500 * time.Millisecond

// fresh are the connections that have made no request yet.
type fresh struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// note is for http.Server.ConnState.
func (f *fresh) note(c net.Conn, state http.ConnState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if state != http.StateNew {
		delete(f.conns, c)
		return
	}
	if f.conns == nil {
		f.conns = make(map[net.Conn]struct{})
	}
	f.conns[c] = struct{}{}
}

// close ends them.
func (f *fresh) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.Close()
	}
}
