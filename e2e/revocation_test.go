package e2e_test

import (
	"bufio"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// site is a CA made by init whose server certificates can be withdrawn: they
// point to OCSP and to CRLs in parts. Several replicas may serve it.
type site struct {
	w          *harness.World
	dir        string                    // of the CA, with the root's key
	passphrase string                    // a file with that of the root's key
	root       string                    // a PEM file
	text       string                    // of the configuration; replicas' differ in some lines
	responder  func() *harness.Responder // started by who needs it first
}

// newSite makes the CA and starts nothing of it. edits are lines to be changed
// in all replicas' configurations, old and new in turn.
func newSite(w *harness.World, edits ...string) *site {
	w.Helper()
	w.Names()
	s := &site{w: w, dir: w.Path("ca"), passphrase: w.Write("passphrase", "a root stays in a drawer\n")}
	s.responder = sync.OnceValue(w.Responder)
	ownersOnly(w, s.passphrase)
	w.Run(w.Tool("chanceryd"), "init", "--name", "E2E", "--dns", "ca.test", "--root-password-file", s.passphrase, s.dir)
	s.root = w.Write("root.pem", w.Read(s.dir+"/roots.pem"))
	s.text = w.Replace(w.Read(s.dir+"/chancery.yaml"),
		`external_url: "https://ca.test"`, `external_url: "https://ca.test:14000"`,
		"# Who signs.", "publish:\n  listen: \"PUBLISH\"\n\n# Who signs.",
		"    # For certificates that live longer than a few days, with publish.listen:\n"+
			"    # crl_url: \"http://crl.example.internal\"\n    # ocsp_url: \"http://ocsp.example.internal\"\n",
		"    crl_url: \"http://crl.ca.test:8080\"\n    ocsp_url: \"http://ocsp.ca.test:8080\"\n    aia_url: \"http://ca.ca.test:8080\"\n"+
			"    crl:\n      shards: 4\n",
		"    revocation: none #", "    revocation: crl+ocsp #",
		"    eab:\n      required: false\n",
		"    eab:\n      required: false\n    validation:\n      resolvers: [\"127.0.0.1:53\"]\n      allow: [\"127.0.0.0/8\"]\n")
	s.text = w.Replace(s.text, edits...)
	return s
}

// ownersOnly makes a file one that only its owner reads.
func ownersOnly(w *harness.World, file string) {
	w.Helper()
	if err := os.Chmod(file, 0o600); err != nil {
		w.Fatal(err)
	}
}

// replica is one server of a site.
type replica struct {
	*harness.Proc
	w    *harness.World
	site *site
	conf string
	// Where it listens: for ACME, for relying parties, for Prometheus, and
	// for operators.
	acme, publish, metrics, socket string
	// loads is how often it read its configuration again.
	loads int
}

// replica writes the configuration of the n-th one to a folder, which may be
// the CA's own; edits are its own.
func (s *site) replica(n int, dir string, edits ...string) *replica {
	s.w.Helper()
	r := &replica{
		w: s.w, site: s, conf: filepath.Join(dir, "chancery-"+strconv.Itoa(n)+".yaml"), acme: "127.0.0.1:" + strconv.Itoa(14000+n),
		publish: "127.0.0.1:" + strconv.Itoa(8080+n), metrics: "127.0.0.1:" + strconv.Itoa(9480+n), socket: s.w.Path("admin-" + strconv.Itoa(n)),
	}
	text := s.w.Replace(s.text, `# listen: ":443"`, `listen: "`+r.acme+`"`, "PUBLISH", r.publish,
		`listen: "127.0.0.1:9464"`, `listen: "`+r.metrics+`"`, `socket: "/run/chancery/admin.sock"`, `socket: "`+r.socket+`"`)
	r.write(s.w.Replace(text, edits...))
	return r
}

func (r *replica) write(text string) {
	r.w.Helper()
	if err := os.WriteFile(r.conf, []byte(text), 0o600); err != nil {
		r.w.Fatal(err)
	}
}

// start starts it as one that issues, and waits until it does.
func (r *replica) start() *replica {
	r.w.Helper()
	r.Proc = r.w.Cmd(r.w.Tool("chanceryd"), "serve", r.conf).Start().Listens(r.acme)
	r.loads = 0
	return r
}

// start1 is a site with the one replica that most tests need.
func (s *site) start1(edits ...string) *replica {
	s.w.Helper()
	return s.replica(0, s.dir, edits...).start()
}

// reload changes the configuration and has the running server read it.
func (r *replica) reload(edits ...string) {
	r.w.Helper()
	r.write(r.w.Replace(r.w.Read(r.conf), edits...))
	r.Signal(syscall.SIGHUP)
	r.loads++
	r.Until("it has read its configuration again", func() bool {
		if strings.Contains(r.Output(), "the new configuration is bad") {
			r.w.Fatalf("the configuration isn't taken\n%s", r.Output())
		}
		return strings.Count(r.Output(), "configuration reloaded") == r.loads
	})
}

// account is a new account of the directory for servers at this very replica,
// whose URLs are all replicas'.
func (r *replica) account() *acme.Client {
	r.w.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(r.w.Read(r.site.root)))
	var d net.Dialer
	h := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, MaxIdleConnsPerHost: 32,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.DialContext(ctx, network, r.acme)
		},
	}}
	c := &acme.Client{DirectoryURL: "https://ca.test:14000/acme/servers/directory", HTTPClient: h, Key: r.w.NewKey()}
	a, err := c.Register(r.w.Context(), acme.Registration{TermsAgreed: true})
	if err != nil {
		r.w.Fatal(err)
	}
	c.AccountURL = a.URL
	return c
}

