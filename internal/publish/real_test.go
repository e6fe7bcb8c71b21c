package publish

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/responder"
	"github.com/chancery-pki/chancery/internal/revocation"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/store"
)

// world is a responder on a real database, published over real HTTP.
type world struct {
	*authority
	db     *store.DB
	url    string
	caFile string
	dir    string
}

const shards = 4

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{authority: newAuthority(t, "servers"), dir: t.TempDir()}
	var err error
	if w.db, err = store.Open(t.Context(), store.Options{DSN: filepath.Join(w.dir, "ca.db"), UnsafeSync: true}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.url = "http://" + l.Addr().String()
	queue, err := signer.NewQueue(signer.QueueOptions{}, &signer.Signer{Signer: w.key, URI: "file:test", Parallel: 1})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	r, err := responder.New(responder.Options{DB: w.db, Replica: "test", Logger: log, Authorities: []responder.Authority{{
		Certificate: w.cert, Queue: queue, OCSP: &responder.OCSP{}, CRL: &responder.CRL{Shards: shards, PointURL: w.point},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(Options{Source: r, Certificates: []*x509.Certificate{w.cert}, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	server := HTTPServer(p)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	running.Go(func() { server.Serve(l) })
	t.Cleanup(func() { cancel(); server.Close(); running.Wait(); w.db.Close() })
	w.caFile = w.write(t, "ca.pem", pemOf(w.cert))
	for shard := range shards + 1 {
		w.until(t, "the lists are there", func() bool { l, _ := r.List(w.keyID, shard); return l != nil })
	}
	return w
}

func (w *world) point(shard int) string {
	return fmt.Sprintf("%s/crl/%s/%d.crl", w.url, w.keyID, shard)
}

func (w *world) write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func (w *world) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for begun := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > 8*time.Second {
			t.Fatal("not in 8 seconds: ", what)
		}
	}
}

// leaf is a certificate on disk, which points to our OCSP and to its shard.
type leaf struct {
	*x509.Certificate
	serial        cert.Serial
	shard         int
	file, keyFile string
}

func (w *world) issue(t *testing.T) leaf {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	l := leaf{serial: cert.NewSerial()}
	l.shard = revocation.Shard(l.serial, shards)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: l.serial.Big(), Subject: pkix.Name{CommonName: "web.internal"}, DNSNames: []string{"web.internal"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		OCSPServer:  []string{w.url + "/ocsp"}, CRLDistributionPoints: []string{w.point(l.shard)},
	}, w.cert, key.Public(), w.key)
	if err != nil {
		t.Fatal(err)
	}
	if l.Certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	l.file = w.write(t, string(l.serial)+".pem", append(pemOf(l.Certificate), pemOf(w.cert)...))
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	l.keyFile = w.write(t, string(l.serial)+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	err = w.db.Update(t.Context(), func(tx *store.Tx) error {
		return tx.InsertCertificate(cert.Certificate{
			Serial: l.serial, State: cert.Issued, Directory: "main", IssuerKeyID: w.keyID, KeyHash: "00", DER: der, CRLShard: l.shard,
			Names: []protocol.Identifier{{Type: protocol.DNS, Value: "web.internal"}}, NotBefore: l.NotBefore, NotAfter: l.NotAfter,
		}, time.Time{})
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (w *world) revoke(t *testing.T, l leaf) {
	t.Helper()
	err := w.db.Update(t.Context(), func(tx *store.Tx) error {
		if _, err := tx.RevokeCertificate(l.serial, cert.Revoked{At: tx.Now(), Reason: cert.KeyCompromise}); err != nil {
			return err
		}
		for _, shard := range []int{0, l.shard} {
			if _, err := tx.NextNumber(store.RevisionName(w.keyID, shard), 1); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// run runs a real program, which must be there, without anybody's proxy.
func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("this test needs %s (apt-get install %s): %v", name, name, err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = []string{"no_proxy=127.0.0.1", "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// OpenSSL as a relying party over real HTTP: by OCSP, with SHA-1 and SHA-256
// and a nonce that isn't answered, and by the CRL shard to which the
// certificate points.
func TestOpenSSL(t *testing.T) {
	w := newWorld(t)
	good, bad := w.issue(t), w.issue(t)
	ask := func(l leaf, more ...string) string {
		t.Helper()
		args := append([]string{"ocsp"}, more...) // the digest comes before the certificate
		out, err := run(t, "openssl", append(args, "-issuer", w.caFile, "-CAfile", w.caFile, "-url", w.url+"/ocsp", "-cert", l.file)...)
		if err != nil || !strings.Contains(out, "Response verify OK") {
			t.Errorf("openssl ocsp: %v\n%s", err, out)
		}
		return out
	}
	verify := func(l leaf) (string, error) {
		return run(t, "openssl", "verify", "-crl_check", "-crl_download", "-extended_crl", "-CAfile", w.caFile, l.file)
	}
	for _, hash := range []string{"-sha1", "-sha256"} {
		if out := ask(good, hash); !strings.Contains(out, ": good") {
			t.Errorf("%s: a good certificate:\n%s", hash, out)
		}
		if out := ask(bad, hash, "-no_nonce"); !strings.Contains(out, ": good") {
			t.Errorf("%s: not withdrawn yet:\n%s", hash, out)
		}
	}
	if out, err := verify(bad); err != nil || !strings.Contains(out, "OK") {
		t.Errorf("not withdrawn yet: %v\n%s", err, out)
	}
	w.revoke(t, bad)
	for _, hash := range []string{"-sha1", "-sha256"} {
		if out := ask(bad, hash); !strings.Contains(out, ": revoked") || !strings.Contains(out, "keyCompromise") {
			t.Errorf("%s: a withdrawn certificate:\n%s", hash, out)
		}
	}
	w.until(t, "the shard has it", func() bool {
		out, err := verify(bad)
		return err != nil && strings.Contains(out, "certificate revoked")
	})
	if out, err := verify(good); err != nil || !strings.Contains(out, "OK") {
		t.Errorf("a good certificate: %v\n%s", err, out)
	}
	stranger := w.issue(t)
	if err := w.db.Update(t.Context(), func(tx *store.Tx) error { _, err := tx.SweepCertificates(time.Now().Add(2*time.Hour), 100); return err }); err != nil {
		t.Fatal(err)
	}
	out, _ := run(t, "openssl", "ocsp", "-issuer", w.caFile, "-CAfile", w.caFile, "-url", w.url+"/ocsp/", "-cert", stranger.file)
	if !strings.Contains(out, "unauthorized (6)") {
		t.Errorf("a certificate that nobody knows:\n%s", out)
	}
}

// nginx staples our answers: its clients get them in the handshake. It staples
// no bad news, and says so.
func TestNginxStaples(t *testing.T) {
	w := newWorld(t)
	good, bad := w.issue(t), w.issue(t)
	w.revoke(t, bad)
	pool := x509.NewCertPool()
	pool.AddCert(w.cert)
	shake := func(address string) (stapled []byte) {
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: pool, ServerName: "web.internal"})
		if err != nil {
			return nil // it isn't there yet
		}
		defer conn.Close()
		return conn.OCSPResponse()
	}
	address, _ := startNginx(t, w, good)
	var stapled []byte
	w.until(t, "nginx staples", func() bool { // it fetches at the first handshake
		stapled = shake(address)
		return len(stapled) > 0
	})
	o, err := ocsp.ParseResponseForCert(stapled, good.Certificate, w.cert)
	if err != nil || o.Status != ocsp.Good {
		t.Errorf("%v, %+v", err, o)
	}
	address, log := startNginx(t, w, bad)
	w.until(t, "nginx hears of the revocation", func() bool {
		if shake(address) != nil {
			t.Fatal("a withdrawn certificate was stapled")
		}
		return strings.Contains(log.String(), `certificate status "revoked"`)
	})
}

// startNginx serves HTTPS with the certificate, and returns where, and its log.
func startNginx(t *testing.T, w *world, l leaf) (address string, log *lockedBuffer) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = free.Addr().String()
	free.Close()
	dir := t.TempDir()
	conf := fmt.Sprintf(`
		daemon off; master_process off; pid %[1]s/pid; error_log stderr warn; worker_processes 1;
		events { worker_connections 64; }
		http {
			access_log off;
			client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
			server {
				listen %[2]s ssl;
				ssl_certificate %[3]s; ssl_certificate_key %[4]s; ssl_trusted_certificate %[5]s;
				ssl_stapling on; ssl_stapling_verify on;
			}
		}`, dir, address, l.file, l.keyFile, w.caFile)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("nginx")
	if err != nil {
		t.Fatal("this test needs nginx (apt-get install nginx-light): ", err)
	}
	log = &lockedBuffer{}
	cmd := exec.Command(path, "-p", dir, "-c", file)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("nginx: %s", log)
		}
	})
	return address, log
}

// lockedBuffer is written to by one goroutine and read by another.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

// Go's own HTTP client, both ways; the connection is used again.
func TestOverHTTP(t *testing.T) {
	w := newWorld(t)
	l := w.issue(t)
	der := w.ask(t, l.serial, crypto.SHA1)
	for range 3 {
		got, err := http.Post(w.url+"/ocsp", "application/ocsp-request", bytes.NewReader(der))
		if err != nil {
			t.Fatal(err)
		}
		if s := status(t, w.authority, got); s != ocsp.Good {
			t.Errorf("POST: status %d", s)
		}
		for name, path := range paths(der) {
			got, err := http.Get(w.url + path)
			if err != nil {
				t.Fatal(err)
			}
			if s := status(t, w.authority, got); s != ocsp.Good {
				t.Errorf("GET %s: status %d", name, s)
			}
		}
	}
}
