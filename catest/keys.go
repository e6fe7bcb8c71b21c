package catest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	authority "github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/revocation"
	"github.com/chancery-pki/chancery/internal/signer"
)

// The CAs' own certificates hold for any clock that a test may have; bubbles of
// testing/synctest begin in 2000.
var (
	firstDay = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	lastDay  = time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
)

// keys are the roots and the issuing CAs.
type keys struct {
	published string // base URL of what tells of revocations; "": nothing does

	mu      sync.Mutex
	roots   []*certified // newest last
	issuing []*certified // likewise; those before it sign no certificates any more
}

// certified is a CA's key with its certificate, which begins each chain up to
// a root.
type certified struct {
	key    *ecdsa.PrivateKey
	queue  *signer.Queue // nil: a root
	chains [][]*x509.Certificate
	lists  atomic.Int64 // the number of the last CRL
}

func (c *certified) certificate() *x509.Certificate { return c.chains[0][0] }

func newKeys(published string) (*keys, error) {
	k := &keys{published: published}
	if err := k.addRoot(); err != nil {
		return nil, err
	}
	return k, k.addIssuing()
}

// naming says what the n-th CA of a kind is called.
func naming(kind string, n int) issuer.CA {
	return issuer.CA{CommonName: fmt.Sprintf("catest %s %d", kind, n), Organization: "Test", Now: firstDay, Lifetime: lastDay.Sub(firstDay)}
}

// addRoot makes a root, which the one before certifies too.
func (k *keys) addRoot() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	name := naming("root CA", len(k.roots)+1)
	root, err := issuer.NewRoot(key, name)
	if err != nil {
		return err
	}
	added := &certified{key: key, chains: [][]*x509.Certificate{{root}}}
	if len(k.roots) > 0 {
		before := k.roots[len(k.roots)-1]
		cross, err := issuer.CrossSign(root, before.certificate(), before.key, name)
		if err != nil {
			return err
		}
		added.chains = append(added.chains, []*x509.Certificate{cross, before.certificate()})
	}
	k.roots = append(k.roots, added)
	return nil
}

// addIssuing makes an issuing CA under the newest root.
func (k *keys) addIssuing() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	queue, err := signer.NewQueue(signer.QueueOptions{}, &signer.Signer{Signer: key, URI: "catest:", Parallel: runtime.GOMAXPROCS(0)})
	if err != nil {
		return err
	}
	root := k.roots[len(k.roots)-1]
	c, err := issuer.NewIntermediate(root.certificate(), root.key, key.Public(), naming("issuing CA", len(k.issuing)+1))
	if err != nil {
		return err
	}
	added := &certified{key: key, queue: queue}
	for _, above := range root.chains {
		added.chains = append(added.chains, append([]*x509.Certificate{c}, above...))
	}
	k.issuing = append(k.issuing, added)
	return nil
}

// issuers are what the authority signs with: the newest issuing CA; of those
// before it the chains are known still.
func (k *keys) issuers(now time.Time) (map[string]authority.Issuer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.Before(firstDay) || !now.Before(lastDay) {
		return nil, errors.New("the clock must show a time between 1999 and 2099")
	}
	c := issuer.Config{Name: issuerName}
	for i, each := range k.issuing {
		a := issuer.Authority{Chains: each.chains}
		if i == len(k.issuing)-1 {
			a.Queue = each.queue
		}
		if k.published != "" {
			id := hex.EncodeToString(each.certificate().SubjectKeyId)
			a.IssuerURL, a.OCSPURL = k.published+"/ca/"+id+".cer", k.published+"/ocsp"
			a.CRLURL = func(cert.Serial) (string, int) { return k.published + "/crl/" + id + ".crl", 0 }
		}
		c.Authorities = append(c.Authorities, a)
	}
	local, err := issuer.New(c, now)
	return map[string]authority.Issuer{issuerName: local}, err
}

func (k *keys) newest() *certified {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.issuing[len(k.issuing)-1]
}

func (k *keys) rootCertificates() (all []*x509.Certificate) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, root := range k.roots {
		all = append(all, root.certificate())
	}
	return all
}

// withKeyID finds an issuing CA, nil for none.
func (k *keys) withKeyID(id []byte) *certified {
	return k.find(func(c *x509.Certificate) bool { return bytes.Equal(c.SubjectKeyId, id) })
}

// issuerOf finds the issuing CA that a request is about, nil for none.
func (k *keys) issuerOf(q *revocation.OCSPRequest) *certified {
	return k.find(func(c *x509.Certificate) bool {
		hashes := revocation.HashIssuer(c)
		return hashes.Match(q)
	})
}

func (k *keys) find(fits func(*x509.Certificate) bool) *certified {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.issuing {
		if fits(c.certificate()) {
			return c
		}
	}
	return nil
}

// serverCertificate is for the directory's own listener, under the first root.
func (k *keys) serverCertificate(host string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: cert.NewSerial().Big(), NotBefore: firstDay, NotAfter: lastDay,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	root := k.roots[0]
	der, err := x509.CreateCertificate(rand.Reader, template, root.certificate(), key.Public(), root.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
