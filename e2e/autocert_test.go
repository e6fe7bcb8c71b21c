package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/chancery-pki/chancery/e2e/harness"
)

func TestAutocert(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		ca := w.CA(harness.Options{})
		manager := func(w *harness.World) *autocert.Manager {
			return &autocert.Manager{
				Client: &acme.Client{DirectoryURL: ca.Directory, HTTPClient: ca.HTTPClient()},
				Prompt: autocert.AcceptTOS, HostPolicy: autocert.HostWhitelist("a.test", "b.test"),
				Cache: autocert.DirCache(w.Mkdir("cache")),
			}
		}
		w.Sub("tls-alpn-01, ECDSA and RSA", func(w *harness.World) {
			m := manager(w)
			serveTLS(w, m.TLSConfig())
			w.KeyIs(served(w, ca, "a.test"), "P-256")
			// A client that knows no ECDSA gets an RSA certificate.
			c := dial(w, ca, &tls.Config{ServerName: "b.test", MaxVersion: tls.VersionTLS12,
				CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}})
			w.KeyIs(c, "RSA-2048")
		})
		w.Sub("renew", func(w *harness.World) {
			m := manager(w)
			serveTLS(w, m.TLSConfig())
			first := served(w, ca, "a.test")
			// Another manager on the same cache, to which the certificate is due: it
			// renews in the background.
			due := manager(w)
			due.Cache, due.RenewBefore = m.Cache, 30*24*time.Hour
			m.GetCertificate(hello("a.test")) // the first one's stays as it is
			if _, err := due.GetCertificate(hello("a.test")); err != nil {
				w.Fatal(err)
			}
			w.Until("autocert has renewed", func() bool {
				b, err := due.Cache.Get(context.Background(), "a.test")
				if err != nil {
					return false
				}
				return w.Chain(string(b))[0].SerialNumber.Cmp(first.SerialNumber) != 0
			})
		})
		w.Sub("http-01 after tls-alpn-01 failed", func(w *harness.World) {
			w.Ours("its Host header has the port in it, which autocert refuses")
			m := manager(w)
			l, err := net.Listen("tcp", "127.0.0.1:80")
			if err != nil {
				w.Fatal(err)
			}
			var refused, asked atomic.Int32
			answer := m.HTTPHandler(nil)
			srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
				asked.Add(1)
				answer.ServeHTTP(rw, req)
			})}
			go func() { _ = srv.Serve(l) }()
			w.Cleanup(func() { _ = srv.Close() })
			conf := m.TLSConfig()
			conf.NextProtos = []string{"http/1.1"} // no acme-tls/1
			conf.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				if slices.Contains(h.SupportedProtos, "acme-tls/1") {
					refused.Add(1)
				}
				return nil, nil
			}
			serveTLS(w, conf)
			served(w, ca, "a.test")
			if refused.Load() == 0 || asked.Load() == 0 {
				w.Errorf("tls-alpn-01 was tried %d times and http-01 %d times, want both", refused.Load(), asked.Load())
			}
		})
	})
}

func hello(name string) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{ServerName: name, CipherSuites: []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		SupportedCurves: []tls.CurveID{tls.CurveP256}, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}}
}

// serveTLS serves handshakes on port 443.
func serveTLS(w *harness.World, conf *tls.Config) {
	w.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:443", conf)
	if err != nil {
		w.Fatal(err)
	}
	srv := &http.Server{}
	go func() { _ = srv.Serve(l) }() // ends with an error on Close
	w.Cleanup(func() { _ = srv.Close() })
}

// dial is served with a TLS configuration of the test's own.
func dial(w *harness.World, ca *harness.CA, conf *tls.Config) *x509.Certificate {
	w.Helper()
	conf.RootCAs = x509.NewCertPool()
	conf.RootCAs.AppendCertsFromPEM([]byte(w.Read(ca.Root)))
	c, err := tls.Dial("tcp", "127.0.0.1:443", conf)
	if err != nil {
		w.Fatalf("port 443 as %s: %v", conf.ServerName, err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0]
}
