package acmeserver

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// response is an answer before it is written.
type response struct {
	status      int           // 0 means 200
	location    string        // a URL; "" for none
	links       []string      // Link values besides the index
	retryAfter  time.Duration // 0 for none
	allow       string        // with 405 and OPTIONS
	body        any           // JSON; nil for none
	raw         []byte        // instead of body, of type contentType
	contentType string
}

// link makes a Link header's value (RFC 8288).
func link(url, rel string) string { return "<" + url + `>;rel="` + rel + `"` }

// ServeHTTP answers one request; see the package comment.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	q := &request{handler: h, http: r, peer: peerOf(r)}
	ctx, cancel := context.WithTimeout(r.Context(), handlerTimeout)
	defer cancel()
	ctx, reading := store.WithReading(ctx)
	answer, err := q.serve(ctx)
	// Nobody is told of what isn't on disk, by an error neither.
	if lost := reading.Wait(ctx); lost != nil {
		answer, err = response{}, lost
	}
	var problem *protocol.Problem
	if err != nil {
		problem = asProblem(err)
		answer.status, answer.body, answer.raw = problem.HTTPStatus(), renderProblem(problem), nil
		answer.contentType = "application/problem+json"
		answer.retryAfter = problem.RetryAfter
	}
	if answer.status == 0 {
		answer.status = http.StatusOK
	}
	h.write(w, q, answer)
	h.record(ctx, q, answer.status, problem, err, time.Since(start))
}

// serve finds the resource, lets in who may ask, and asks it.
func (q *request) serve(ctx context.Context) (response, error) {
	q.dir, q.endpoint, q.id, q.sub = q.route(q.http.URL.EscapedPath())
	if q.endpoint == unknown {
		return response{}, protocol.NewProblem(protocol.Malformed, "there is nothing at %s; begin at the directory", excerpt(q.http.URL.Path)).
			WithStatus(http.StatusNotFound)
	}
	switch q.http.Method {
	case http.MethodGet, http.MethodHead:
		if q.endpoint.get != nil {
			return q.endpoint.get(ctx, q)
		}
	case http.MethodPost:
		if q.endpoint.post != nil {
			if err := q.authenticate(ctx); err != nil {
				return response{}, err
			}
			return q.endpoint.post(ctx, q)
		}
	case http.MethodOptions: // a browser asks before it posts (RFC 8555 section 6.1)
		return response{status: http.StatusNoContent, allow: q.endpoint.allow()}, nil
	}
	detail := "this resource can't be asked for by %s; use POST, or POST-as-GET to read it (RFC 8555 section 6.3)"
	if q.endpoint.post == nil {
		detail = "this resource can't be asked for by %s; use GET"
	}
	return response{allow: q.endpoint.allow()},
		protocol.NewProblem(protocol.Malformed, detail, excerpt(q.http.Method)).WithStatus(http.StatusMethodNotAllowed)
}

// Header values that never change. Nobody appends to them in place: their
// capacity is their length.
var (
	noStore       = []string{"no-store"}
	anyOrigin     = []string{"*"}
	exposed       = []string{"Link, Location, Replay-Nonce, Retry-After"}
	allowedHeader = []string{"Content-Type"}
	preflightAge  = []string{"86400"} // a day; browsers take less anyway
	jsonType      = []string{"application/json"}
)

