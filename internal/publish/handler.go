package publish

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// certificateFresh is how long caches may keep an issuing certificate. It
// changes when the CA gets another one for the same key, which is a matter of
// months; a day is soon enough.
const certificateFresh = 24 * time.Hour

// How long a connection may take for what. The listener is open to everyone
// and asks nobody's name, so bounds are tight.
const (
	// headerTimeout: a request is one packet; ten seconds are several
	// retransmissions on a bad line.
	headerTimeout = 10 * time.Second
	// idleTimeout keeps a connection for the next request of a client that
	// checks several certificates.
	idleTimeout = 30 * time.Second
	// writeTimeout and slowest bound an answer: half a minute, and the time
	// its bytes take at 64 KiB/s, ten minutes for a million entries.
	writeTimeout = 30 * time.Second
	slowest      = 64 << 10
	// maxHeaderBytes: nobody sends cookies or credentials here.
	maxHeaderBytes = 8 << 10
)

// HTTPServer is an http.Server that bounds what a client may take of time and
// memory. handler is a Publisher, or picks the newest one. The caller sets its
// ErrorLog and serves plain HTTP on it.
func HTTPServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:                      handler,
		ReadHeaderTimeout:            headerTimeout,
		ReadTimeout:                  headerTimeout, // there is no body to wait for
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is a path that isn't there
	}
}

// Request is one answered request, for metrics.
type Request struct {
	Resource string // crl, ca or unknown
	Status   int
	Took     time.Duration // until the last byte was written
}

// resource is what is found at a path.
type resource struct {
	name string
	load func() *document // nil: there is none yet
}

// document is something signed, ready to be sent. It doesn't change.
type document struct {
	body    []byte
	kind    string // its media type
	etag    string
	changed time.Time
	expires time.Time     // zero: fresh says
	fresh   time.Duration // how long caches may keep it
}

func newDocument(body []byte, kind string, changed, expires time.Time) *document {
	hash := sha256.Sum256(body)
	return &document{body: body, kind: kind, etag: fmt.Sprintf(`"%x"`, hash[:16]), changed: changed, expires: expires}
}

func certificateResource(c *x509.Certificate) *resource {
	d := newDocument(c.Raw, "application/pkix-cert", c.NotBefore, time.Time{})
	d.fresh = certificateFresh
	return &resource{name: "ca", load: func() *document { return d }}
}

// cacheControl lets caches keep a list until its nextUpdate and no longer, and
// forbids changing it on the way (RFC 5019 section 6.2). A list past its end
// is still sent, since it still names the withdrawn.
func (d *document) cacheControl(now time.Time) string {
	fresh := d.fresh
	if !d.expires.IsZero() {
		fresh = max(d.expires.Sub(now), 0)
	}
	return "public, no-transform, must-revalidate, max-age=" + strconv.Itoa(int(fresh/time.Second))
}

// ServeHTTP answers every path: nothing else need be mounted beside it.
func (p *Publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	answer := &recorder{ResponseWriter: w}
	found := p.resources[r.URL.Path]
	serve(answer, r, found, begun)
	if p.o.Served == nil {
		return
	}
	name := "unknown"
	if found != nil {
		name = found.name
	}
	p.o.Served(Request{Resource: name, Status: answer.status, Took: time.Since(begun)})
}

func serve(w http.ResponseWriter, r *http.Request, found *resource, now time.Time) {
	if found == nil {
		refuse(w, http.StatusNotFound)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed)
		return
	}
	d := found.load()
	if d == nil { // the first list is being made
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	// An error means that w has no deadlines: then it is a test's.
	_ = http.NewResponseController(w).SetWriteDeadline(now.Add(writeTimeout + time.Duration(len(d.body)/slowest)*time.Second))
	h := w.Header()
	h.Set("Content-Type", d.kind)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("ETag", d.etag)
	h.Set("Cache-Control", d.cacheControl(now))
	if !d.expires.IsZero() { // for caches of HTTP/1.0
		h.Set("Expires", d.expires.UTC().Format(http.TimeFormat))
	}
	// It knows conditions and ranges (RFC 9110 sections 13 and 14).
	http.ServeContent(w, r, "", d.changed, bytes.NewReader(d.body))
}

// refuse answers with a status alone; no cache may remember it.
func refuse(w http.ResponseWriter, status int) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, http.StatusText(status), status)
}

// recorder remembers the status for metrics.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
