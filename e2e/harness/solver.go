package harness

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Responder answers challenges on 127.0.0.1:80 and :443 for clients that leave
// this to their caller, and remembers what the CA asked.
type Responder struct {
	mu    sync.Mutex
	http  map[string]string
	certs map[string]*tls.Certificate
	hosts []string
	snis  []string
	wait  func()
}

// Responder starts one; it has nothing to answer yet.
func (w *World) Responder() *Responder {
	w.Helper()
	r := &Responder{http: map[string]string{}, certs: map[string]*tls.Certificate{}}
	plain, err := net.Listen("tcp", "127.0.0.1:80")
	if err != nil {
		w.Fatal(err)
	}
	secure, err := tls.Listen("tcp", "127.0.0.1:443", &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"acme-tls/1"}, GetCertificate: r.certificate,
	})
	if err != nil {
		w.Fatal(err)
	}
	srv := &http.Server{Handler: r}
	go func() { _ = srv.Serve(plain) }() // ends with an error on Close
	go r.handshakes(secure)
	w.Cleanup(func() {
		_ = srv.Close()
		_ = secure.Close()
	})
	return r
}

// HTTP answers http-01 for a token.
func (r *Responder) HTTP(token, keyAuth string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.http[token] = keyAuth
}

// ALPN answers tls-alpn-01 for a server name.
func (r *Responder) ALPN(sni string, cert *tls.Certificate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.certs[sni] = cert
}

// Slow has every http-01 answer wait for f to return.
func (r *Responder) Slow(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wait = f
}

// Hosts are the Host headers seen so far, SNIs the server names.
func (r *Responder) Hosts() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.hosts)
}

// SNIs are the server names seen so far.
func (r *Responder) SNIs() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.snis)
}

// ServeHTTP answers http-01 (RFC 8555, 8.3).
func (r *Responder) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.hosts = append(r.hosts, req.Host)
	token, ok := strings.CutPrefix(req.URL.Path, "/.well-known/acme-challenge/")
	answer, known := r.http[token]
	wait := r.wait
	r.mu.Unlock()
	if !ok || !known {
		http.NotFound(rw, req)
		return
	}
	if wait != nil {
		wait()
	}
	fmt.Fprint(rw, answer)
}

func (r *Responder) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.snis = append(r.snis, hello.ServerName)
	if c := r.certs[hello.ServerName]; c != nil && slices.Equal(hello.SupportedProtos, []string{"acme-tls/1"}) {
		return c, nil
	}
	return nil, fmt.Errorf("no challenge for %q", hello.ServerName)
}

// handshakes serves tls-alpn-01, of which the handshake is all (RFC 8737, 3).
func (r *Responder) handshakes(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = c.(*tls.Conn).Handshake() // a failed one is the CA's to report
		}()
	}
}

// Webroot serves the folder www below the scratch folder on port 80, for
// clients that answer http-01 by writing files, and returns its path.
func (w *World) Webroot() string {
	w.Helper()
	dir := w.Mkdir("www")
	w.Mkdir("www", ".well-known", "acme-challenge")
	l, err := net.Listen("tcp", "127.0.0.1:80")
	if err != nil {
		w.Fatal(err)
	}
	srv := &http.Server{Handler: http.FileServer(http.Dir(dir))}
	go func() { _ = srv.Serve(l) }() // ends with an error on Close
	w.Cleanup(func() { _ = srv.Close() })
	return dir
}