// write sends the answer. Header names are written in canonical form so that
// net/http needn't make it.
func (h *handler) write(w http.ResponseWriter, q *request, a response) {
	header := w.Header()
	// A fresh nonce with every answer, errors too (section 6.5), but for the
	// plain directory: ruby-acme-client takes that for a new-nonce answer.
	if q.endpoint.name != "directory" || q.http.Method == http.MethodPost {
		header["Replay-Nonce"] = []string{h.Nonces.New()}
	}
	header["Cache-Control"] = noStore // section 7.2, and state isn't for caches elsewhere either
	header["Access-Control-Allow-Origin"] = anyOrigin
	header["Access-Control-Expose-Headers"] = exposed
	if q.dir != nil && q.endpoint.name != "directory" { // section 7.1: on all but the directory
		header["Link"] = append(a.links, q.dir.index)
	}
	if a.location != "" {
		header["Location"] = []string{a.location}
	}
	if a.retryAfter > 0 {
		seconds := int64((a.retryAfter + time.Second - 1) / time.Second)
		header["Retry-After"] = []string{strconv.FormatInt(seconds, 10)}
	}
	if a.allow != "" {
		header["Allow"] = []string{a.allow}
		header["Access-Control-Allow-Methods"] = header["Allow"]
		header["Access-Control-Allow-Headers"] = allowedHeader
		header["Access-Control-Max-Age"] = preflightAge
	}
	switch {
	case a.raw != nil:
		h.send(w, a, a.raw)
	case a.body != nil:
		buffer := buffers.Get().(*jsonBuffer)
		defer buffer.release()
		if err := buffer.encoder.Encode(a.body); err != nil { // our own types always encode
			h.Logger.Error("an answer could not be encoded", "error", err)
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		h.send(w, a, buffer.Bytes())
	default:
		w.WriteHeader(a.status)
	}
}

func (h *handler) send(w http.ResponseWriter, a response, body []byte) {
	header := w.Header()
	if a.contentType == "" {
		header["Content-Type"] = jsonType
	} else {
		header["Content-Type"] = []string{a.contentType}
	}
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(a.status)
	_, _ = w.Write(body) // the client may be gone: nothing to be done
}

// jsonBuffer is a buffer with an encoder that writes into it, kept for reuse.
type jsonBuffer struct {
	bytes.Buffer
	encoder *json.Encoder
}

var buffers = sync.Pool{New: func() any {
	b := new(jsonBuffer)
	b.encoder = json.NewEncoder(&b.Buffer)
	b.encoder.SetEscapeHTML(false) // "&" in a URL stays readable
	return b
}}

// release gives the buffer back, unless it grew beyond what answers usually
// need (an order of a hundred names takes 20 KiB).
func (b *jsonBuffer) release() {
	if b.Cap() <= 32<<10 {
		b.Reset()
		buffers.Put(b)
	}
}

// record counts and logs the finished request.
func (h *handler) record(ctx context.Context, q *request, status int, p *protocol.Problem, err error, took time.Duration) {
	o := Observation{Resource: q.endpoint.name, Status: status, Took: took}
	if q.dir != nil {
		o.Directory = q.dir.name
	}
	if p != nil {
		o.Problem = p.Type
	}
	if h.Observe != nil {
		h.Observe(o)
	}
	level := slog.LevelInfo
	if status >= http.StatusInternalServerError && q.http.Context().Err() == nil { // not when the client hung up
		level = slog.LevelError
	}
	if !h.Logger.Enabled(ctx, level) {
		return
	}
	var room [12]slog.Attr
	attrs := append(room[:0],
		slog.String("directory", o.Directory), slog.String("resource", o.Resource),
		slog.String("method", excerpt(q.http.Method)), slog.Int("status", status),
		slog.Duration("took", took), slog.String("peer", q.peer.String()))
	if q.account.ID != "" {
		attrs = append(attrs, slog.String("account", string(q.account.ID)))
	}
	if q.id != "" {
		attrs = append(attrs, slog.String("id", excerpt(q.id)))
	}
	if agent := q.http.UserAgent(); agent != "" {
		attrs = append(attrs, slog.String("agent", excerpt(agent)))
	}
	if p != nil {
		attrs = append(attrs, slog.String("problem", string(p.Type)), slog.String("detail", p.Detail))
		if p.Type == protocol.ServerInternal {
			attrs = append(attrs, slog.Any("error", err))
		}
	}
	h.Logger.LogAttrs(ctx, level, "request", attrs...)
}

// peerOf is the address of the connection; zero for one that has none.
func peerOf(r *http.Request) netip.AddrPort {
	peer, err := netip.ParseAddrPort(strings.TrimSpace(r.RemoteAddr))
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
}
