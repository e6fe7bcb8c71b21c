package status

import (
	"bufio"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func writePEM(t *testing.T, dir, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func writeKey(t *testing.T, dir, name string, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return writePEM(t, dir, name, "PRIVATE KEY", der)
}

// openSSLResponder runs "openssl ocsp" for two answers and returns its URL.
func openSSLResponder(t *testing.T, ca, by *authority, index string) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("this test needs the openssl command: ", err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.txt"), []byte(index), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, "ocsp", "-port", "0", "-index", filepath.Join(dir, "index.txt"), "-ndays", "1",
		"-CA", writePEM(t, dir, "ca.pem", "CERTIFICATE", ca.cert.Raw), "-rsigner", writePEM(t, dir, "signer.pem", "CERTIFICATE", by.cert.Raw),
		"-rkey", writeKey(t, dir, "key.pem", by.key))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, address, ok := strings.Cut(lines.Text(), "ACCEPT "); ok { // ACCEPT 0.0.0.0:46519 PID=17
			address, _, _ = strings.Cut(address, " ")
			return "http://127.0.0.1" + address[strings.LastIndexByte(address, ':'):]
		}
	}
	t.Fatal("openssl ocsp doesn't listen")
	return ""
}

// OpenSSL as a foreign responder: good, revoked, and unknown, signed by the
// issuer's key of each kind, and by a delegated responder.
func TestOpenSSLResponder(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"ECDSA": ecKey(t), "RSA": rsaKey, "Ed25519": edKey, "delegated": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var ca, by *authority
			if key != nil {
				ca = newCA(t, "ca", key)
				by = ca
			} else {
				ca = newCA(t, "ca", ecKey(t))
				by = newResponder(t, ca, nil)
			}
			good, bad := newLeaf(t, ca, responderURL, ""), newLeaf(t, ca, responderURL, "")
			index := fmt.Sprintf("V\t%s\t\t%X\tunknown\t/CN=web\nR\t%s\t%s,keyCompromise\t%X\tunknown\t/CN=web\n",
				good.NotAfter.Format("060102150405Z"), good.SerialNumber, bad.NotAfter.Format("060102150405Z"),
				time.Now().Add(-time.Hour).UTC().Format("060102150405Z"), bad.SerialNumber)
			url := openSSLResponder(t, ca, by, index)
			c := newChecker(t, Policy{Prefer: OCSP, Hard: true, Wait: 20 * time.Second}, nil)
			for _, test := range []struct {
				cert *x509.Certificate
				want want
			}{{good, allowed}, {bad, gone}, {newLeaf(t, ca, responderURL, ""), refused}} {
				test.cert.OCSPServer = []string{url}
				expect(t, check(t, c, nil, test.cert, ca.cert), test.want, "OpenSSL's answer")
			}
			good.OCSPServer = []string{url + "/" + strings.Repeat("x", 200)} // by POST
			if _, _, err := c.Staple(t.Context(), good, ca.cert); err != nil {
				t.Error("by POST: ", err)
			}
		})
	}
}

// OpenSSL's list.
func TestOpenSSLList(t *testing.T) {
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("this test needs the openssl command: ", err)
	}
	ca := newCA(t, "ca", ecKey(t))
	dir := t.TempDir()
	good, bad := newLeaf(t, ca, "", listURL), newLeaf(t, ca, "", listURL)
	config := fmt.Sprintf("[ca]\ndefault_ca=d\n[d]\ndatabase=%[1]s/index.txt\ncrlnumber=%[1]s/crlnumber\ndefault_md=sha384\ndefault_crl_days=1\ncrl_extensions=e\n"+
		"[e]\nauthorityKeyIdentifier=keyid\nissuingDistributionPoint=critical,@p\n[p]\nfullname=URI:%[2]s\nonlyuser=TRUE\n", dir, listURL)
	index := fmt.Sprintf("R\t%s\t%s,keyCompromise\t%X\tunknown\t/CN=web\n", bad.NotAfter.Format("060102150405Z"), time.Now().UTC().Format("060102150405Z"), bad.SerialNumber)
	for name, text := range map[string]string{"config": config, "index.txt": index, "crlnumber": "1000\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "crl.pem")
	cmd := exec.CommandContext(t.Context(), path, "ca", "-config", filepath.Join(dir, "config"), "-gencrl", "-out", out,
		"-cert", writePEM(t, dir, "ca.pem", "CERTIFICATE", ca.cert.Raw), "-keyfile", writeKey(t, dir, "key.pem", ca.key))
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	l, err := verifyCRL(block.Bytes, good, ca.cert, time.Now())
	if err != nil || l.number.Int64() != 0x1000 {
		t.Fatalf("%+v, %v", l, err)
	}
	says(t, l, good, Good)
	says(t, l, bad, Revoked)
}
