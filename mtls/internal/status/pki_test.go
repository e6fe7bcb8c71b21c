package status

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

const (
	responderURL = "http://ocsp.test"
	listURL      = "http://crl.test/part7.crl"
)

// authority is a certificate and its key.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func ecKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var serials struct {
	sync.Mutex
	last int64
}

// issue makes a certificate for key; by nil: it signs itself. It is valid for
// ten days around now.
func issue(t testing.TB, by *authority, key crypto.Signer, mod func(*x509.Certificate)) *authority {
	t.Helper()
	serials.Lock()
	serials.last++
	n := serials.last
	serials.Unlock()
	c := &x509.Certificate{
		SerialNumber: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(0x81), 120), big.NewInt(n)), // 16 octets, the first above 127
		NotBefore:    time.Now().Add(-5 * 24 * time.Hour), NotAfter: time.Now().Add(5 * 24 * time.Hour),
		BasicConstraintsValid: true,
	}
	mod(c)
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

// newCA makes a root.
func newCA(t testing.TB, name string, key crypto.Signer) *authority {
	t.Helper()
	return issue(t, nil, key, func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA = name, true
		c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	})
}

// newLeaf makes a certificate with the pointers.
func newLeaf(t testing.TB, ca *authority, ocspURL, crlURL string) *x509.Certificate {
	t.Helper()
	return issue(t, ca, ecKey(t), func(c *x509.Certificate) {
		c.Subject, c.DNSNames = pkix.Name{CommonName: "web"}, []string{"web.test"}
		if ocspURL != "" {
			c.OCSPServer = []string{ocspURL}
		}
		if crlURL != "" {
			c.CRLDistributionPoints = []string{crlURL}
		}
	}).cert
}

// newResponder makes a delegated responder.
func newResponder(t testing.TB, ca *authority, mod func(*x509.Certificate)) *authority {
	t.Helper()
	return issue(t, ca, ecKey(t), func(c *x509.Certificate) {
		c.Subject.CommonName = "responder"
		c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
		if mod != nil {
			mod(c)
		}
	})
}

// answerFor makes an OCSP response with golang.org/x/crypto/ocsp, which isn't
// what reads it here. by nil: the issuer signs.
func answerFor(t testing.TB, ca, by *authority, cert *x509.Certificate, now time.Time, mod func(*ocsp.Response)) []byte {
	t.Helper()
	r := ocsp.Response{Status: ocsp.Good, SerialNumber: cert.SerialNumber, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(3 * time.Hour)}
	signer := ca
	if by != nil {
		signer, r.Certificate = by, by.cert
	}
	if mod != nil {
		mod(&r)
	}
	der, err := ocsp.CreateResponse(ca.cert, signer.cert, r, signer.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func revoke(now time.Time) func(*ocsp.Response) {
	return func(r *ocsp.Response) {
		r.Status, r.RevokedAt, r.RevocationReason = ocsp.Revoked, now.Add(-time.Minute), ocsp.KeyCompromise
	}
}

// listOf makes a CRL with crypto/x509.
func listOf(t testing.TB, ca *authority, number int64, now time.Time, mod func(*x509.RevocationList), revoked ...*x509.Certificate) []byte {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(3 * time.Hour)}
	for _, c := range revoked {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: now.Add(-time.Hour), ReasonCode: 1})
	}
	if mod != nil {
		mod(l)
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, ca.cert, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// web is the network: what is asked of it, and what it says.
type web struct {
	mu    sync.Mutex
	calls int
	say   func(*http.Request) (*http.Response, error)
}

func (w *web) RoundTrip(req *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.calls++
	say := w.say
	w.mu.Unlock()
	return say(req)
}

// asked returns how often since the last time.
func (w *web) asked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.calls
	w.calls = 0
	return n
}

func (w *web) set(say func(*http.Request) (*http.Response, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.say = say
}

// body has the web say one thing.
func (w *web) body(b []byte) {
	w.set(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1, Body: io.NopCloser(bytes.NewReader(b))}, nil
	})
}

// hang has the web say nothing until the asker is gone.
func (w *web) hang() {
	w.set(func(req *http.Request) (*http.Response, error) {
		<-req.Context().Done()
		return nil, req.Context().Err()
	})
}

// fail has the web break down.
func (w *web) fail() {
	w.set(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 503, Header: http.Header{}, Body: http.NoBody}, nil
	})
}

func newChecker(t testing.TB, p Policy, w http.RoundTripper) *Checker {
	t.Helper()
	if p.Wait == 0 {
		p.Wait = 5 * time.Second
	}
	c := New(Config{Policy: p, Now: time.Now, Log: slog.New(slog.DiscardHandler), Transport: w})
	t.Cleanup(c.Close)
	return c
}
