//go:build go1.27

package issuer

import (
	"crypto"
	"crypto/mldsa"
	"crypto/rand"
	"crypto/x509"
	"testing"

	"github.com/chancery-pki/chancery/internal/cert"
)

// TestMLDSA: RFC 9881 keys, from the CSR to the certificate.
func TestMLDSA(t *testing.T) {
	p := newPKI(t, cert.P256, CA{})
	l := p.local(t)
	for typ, params := range map[cert.KeyType]mldsa.Parameters{cert.MLDSA44: mldsa.MLDSA44(), cert.MLDSA65: mldsa.MLDSA65(), cert.MLDSA87: mldsa.MLDSA87()} {
		key, err := mldsa.GenerateKey(params)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"a.example"}}, key)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := ParseCSR(der)
		if err != nil {
			t.Fatal(err)
		}
		r := request(t)
		r.Profile.KeyTypes = []cert.KeyType{typ}
		r.PublicKey = csr.PublicKey
		c := issue(t, l, r)
		if !c.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(key.PublicKey()) || c.KeyUsage != x509.KeyUsageDigitalSignature {
			t.Errorf("%s: another key, or key usage %b", typ, c.KeyUsage)
		}
		if err := verify(c, x509.ExtKeyUsageServerAuth, p.ca, p.root); err != nil {
			t.Error(err)
		}
		r.Profile.KeyTypes = allTypes
		wantProblem(t, l, r, "badCSR", string(typ)+" keys are not allowed")
	}
}
