package kubernetes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/e2e/kubernetes/cluster"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// host is what the manifests call the server; it listens at home.
const (
	host = "chancery.chancery.svc.cluster.local"
	home = "127.0.0.1:443"
)

// What certificates are for.
const serverAuth, clientAuth = x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth

// directory is the URL of a directory, which is the audience of its tokens.
func directory(name string) string { return "https://" + host + "/acme/" + name + "/directory" }

// manifest is a file of deploy/kubernetes.
func manifest(w *harness.World, name string) string {
	w.Helper()
	return w.Read(filepath.Join("../../deploy/kubernetes", name))
}

// authority is a CA as its operator makes it, and the server that runs it,
// outside of every cluster.
type authority struct {
	dir, socket string
	server      *harness.Proc
	roots       *x509.CertPool
}

// newAuthority makes a CA by init, of which the keys are used; the test writes
// the rest of the configuration, see serve.
func newAuthority(w *harness.World) *authority {
	w.Helper()
	a := &authority{dir: w.Path("ca"), socket: w.Path("admin.sock"), roots: x509.NewCertPool()}
	w.Run(w.Tool("chanceryd"), "init", "--name", "E2E", "--dns", host, a.dir)
	a.roots.AppendCertsFromPEM([]byte(w.Read(a.path("roots.pem"))))
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// enter writes the kubeconfig NAME with which the server is, at the cluster's
// API, the service account of the manifest.
func (a *authority) enter(c *cluster.Cluster, name string) {
	c.TokenKubeconfig(a.path(name), c.ServiceAccountToken("chancery", "chanceryd"))
}

// common is the configuration up to the clusters. kubernetes-01 is the only
// proof, so that nothing else can have been one.
const common = `external_url: "https://` + host + `"
listen: "` + home + `"
tls: {profile: server}
database: {dsn: chancery.db}
admin: {socket: "SOCKET"}
issuers:
  servers: {signers: [{key: "file:ca/servers.key", certificate: ca/servers.pem}], chain: root/root.pem}
  clients: {signers: [{key: "file:ca/clients.key", certificate: ca/clients.pem}], chain: root/root.pem}
profiles:
  server: {issuer: servers, usages: [server], challenges: [kubernetes-01]}
  client: {issuer: clients, usages: [client], challenges: [kubernetes-01]}
`

// serve starts the server with the clusters and directories.
func (a *authority) serve(w *harness.World, rest string) {
	w.Helper()
	file := a.path("chancery.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(common, "SOCKET", a.socket, 1)+rest), 0o600); err != nil {
		w.Fatal(err)
	}
	w.Run(w.Tool("chanceryd"), "check", file)
	a.server = w.Cmd(w.Tool("chanceryd"), "serve", file).Start().Listens(home)
}

// entry is a line of the audit log.
type entry struct {
	Action, Peer, Directory, Object, Denied string
	Detail                                  json.RawMessage
}

// audit reads the audit log, of one action.
func (a *authority) audit(w *harness.World, action string) []entry {
	w.Helper()
	var log struct{ Items []entry }
	out := w.Run(w.Tool("chancery"), "admin", "--socket", a.socket, "--json", "audit", "list", "--limit", "1000", "--action", action)
	if err := json.Unmarshal([]byte(out), &log); err != nil {
		w.Fatalf("%v in %s", err, out)
	}
	return log.Items
}

// certificates is how many certificates clients have got so far.
func (a *authority) certificates(w *harness.World) (n int) {
	w.Helper()
	for _, e := range a.audit(w, "certificate.issue") {
		if e.Directory != "" && e.Denied == "" { // else the server's own, or not issued
			n++
		}
	}
	return n
}

// client is a program in a pod, with an account of its own.
type client struct {
	*acme.Client
	w *harness.World
}

// client makes an account at the directory. The program connects from the
// address, "" for one that is no pod's.
func (a *authority) client(w *harness.World, url, from string) *client {
	w.Helper()
	c := &client{&acme.Client{DirectoryURL: url, Key: w.NewKey(), HTTPClient: a.web(w, from)}, w}
	if _, err := c.Register(w.Context(), acme.Registration{}); err != nil {
		w.Fatal(err)
	}
	return c
}

// web is an HTTP client that connects from the address.
func (a *authority) web(w *harness.World, from string) *http.Client {
	dialer := &net.Dialer{}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: a.roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, home)
		},
	}
	w.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// at is the same account, that connects from the address.
