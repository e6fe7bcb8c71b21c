package setup

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
)

// The demo's cast.
const (
	serverName   = "web.demo.internal"
	clientName   = "batch.demo.internal"
	intruderName = "intruder.demo.internal"
)

// story tells the demo's transcript: what happens, and how long it took.
type story struct {
	out   io.Writer
	demo  Demo
	ready ready
	begun time.Time

	roots *x509.CertPool
}

func (s *story) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// step does one thing and prints it with its time. The work returns what
// there is to say about it.
func (s *story) step(what string, work func() (string, error)) error {
	begun := time.Now()
	detail, err := work()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	s.say("  %-46s %8.1f ms   %s", what, float64(time.Since(begun).Microseconds())/1000, detail)
	return nil
}

// tell issues, connects, and shows two connections refused.
func (s *story) tell(ctx context.Context, made *Made) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	pem, err := os.ReadFile(made.Bundle)
	if err != nil {
		return err
	}
	s.roots = x509.NewCertPool()
	s.roots.AppendCertsFromPEM(pem)

	s.say("A private CA, on loopback, in %s", s.demo.Dir)
	s.say("  %-46s %8.1f ms   %s", "root, two issuing CAs, database, server", float64(time.Since(s.begun).Microseconds())/1000, s.ready.Directories["servers"])
	solver := new(acme.HTTP01Solver)
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.demo.HTTPPort)))
	if err != nil {
		return fmt.Errorf("the demo's own http-01 answers: %w", err)
	}
	answers := &http.Server{Handler: solver, ReadHeaderTimeout: 5 * time.Second}
	go answers.Serve(l)
	defer answers.Close()

	s.say("\nCertificates over ACME: an account, an order, http-01, a CSR, a chain")
	var web, batch, intruder *tls.Certificate
	for _, who := range []struct {
		name, directory, what string
		into                  **tls.Certificate
	}{
		{serverName, "servers", "a server, ", &web},
		{clientName, "clients", "a client, ", &batch},
		{intruderName, "clients", "another client, ", &intruder},
	} {
		err := s.step(who.what+who.name, func() (detail string, err error) {
			*who.into, detail, err = s.obtain(ctx, who.directory, who.name, solver)
			return detail, err
		})
		if err != nil {
			return err
		}
	}
	return s.connect(ctx, web, batch, intruder)
}

// obtain gets one certificate with a throwaway account.
func (s *story) obtain(ctx context.Context, directory, name string, solver acme.Solver) (*tls.Certificate, string, error) {
	accountKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", err
	}
	posts := &countingTransport{base: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots}, ForceAttemptHTTP2: true}}
	defer posts.base.CloseIdleConnections()
	client := &acme.Client{DirectoryURL: s.ready.Directories[directory], Key: accountKey, HTTPClient: &http.Client{Transport: posts}}
	if _, err := client.Register(ctx, acme.Registration{TermsAgreed: true}); err != nil {
		return nil, "", err
	}
	chain, err := client.Obtain(ctx, acme.ObtainRequest{
		Order: acme.OrderRequest{Identifiers: acme.Identifiers(name)}, Key: key, Solvers: []acme.Solver{solver},
	})
	if err != nil {
		return nil, "", err
	}
	leaf, err := x509.ParseCertificate(chain.DER[0])
	if err != nil {
		return nil, "", err
	}
	detail := fmt.Sprintf("%d POSTs, good for %s, by %q", posts.posts, span(leaf), leaf.Issuer.CommonName)
	return &tls.Certificate{Certificate: chain.DER, PrivateKey: crypto.PrivateKey(key), Leaf: leaf}, detail, nil
}

// span is how long a certificate lasts; both its ends belong to it.
func span(c *x509.Certificate) string {
	life := (c.NotAfter.Sub(c.NotBefore) + time.Second).Round(time.Minute)
	return strings.TrimSuffix(strings.TrimSuffix(life.String(), "0s"), "0m")
}

type countingTransport struct {
	base  *http.Transport
	posts int
}

// RoundTrip counts POSTs; the demo's client makes one request at a time.
func (c *countingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPost {
		c.posts++
	}
	return c.base.RoundTrip(r)
}

