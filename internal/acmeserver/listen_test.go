package acmeserver

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener of connections that live in a synctest bubble.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { close(p); return nil } // net/http does it once
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// serveBubble runs client against the HTTPServer in a bubble whose clock jumps.
func serveBubble(t *testing.T, serve func(*http.Server, net.Listener) error, client func(*testing.T, net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") }}
		srv := HTTPServer(frameServer(&seam{}).Handler(), config)
		srv.ErrorLog = log.New(t.Output(), "", 0)
		l := make(pipes)
		done := make(chan error)
		go func() { done <- serve(srv, l) }()
		near, far := net.Pipe()
		l <- far
		client(t, near)
		near.Close()
		srv.Close()
		<-done
		time.Sleep(2 * time.Second) // a drip notices
	})
}

func plain(srv *http.Server, l net.Listener) error { return srv.Serve(l) }

// ended reads until the server hangs up and says how long that took.
func ended(c net.Conn) (text string, took time.Duration) {
	begun := time.Now()
	b, _ := io.ReadAll(c)
	return string(b), time.Since(begun)
}

func TestSlowClients(t *testing.T) {
	t.Run("half-open TLS", func(t *testing.T) {
		withTLS := func(srv *http.Server, l net.Listener) error { return srv.ServeTLS(l, "", "") }
		serveBubble(t, withTLS, func(t *testing.T, c net.Conn) {
			if _, took := ended(c); took > headerTimeout {
				t.Errorf("held for %v", took)
			}
		})
	})
	t.Run("says nothing", func(t *testing.T) {
		serveBubble(t, plain, func(t *testing.T, c net.Conn) {
			if _, took := ended(c); took > headerTimeout {
				t.Errorf("held for %v", took)
			}
		})
	})
	t.Run("header byte by byte", func(t *testing.T) {
		serveBubble(t, plain, func(t *testing.T, c net.Conn) {
			go drip(c, "GET /acme/main/directory HTTP/1.1\r\nHost: x\r\nX-A: "+strings.Repeat("a", 1000))
			if _, took := ended(c); took > headerTimeout {
				t.Errorf("held for %v", took)
			}
		})
	})
	t.Run("body byte by byte", func(t *testing.T) {
		serveBubble(t, plain, func(t *testing.T, c net.Conn) {
			go drip(c, "POST /acme/main/new-order HTTP/1.1\r\nHost: x\r\nContent-Type: application/jose+json\r\nContent-Length: 1000\r\n\r\n", strings.Repeat("a", 1000))
			text, took := ended(c)
			if took > readTimeout+time.Second || !strings.HasPrefix(text, "HTTP/1.1 408") {
				t.Errorf("after %v: %s", took, text)
			}
		})
	})
	t.Run("body announced and not sent", func(t *testing.T) {
		serveBubble(t, plain, func(t *testing.T, c net.Conn) {
			go drip(c, "POST /acme/main/new-order HTTP/1.1\r\nHost: x\r\nContent-Type: application/jose+json\r\nContent-Length: 1000\r\n\r\n")
			text, took := ended(c)
			if took > readTimeout+time.Second || !strings.HasPrefix(text, "HTTP/1.1 408") {
				t.Errorf("after %v: %s", took, text)
			}
		})
	})
	t.Run("reads nothing", func(t *testing.T) {
		serveBubble(t, plain, func(t *testing.T, c net.Conn) {
			go drip(c, "GET /acme/main/directory HTTP/1.1\r\nHost: x\r\n\r\n")
			time.Sleep(writeTimeout + time.Second)
			if text, _ := ended(c); strings.Contains(text, "newNonce") {
				t.Error("the answer was kept for a client that didn't read it")
			}
		})
	})
	t.Run("idle", func(t *testing.T) {
		serveBubble(t, plain, func(t *testing.T, c net.Conn) {
			go drip(c, "HEAD /acme/main/new-nonce HTTP/1.1\r\nHost: x\r\n\r\n")
			r := bufio.NewReader(c)
			res, err := http.ReadResponse(r, &http.Request{Method: "HEAD"})
			if err != nil || res.StatusCode != 200 {
				t.Fatalf("%v %v", res, err)
			}
			begun := time.Now()
			_, _ = r.ReadByte()
			if took := time.Since(begun); took > idleTimeout || took < time.Minute {
				t.Errorf("an idle connection was kept for %v", took)
			}
		})
	})
	t.Run("large header", func(t *testing.T) {
		serveBubble(t, plain, func(t *testing.T, c net.Conn) {
			go func() {
				_, _ = io.WriteString(c, "GET /acme/main/directory HTTP/1.1\r\nHost: x\r\nX-A: "+strings.Repeat("a", 1<<20)+"\r\n\r\n")
			}()
			if text, _ := ended(c); !strings.HasPrefix(text, "HTTP/1.1 431") {
				t.Errorf("%.80s", text)
			}
		})
	})
}

// drip sends what comes first at once and the rest a byte a second.
func drip(c net.Conn, first string, rest ...string) {
	if len(rest) == 0 && !strings.HasSuffix(first, "\r\n\r\n") {
		first, rest = "", []string{first}
	}
	_, _ = io.WriteString(c, first)
	for _, b := range []byte(strings.Join(rest, "")) {
		if _, err := c.Write([]byte{b}); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}