func (c *client) at(a *authority, from string) *client {
	c.w.Helper()
	other := &client{&acme.Client{DirectoryURL: c.DirectoryURL, Key: c.Key, HTTPClient: a.web(c.w, from)}, c.w}
	if _, err := other.Register(c.w.Context(), acme.Registration{OnlyReturnExisting: true}); err != nil {
		c.w.Fatal(err)
	}
	return other
}

// order orders a certificate for the names.
func (c *client) order(names ...string) acme.Order {
	c.w.Helper()
	o, err := c.NewOrder(c.w.Context(), acme.OrderRequest{Identifiers: acme.Identifiers(names...)})
	if err != nil {
		c.w.Fatal(err)
	}
	return o
}

// prove answers each of the order's challenges with the token, {} without one.
func (c *client) prove(o acme.Order, token string) error {
	c.w.Helper()
	ctx := c.w.Context()
	payload := map[string]string{}
	if token != "" {
		payload["serviceAccountToken"] = token
	}
	for _, url := range o.Authorizations {
		z, err := c.Authorization(ctx, url)
		if err != nil {
			return err
		}
		if len(z.Challenges) != 1 || z.Challenges[0].Type != "kubernetes-01" {
			c.w.Fatalf("the challenges are %+v", z.Challenges)
		}
		if _, err := c.Accept(ctx, z.Challenges[0], payload); err != nil {
			return err
		}
		if _, err := c.WaitAuthorization(ctx, z); err != nil {
			return err
		}
	}
	return nil
}

// finalize asks for the certificate for the usage, and waits for it.
func (c *client) finalize(o acme.Order, usage x509.ExtKeyUsage) (*x509.Certificate, error) {
	c.w.Helper()
	o, err := c.Finalize(c.w.Context(), o, c.csr(o, usage))
	if err != nil {
		return nil, err
	}
	return c.fetch(o)
}

// csr asks for the order's names and the usage, with a new key.
func (c *client) csr(o acme.Order, usage x509.ExtKeyUsage) []byte {
	c.w.Helper()
	csr, err := acme.NewCSRFor([]x509.ExtKeyUsage{usage}, c.w.NewKey(), o.Identifiers...)
	if err != nil {
		c.w.Fatal(err)
	}
	return csr
}

// fetch waits for the order's end, and fetches its certificate.
func (c *client) fetch(o acme.Order) (*x509.Certificate, error) {
	c.w.Helper()
	ctx := c.w.Context()
	o, err := c.WaitOrder(ctx, o)
	if err != nil {
		return nil, err
	}
	chain, err := c.Certificate(ctx, o.Certificate)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(chain.DER[0])
}

// obtain does all of it.
func (c *client) obtain(token string, usage x509.ExtKeyUsage, names ...string) (*x509.Certificate, error) {
	c.w.Helper()
	o := c.order(names...)
	if err := c.prove(o, token); err != nil {
		return nil, err
	}
	return c.finalize(o, usage)
}

// verify checks that the certificate is of this CA, for the names and for
// nothing but the usage.
func (a *authority) verify(w *harness.World, cert *x509.Certificate, usage x509.ExtKeyUsage, names ...string) {
	w.Helper()
	if len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != usage {
		w.Errorf("the usages are %v, want %v", cert.ExtKeyUsage, usage)
	}
	if n := len(cert.DNSNames) + len(cert.IPAddresses); n != len(names) {
		w.Errorf("the names are %q and %v, want %q", cert.DNSNames, cert.IPAddresses, names)
	}
	between := x509.NewCertPool()
	for _, file := range []string{"ca/servers.pem", "ca/clients.pem"} {
		between.AppendCertsFromPEM([]byte(w.Read(a.path(file))))
	}
	for _, name := range names {
		if net.ParseIP(name) != nil {
			name = "[" + name + "]" // as x509 tells addresses from names
		}
		if _, err := cert.Verify(x509.VerifyOptions{DNSName: name, Roots: a.roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			w.Error(err)
		}
	}
}

// problem is the problem that err is; the test ends where it is none of the
// type.
func problem(w *harness.World, err error, typ string, words ...string) *acme.Problem {
	w.Helper()
	p, ok := errors.AsType[*acme.Problem](err)
	if !ok || p.Type != typ {
		w.Fatalf("got %v, want %s", err, typ)
	}
	for _, word := range words {
		if !strings.Contains(p.Detail, word) {
			w.Errorf("the detail %q doesn't say %q", p.Detail, word)
		}
	}
	return p
}