// answering answers http-01 through the harness's responder.
type answering struct{ *harness.Responder }

func (h answering) Type() string { return acme.HTTP01 }

func (h answering) Present(_ context.Context, p acme.Proof) (any, error) {
	h.HTTP(p.Challenge.Token, p.KeyAuthorization)
	return nil, nil
}

func (h answering) CleanUp(context.Context, acme.Proof) error { return nil }

// issued is a certificate that a client got, with the files that it would keep.
type issued struct {
	leaf, issuer *x509.Certificate
	key          crypto.Signer
	// PEM files: the certificate, its issuer's, both, and its key.
	file, issuerFile, chainFile, keyFile string
}

// serial is its number as operators write it.
func (i *issued) serial() string { return fmt.Sprintf("%x", i.leaf.SerialNumber) }

// obtain gets a certificate over ACME.
func (s *site) obtain(c *acme.Client, names ...string) *issued {
	s.w.Helper()
	i, err := s.tryObtain(c, acme.OrderRequest{Identifiers: acme.Identifiers(names...)})
	if err != nil {
		s.w.Fatal(err)
	}
	return i
}

func (s *site) tryObtain(c *acme.Client, order acme.OrderRequest) (*issued, error) {
	key := s.w.NewKey()
	chain, err := c.Obtain(s.w.Context(), acme.ObtainRequest{Order: order, Key: key, Solvers: []acme.Solver{answering{s.responder()}}})
	if err != nil {
		return nil, err
	}
	certs := s.w.Chain(string(chain.PEM))
	i := &issued{leaf: certs[0], issuer: certs[1], key: key}
	name := "issued/" + i.serial()
	i.file = s.w.SavePEM(name+".pem", certs[0].Raw)
	i.issuerFile = s.w.SavePEM(name+"-issuer.pem", certs[1].Raw)
	i.chainFile = s.w.SavePEM(name+"-chain.pem", certs[0].Raw, certs[1].Raw)
	i.keyFile = s.w.WriteKey(name+".key", key)
	return i, nil
}

// revoke withdraws a certificate as its account.
func (s *site) revoke(c *acme.Client, i *issued, reason int) {
	s.w.Helper()
	if err := c.Revoke(s.w.Context(), i.leaf.Raw, reason, nil); err != nil {
		s.w.Fatal(err)
	}
}

// admin runs `chancery admin` at this replica.
func (r *replica) admin(args ...string) string {
	r.w.Helper()
	return r.w.Run(r.w.Tool("chancery"), append([]string{"admin", "--socket", r.socket, "--json"}, args...)...)
}

// metric is the sum of a metric's values whose labels have all of the parts,
// such as `class="ocsp"`. Where there is none it is 0.
func (r *replica) metric(name string, parts ...string) (sum float64) {
	r.w.Helper()
	res, err := http.Get("http://" + r.metrics + "/metrics")
	if err != nil {
		r.w.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		last := max(strings.LastIndexByte(lines.Text(), ' '), 0) // labels may have spaces
		metric, value := lines.Text()[:last], strings.TrimSpace(lines.Text()[last:])
		labels, ok := strings.CutPrefix(metric, name)
		if !ok || labels != "" && labels[0] != '{' || slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(labels, p) }) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			r.w.Fatalf("%s: %v", lines.Text(), err)
		}
		sum += v
	}
	if err := lines.Err(); err != nil {
		r.w.Fatal(err)
	}
	return sum
}

// signatures counts those for OCSP answers, by all of the replica's keys or by
// one of them.
func (r *replica) signatures(keyID ...string) int {
	r.w.Helper()
	parts := []string{`class="ocsp"`}
	for _, id := range keyID {
		parts = append(parts, `key="`+id+`"`)
	}
	return int(r.metric("chancery_signing_signatures_total", parts...))
}

// relying is what relying parties speak to the publish listener. What must never
// be in an answer of it fails the test: that browsers shall use HTTPS from now
// on, and that something went wrong within.
func relying(t testing.TB) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: neverHTTPS{t, &http.Transport{MaxIdleConnsPerHost: 32}}}
}

type neverHTTPS struct {
	t testing.TB
	http.RoundTripper
}

func (n neverHTTPS) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := n.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if v := res.Header.Values("Strict-Transport-Security"); len(v) > 0 {
		n.t.Errorf("%s %s: Strict-Transport-Security: %q", req.Method, req.URL, v)
	}
	if res.StatusCode >= 500 {
		n.t.Errorf("%s %s: %s", req.Method, req.URL, res.Status)
	}
	return res, nil
}
