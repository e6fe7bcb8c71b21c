package revocation_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
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

// issue makes a certificate for tests with openssl, valid now.
func issue(t *testing.T, ca *x509.Certificate, caKey crypto.Signer, serial cert.Serial, crlPoint string) string {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial.Big(), Subject: pkix.Name{CommonName: "web.internal"}, DNSNames: []string{"web.internal"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if crlPoint != "" {
		template.CRLDistributionPoints = []string{crlPoint}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, newKey(t).Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "leaf.pem", "CERTIFICATE", der)
}

// OpenSSL as a relying party: it takes the list, refuses a withdrawn
// certificate by name of the fault, takes another one, and refuses a list that
// was changed on the way.
func TestOpenSSL(t *testing.T) {
	key := newKey(t)
	ca := newCA(t, key, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(-time.Hour) })
	leaf := func(serial cert.Serial) string { return issue(t, ca, key, serial, "") }
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

// OpenSSL and a partitioned list: it is for the certificates that name it, and
// for no others.
func TestOpenSSLPart(t *testing.T) {
	key := newKey(t)
	ca := newCA(t, key, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(-time.Hour) })
	bad, good := cert.NewSerial(), cert.NewSerial()
	l := list(ca, revocation.Entry{Serial: bad, At: time.Now(), Reason: cert.KeyCompromise})
	l.ThisUpdate, l.NextUpdate, l.Point = time.Now().Add(-time.Minute), time.Now().Add(time.Hour), point
	caFile, crlFile := write(t, "ca.pem", "CERTIFICATE", ca.Raw), write(t, "crl.pem", "X509 CRL", crl(t, l, key))
	out, err := openssl(t, "crl", "-in", crlFile, "-CAfile", caFile, "-noout", "-text")
	if err != nil || !strings.Contains(out, "verify OK") {
		t.Fatalf("openssl crl: %v\n%s", err, out)
	}
	for _, want := range []string{"X509v3 Issuing Distribution Point: critical", "URI:" + point, "Only User Certificates", "Key Compromise"} {
		if !strings.Contains(out, want) {
			t.Errorf("openssl crl doesn't show %q:\n%s", want, out)
		}
	}
	verify := func(leaf string) (string, error) {
		return openssl(t, "verify", "-crl_check", "-x509_strict", "-CAfile", caFile, "-CRLfile", crlFile, leaf)
	}
	if out, err := verify(issue(t, ca, key, good, point)); err != nil {
		t.Errorf("a good certificate of the part: %v\n%s", err, out)
	}
	if out, err := verify(issue(t, ca, key, bad, point)); err == nil || !strings.Contains(out, "certificate revoked") {
		t.Errorf("a withdrawn certificate: %v\n%s", err, out)
	}
	if out, err := verify(issue(t, ca, key, good, strings.Replace(point, "/3.crl", "/4.crl", 1))); err == nil || !strings.Contains(out, "different CRL scope") {
		t.Errorf("a certificate of another part: %v\n%s", err, out)
	}
}

// liveCA is one for openssl, which looks at the clock.
func liveCA(t *testing.T, key crypto.Signer) *x509.Certificate {
	return newCA(t, key, func(c *x509.Certificate) {
		c.NotBefore, c.KeyUsage = time.Now().Add(-time.Hour), c.KeyUsage|x509.KeyUsageDigitalSignature
	})
}

// live dates a response for the clock.
func live(r revocation.OCSPResponse) revocation.OCSPResponse {
	now := time.Now()
	r.ProducedAt, r.ThisUpdate, r.NextUpdate = now, now.Add(-time.Minute), now.Add(time.Hour)
	return r
}

// raw writes DER as it is.
func raw(t *testing.T, name string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, der, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// OpenSSL as a relying party of every kind of key: it asks, we read and
// answer, it verifies.
func TestOpenSSLOCSP(t *testing.T) {
	for algorithm, key := range everyKey(t) {
		for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
			t.Run(algorithm.String()+" "+hash.String(), func(t *testing.T) {
				ca, serial := liveCA(t, key), cert.NewSerial()
				caFile, leaf := write(t, "ca.pem", "CERTIFICATE", ca.Raw), issue(t, ca, key, serial, "")
				request := filepath.Join(t.TempDir(), "req.der")
				digest := "-" + strings.ReplaceAll(strings.ToLower(hash.String()), "-", "")
				if out, err := openssl(t, "ocsp", digest, "-issuer", caFile, "-cert", leaf, "-reqout", request); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				r := readRequest(t, request)
				issuer := revocation.HashIssuer(ca)
				if !issuer.Match(&r) || r.Hash != hash || r.CertSerial() != serial || !r.HasNonce {
					t.Fatalf("%+v", r)
				}
				for _, c := range []struct {
					status  revocation.OCSPStatus
					at      time.Time
					reason  cert.Reason
					mention []string
				}{
					{revocation.Good, time.Time{}, cert.Unspecified, []string{"leaf.pem: good"}},
					{revocation.Revoked, time.Now(), cert.Superseded, []string{"leaf.pem: revoked", "Reason: superseded"}},
				} {
					answer := live(response(ca, serial))
					answer.Hash, answer.Status, answer.RevokedAt, answer.Reason = r.Hash, c.status, c.at, c.reason
					response := raw(t, "resp.der", signed(t, answer, key))
					out, err := openssl(t, "ocsp", digest, "-issuer", caFile, "-cert", leaf, "-no_nonce", "-respin", response, "-CAfile", caFile)
					for _, want := range append(c.mention, "Response verify OK") {
						if err != nil || !strings.Contains(out, want) {
							t.Errorf("%v: no %q: %v\n%s", c.status, want, err, out)
						}
					}
					// No nonce, though one was asked for: RFC 9654 section
					// 2.1 leaves that to us. A warning, no more.
					out, err = openssl(t, "ocsp", "-issuer", caFile, "-reqin", request, "-no_nonce", "-respin", response, "-CAfile", caFile)
					if err != nil || !strings.Contains(out, "no nonce in response") || !strings.Contains(out, "Response verify OK") {
						t.Errorf("%v: %v\n%s", c.status, err, out)
					}
				}
			})
		}
	}
}

