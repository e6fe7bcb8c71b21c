package acmeserver

import (
	"net/http"
	"testing"
)

// BenchmarkEdge is what this package costs a request beside the authority and
// the signature's verification: routing, rendering, headers, the nonce.
func BenchmarkEdge(b *testing.B) {
	h := newWorld(b).handler
	r := newRequest("GET", base+"/acme/main/new-nonce", nil)
	w := &discard{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		h.ServeHTTP(w, r)
	}
}

// BenchmarkPostAsGet is a whole signed read: frame, nonce, account from the
// database, signature, answer. The client's signature isn't counted.
func BenchmarkPostAsGet(b *testing.B) {
	u := newWorld(b).user(b, "main").register()
	const batch = 256
	b.ReportAllocs()
	var requests []*http.Request
	for b.Loop() {
		if len(requests) == 0 {
			b.StopTimer()
			for range batch {
				requests = append(requests, newRequest("POST", u.kid, u.key.sign(u.head(u.kid), nil)))
			}
			b.StartTimer()
		}
		w := &discard{header: http.Header{}}
		u.handler.ServeHTTP(w, requests[0])
		if requests = requests[1:]; w.status != http.StatusOK {
			b.Fatal(w.status)
		}
	}
}

// discard is a ResponseWriter that keeps nothing.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }
