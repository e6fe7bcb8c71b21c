package publish

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/responder"
)

// certificateFresh is how long caches may keep an issuing certificate. It
// changes when the CA gets another one for the same key, which is a matter of
// months; a day is soon enough.
const certificateFresh = 24 * time.Hour

// How long a connection may take for what. The listener is open to everyone
// and asks nobody's name, so bounds are tight.
const (
	// headerTimeout: a request is one packet, an OCSP request three at most;
	// ten seconds are several retransmissions on a bad line.
	headerTimeout = 10 * time.Second
	// idleTimeout keeps a connection for the next request of a client that
	// checks several certificates.
	idleTimeout = 30 * time.Second
	// writeTimeout and slowest bound an answer: half a minute, and the time
	// its bytes take at 64 KiB/s, ten minutes for a million entries.
	writeTimeout = 30 * time.Second
	slowest      = 64 << 10
	// maxHeaderBytes: nobody sends cookies or credentials here, but OCSP
	// requests can be in the path.
	maxHeaderBytes = 8 << 10
)

// HTTPServer is an http.Server that bounds what a client may take of time and
// memory. handler is a Publisher, or picks the newest one. The caller sets its
// ErrorLog and serves plain HTTP on it.
func HTTPServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:                      handler,
		ReadHeaderTimeout:            headerTimeout,
		ReadTimeout:                  headerTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is a path that isn't there
	}
}

// document is a certificate or a list, ready to be sent. It doesn't change.
type document struct {
	resource string // for metrics
	body     []byte
	kind     string // its media type
	etag     string
	changed  time.Time
	expires  time.Time     // zero: fresh says
	fresh    time.Duration // how long caches may keep it
}

func newDocument(body []byte, resource, kind string, changed, expires time.Time) *document {
	hash := sha256.Sum256(body)
	return &document{resource: resource, body: body, kind: kind, etag: fmt.Sprintf(`"%x"`, hash[:16]), changed: changed, expires: expires}
}

func certificateDocument(c *x509.Certificate) *document {
	d := newDocument(c.Raw, "ca", "application/pkix-cert", c.NotBefore, time.Time{})
	d.fresh = certificateFresh
	return d
}

// listDocument is a list of the responder's; its number tells it from others
// at the same path, without hashing 50 MB.
func listDocument(l *responder.List) *document {
	return &document{
		resource: "crl", body: l.DER, kind: "application/pkix-crl", etag: `"` + strconv.FormatInt(l.Number, 10) + `"`,
		changed: l.ThisUpdate, expires: l.NextUpdate,
	}
}

// cacheControl lets caches keep a list until its nextUpdate and no longer, and
// forbids changing it on the way (RFC 5019 section 6.2). A list past its end
// is still sent, since it still names the withdrawn.
func (d *document) cacheControl(now time.Time) string {
	fresh := d.fresh
	if !d.expires.IsZero() {
		fresh = max(d.expires.Sub(now), 0)
	}
	return maxAge(fresh)
}

func maxAge(fresh time.Duration) string {
	return "public, no-transform, must-revalidate, max-age=" + strconv.Itoa(int(fresh/time.Second))
}

// ServeHTTP answers every path: nothing else need be mounted beside it.
func (p *Publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	seen := Request{Resource: "ocsp"}
	if path, ok := strings.CutPrefix(r.URL.Path, "/ocsp"); ok && (path == "" || path[0] == '/') {
		seen.Status, seen.Outcome = p.serveOCSP(w, r, path, begun)
	} else {
		answer := &recorder{ResponseWriter: w}
		seen.Resource = p.serveDocument(answer, r, begun)
		seen.Status = answer.status
	}
	if p.served != nil {
		seen.Took = time.Since(begun)
		p.served(seen)
	}
}

// find returns what is at a path; known says that something is or will be.
func (p *Publisher) find(path string) (d *document, known bool) {
	if d := p.documents[path]; d != nil {
		return d, true
	}
	if path == KRLPath || path == KRLPath+signatureEnding {
		return p.krl(path)
	}
	keyID, shard, ok := parseListPath(path)
	if !ok {
		return nil, false
	}
	l, known := p.source.List(keyID, shard)
	if l == nil {
		return nil, known
	}
	return listDocument(l), true
}

// parseListPath reads /crl/KEYID.crl and /crl/KEYID/SHARD.crl. A number is
// written in one way only, so that caches have one copy.
func parseListPath(path string) (keyID string, shard int, ok bool) {
	name, ok := strings.CutPrefix(path, "/crl/")
	if !ok {
		return "", 0, false
	}
	if name, ok = strings.CutSuffix(name, ".crl"); !ok {
		return "", 0, false
	}
	keyID, number, parted := strings.Cut(name, "/")
	if !parted {
		return keyID, 0, true
	}
	shard, err := strconv.Atoi(number)
	return keyID, shard, err == nil && shard > 0 && strconv.Itoa(shard) == number
}

// serveDocument answers for certificates and lists, and for what isn't there.
func (p *Publisher) serveDocument(w http.ResponseWriter, r *http.Request, now time.Time) (resource string) {
	d, known := p.find(r.URL.Path)
	resource = "crl"
	if strings.HasPrefix(r.URL.Path, SSHPrefix) {
		resource = "krl"
	}
	if d != nil {
		resource = d.resource
	}
	switch {
	case !known:
		resource = "unknown"
		refuse(w, http.StatusNotFound)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed)
	case d == nil: // the first list is being made
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusServiceUnavailable)
	default:
		d.serve(w, r, now)
	}
	return resource
}

func (d *document) serve(w http.ResponseWriter, r *http.Request, now time.Time) {
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
