package e2e_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls"
	"github.com/chancery-pki/chancery/mtls/acl"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// The Go library against the server, and against peers that others wrote: curl
// and OpenSSL on either side, good ones and bad ones. TestAutocert and
// TestAcmez are the check that what it needs of the server isn't of its own
// making.
func TestLibrary(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Ours("it has no directory for clients")
		w.Names()
		l := newLibrary(w)
		w.Sub("certificates before the program listens", func(w *harness.World) {
			c := l.config("early.test")
			c.Proof.ListenALPN = "127.0.0.1:443"
			id, err := mtls.New(w.Context(), c)
			if err != nil {
				w.Fatal(err)
			}
			w.Cleanup(func() { _ = id.Close() })
			ours, err := net.Listen("tcp", "127.0.0.1:443") // it is ours to have again
			if err != nil {
				w.Fatal(err)
			}
			_ = ours.Close()
		})
		id := l.serve(w, "a.test")
		w.Sub("itself", func(w *harness.World) {
			if got := get(w, id, "https://a.test/"); got != "hello a.test over HTTP/2.0" {
				w.Errorf("it answers %q", got)
			}
		})
		w.Sub("client only", func(w *harness.World) {
			c := l.config("batch.test")
			c.Usage = mtls.UsageClient
			client, err := mtls.New(w.Context(), c)
			if err != nil {
				w.Fatal(err)
			}
			w.Cleanup(func() { _ = client.Close() })
			if got := get(w, client, "https://a.test/"); got != "hello batch.test over HTTP/2.0" {
				w.Errorf("it answers %q", got)
			}
		})
		w.Sub("foreign clients", func(w *harness.World) { l.foreignClients(w) })
		w.Sub("foreign server", func(w *harness.World) { l.foreignServer(w, id) })
		w.Sub("bad clients", func(w *harness.World) { l.badClients(w) })
		w.Sub("bad servers", func(w *harness.World) { l.badServers(w, id) })
	})
}

// library is programs with the library, and what they meet.
type library struct {
	ca   *harness.CA
	pki  *strangePKI
	log  *logbook
	kid  string // an EAB key for clients
	hmac string
}

func newLibrary(w *harness.World) *library {
	w.Helper()
	l := &library{ca: w.CA(harness.Options{}), pki: newStrangePKI(w, "Partners"), log: new(logbook)}
	l.kid, l.hmac = l.ca.NewEAB("--directory", "clients", "--name", "*.test", "--pre-approved")
	return l
}

// config is for both directories, as init makes them: servers prove their
// names, clients have a key. Clients of the partners' PKI are welcome too.
func (l *library) config(name string) mtls.Config {
	mac, err := base64.RawURLEncoding.DecodeString(l.hmac)
	if err != nil {
		panic(err)
	}
	ours := mtls.RootsFile(l.ca.Root)
	trust, err := mtls.NewTrust(mtls.TrustConfig{Servers: []mtls.Roots{ours}, Clients: []mtls.Roots{ours, mtls.RootsPEM(l.pki.root)}})
	if err != nil {
		panic(err)
	}
	return mtls.Config{
		CAs: []mtls.CA{
			{Directory: l.ca.Directory, Usage: mtls.UsageServer},
			{Directory: l.ca.Clients, Usage: mtls.UsageClient, EAB: &acme.ExternalAccount{KeyID: l.kid, MACKey: mac}},
		},
		Names: []string{name}, Trust: trust, Logger: slog.New(slog.NewTextHandler(l.log, nil)),
	}
}

// serve is a web server on port 443, where the CA looks for its proof before
// there is a certificate.
func (l *library) serve(w *harness.World, name string) *mtls.Identity {
	w.Helper()
	id, err := mtls.Start(l.config(name))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = id.Close() })
	listener, err := net.Listen("tcp", "127.0.0.1:443")
	if err != nil {
		w.Fatal(err)
	}
	rules := acl.Allow("a.test", "batch.test", "good.test", "lego.test")
	srv := &http.Server{TLSConfig: id.Server(rules), ErrorLog: id.ErrorLog(), Handler: id.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		peer, _ := mtls.PeerFromContext(r.Context())
		fmt.Fprintf(rw, "hello %s over %s", peer.Name(), r.Proto)
	}), rules)}
	w.Cleanup(func() { _ = srv.Close() })
	go func() { _ = srv.ServeTLS(listener, "", "") }() // ends with an error on Close
	ctx, cancel := context.WithTimeout(w.Context(), 30*time.Second)
	defer cancel()
	if err := id.Ready(ctx); err != nil {
		w.Fatalf("%v\n%s", err, l.log.since(0))
	}
	return id
}

