package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
	"github.com/chancery-pki/chancery/mtls/internal/memkey"
)

// BenchmarkIdle is what an identity at rest costs, with both certificates:
// memory and goroutines.
func BenchmarkIdle(b *testing.B) {
	const n = 1000
	w := newWorld(b, 1)
	defer w.end()
	w.ready().Close()
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	for b.Loop() {
		ids := make([]*Identity, n)
		settled(b, runtime.NumGoroutine())
		held, running := heap(), runtime.NumGoroutine()
		for i := range ids {
			ids[i] = w.ready()
		}
		issued := uint64(2 * n * 3 << 10) // what the fake CA keeps of each, about
		time.Sleep(50 * time.Millisecond)
		b.ReportMetric((float64(heap()-held)-float64(issued))/n/1024, "KiB/identity")
		b.ReportMetric(float64(runtime.NumGoroutine()-running)/n, "goroutines/identity")
		for _, id := range ids {
			id.Close()
		}
	}
}

// BenchmarkNew is New to the first two certificates over TLS on loopback, and
// the same exchange by bare hand: keys, accounts, orders.
func BenchmarkNew(b *testing.B) {
	w := newWorld(b, 1)
	defer w.end()
	directory, root := onLoopback(b, w.cas[0])
	roots := x509.NewCertPool()
	roots.AddCert(root)
	w.cfg.CAs[0] = CA{Directory: directory, Roots: roots}
	var ours, bare time.Duration
	before := w.cas[0].Requests()
	n := 0
	for b.Loop() {
		start := time.Now()
		id := w.ready()
		ours += time.Since(start)
		id.Close()
		start = time.Now()
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			bareExchange(b, directory, roots, usage)
		}
		bare += time.Since(start)
		n++
	}
	b.ReportMetric(float64(ours.Microseconds())/float64(n), "µs/New")
	b.ReportMetric(float64(bare.Microseconds())/float64(n), "µs/bare")
	b.ReportMetric(float64(ours)/float64(bare), "ratio")
	b.ReportMetric(float64(w.cas[0].Requests()-before)/float64(2*n), "requests")
}

func bareExchange(b *testing.B, directory string, roots *x509.CertPool, usage x509.ExtKeyUsage) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	account, _ := memkey.New()
	key, _ := memkey.New()
	client := &acme.Client{DirectoryURL: directory, HTTPClient: &http.Client{Transport: transport}, Key: account}
	if _, err := client.Register(context.Background(), acme.Registration{TermsAgreed: true}); err != nil {
		b.Fatal(err)
	}
	if _, err := client.Obtain(context.Background(), acme.ObtainRequest{Order: acme.OrderRequest{Identifiers: acme.Identifiers("a.test")}, Key: key, ExtKeyUsage: []x509.ExtKeyUsage{usage}}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkServerCertificate is what a handshake asks of us.
func BenchmarkServerCertificate(b *testing.B) {
	w := newWorld(b, 1)
	defer w.end()
	w.cfg.SNI = onlyTest
	id := w.ready()
	defer id.Close()
	for name, server := range map[string]string{"listed": "a.test", "on demand": "x.test"} {
		b.Run(name, func(b *testing.B) {
			h := hello(server)
			serverLeaf(b, id, server)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := id.serverCertificate(h); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("client", func(b *testing.B) {
		req := &tls.CertificateRequestInfo{AcceptableCAs: [][]byte{w.cas[0].Root.RawSubject}}
		b.ReportAllocs()
		for b.Loop() {
			if cert, err := id.clientCertificate(req); err != nil || cert.Leaf == nil {
				b.Fatal(err)
			}
		}
	})
}
