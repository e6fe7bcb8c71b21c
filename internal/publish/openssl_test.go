package publish

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
)

// OpenSSL as a relying party that knows nothing but the root: it fetches the
// list from where the certificate points, over real HTTP, and goes by it.
func TestOpenSSLFetchesTheList(t *testing.T) {
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("this test needs the openssl command: ", err)
	}
	a := newAuthority(t, "servers")
	o := options(t, a)
	made := make(chan Generation, 10)
	o.Made = func(g Generation) { made <- g }
	p := newPublisher(t, o)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := HTTPServer(p)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	running.Go(func() { server.Serve(l) })
	t.Cleanup(func() { cancel(); server.Close(); running.Wait() })

	serial := cert.NewSerial()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial.Big(), Subject: pkix.Name{CommonName: "web.internal"}, DNSNames: []string{"web.internal"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		CRLDistributionPoints: []string{"http://" + l.Addr().String() + a.crlPath()},
	}, a.cert, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	root, leaf := filepath.Join(dir, "root.pem"), filepath.Join(dir, "leaf.pem")
	for file, der := range map[string][]byte{root: a.cert.Raw, leaf: der} {
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verify := func() (string, error) {
		cmd := exec.CommandContext(ctx, path, "verify", "-crl_check", "-crl_download", "-CAfile", root, leaf)
		cmd.Env = []string{"no_proxy=127.0.0.1"} // and nobody's proxy
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	next := func() Generation {
		select {
		case g := <-made:
			return g
		case <-time.After(10 * time.Second):
			t.Fatal("no list was made in ten seconds")
			return Generation{}
		}
	}
	if g := next(); g.Err != nil {
		t.Fatal(g.Err)
	}
	if out, err := verify(); err != nil || !strings.Contains(out, "OK") {
		t.Errorf("a good certificate: %v\n%s", err, out)
	}
	a.revoke(serial, time.Now().Add(time.Hour))
	if g := next(); g.Err != nil || g.Entries != 1 {
		t.Fatalf("%+v", g)
	}
	if out, err := verify(); err == nil || !strings.Contains(out, "certificate revoked") {
		t.Errorf("a withdrawn certificate: %v\n%s", err, out)
	}
}