func get(w *harness.World, id *mtls.Identity, url string) string {
	w.Helper()
	res, err := id.HTTPClient().Get(url)
	if err != nil {
		w.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil || res.StatusCode != http.StatusOK {
		w.Fatalf("%s: %s, %v", url, res.Status, err)
	}
	return string(body)
}

// foreignClients have certificates that lego got from the same server.
func (l *library) foreignClients(w *harness.World) {
	clients := *l.ca
	clients.Directory = l.ca.Clients
	client := lego{w, &clients, w.Mkdir("lego")}
	kid, hmac := l.ca.NewEAB("--directory", "clients", "--name", "lego.test", "--pre-approved") // one account each
	client.cmd("--eab", "--kid", kid, "--hmac", hmac, "-d", "lego.test", "--http", "run").OK()
	crt, key := client.file("lego.test.crt"), client.file("lego.test.key")
	for proto, flag := range map[string]string{"HTTP/1.1": "--http1.1", "HTTP/2.0": "--http2"} {
		if got := w.Run("curl", "-sS", flag, "--cacert", l.ca.Root, "--cert", crt, "--key", key, "https://a.test/"); got != "hello lego.test over "+proto {
			w.Errorf("curl %s prints %q", flag, got)
		}
	}
	out := w.Cmd("openssl", "s_client", "-connect", "127.0.0.1:443", "-servername", "a.test", "-verify_hostname", "a.test", "-verify_return_error",
		"-CAfile", l.ca.Root, "-cert", crt, "-cert_chain", crt, "-key", key, "-ign_eof").Stdin("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").OK()
	for _, want := range []string{"Verify return code: 0 (ok)", "TLSv1.3", "hello lego.test"} {
		if !strings.Contains(out, want) {
			w.Errorf("openssl s_client doesn't print %q: %s", want, out)
		}
	}
}

// foreignServer is OpenSSL's, with a certificate that lego got, and demands one
// of us.
func (l *library) foreignServer(w *harness.World, id *mtls.Identity) {
	servers := lego{w, l.ca, w.Mkdir("lego")}
	servers.cmd("-d", "b.test", "--http", "run").OK()
	p := sServer(w, servers.file("b.test.crt"), servers.file("b.test.key"), "-CAfile", l.ca.Root)
	p.Listens("127.0.0.1:8443")
	if got := get(w, id, "https://b.test:8443/"); !strings.Contains(got, "TLSv1.3") || !strings.Contains(got, "CN=") && !strings.Contains(got, "Client certificate") {
		w.Errorf("openssl s_server answers %s", got)
	}
	_, err := id.HTTPClient().Get("https://other.test:8443/")
	says(w, "a server under another name", fmt.Sprint(err), `isn't for "other.test" but for ["b.test"]`)
}

// sServer answers with a page about the connection, to clients with a
// certificate.
func sServer(w *harness.World, crt, key string, more ...string) *harness.Proc {
	w.Helper()
	args := []string{"s_server", "-accept", "127.0.0.1:8443", "-www", "-Verify", "3", "-verify_return_error", "-cert", crt, "-cert_chain", crt, "-key", key}
	return w.Cmd("openssl", append(args, more...)...).Start()
}

// badClients are refused, with a line in our log that an operator can act on.
// They themselves learn nothing but that it was so.
func (l *library) badClients(w *harness.World) {
	wrong := newStrangePKI(w, "Nobody")
	now := time.Now()
	client := func(change func(*x509.Certificate)) *x509.Certificate {
		c := &x509.Certificate{DNSNames: []string{"good.test"}, NotAfter: now.Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
		if change != nil {
			change(c)
		}
		return c
	}
	for _, tc := range []struct {
		who  string
		args []string
		want []string // on one line of the log
	}{
		{"no certificate", nil, []string{"client refused", "showed no certificate", "peer=127.0.0.1:"}},
		{"a wrong CA", wrong.curl(w, client(nil)), []string{"client refused", "good.test", "a CA that isn't trusted for clients", "CN=Nobody"}},
		{"expired", l.pki.curl(w, client(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) })), []string{"good.test", "expired at " + now.Add(-time.Hour).UTC().Format("2006-01-02T15:04")}},
		{"of tomorrow", l.pki.curl(w, client(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(time.Hour), now.Add(2*time.Hour) })), []string{"isn't valid before"}},
		{"a CA as leaf", l.pki.curl(w, client(func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
		})), []string{"is a CA certificate, which may not speak for itself"}},
		{"a server's certificate", l.pki.curl(w, client(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })), []string{"isn't for a client"}},
		{"a name not allowed", l.pki.curl(w, client(func(c *x509.Certificate) { c.DNSNames = []string{"stranger.test"} })), []string{"client refused", "no rule", "stranger.test", "CN=Partners"}},
		{"TLS 1.2", append(l.pki.curl(w, client(nil)), "--tls-max", "1.2"), []string{"doesn't speak TLS 1.3", "peer=127.0.0.1:"}},
	} {
		begun := l.log.len()
		out := w.Cmd("curl", append([]string{"-sS", "--cacert", l.ca.Root, "https://a.test/"}, tc.args...)...).Fails()
		told := l.log.since(begun)
		says(w, tc.who+": our log", told, tc.want...)
		if strings.Count(told, "level=WARN") != 1 {
			w.Errorf("%s: not one line: %s", tc.who, told)
		}
		// An alert, or, where its request was under way already, a reset.
		for _, secret := range []string{"hello", "expired", "trusted", "rule", "Partners", "unknown ca"} {
			if strings.Contains(out, secret) {
				w.Errorf("%s: the client learns %q: %s", tc.who, secret, out)
			}
		}
	}
	if got := w.Run("curl", append([]string{"-sS", "--cacert", l.ca.Root, "https://a.test/"}, l.pki.curl(w, client(nil))...)...); !strings.HasPrefix(got, "hello good.test") {
		w.Errorf("a good one of the same PKI gets %q", got)
	}
	// OpenSSL's client sees the same alert.
	out := w.Cmd("openssl", "s_client", "-connect", "127.0.0.1:443", "-servername", "a.test", "-ign_eof").Stdin("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").Fails()
	says(w, "openssl s_client without a certificate", out, "alert bad certificate")
}

