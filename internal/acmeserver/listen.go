package acmeserver

import (
	"crypto/tls"
	"net/http"
	"time"
)

// How long a connection may take for what, so that none is held by a peer
// that sends slowly or not at all.
const (
	// headerTimeout bounds a request's header, and through net/http the TLS
	// handshake. A header of 1 KiB needs one round trip; ten seconds are
	// several retransmissions on a bad line.
	headerTimeout = 10 * time.Second
	// readTimeout bounds header and body: 128 KiB in twenty seconds is 50
	// kbit/s.
	readTimeout = 30 * time.Second
	// writeTimeout runs from the header's end to the answer's: a slow body,
	// handlerTimeout, and ten seconds for an answer of some 10 KiB.
	writeTimeout = readTimeout + handlerTimeout + 10*time.Second
	// idleTimeout keeps a connection for the client's next request: it polls
	// every few seconds, and some wait a minute for DNS to spread.
	idleTimeout = 2 * time.Minute
	// maxHeaderBytes: an ACME request has no cookies and no credentials; 16
	// KiB leave room for what proxies add.
	maxHeaderBytes = 16 << 10
	// maxStreams bounds the requests at once on one HTTP/2 connection: more
	// than a client that orders for a whole cluster has under way.
	maxStreams = 128
)

// HTTPServer is an http.Server that bounds what a client may take of time and
// memory. The caller sets its ErrorLog and serves TLS on it.
func HTTPServer(handler http.Handler, config *tls.Config) *http.Server {
	return &http.Server{
		Handler:           handler,
		TLSConfig:         config,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		// "OPTIONS *" gets our 404 like any other path that isn't there.
		DisableGeneralOptionsHandler: true,
	}
}
