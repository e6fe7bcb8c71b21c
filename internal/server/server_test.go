package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/server"
	"github.com/chancery-pki/chancery/internal/setup"
)

// newCA makes a CA that listens on loopback, under a root that was brought
// along (to encrypt a new one's key takes long).
func newCA(t *testing.T) *setup.Made {
	t.Helper()
	certificate, key := newRoot(t)
	return newCAUnder(t, certificate, key)
}

func newCAUnder(t *testing.T, certificate, key string) *setup.Made {
	t.Helper()
	made, err := setup.Init{
		Dir: t.TempDir(), Name: "Test", DNS: "127.0.0.1", RootCert: certificate, RootKey: key,
		Overrides: func(e *config.Example) {
			e.Listen, e.Metrics, e.AdminSocket, e.Allow = "127.0.0.1:0", "127.0.0.1:0", "admin.sock", []string{"*.example"}
		},
	}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// newRoot makes a root, its key in clear, in a folder of its own.
func newRoot(t *testing.T) (certificate, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root, err := issuer.NewRoot(k, issuer.CA{CommonName: "Brought Root", Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "root.pem"), filepath.Join(dir, "root.key")
	for path, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: root.Raw}, key: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

// edit changes the configuration file.
func edit(t *testing.T, path, old, new string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("the configuration has no %q", old)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), old, new)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func load(path string) (*config.Config, error) {
	c, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	if bad := config.Check(c).Errors(); len(bad) > 0 {
		return nil, bad
	}
	return c, nil
}

// reader reads the file again.
func reader(path string) func() (*config.Config, error) {
	return func() (*config.Config, error) { return load(path) }
}

// running is a server of this process.
type running struct {
	server.Running
	t     *testing.T
	log   *log
	roots *x509.CertPool
	http  *http.Client
	stop  context.CancelFunc
	ended chan error
}

// log keeps what the server says.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// count is how often the text was logged.
func (l *log) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

// start runs the server until the test ends, or stop is called.
func start(t *testing.T, made *setup.Made) *running {
	t.Helper()
	return startReading(t, made, reader(made.Config))
}

// startReading is start with a configuration that is read otherwise.
func startReading(t *testing.T, made *setup.Made, read func() (*config.Config, error)) *running {
	t.Helper()
	c, err := read()
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, log: &log{}, ended: make(chan error, 1), roots: x509.NewCertPool()}
	pem, err := os.ReadFile(made.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	r.roots.AppendCertsFromPEM(pem)
	r.http = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots}, DisableKeepAlives: true}}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	ready := make(chan server.Running, 1)
	go func() {
		r.ended <- server.Run(ctx, server.Options{
			Config: c, Reload: read, Version: "test",
			Logger: slog.New(slog.NewTextHandler(r.log, nil)), Ready: func(r server.Running) { ready <- r },
		})
	}()
	t.Cleanup(func() {
		r.stop()
		select {
		case err := <-r.ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the server doesn't stop")
		}
	})
	select {
	case r.Running = <-ready:
	case err := <-r.ended:
		t.Fatal(err)
	}
	return r
}

func (r *running) get(url string) (int, string) {
	r.t.Helper()
	resp, err := r.http.Get(url)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// directory asks for a directory's status.
func (r *running) directory(name string) int {
	r.t.Helper()
	status, _ := r.get("https://" + r.Listen.String() + "/acme/" + name + "/directory")
	return status
}

// certificate is the one that the server shows.
func (r *running) certificate() *x509.Certificate {
	r.t.Helper()
	c, err := tls.Dial("tcp", r.Listen.String(), &tls.Config{RootCAs: r.roots})
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0]
}

func (r *running) until(what string, done func() bool) {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if done() {
			return
		}
	}
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.t.Fatalf("waited in vain: %s\n%s", what, r.log.text.String())
}

// hangUp sends SIGHUP and waits for what becomes of it.
func (r *running) hangUp(says string) {
	r.t.Helper()
	before := r.log.count(says)
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		r.t.Fatal(err)
	}
	r.until("the log says "+says, func() bool { return r.log.count(says) > before })
}

