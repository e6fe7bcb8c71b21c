package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// pki is the cluster's own CA: it certifies the API server and its
// administrator, and nothing else.
type pki struct {
	t    testing.TB
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// newPKI makes the CA and puts its certificate into ca.crt of the folder.
func newPKI(t testing.TB, dir string) *pki {
	t.Helper()
	p := &pki{t: t, dir: dir}
	p.key = p.newKey("ca.key")
	p.cert = p.sign("ca.crt", p.key, &x509.Certificate{
		Subject: pkix.Name{CommonName: "kubernetes"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return p
}

// server writes NAME.crt and NAME.key for the API server.
func (p *pki) server(name string) {
	p.t.Helper()
	p.sign(name+".crt", p.newKey(name+".key"), &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		DNSNames:    []string{"localhost", "kubernetes.default.svc"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
}

// client writes NAME.crt and NAME.key for a user of that name, in a group that
// the API server knows from the certificate's organization.
func (p *pki) client(name, group string) {
	p.t.Helper()
	p.sign(name+".crt", p.newKey(name+".key"), &x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: []string{group}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// pair writes NAME.key and its public key, NAME.pub.
func (p *pki) pair(name string) {
	p.t.Helper()
	der, err := x509.MarshalPKIXPublicKey(p.newKey(name + ".key").Public())
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(name+".pub", "PUBLIC KEY", der)
}

// newKey makes a P-256 key and writes it to a file.
func (p *pki) newKey(name string) *ecdsa.PrivateKey {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(name, "PRIVATE KEY", der)
	return key
}

// sign makes a certificate of a day that the CA signs, or itself while there is
// no CA, and writes it to a file.
func (p *pki) sign(name string, key *ecdsa.PrivateKey, c *x509.Certificate) *x509.Certificate {
	p.t.Helper()
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	c.KeyUsage |= x509.KeyUsageDigitalSignature
	parent := p.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(name, "CERTIFICATE", der)
	made, err := x509.ParseCertificate(der)
	if err != nil {
		p.t.Fatal(err)
	}
	return made
}

func (p *pki) write(name, kind string, der []byte) {
	p.t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(filepath.Join(p.dir, name), text, 0o600); err != nil {
		p.t.Fatal(err)
	}
}