// connect lets the server and its clients meet: mutual TLS 1.3, with a list
// of who may come.
func (s *story) connect(ctx context.Context, web, batch, intruder *tls.Certificate) error {
	s.say("\nMutual TLS 1.3: %s lets %s in, and nobody else", serverName, clientName)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*web},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: s.roots,
		// VerifyConnection and not VerifyPeerCertificate: it runs on resumed
		// connections too.
		VerifyConnection: func(cs tls.ConnectionState) error {
			if names := cs.PeerCertificates[0].DNSNames; len(names) != 1 || names[0] != clientName {
				return fmt.Errorf("%v may not come in", names)
			}
			return nil
		},
	})
	if err != nil {
		return err
	}
	service := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "hello %s", r.TLS.PeerCertificates[0].DNSNames[0])
		}),
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	go service.Serve(l)
	defer service.Close()
	for _, v := range []struct {
		what    string
		cert    *tls.Certificate
		refused bool
	}{
		{clientName + " calls", batch, false},
		{"somebody without a certificate calls", nil, true},
		{intruderName + " calls", intruder, true},
	} {
		err := s.step(v.what, func() (string, error) {
			answer, err := s.visit(ctx, l.Addr().String(), v.cert)
			switch {
			case v.refused && err == nil:
				return "", errors.New("was let in")
			case v.refused:
				return "refused: " + alertOf(err), nil
			case err != nil:
				return "", err
			}
			return fmt.Sprintf("200 %q", answer), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// visit makes one request to the service as the holder of the certificate.
func (s *story) visit(ctx context.Context, addr string, as *tls.Certificate) (string, error) {
	config := &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS13}
	if as != nil {
		config.Certificates = []tls.Certificate{*as}
	}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
	client := &http.Client{
		Transport: &http.Transport{TLSClientConfig: config, DialContext: dial, DisableKeepAlives: true}, Timeout: 10 * time.Second,
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+serverName+"/", nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	return string(b), err
}

// alertOf is what the caller is told: the TLS alert and nothing else.
func alertOf(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, "tls: "); i >= 0 {
		return text[i+len("tls: "):]
	}
	return text
}

// invite prints the lines that work against the running demo.
func (s *story) invite() {
	d, servers, root := s.demo, s.ready.Directories["servers"], s.ready.Root
	s.say("\nIt stays up until Ctrl-C. Every name resolves to 127.0.0.1; challenges are looked for on ports %d (http-01) and %d (tls-alpn-01).", d.HTTPPort, d.TLSPort)
	s.say("  root of trust   %s", root)
	s.say("  for servers     %s", servers)
	s.say("  for clients     %s", s.ready.Directories["clients"])
	s.say("  for both        %s", s.ready.Directories["workloads"])
	s.say("\nTry it:") // by .test names: Caddy has a CA of its own for .internal ones
	s.say("  certbot   REQUESTS_CA_BUNDLE=%s certbot certonly --standalone -n --agree-tos -m you@example.org \\\n"+
		"              --server %s --http-01-port %d \\\n"+
		"              --config-dir %s/certbot --work-dir %s/certbot --logs-dir %s/certbot -d one.demo.test", root, servers, d.HTTPPort, d.Dir, d.Dir, d.Dir)
	s.say("  lego      LEGO_CA_CERTIFICATES=%s lego --server %s -a -m you@example.org \\\n"+
		"              --path %s/lego --http --http.port 127.0.0.1:%d -d two.demo.test run", root, servers, d.Dir, d.HTTPPort)
	s.say("  Caddy     printf '{\\n acme_ca %s\\n acme_ca_root %s\\n http_port %d\\n https_port %d\\n}\\nthree.demo.test {\\n respond hello\\n}\\n' | \\\n"+
		"              caddy run --adapter caddyfile --config -", servers, root, d.HTTPPort, d.TLSPort)
	s.say("  Go        . %s && go run ./examples/http   (or grpc, tcp, outside, signer)", s.ready.Env)
	s.say("  curl      curl --cacert %s %s", root, servers)
	s.say("  admin     chancery admin --socket %s certs list", s.ready.Admin)
	s.say("  metrics   curl %s", s.ready.Metrics)
}
