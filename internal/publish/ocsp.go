package publish

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/responder"
	"github.com/chancery-pki/chancery/internal/revocation"
)

// scratch is what reading one request takes; it is used again.
type scratch struct {
	request revocation.OCSPRequest // parts of der
	der     [maxEncoded / 4 * 3]byte
	encoded [maxEncoded]byte
}

// maxEncoded is the longest path after /ocsp/: more than a request's base64.
const maxEncoded = (revocation.MaxOCSPRequest + 3) / 3 * 4

// outcomes of OCSP, for metrics.
const (
	cached       = "cached"
	answered     = "answered"
	unauthorized = "unauthorized"
	tryLater     = "try_later"
	malformed    = "malformed"
	failed       = "failed"
	refused      = "refused"
)

// tries is how often an answer is fetched that was overtaken by a revocation;
// the one of this certificate can overtake it once, others of its part of the
// cache rarely.
const tries = 3

// The headers that are always the same, as net/http wants them.
var (
	responseType = []string{"application/ocsp-response"}
	errorLength  = []string{"5"}
	noStore      = []string{"no-store"}
)

// serveOCSP answers a request for an OCSP answer; path is what follows /ocsp.
func (p *Publisher) serveOCSP(w http.ResponseWriter, r *http.Request, path string, now time.Time) (status int, outcome string) {
	s := p.scratches.Get().(*scratch)
	defer p.scratches.Put(s)
	der, status := s.read(r, path)
	if status != 0 {
		if status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", "GET, HEAD, POST")
		}
		refuse(w, status)
		return status, refused
	}
	a, outcome := p.answer(r.Context(), &s.request, der, now)
	switch outcome {
	case cached, answered:
		return a.serve(w, r, now), outcome
	case unauthorized:
		sendError(w, revocation.OCSPUnauthorized)
	case tryLater:
		sendError(w, revocation.OCSPTryLater)
	case malformed:
		sendError(w, revocation.OCSPMalformedRequest)
	default:
		sendError(w, revocation.OCSPInternalError)
	}
	return http.StatusOK, outcome
}

// read gets the request's DER, or the HTTP status that says what is wrong.
func (s *scratch) read(r *http.Request, path string) (der []byte, status int) {
	switch r.Method {
	case http.MethodPost:
		return s.readBody(r, path)
	case http.MethodGet, http.MethodHead:
		return s.readPath(path)
	}
	return nil, http.StatusMethodNotAllowed
}

func (s *scratch) readBody(r *http.Request, path string) ([]byte, int) {
	if path != "" && path != "/" {
		return nil, http.StatusNotFound
	}
	if t := r.Header["Content-Type"]; len(t) > 0 && !isRequestType(t[0]) {
		return nil, http.StatusUnsupportedMediaType
	}
	if r.ContentLength > revocation.MaxOCSPRequest {
		return tooLong, 0
	}
	n, err := io.ReadFull(r.Body, s.der[:revocation.MaxOCSPRequest+1])
	switch {
	case err == nil:
		return tooLong, 0
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && (r.ContentLength < 0 || int64(n) == r.ContentLength):
		return s.der[:n], 0
	}
	return nil, http.StatusBadRequest // it broke off
}

// tooLong stands for a request that is longer than any of ours: nothing, which
// no parser takes, so that who asks learns in OCSP's own words what is wrong.
var tooLong = []byte{}

// isRequestType reports whether a media type is that of OCSP requests; it may
// have parameters.
func isRequestType(t string) bool {
	t, _, _ = strings.Cut(t, ";")
	return strings.EqualFold(strings.TrimSpace(t), "application/ocsp-request")
}

