package issued

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCA(t testing.TB, name string, parent *authority, usages ...x509.ExtKeyUsage) *authority {
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, ExtKeyUsage: usages, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(1000 * time.Hour)}
	signer := &authority{template, key}
	if parent != nil {
		signer = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, key.Public(), signer.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return &authority{cert, key}
}

func (a *authority) issue(t testing.TB, key *ecdsa.PrivateKey, change func(*x509.Certificate)) []byte {
	template := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{"A.test", "b.test"}, IPAddresses: []net.IP{net.ParseIP("192.0.2.1")},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func pool(as ...*authority) *x509.CertPool {
	p := x509.NewCertPool()
	for _, a := range as {
		p.AddCert(a.cert)
	}
	return p
}

func TestCheck(t *testing.T) {
	root := newCA(t, "root", nil)
	middle := newCA(t, "middle", root)
	clientsOnly := newCA(t, "clients only", root, x509.ExtKeyUsageClientAuth)
	stranger := newCA(t, "stranger", nil)
	key := newKey(t)
	set := func(change func(c *x509.Certificate)) [][]byte {
		return [][]byte{middle.issue(t, key, change), middle.cert.Raw}
	}
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	for _, tc := range []struct {
		name   string
		chain  [][]byte
		usages []x509.ExtKeyUsage
		want   string // error; "" none
	}{
		{"as asked", set(nil), []x509.ExtKeyUsage{server}, ""},
		{"both usages", set(nil), []x509.ExtKeyUsage{server, client}, ""},
		{"root included", append(set(nil), root.cert.Raw), []x509.ExtKeyUsage{server}, ""},
		{"a SPIFFE ID beside", set(func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "x", Path: "/y"}} }), []x509.ExtKeyUsage{server}, ""},
		{"starts in a moment", set(func(c *x509.Certificate) { c.NotBefore = now.Add(4 * time.Minute) }), []x509.ExtKeyUsage{server}, ""},
		{"no usage extension", set(func(c *x509.Certificate) { c.ExtKeyUsage = nil }), []x509.ExtKeyUsage{server, client}, ""},
		{"nothing", nil, nil, "empty"},
		{"garbage", [][]byte{[]byte("x")}, nil, "certificate 1"},
		{"garbage after", [][]byte{set(nil)[0], []byte("x")}, nil, "certificate 2"},
		{"another's key", [][]byte{middle.issue(t, newKey(t), nil), middle.cert.Raw}, nil, "another key"},
		{"a CA as leaf", set(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }), nil, "is a CA's"},
		{"may sign certificates", set(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }), nil, "is a CA's"},
		{"expired", set(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }), nil, "ended already"},
		{"from the future", set(func(c *x509.Certificate) { c.NotBefore = now.Add(10 * time.Minute) }), nil, "isn't valid before"},
		{"wrong usage", set(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{client} }), []x509.ExtKeyUsage{server}, "not for serverAuth"},
		{"half the usage", set(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{server} }), []x509.ExtKeyUsage{server, client}, "not for clientAuth"},
		{"one name less", set(func(c *x509.Certificate) { c.DNSNames = c.DNSNames[:1] }), nil, "lacks the name b.test"},
		{"no address", set(func(c *x509.Certificate) { c.IPAddresses = nil }), nil, "lacks the name 192.0.2.1"},
		{"one name more", set(func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "*.test") }), nil, `"*.test", for which nobody asked`},
		{"an address more", set(func(c *x509.Certificate) { c.IPAddresses = append(c.IPAddresses, net.ParseIP("::1")) }), nil, `"::1", for which nobody asked`},
		{"a mail address more", set(func(c *x509.Certificate) { c.EmailAddresses = []string{"x@a.test"} }), nil, "nobody asked"},
		{"no intermediate", set(nil)[:1], []x509.ExtKeyUsage{server}, "leads to no root"},
		{"a stranger's", [][]byte{stranger.issue(t, key, nil), stranger.cert.Raw}, []x509.ExtKeyUsage{server}, "leads to no root"},
		{"an intermediate for clients only", [][]byte{clientsOnly.issue(t, key, nil), clientsOnly.cert.Raw}, []x509.ExtKeyUsage{server}, "leads to no root"},
	} {
		w := Wanted{Names: []string{"a.test", "b.TEST", "192.0.2.1"}, Usages: tc.usages, Key: key.Public(), Roots: []*x509.CertPool{pool(), pool(root)}, Now: now}
		if w.Usages == nil {
			w.Usages = []x509.ExtKeyUsage{server}
		}
		certs, err := w.Check(tc.chain)
		switch {
		case tc.want == "" && (err != nil || len(certs) != len(tc.chain)):
			t.Errorf("%s: %v", tc.name, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

// FuzzCheck: no chain makes it panic, and none that it takes is for another
// key.
func FuzzCheck(f *testing.F) {
	root, key := newCA(f, "root", nil), newKey(f)
	w := Wanted{Names: []string{"a.test", "b.test", "192.0.2.1"}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, Key: key.Public(), Roots: []*x509.CertPool{pool(root)}, Now: now}
	f.Add(root.issue(f, key, nil), root.cert.Raw)
	f.Add(root.issue(f, key, func(c *x509.Certificate) { c.IsCA = true }), []byte{})
	f.Fuzz(func(t *testing.T, leaf, issuer []byte) {
		certs, err := w.Check([][]byte{leaf, issuer})
		if err == nil && !certs[0].PublicKey.(*ecdsa.PublicKey).Equal(key.Public()) {
			t.Error("another key's certificate was taken")
		}
	})
}
