package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
)

// now is the tests' present: no clock is read.
var now = time.Date(2026, 11, 21, 12, 30, 15, 999_999_999, time.UTC)

func newKey(t testing.TB, typ cert.KeyType) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch typ {
	case cert.P256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case cert.P384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case cert.P521:
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case cert.Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case cert.RSA2048:
		return rsaKey()
	default:
		t.Fatalf("no key of type %s", typ)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rsaKey is one key for all tests: making one takes long.
var rsaKey = sync.OnceValue(func() crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func queueOf(key crypto.Signer) *signer.Queue {
	queue, err := signer.NewQueue(signer.QueueOptions{}, &signer.Signer{Signer: key, Parallel: 2})
	if err != nil {
		panic(err) // only for no signer at all
	}
	return queue
}

// pki is a root and an issuing CA under it.
type pki struct {
	rootKey, caKey crypto.Signer
	root, ca       *x509.Certificate
}

func newPKI(t testing.TB, typ cert.KeyType, intermediate CA) pki {
	t.Helper()
	p := pki{rootKey: newKey(t, cert.P384), caKey: newKey(t, typ)}
	name := string(cert.NewSerial()[:8]) // CAs of different keys must not share a name
	var err error
	if p.root, err = NewRoot(p.rootKey, CA{CommonName: "Test Root " + name, Organization: "Tests", Now: now}); err != nil {
		t.Fatal(err)
	}
	intermediate.Now = now
	intermediate.CommonName = "Test Issuing CA " + name
	if p.ca, err = NewIntermediate(p.root, p.rootKey, p.caKey.Public(), intermediate); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p pki) chain() []*x509.Certificate { return []*x509.Certificate{p.ca, p.root} }

func (p pki) authority() Authority {
	return Authority{
		Queue:     queueOf(p.caKey),
		Chains:    [][]*x509.Certificate{p.chain()},
		IssuerURL: "http://pki.example/ca.cer",
		OCSPURL:   "http://pki.example/ocsp",
		CRLURL:    func(s cert.Serial) (string, int) { return "http://pki.example/crl/" + string(s[:1]), 3 },
	}
}

func (p pki) local(t testing.TB) *Local {
	t.Helper()
	l, err := New(Config{Name: "test", Authorities: []Authority{p.authority()}}, now)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func profile() cert.Profile {
	return cert.Profile{
		Name: "tls", Usages: []cert.Usage{cert.Server}, Lifetime: 24 * time.Hour, MaxLifetime: 7 * 24 * time.Hour,
		Backdate: time.Minute, KeyTypes: allTypes, Revocation: cert.RevocationNone,
	}
}

func ids(names ...string) []protocol.Identifier {
	var all []protocol.Identifier
	for _, name := range names {
		typ := protocol.DNS
		if strings.ContainsAny(name[:1], "0123456789") || strings.Contains(name, ":") {
			typ = protocol.IP
		}
		all = append(all, protocol.Identifier{Type: typ, Value: name})
	}
	return all
}

// request is one that succeeds.
func request(t testing.TB) Request {
	t.Helper()
	from := now.Add(-time.Minute)
	return Request{
		Profile: profile(), Names: ids("a.example"), PublicKey: newKey(t, cert.P256).Public(),
		NotBefore: from, NotAfter: from.Add(24*time.Hour - time.Second), Now: now,
	}
}

func issue(t testing.TB, l *Local, r Request) *x509.Certificate {
	t.Helper()
	p, err := l.Prepare(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	der, err := l.Issue(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func verify(c *x509.Certificate, usage x509.ExtKeyUsage, chain ...*x509.Certificate) error {
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}
	o.Roots.AddCert(chain[len(chain)-1])
	for _, c := range chain[:len(chain)-1] {
		o.Intermediates.AddCert(c)
	}
	_, err := c.Verify(o)
	return err
}

func writePEM(t testing.TB, certs ...*x509.Certificate) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "*.pem")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range certs {
		if err := pem.Encode(f, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Clean(f.Name())
}

// openssl runs the real tool, which is on every Debian; its absence is a
// failure.
func openssl(t testing.TB, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command("openssl", args...).CombinedOutput()
	return string(out), err
}