func TestHealthAndMetrics(t *testing.T) {
	r := start(t, newCA(t))
	if status, body := r.get("http://" + r.Metrics.String() + "/healthz"); status != 200 || body != "ok\n" {
		t.Errorf("%d %q", status, body)
	}
	r.directory("servers")
	r.directory("nonsense")
	_, body := r.get("http://" + r.Metrics.String() + "/metrics")
	for _, want := range []string{
		`chancery_acme_requests_total{directory="servers",problem="",resource="directory",status="200"} 1`,
		"chancery_store_commits_total", "chancery_validations_running 0", "chancery_issuances_running 0",
		"chancery_own_certificate_expiry_seconds 1", "go_goroutines", "process_resident_memory_bytes",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
	if strings.Contains(body, "nonsense") {
		t.Error("a label holds what a client sent")
	}
	if status, _ := r.get("http://" + r.Metrics.String() + "/debug/pprof/"); status != 404 {
		t.Errorf("pprof: %d", status)
	}
}

// Elsewhere than on loopback metrics want a client certificate.
func TestMetricsByMutualTLS(t *testing.T) {
	made := newCA(t)
	edit(t, made.Config, "metrics:\n  listen: \"127.0.0.1:0\"", "metrics:\n  listen: \"127.0.0.1:0\"\n  client_ca: roots.pem")
	r := start(t, made)
	if _, err := r.http.Get("https://" + r.Metrics.String() + "/metrics"); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a certificate: %v", err)
	}
	if resp, err := http.Get("http://" + r.Metrics.String() + "/metrics"); err == nil && resp.StatusCode == 200 {
		t.Error("in clear")
	}
}

