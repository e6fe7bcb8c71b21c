package main

import (
	"crypto/ecdsa"
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
)

// What takes the server's own packages still builds in its module.
func TestInsideBuilds(t *testing.T) {
	root, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	_, err = output(t.Context(), root, []string{"GOWORK=off"}, "go", "vet", "./bench/slowkeys/inside/main.go")
	if err != nil {
		t.Fatal(err)
	}
}

// OpenSSL makes the same OCSP request.
func TestOCSPRequest(t *testing.T) {
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	ca := issuerOf(t, key)
	const serial = "4a1b2bb23b90e302257b9f28add31775"
	ours, err := ocspRequest(ca, serial)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, out := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "request")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := exec.Command("openssl", "ocsp", "-issuer", file, "-serial", "0x"+serial, "-no_nonce", "-reqout", out).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	theirs, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if string(ours) != string(theirs) {
		t.Errorf("ours    %x\nOpenSSL %x", ours, theirs)
	}
}

func issuerOf(t *testing.T, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Issuer"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOCSPStatus(t *testing.T) {
	for der, want := range map[string]int{"\x30\x03\x0a\x01\x03": tryLater, "\x30\x05\x0a\x01\x00\xa0\x00": successful} {
		if got, err := ocspStatus([]byte(der)); err != nil || got != want {
			t.Errorf("%x: %d, %v", der, got, err)
		}
	}
	if _, err := ocspStatus([]byte("<html>")); err == nil {
		t.Error("a web page has a status")
	}
}

func TestNumbers(t *testing.T) {
	at := arrivals(2.5, 400*time.Second)
	if len(at) < 900 || len(at) > 1100 || at[len(at)-1] >= 400*time.Second {
		t.Errorf("%d arrivals, the last at %v; want about 1000", len(at), at[len(at)-1])
	}
	waits := make([]time.Duration, 100)
	for i := range waits {
		waits[i] = time.Duration(100 - i)
	}
	for q, want := range map[float64]time.Duration{0: 1, .5: 50, .99: 99, 1: 100} {
		if got := quantile(waits, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if median([]float64{3, 1, 2}) != 2 || median([]float64{4, 1, 2, 3}) != 2.5 || median(nil) != 0 {
		t.Error("medians are wrong")
	}
	if got := listed([]int{1, 2, 4}); got != "1, 2 and 4" {
		t.Errorf("listed as %q", got)
	}
	m := metrics{values: map[string]float64{`a_total{key="k",class="ocsp"}`: 2, `a_total{key="l",class="crl"}`: 3, `a_totals`: 5, `a`: 7}}
	if m.sum("a_total") != 5 || m.sum("a_total", `class="ocsp"`) != 2 || m.sum("a_total", `key="k"`, "crl") != 0 || m.sum("a") != 7 {
		t.Error("metrics are summed wrongly")
	}
}

func TestOptions(t *testing.T) {
	if _, err := parse([]string{"--only", "storm,rain"}); err == nil || !strings.Contains(err.Error(), "rain") {
		t.Errorf("--only rain: %v", err)
	}
	o, err := parse([]string{"--quick", "--only", "list,pool"})
	if err != nil || !o.quick || len(o.only) != 2 {
		t.Errorf("%+v, %v", o, err)
	}
}
