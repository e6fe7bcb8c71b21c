package server

import (
	"net"
	"net/http"
	"testing"
	"time"
)

// A connection without a request doesn't hold up the stop, where
// http.Server.Shutdown alone takes five seconds.
func TestStopWithFreshConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{}
	b := bound{"test", l, &http.Server{ConnState: s.fresh.note, ReadHeaderTimeout: time.Minute}, false}
	go b.serve()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for { // until the server has it
		s.fresh.mu.Lock()
		n := len(s.fresh.conns)
		s.fresh.mu.Unlock()
		if n == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	begun := time.Now()
	s.stop([]bound{b})
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("it took %v", took)
	}
}