// readPath decodes the base64 in a path. The path is unescaped already, by us
// or on the way; some clients and proxies do it once too often or too little,
// or put one slash more before it: DER never begins with one.
func (s *scratch) readPath(path string) ([]byte, int) {
	path = strings.TrimRight(strings.TrimLeft(path, "/"), "=")
	if len(path) > len(s.encoded) {
		return tooLong, 0
	}
	for i := range len(path) {
		c := path[i]
		switch c {
		case ' ', '-': // '+' in a query, and in base64url
			c = '+'
		case '_':
			c = '/'
		}
		s.encoded[i] = c
	}
	n, err := base64.RawStdEncoding.Decode(s.der[:], s.encoded[:len(path)])
	if err != nil {
		n = 0 // which no parser takes
	}
	return s.der[:n], 0
}

// answer finds the answer, or says why there is none. It allocates only when
// the cache hasn't got it.
func (p *Publisher) answer(ctx context.Context, q *revocation.OCSPRequest, der []byte, now time.Time) (*ready, string) {
	if err := revocation.ParseOCSPRequest(der, q); err != nil {
		if errors.Is(err, revocation.ErrUnauthorized) {
			return nil, unauthorized
		}
		return nil, malformed
	}
	keyID, nonces, ok := p.source.Issuer(q)
	if !ok {
		return nil, unauthorized
	}
	k := keyOf(keyID, q)
	var old *ready
	if !nonces || !q.HasNonce {
		if old = p.cache.get(&k); old != nil && !now.Before(old.nextUpdate) {
			old = nil
		}
		if old != nil && !old.stale(now) {
			return old, cached
		}
	}
	a, outcome := p.fetch(ctx, q, &k)
	if outcome == failed && old != nil && p.cache.get(&k) == old { // not dropped meanwhile
		return old, cached
	}
	return a, outcome
}

// fetch has the source answer.
func (p *Publisher) fetch(ctx context.Context, q *revocation.OCSPRequest, k *key) (*ready, string) {
	for range tries {
		drops, caching := p.cache.ask(k)
		a, err := p.source.Answer(ctx, q)
		switch {
		case errors.Is(err, responder.ErrUnauthorized):
			return nil, unauthorized
		case errors.Is(err, responder.ErrTryLater):
			return nil, tryLater
		case err != nil:
			p.trouble(ctx, err)
			return nil, failed
		}
		made := newReady(&a, time.Now())
		if !caching || !a.Cacheable || p.cache.put(k, drops, made) {
			return made, answered
		}
	}
	return nil, tryLater
}

// trouble logs the source's, once a second at most: anybody can cause requests.
func (p *Publisher) trouble(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // the client left
	}
	last, now := p.logged.Load(), time.Now().Unix()
	if now != last && p.logged.CompareAndSwap(last, now) {
		p.log.Error("an OCSP request couldn't be answered", "error", err)
	}
}

// serve sends the answer, with the headers of RFC 5019 section 6.2.
func (a *ready) serve(w http.ResponseWriter, r *http.Request, now time.Time) (status int) {
	h := w.Header()
	h["Content-Type"] = responseType
	h["Cache-Control"] = a.cacheControl(now)
	h["Etag"] = a.etag[:]
	h["Last-Modified"] = a.modified[:]
	h["Expires"] = a.expires[:]
	if r.Method != http.MethodPost && (r.Header["If-None-Match"] != nil || r.Header["If-Modified-Since"] != nil) {
		return a.serveIf(w, r)
	}
	h["Content-Length"] = a.length[:]
	w.Write(a.der)
	return http.StatusOK
}

// serveIf is for caches that ask whether theirs is still the newest.
func (a *ready) serveIf(w http.ResponseWriter, r *http.Request) (status int) {
	answer := &recorder{ResponseWriter: w}
	changed, _ := http.ParseTime(a.modified[0])
	http.ServeContent(answer, r, "", changed, bytes.NewReader(a.der))
	return answer.status
}

// sendError sends an answer without a signature, which no cache may keep.
func sendError(w http.ResponseWriter, status int) {
	h := w.Header()
	h["Content-Type"] = responseType
	h["Cache-Control"] = noStore
	h["Content-Length"] = errorLength
	w.Write(revocation.OCSPError(status))
}
