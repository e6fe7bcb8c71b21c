package revocation_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/revocation"
)

// openssl runs the real thing, which must be there, and returns what it said.
func openssl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("this test needs the openssl command: ", err)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	return string(out), err
}

func write(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// OpenSSL as a relying party: it takes the list, refuses a withdrawn
// certificate by name of the fault, takes another one, and refuses a list that
// was changed on the way.
func TestOpenSSL(t *testing.T) {
	key := newKey(t)
	ca := newCA(t, key, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(-time.Hour) })
	leaf := func(serial cert.Serial) string {
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: serial.Big(), Subject: pkix.Name{CommonName: "web.internal"}, DNSNames: []string{"web.internal"},
			NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}, ca, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return write(t, "leaf.pem", "CERTIFICATE", der)
	}
	bad, good := cert.Serial("80"+strings.Repeat("ab", 15)), cert.Serial(strings.Repeat("7f", 16))
	l := list(ca, revocation.Entry{Serial: "0102", At: time.Now()}, revocation.Entry{Serial: bad, At: time.Now(), Reason: cert.Superseded})
	l.ThisUpdate, l.NextUpdate, l.Number = time.Now().Add(-time.Minute), time.Now().Add(time.Hour), 1<<40
	der := crl(t, l, key)
	caFile, crlFile := write(t, "ca.pem", "CERTIFICATE", ca.Raw), write(t, "crl.pem", "X509 CRL", der)

	out, err := openssl(t, "crl", "-in", crlFile, "-CAfile", caFile, "-noout", "-text")
	if err != nil || !strings.Contains(out, "verify OK") {
		t.Fatalf("openssl crl: %v\n%s", err, out)
	}
	for _, want := range []string{
		"Version 2", new(big.Int).Lsh(big.NewInt(1), 40).String(), "Serial Number: 80AB", "Superseded",
		"X509v3 Authority Key Identifier", "Serial Number: 0102",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("openssl crl doesn't show %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "Unspecified") {
		t.Errorf("reason unspecified should be left out (RFC 5280 section 5.3.1):\n%s", out)
	}
	verify := func(leaf, crl string) (string, error) {
		return openssl(t, "verify", "-crl_check", "-x509_strict", "-CAfile", caFile, "-CRLfile", crl, leaf)
	}
	if out, err := verify(leaf(good), crlFile); err != nil {
		t.Errorf("a good certificate: %v\n%s", err, out)
	}
	if out, err := verify(leaf(bad), crlFile); err == nil || !strings.Contains(out, "certificate revoked") {
		t.Errorf("a withdrawn certificate: %v\n%s", err, out)
	}
	i := strings.Index(string(der), strings.Repeat("\xab", 15))
	der[i+3] ^= 1 // another serial
	if out, err := verify(leaf(bad), write(t, "forged.pem", "X509 CRL", der)); err == nil || !strings.Contains(out, "CRL signature failure") {
		t.Errorf("a forged list: %v\n%s", err, out)
	}
}