// badServers are refused by our client, which says why.
func (l *library) badServers(w *harness.World, id *mtls.Identity) {
	now := time.Now()
	server := func(change func(*x509.Certificate)) *x509.Certificate {
		c := &x509.Certificate{DNSNames: []string{"b.test"}, NotAfter: now.Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
		if change != nil {
			change(c)
		}
		return c
	}
	// A program that trusts that PKI's servers, so that the other faults show.
	c := l.config("batch.test")
	c.Usage = mtls.UsageClient
	roots := []mtls.Roots{mtls.RootsFile(l.ca.Root), mtls.RootsPEM(l.pki.root)}
	trust, err := mtls.NewTrust(mtls.TrustConfig{Servers: roots})
	if err != nil {
		w.Fatal(err)
	}
	c.Trust = trust
	trusting, err := mtls.New(w.Context(), c)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = trusting.Close() })
	for _, tc := range []struct {
		who    string
		client *mtls.Identity
		leaf   *x509.Certificate
		args   []string
		want   string
	}{
		{"a wrong CA", id, server(nil), nil, "isn't trusted for servers"},
		{"expired", trusting, server(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) }), nil, "expired at"},
		{"a CA as leaf", trusting, server(func(c *x509.Certificate) { c.IsCA = true }), nil, "is a CA certificate"},
		{"another name", trusting, server(func(c *x509.Certificate) { c.DNSNames = []string{"c.test"} }), nil, `isn't for "b.test"`},
		{"a client's certificate", trusting, server(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), nil, "isn't for a server"},
		{"TLS 1.2", trusting, server(nil), []string{"-no_tls1_3"}, "protocol version"},
	} {
		crt, key := l.pki.files(w, tc.leaf)
		p := sServer(w, crt, key, append(tc.args, "-CAfile", l.ca.Root)...)
		p.Listens("127.0.0.1:8443")
		_, err := tc.client.HTTPClient().Get("https://b.test:8443/")
		says(w, tc.who, fmt.Sprint(err), tc.want)
		p.Stop()
	}
}

func says(w *harness.World, what, text string, want ...string) {
	w.Helper()
	for _, words := range want {
		if !strings.Contains(text, words) {
			w.Errorf("%s: %s\nit doesn't say %q", what, text, words)
		}
	}
}

// strangePKI is a root that issues anything, also what no CA would.
type strangePKI struct {
	cert *x509.Certificate
	key  crypto.Signer
	root []byte // PEM
	made int64
}

func newStrangePKI(w *harness.World, name string) *strangePKI {
	w.Helper()
	p := &strangePKI{key: w.NewKey()}
	p.cert = &x509.Certificate{Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, KeyUsage: x509.KeyUsageCertSign}
	p.root = p.issue(w, p.cert, p.key.Public())
	block, _ := pem.Decode(p.root)
	var err error
	if p.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		w.Fatal(err)
	}
	return p
}

func (p *strangePKI) issue(w *harness.World, c *x509.Certificate, key crypto.PublicKey) []byte {
	w.Helper()
	p.made++
	c.SerialNumber, c.BasicConstraintsValid = big.NewInt(p.made), true
	if c.NotBefore.IsZero() {
		c.NotBefore = time.Now().Add(-2 * time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, p.cert, key, p.key)
	if err != nil {
		w.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// files are a certificate and its key for programs.
func (p *strangePKI) files(w *harness.World, c *x509.Certificate) (crt, key string) {
	w.Helper()
	signer := w.NewKey()
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		w.Fatal(err)
	}
	name := fmt.Sprintf("%s-%d", p.cert.Subject.CommonName, p.made)
	return w.Write(name+".crt", string(p.issue(w, c, signer.Public()))), w.Write(name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

func (p *strangePKI) curl(w *harness.World, c *x509.Certificate) []string {
	w.Helper()
	crt, key := p.files(w, c)
	return []string{"--cert", crt, "--key", key}
}

// logbook is a log that is read in parts.
type logbook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logbook) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Len()
}

func (l *logbook) since(at int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()[at:]
}