// A reload swaps everything or nothing.
func TestReload(t *testing.T) {
	made := newCA(t)
	r := start(t, made)
	good, err := os.ReadFile(made.Config)
	if err != nil {
		t.Fatal(err)
	}
	const bad = "the old one goes on"
	first := r.certificate()
	for name, change := range map[string][2]string{
		"not YAML":        {"directories:\n", "directories: [\n"},
		"an unknown key":  {"directories:\n", "colour: blue\ndirectories:\n"},
		"no such file":    {"ca/servers.key", "ca/gone.key"},
		"another's key":   {"ca/servers.key", "ca/clients.key"},
		"no such profile": {`profiles: ["server"]`, `profiles: ["nope"]`},
		"no such pair":    {"tls:\n  profile: \"server\"", "tls:\n  certificate: gone.pem\n  key: gone.key"},
	} {
		edit(t, made.Config, change[0], change[1])
		edit(t, made.Config, "  clients:\n    profiles:", "  renamed:\n    profiles:")
		r.hangUp(bad)
		if r.directory("clients") != 200 || r.directory("renamed") != 404 || !r.certificate().Equal(first) {
			t.Errorf("%s: something of the bad configuration is in force", name)
		}
		if err := os.WriteFile(made.Config, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	edit(t, made.Config, "  clients:\n    profiles:", "  renamed:\n    profiles:")
	edit(t, made.Config, "\nlisten: \"127.0.0.1:0\"", "\nlisten: \"127.0.0.1:1\"")
	edit(t, made.Config, "tls:\n", "tls:\n  names: [\"127.0.0.1\", \"ca.example\"]\n")
	r.hangUp("configuration reloaded")
	if r.directory("clients") != 404 || r.directory("renamed") != 200 {
		t.Error("the good configuration is not in force")
	}
	if r.log.count("waits for a restart") == 0 {
		t.Error("nobody was told that listen waits for a restart")
	}
	if err := r.certificate().VerifyHostname("ca.example"); err != nil {
		t.Error("the new name is not in the certificate:", err)
	}
}

// The server's certificate from files: read at the start and at SIGHUP.
func TestCertificateFromFiles(t *testing.T) {
	made := newCA(t)
	dir := filepath.Dir(made.Config)
	pair := func() {
		t.Helper()
		// Any pair will do for a server: the issuing CA's own.
		for from, to := range map[string]string{"ca/servers.key": "tls.key", "ca/servers.pem": "tls.pem"} {
			b, err := os.ReadFile(filepath.Join(dir, from))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, to), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	pair()
	edit(t, made.Config, "tls:\n  profile: \"server\"", "tls:\n  certificate: tls.pem\n  key: tls.key")
	r := start(t, made)
	shown := func() *x509.Certificate {
		c, err := tls.Dial("tcp", r.Listen.String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0]
	}
	if c := shown(); !c.IsCA {
		t.Errorf("shown: %v", c.Subject)
	}
	if err := os.Chmod(filepath.Join(dir, "tls.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.hangUp("the old one goes on")
	// From files to its own, without a restart.
	edit(t, made.Config, "tls:\n  certificate: tls.pem\n  key: tls.key", "tls:\n  profile: \"server\"")
	r.hangUp("configuration reloaded")
	if c := shown(); c.IsCA || c.VerifyHostname("127.0.0.1") != nil {
		t.Errorf("shown: %v", c.Subject)
	}
}

// The server's own certificate is renewed at two thirds of its life, in
// memory, while it serves.
func TestOwnRenewal(t *testing.T) {
	made := newCA(t)
	edit(t, made.Config, "lifetime: 24h", "lifetime: 5s\n    backdate: 1s")
	r := start(t, made)
	first := r.certificate()
	r.until("another certificate", func() bool { return !r.certificate().Equal(first) })
	if second := r.certificate(); !second.NotAfter.After(first.NotAfter) || hash(second) == hash(first) {
		t.Errorf("until %v, then %v", first.NotAfter, second.NotAfter)
	}
	if time.Now().After(first.NotAfter) {
		t.Error("only after the first had ended")
	}
}

// hash is of the certificate's key, which is new at every renewal.
func hash(c *x509.Certificate) [32]byte { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// A request under way when the server is told to stop is answered.
func TestGracefulStop(t *testing.T) {
	made := newCA(t)
	r := start(t, made)
	c, err := tls.Dial("tcp", r.Listen.String(), &tls.Config{RootCAs: r.roots, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "POST /acme/servers/new-account HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/jose+json\r\nContent-Length: 9\r\n\r\n{\"no\"")
	time.Sleep(50 * time.Millisecond) // until its handler reads
	r.stop()
	r.until("the listener is closed", func() bool {
		d, err := net.DialTimeout("tcp", r.Listen.String(), time.Second)
		if err == nil {
			d.Close()
		}
		return err != nil
	})
	fmt.Fprint(c, ":1} ")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal("cut off:", err)
	}
	defer resp.Body.Close()
	var problem struct{ Type string }
	if err := json.NewDecoder(resp.Body).Decode(&problem); err != nil || resp.StatusCode != 400 || !strings.HasSuffix(problem.Type, ":malformed") {
		t.Errorf("%d %+v, %v", resp.StatusCode, problem, err)
	}
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	r.ended <- nil // for the cleanup
	if _, err := os.Stat(filepath.Join(filepath.Dir(made.Config), "admin.sock")); err == nil {
		t.Error("the admin socket is left")
	}
}

// What must not be: keys that others can read, a root's key in clear, a port
// that is taken. None of them leaves the database open.
func TestRefusesToStart(t *testing.T) {
	certificate, root := newRoot(t)
	made := newCAUnder(t, certificate, root)
	dir := filepath.Dir(made.Config)
	run := func() error {
		c, err := load(made.Config)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return server.Run(ctx, server.Options{Config: c, Logger: slog.New(slog.DiscardHandler), Ready: func(server.Running) { cancel() }})
	}
	check := func() error {
		c, err := load(made.Config)
		if err != nil {
			return err
		}
		return server.Check(t.Context(), c, false, func(err error) { t.Error(err) })
	}
	if err := check(); err != nil {
		t.Error("check of what init made:", err)
	}
	if err := run(); err != nil {
		t.Error("a good one:", err)
	}
	refused := func(what, says string, tries ...func() error) {
		t.Helper()
		for _, try := range tries {
			if err := try(); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v, want %q", what, err, says)
			}
		}
	}
	chmod := func(name string, mode os.FileMode) {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	chmod("ca/clients.key", 0o644)
	refused("a key that others can read", "chmod 0600", run, check)
	chmod("ca/clients.key", 0o600)

	// The root's key, left beside the configuration.
	clear, err := os.ReadFile(root)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "backup.key"), clear, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	refused("a root's key in clear", "take it offline", run, check)
	if err := os.Remove(filepath.Join(dir, "backup.key")); err != nil {
		t.Fatal(err)
	}

	made = newCA(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	edit(t, made.Config, "metrics:\n  listen: \"127.0.0.1:0\"", "metrics:\n  listen: \""+l.Addr().String()+"\"")
	refused("a port that is taken", "metrics.listen", run)
	refused("again", "metrics.listen", run) // and not: the database is in use
}
