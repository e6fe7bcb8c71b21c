package publish

import (
	"bufio"
	"bytes"
	"crypto"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-pki/chancery/internal/cert"
)

// bare is the least that can be done: the same bytes and headers, whatever is
// asked.
func bare(p *Publisher, k key) http.Handler {
	a := p.cache.get(&k)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["Content-Type"] = responseType
		h["Cache-Control"] = a.control.Load().value[:]
		h["Etag"] = a.etag[:]
		h["Last-Modified"] = a.modified[:]
		h["Expires"] = a.expires[:]
		h["Content-Length"] = a.length[:]
		w.Write(a.der)
	})
}

// cachedAnswer is a Publisher with one answer in its cache, and the bare
// handler that sends the same.
func cachedAnswer(tb testing.TB) (p *Publisher, alone http.Handler, request []byte) {
	a := newAuthority(tb, "servers")
	s := newSource(a)
	serial := cert.NewSerial()
	s.statuses[serial] = ocsp.Good
	p = newPublisher(tb, s, func(o *Options) { o.Served = func(Request) {} })
	der := a.ask(tb, serial, crypto.SHA1)
	for range 2 {
		status(tb, a, post(p, "/ocsp", der))
	}
	k := key{issuer: a.keyID, hash: crypto.SHA1, length: uint8(copy(make([]byte, 20), serial.Big().Bytes()))}
	copy(k.serial[:], serial.Big().Bytes())
	return p, bare(p, k), der
}

// discard is a ResponseWriter that costs nothing.
type discard struct {
	header http.Header
	bytes  int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(b []byte) (int, error) { d.bytes += len(b); return len(b), nil }

type rewound struct{ bytes.Reader }

func (*rewound) Close() error { return nil }

// Issue: at most two allocations above a bare handler's.
func TestAllocations(t *testing.T) {
	p, alone, der := cachedAnswer(t)
	w := &discard{header: http.Header{}}
	body := &rewound{}
	posted, _ := http.NewRequest("POST", "/ocsp", nil)
	posted.Header.Set("Content-Type", "application/ocsp-request")
	posted.ContentLength = int64(len(der))
	got, _ := http.NewRequest("GET", "/ocsp/"+base64.StdEncoding.EncodeToString(der), nil)
	for name, r := range map[string]*http.Request{"POST": posted, "GET": got} {
		serve := func(h http.Handler) float64 {
			return testing.AllocsPerRun(1000, func() {
				clear(w.header)
				if r == posted {
					body.Reset(der)
					r.Body = body
				}
				h.ServeHTTP(w, r)
			})
		}
		if ours, least := serve(p), serve(alone); ours > least+2 {
			t.Errorf("%s: %v allocations, a bare handler makes %v", name, ours, least)
		}
	}
}

// client asks over one connection, again and again, at next to no cost.
type client struct {
	conn    net.Conn
	in      *bufio.Reader
	request []byte
	length  int // of the answer
}

func (c *client) ask(n int) error {
	for range n {
		if _, err := c.conn.Write(c.request); err != nil {
			return err
		}
		for first := true; ; first = false {
			line, err := c.in.ReadSlice('\n')
			if err != nil {
				return err
			}
			if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
				return fmt.Errorf("%s", line)
			}
			if len(line) == 2 {
				break
			}
		}
		if _, err := c.in.Discard(c.length); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkCached says how many requests a second cached answers make of those
// of a bare handler: as "of-bare", measured side by side.
func BenchmarkCached(b *testing.B) {
	p, alone, der := cachedAnswer(b)
	w := post(p, "/ocsp", der)
	length := len(body(b, w))
	for name, request := range map[string]string{
		"POST": fmt.Sprintf("POST /ocsp HTTP/1.1\r\nHost: ocsp.example\r\nContent-Type: application/ocsp-request\r\nContent-Length: %d\r\n\r\n%s", len(der), der),
		"GET":  "GET /ocsp/" + base64.StdEncoding.EncodeToString(der) + " HTTP/1.1\r\nHost: ocsp.example\r\n\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			const connections, each = 8, 500
			var took [2]time.Duration
			var clients [2][]*client
			for i, h := range []http.Handler{alone, p} {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					b.Fatal(err)
				}
				server := HTTPServer(h)
				server.IdleTimeout = time.Minute
				go server.Serve(l)
				defer server.Close()
				for range connections {
					conn, err := net.Dial("tcp", l.Addr().String())
					if err != nil {
						b.Fatal(err)
					}
					defer conn.Close()
					clients[i] = append(clients[i], &client{conn, bufio.NewReader(conn), []byte(request), length})
				}
			}
			for b.Loop() {
				for i := range clients {
					begun := time.Now()
					var all sync.WaitGroup
					for _, c := range clients[i] {
						all.Go(func() {
							if err := c.ask(each); err != nil {
								b.Error(err)
							}
						})
					}
					all.Wait()
					took[i] += time.Since(begun)
				}
			}
			b.ReportMetric(took[0].Seconds()/took[1].Seconds(), "of-bare")
			b.ReportMetric(float64(b.N*connections*each)/took[1].Seconds(), "requests/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

var _ io.Closer = (*rewound)(nil)
