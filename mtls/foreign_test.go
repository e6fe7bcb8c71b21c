package mtls

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/mtls/acl"
)

// files writes a certificate, its key and the root for programs that aren't
// Go's.
func (h *house) files(cert *tls.Certificate) (chain, key, root string) {
	h.t.Helper()
	dir := h.t.TempDir()
	chain, key, root = filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "root.pem")
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		h.t.Fatal(err)
	}
	var certs []byte
	for _, c := range cert.Certificate {
		certs = append(certs, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	for file, data := range map[string][]byte{
		chain: certs, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		root: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.root.Raw}),
	} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
	return chain, key, root
}

func foreign(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("this test needs the %s command: %v", name, err)
	}
	return exec.CommandContext(bounded30(t), name, args...)
}

func TestCurlCalls(t *testing.T) {
	h := newHouse(t, "Example")
	addr := site(t, h.identity("127.0.0.1"), acl.Allow("a.batch.internal"), nil)
	chain, key, root := h.files(h.leaf("a.batch.internal"))
	out, err := foreign(t, "curl", "-sS", "--cacert", root, "--cert", chain, "--key", key, "https://"+addr+"/").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "a.batch.internal true HTTP/") {
		t.Errorf("%v: %s", err, out)
	}
	out, err = foreign(t, "curl", "-sS", "--cacert", root, "https://"+addr+"/").CombinedOutput()
	if err == nil || strings.Contains(string(out), "true") {
		t.Errorf("without a certificate: %s", out)
	}
}

func TestOpenSSLCalls(t *testing.T) {
	h := newHouse(t, "Example")
	g := greet(t, h.identity("web.prod.internal").Server(acl.Allow("a.batch.internal")))
	for name, in := range map[string]bool{"a.batch.internal": true, "a.other.internal": false} {
		chain, key, root := h.files(h.leaf(name))
		cmd := foreign(t, "openssl", "s_client", "-connect", g.addr, "-servername", "web.prod.internal", "-verify_hostname", "web.prod.internal",
			"-CAfile", root, "-cert", chain, "-cert_chain", chain, "-key", key, "-verify_return_error", "-quiet")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		word := make([]byte, 5)
		if _, err := io.ReadFull(out, word); (string(word) == "hello") != in {
			t.Errorf("%s: %q, %v", name, word, err)
		}
		cmd.Process.Kill() // it would stay
		cmd.Wait()
	}
	if n := g.reached.Load(); n != 1 {
		t.Errorf("%d came in", n)
	}
}

func TestOpenSSLIsCalled(t *testing.T) {
	h := newHouse(t, "Example")
	chain, key, root := h.files(h.leaf("localhost"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cmd := foreign(t, "openssl", "s_server", "-accept", addr, "-cert_chain", chain, "-cert", chain, "-key", key, "-CAfile", root, "-Verify", "3", "-verify_return_error", "-naccept", "1", "-rev")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "ACCEPT") {
	}
	go func() {
		for lines.Scan() {
		}
	}()
	_, port, _ := net.SplitHostPort(addr)
	conn, err := h.identity("a.batch.internal").Dial(bounded30(t), "tcp", "localhost:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	conn.Write([]byte("day\n"))
	if got, err := bufio.NewReader(conn).ReadString('\n'); err != nil || got != "yad\n" {
		t.Errorf("%q, %v", got, err)
	}
}
