package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/mtls/acl"
)

// plainServer is what a program without this package would write, with the
// same checks: static certificates, no tickets, roots for clients, an ACL in
// VerifyConnection.
func plainServer(cert *tls.Certificate, roots *x509.CertPool, p acl.Policy) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*cert}, NextProtos: []string{"h2", "http/1.1"},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, SessionTicketsDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.VerifiedChains) == 0 {
				return errors.New("no chain")
			}
			return p.Allow(acl.PeerOf(cs.PeerCertificates[0]))
		},
	}
}

func plainClient(cert *tls.Certificate, roots *x509.CertPool, name string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*cert}, RootCAs: roots, ServerName: name}
}

// shakeOnce makes one connection and sends a byte each way, so that both
// handshakes are over.
func shakeOnce(b testing.TB, server, client *tls.Config) {
	here, there := net.Pipe()
	done := make(chan error, 1)
	go func() {
		c := tls.Server(there, server)
		_, err := c.Write([]byte{1})
		done <- err
	}()
	c := tls.Client(here, client)
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		b.Fatal(err)
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	here.Close()
	there.Close()
}

// BenchmarkHandshake makes full handshakes in pairs, ours and plain
// crypto/tls's, in turn. It reports the median of the pairs' ratio of time
// and the two counts of allocations, for both ends together and for each end
// that is ours alone. Among peers that are known the chains are remembered; of
// strangers each handshake brings a new one, as to whom nothing is.
func BenchmarkHandshake(b *testing.B) {
	const name = "web.prod.internal"
	h := newHouse(b, "bench")
	webCert, batchCert := h.leaf(name), h.leaf("a.batch.internal")
	id, other := h.identityOf(webCert), h.identityOf(batchCert)
	p := acl.Allow("x.prod.internal", "*.batch.internal")
	roots, _ := id.trust.pool(UsageServer)
	webs, batches := h.strangers(webCert), h.strangers(batchCert)
	for _, strangers := range []bool{false, true} {
		ourS, ourC := id.Server(p), other.Client()
		plainS, plainC := plainServer(webCert, roots, p), plainClient(batchCert, roots, name)
		ourC.ServerName = name
		peers := "known"
		if strangers {
			peers = "strangers"
			ourS.GetCertificate, plainS.GetCertificate, plainS.Certificates = webs.server, webs.server, nil
			ourC.GetClientCertificate, plainC.GetClientCertificate, plainC.Certificates = batches.client, batches.client, nil
		}
		for _, v := range []struct {
			what           string
			server, client *tls.Config
		}{{"server", ourS, plainC}, {"client", plainS, ourC}, {"both", ourS, ourC}} {
			b.Run(peers+"/"+v.what, func(b *testing.B) {
				pairs(b, func() { shakeOnce(b, v.server, v.client) }, func() { shakeOnce(b, plainS, plainC) })
			})
		}
	}
}

// strangers are certificates that take turns, eight times as many as chains
// are remembered: one that comes again is forgotten.
type strangers struct {
	certs []*tls.Certificate
	next  atomic.Uint64
}

func (h *house) strangers(like *tls.Certificate) *strangers {
	s := &strangers{certs: make([]*tls.Certificate, 8*maxSeen)}
	for i := range s.certs {
		s.certs[i] = h.leaf(like.Leaf.DNSNames...)
	}
	return s
}

func (s *strangers) pick() (*tls.Certificate, error) {
	return s.certs[s.next.Add(1)%uint64(len(s.certs))], nil
}

func (s *strangers) server(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.pick() }

func (s *strangers) client(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return s.pick() }

// pairs times ours and theirs in turn, the first of the two changing.
func pairs(b *testing.B, ours, theirs func()) {
	ours()
	theirs()
	var ratios []float64
	var allocated [2]uint64
	var size [2]uint64
	run := func(i int, work func()) time.Duration {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begun := time.Now()
		for range 8 {
			work()
		}
		took := time.Since(begun)
		runtime.ReadMemStats(&after)
		allocated[i] += after.Mallocs - before.Mallocs
		size[i] += after.TotalAlloc - before.TotalAlloc
		return took
	}
	n := 0
	for b.Loop() {
		var a, z time.Duration
		if n%2 == 0 {
			a = run(0, ours)
			z = run(1, theirs)
		} else {
			z = run(1, theirs)
			a = run(0, ours)
		}
		ratios = append(ratios, float64(a)/float64(z))
		n++
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
	each := float64(8 * n)
	b.ReportMetric(float64(allocated[0])/each, "allocs-ours")
	b.ReportMetric(float64(allocated[1])/each, "allocs-plain")
	b.ReportMetric(float64(size[0])/each, "B-ours")
	b.ReportMetric(float64(size[1])/each, "B-plain")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkHTTP makes sessions in pairs, ours and plain net/http's: a
// connection, a handshake, ten requests over HTTP/2, and its end. In "both"
// the server is ours too, with a decision for each request.
func BenchmarkHTTP(b *testing.B) {
	h := newHouse(b, "bench")
	webCert, batchCert := h.leaf("127.0.0.1"), h.leaf("a.batch.internal")
	id, other := h.identityOf(webCert), h.identityOf(batchCert)
	p := acl.Allow("x.prod.internal", "*.batch.internal")
	roots, _ := id.trust.pool(UsageServer)
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
	serve := func(config *tls.Config, h http.Handler) string {
		return site(b, id, p, func(s *http.Server) { s.TLSConfig, s.Handler = config, h })
	}
	plain := serve(plainServer(webCert, roots, p), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.AllowRequest(acl.PeerOf(r.TLS.PeerCertificates[0]), acl.Request{Method: r.Method, Path: r.URL.EscapedPath()}) != nil {
			http.Error(w, "forbidden", http.StatusForbidden)
			return
		}
		hello(w, r)
	}))
	plainClient := &http.Client{Transport: &http.Transport{TLSClientConfig: plainClient(batchCert, roots, ""), ForceAttemptHTTP2: true}}
	session := func(c *http.Client, addr string) func() {
		return func() {
			for range 10 {
				if status, body, err := fetch(b, c, "https://"+addr+"/"); err != nil || status != 200 || body != "hello" {
					b.Fatal(status, body, err)
				}
			}
			c.CloseIdleConnections()
		}
	}
	b.Run("client", func(b *testing.B) { pairs(b, session(other.HTTPClient(), plain), session(plainClient, plain)) })
	ours := serve(id.Server(p), id.Handler(hello, p))
	b.Run("both", func(b *testing.B) { pairs(b, session(other.HTTPClient(), ours), session(plainClient, plain)) })
}
