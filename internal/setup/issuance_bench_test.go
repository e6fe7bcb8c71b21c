package setup_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/chancery-pki/chancery/internal/setup"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// demo is a running demo and how to reach it.
type demo struct {
	Directories map[string]string `json:"directories"`
	Root        string            `json:"root"`
	Admin       string            `json:"admin"`
	http        *http.Client
	solver      *acme.HTTP01Solver
	stop        func() // ends it before the test does
}

// startDemo runs the demo in this process until the test ends.
func startDemo(tb testing.TB, change func(*setup.Demo)) *demo {
	tb.Helper()
	answers, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(answers.Addr().String())
	out, in := io.Pipe()
	d := setup.Demo{Dir: tb.TempDir(), Listen: "127.0.0.1:0", JSON: true, Out: in, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	d.HTTPPort, _ = strconv.Atoi(port)
	if change != nil {
		change(&d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() {
		err := d.Run(ctx)
		in.CloseWithError(err)
		stopped <- err
	}()
	running := &demo{solver: new(acme.HTTP01Solver)}
	if err := json.NewDecoder(out).Decode(running); err != nil {
		tb.Fatal(err)
	}
	pem, err := os.ReadFile(running.Root)
	if err != nil {
		tb.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	running.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 64}}
	server := &http.Server{Handler: running.solver}
	go server.Serve(answers)
	running.stop = sync.OnceFunc(func() {
		running.http.CloseIdleConnections()
		server.Close()
		cancel()
		if err := <-stopped; err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(running.stop)
	return running
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// issue gets one certificate with a throwaway account.
func (d *demo) issue(tb testing.TB, name string) *x509.Certificate {
	tb.Helper()
	client := &acme.Client{DirectoryURL: d.Directories["servers"], Key: newKey(tb), HTTPClient: d.http}
	if _, err := client.Register(tb.Context(), acme.Registration{TermsAgreed: true}); err != nil {
		tb.Fatal(err)
	}
	chain, err := client.Obtain(tb.Context(), acme.ObtainRequest{
		Order: acme.OrderRequest{Identifiers: acme.Identifiers(name)}, Key: newKey(tb), Solvers: []acme.Solver{d.solver},
	})
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(chain.DER[0])
	if err != nil {
		tb.Fatal(err)
	}
	return leaf
}

// BenchmarkIssuance is one whole issuance with a throwaway account, client
// included: newAccount, newOrder, http-01, finalize, certificate.
func BenchmarkIssuance(b *testing.B) {
	d := startDemo(b, nil)
	n := 0
	for b.Loop() {
		n++
		d.issue(b, fmt.Sprintf("bench-%d.demo.internal", n))
	}
}