func readRequest(t *testing.T, path string) revocation.OCSPRequest {
	t.Helper()
	der, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var r revocation.OCSPRequest
	if err := revocation.ParseOCSPRequest(der, &r); err != nil {
		t.Fatalf("%v: %x", err, der)
	}
	return r
}

// OpenSSL and a delegated responder: nonces come back, unknown is signed, and
// another's certificate isn't taken.
func TestOpenSSLDelegated(t *testing.T) {
	caKey, key, serial := newKey(t), newKey(t), cert.NewSerial()
	ca := liveCA(t, caKey)
	responder := newResponder(t, ca, caKey, key.Public(), func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	})
	if err := revocation.CheckResponder(responder, ca); err != nil {
		t.Fatal(err)
	}
	caFile, leaf := write(t, "ca.pem", "CERTIFICATE", ca.Raw), issue(t, ca, caKey, serial, "")
	request := filepath.Join(t.TempDir(), "req.der")
	if out, err := openssl(t, "ocsp", "-issuer", caFile, "-cert", leaf, "-nonce", "-reqout", request); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r := readRequest(t, request)
	ask := func(answer revocation.OCSPResponse) (string, error) {
		return openssl(t, "ocsp", "-issuer", caFile, "-reqin", request, "-no_nonce", "-respin", raw(t, "resp.der", signed(t, answer, key)), "-CAfile", caFile, "-resp_text")
	}
	answer := live(response(ca, serial))
	answer.Responder, answer.Nonce = responder, r.Nonce
	if out, err := ask(answer); err != nil || !strings.Contains(out, "Response verify OK") || !strings.Contains(out, "Cert Status: good") || strings.Contains(out, "nonce in response") {
		t.Errorf("%v\n%s", err, out)
	}
	answer.Status = revocation.Unknown
	if out, err := ask(answer); err != nil || !strings.Contains(out, "Response verify OK") || !strings.Contains(out, "Cert Status: unknown") {
		t.Errorf("unknown: %v\n%s", err, out)
	}
	answer.Nonce = []byte("another's nonce.")
	if out, _ := ask(answer); !strings.Contains(out, "Nonce Verify error") {
		t.Errorf("another nonce: \n%s", out)
	}
	answer.Nonce, answer.Status = r.Nonce, revocation.Good
	answer.Responder = newResponder(t, liveCA(t, key), key, key.Public(), nil) // another CA of that name
	if out, _ := ask(answer); strings.Contains(out, "Response verify OK") || !strings.Contains(out, "Response Verify Failure") {
		t.Errorf("a stranger's responder: \n%s", out)
	}
}

// What OpenSSL can be made to ask beside plain requests.
func TestOpenSSLRequests(t *testing.T) {
	key := newKey(t)
	ca := liveCA(t, key)
	caFile := write(t, "ca.pem", "CERTIFICATE", ca.Raw)
	first, second := issue(t, ca, key, cert.NewSerial(), ""), issue(t, ca, key, cert.NewSerial(), "")
	request := filepath.Join(t.TempDir(), "req.der")
	if out, err := openssl(t, "ocsp", "-issuer", caFile, "-cert", first, "-cert", second, "-reqout", request); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	der, err := os.ReadFile(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := revocation.ParseOCSPRequest(der, new(revocation.OCSPRequest)); !errors.Is(err, revocation.ErrUnauthorized) {
		t.Errorf("two certificates: %v", err)
	}
	signer := newKey(t)
	keyDER, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	requestor := newCA(t, signer, nil)
	if out, err := openssl(t, "ocsp", "-issuer", caFile, "-serial", "0x0123456789abcdef", "-no_nonce", "-reqout", request,
		"-signer", write(t, "signer.pem", "CERTIFICATE", requestor.Raw), "-signkey", write(t, "signer.key", "PRIVATE KEY", keyDER)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if r := readRequest(t, request); r.CertSerial() != "0123456789abcdef" || r.HasNonce {
		t.Errorf("a signed request: %+v", r)
	}
}

// OpenSSL knows the unsuccessful statuses by name.
func TestOpenSSLErrors(t *testing.T) {
	for status, want := range map[int]string{
		revocation.OCSPMalformedRequest: "malformedrequest (1)", revocation.OCSPInternalError: "internalerror (2)", revocation.OCSPTryLater: "trylater (3)",
		revocation.OCSPSigRequired: "sigrequired (5)", revocation.OCSPUnauthorized: "unauthorized (6)",
	} {
		if out, _ := openssl(t, "ocsp", "-respin", raw(t, "resp.der", revocation.OCSPError(status))); !strings.Contains(out, "Responder Error: "+want) {
			t.Errorf("%d: no %q in\n%s", status, want, out)
		}
	}
}
