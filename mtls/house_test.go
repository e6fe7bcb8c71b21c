package mtls

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/mtls/acl"
)

// house is a CA for tests of connections: a root and an issuing CA below it.
type house struct {
	t       testing.TB
	root    *x509.Certificate
	issuing *tls.Certificate
}

func newHouse(t testing.TB, name string) *house {
	t.Helper()
	root := issue(t, nil, func(c *x509.Certificate) { asCA(c, name+" root") })
	return &house{t, root.Leaf, issue(t, root, func(c *x509.Certificate) { asCA(c, name+" issuing") })}
}

func asCA(c *x509.Certificate, name string) {
	c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = name, true, true, x509.KeyUsageCertSign
	c.ExtKeyUsage = nil
}

var serials struct {
	sync.Mutex
	last int64
}

// issue makes a certificate for both usages, signed by its parent or itself.
func issue(t testing.TB, parent *tls.Certificate, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	serials.Lock()
	serials.last++
	serial := big.NewInt(serials.last)
	serials.Unlock()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		Subject: pkix.Name{}, BasicConstraintsValid: true,
	}
	change(template)
	signer, by := any(key), template
	if parent != nil {
		signer, by = parent.PrivateKey, parent.Leaf
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// leaf makes a certificate for names: dns names, addresses, or URIs.
func (h *house) leaf(names ...string) *tls.Certificate {
	h.t.Helper()
	return h.odd(func(c *x509.Certificate) {}, names...)
}

func (h *house) odd(change func(*x509.Certificate), names ...string) *tls.Certificate {
	h.t.Helper()
	c := issue(h.t, h.issuing, func(c *x509.Certificate) {
		for _, n := range names {
			if ip := net.ParseIP(n); ip != nil {
				c.IPAddresses = append(c.IPAddresses, ip)
			} else if strings.Contains(n, "://") {
				u, err := url.Parse(n)
				if err != nil {
					h.t.Fatal(err)
				}
				c.URIs = append(c.URIs, u)
			} else {
				c.DNSNames = append(c.DNSNames, n)
			}
		}
		change(c)
	})
	c.Certificate = append(c.Certificate, h.issuing.Certificate...)
	return c
}

// identity is one of that house, with a certificate for the names as server
// and client, which trusts the house.
func (h *house) identity(names ...string) *Identity {
	h.t.Helper()
	return h.identityOf(h.leaf(names...))
}

// changing is a policy that tests change.
type changing struct{ atomic.Pointer[acl.Rules] }

func (c *changing) Allow(p *acl.Peer) error                       { return c.Load().Allow(p) }
func (c *changing) AllowRequest(p *acl.Peer, r acl.Request) error { return c.Load().AllowRequest(p, r) }

// journal is a log that tests read.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

func (id *Identity) journal() *journal {
	j := new(journal)
	id.log = slog.New(slog.NewTextHandler(j, nil))
	return j
}

// bounded30 is a context that no test should outlive.
func bounded30(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}
