package issuer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// TestToken: one token, one signature, of exactly the bytes that were planned.
func TestToken(t *testing.T) {
	p := newPKI(t, cert.P256, CA{})
	l := p.local(t)
	r := request(t)
	token, err := l.Prepare(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	other := newPKI(t, cert.P256, CA{}).local(t)
	if _, err := other.Issue(t.Context(), token); !errors.Is(err, ErrWrongIssuer) {
		t.Errorf("another issuer: err = %v", err)
	}
	for _, bad := range []*Prepared{nil, {}, {TBS: token.TBS, Serial: token.Serial}} {
		if _, err := l.Issue(t.Context(), bad); !errors.Is(err, ErrWrongIssuer) {
			t.Errorf("a token of nobody's: err = %v", err)
		}
	}

	planned := bytes.Clone(token.TBS)
	token.TBS[len(token.TBS)-1] ^= 1 // whoever changes the copy changes nothing
	var certs atomic.Int32
	var der atomic.Value
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			b, err := l.Issue(t.Context(), token)
			if err == nil {
				certs.Add(1)
				der.Store(b)
			} else if !errors.Is(err, ErrUsed) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if certs.Load() != 1 {
		t.Fatalf("%d certificates came of one token", certs.Load())
	}
	c, err := x509.ParseCertificate(der.Load().([]byte))
	if err != nil {
		t.Fatal(err)
	}
	hash, _ := keyHash(r.PublicKey)
	switch {
	case !bytes.Equal(c.RawTBSCertificate, planned):
		t.Error("it isn't what was planned")
	case cert.SerialOf(c.SerialNumber) != token.Serial || len(token.Serial) != 32:
		t.Errorf("serial %s, planned %s", cert.SerialOf(c.SerialNumber), token.Serial)
	case !c.NotBefore.Equal(token.NotBefore) || !c.NotAfter.Equal(token.NotAfter):
		t.Error("other dates than planned")
	case token.IssuerKeyID != hex.EncodeToString(p.ca.SubjectKeyId) || token.KeyHash != hash:
		t.Errorf("key %s, hash %s", token.IssuerKeyID, token.KeyHash)
	case l.Wait(signer.Request{}) <= 0:
		t.Error("no wait expected")
	}

	// After a crash: the same bytes again, and with an ECDSA key in memory the
	// very same certificate.
	again, err := l.Resume(planned, signer.Request{})
	if err != nil {
		t.Fatal(err)
	}
	if again.Serial != token.Serial || again.KeyHash != token.KeyHash || again.IssuerKeyID != token.IssuerKeyID || !again.NotAfter.Equal(token.NotAfter) {
		t.Errorf("resumed as %+v", again)
	}
	planned[len(planned)-1] ^= 1
	b, err := l.Issue(t.Context(), again)
	if err != nil || !bytes.Equal(b, c.Raw) {
		t.Errorf("signed again: another certificate (%v)", err)
	}
	if _, err := other.Resume(again.TBS[:len(again.TBS)-1], signer.Request{}); err == nil {
		t.Error("a cut plan was resumed")
	}
}

func TestResumeRefuses(t *testing.T) {
	p := newPKI(t, cert.P256, CA{})
	l := p.local(t)
	good, err := l.Prepare(t.Context(), request(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newPKI(t, cert.P256, CA{}).local(t).Resume(good.TBS, signer.Request{}); !errors.Is(err, ErrWrongIssuer) {
		t.Errorf("another issuer: %v", err)
	}
	rsaIssuer := newPKI(t, cert.RSA2048, CA{}).local(t)
	if _, err := rsaIssuer.Resume(good.TBS, signer.Request{}); !errors.Is(err, ErrWrongIssuer) {
		t.Errorf("another kind of issuer: %v", err)
	}
	if _, err := l.Resume(make([]byte, maxTBS+1), signer.Request{}); err == nil {
		t.Error("a huge plan was resumed")
	}
	// Whatever stands in the database, only what Prepare could have made is
	// signed. Each of these is well-formed and names us.
	base := x509.Certificate{
		SerialNumber: cert.NewSerial().Big(), NotBefore: now, NotAfter: now.Add(time.Hour), DNSNames: []string{"a.example"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	key := newKey(t, cert.P256)
	spki, _ := x509.MarshalPKIXPublicKey(key.Public())
	base.SubjectKeyId = keyID(spki)
	plan := func(edit func(*x509.Certificate)) []byte {
		template := base
		edit(&template)
		der, err := x509.CreateCertificate(rand.Reader, &template, p.ca, key.Public(), p.caKey)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c.RawTBSCertificate
	}
	if _, err := l.Resume(plan(func(*x509.Certificate) {}), signer.Request{}); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	extra := func(critical bool, value []byte, id ...int) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: id, Critical: critical, Value: value})
		}
	}
	for name, tt := range map[string]struct {
		edit func(*x509.Certificate)
		says string
	}{
		"a CA":              {func(c *x509.Certificate) { c.IsCA = true }, "CA:FALSE"},
		"no constraints":    {func(c *x509.Certificate) { c.BasicConstraintsValid = false }, "2.5.29.19 is missing"},
		"signs certs":       {func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }, "key usage"},
		"signs CRLs":        {func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }, "key usage"},
		"no key usage":      {func(c *x509.Certificate) { c.KeyUsage = 0 }, "2.5.29.15 is missing"},
		"no EKU":            {func(c *x509.Certificate) { c.ExtKeyUsage = nil }, "2.5.29.37 is missing"},
		"any EKU":           {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }, "extended key usage"},
		"signs OCSP":        {func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) }, "extended key usage"},
		"odd EKU":           {func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3}} }, "extended key usage"},
		"no names":          {func(c *x509.Certificate) { c.DNSNames = nil; c.Subject.CommonName = "a.example" }, "2.5.29.17 is missing"},
		"an email":          {func(c *x509.Certificate) { c.EmailAddresses = []string{"a@example"} }, "names nothing"},
		"a short serial":    {func(c *x509.Certificate) { c.SerialNumber = cert.Serial("0badc0ffee").Big() }, "128 bits"},
		"dates beyond ours": {func(c *x509.Certificate) { c.NotAfter = p.ca.NotAfter.Add(time.Second) }, "outside the issuing"},
		"dates before ours": {func(c *x509.Certificate) { c.NotBefore = p.ca.NotBefore.Add(-time.Second) }, "outside the issuing"},
		"another SKI":       {func(c *x509.Certificate) { c.SubjectKeyId = []byte("somebody") }, "subject key identifier"},
		"two OCSP servers":  {func(c *x509.Certificate) { c.OCSPServer = []string{"http://o.example", "http://p.example"} }, "OCSP"},
		"SAN not critical": {func(c *x509.Certificate) {
			c.Subject.CommonName = "x"
			c.RawSubject = nil
			c.ExtraExtensions = sanTwice()
		}, "critical"},
		"unknown":           {extra(false, []byte{5, 0}, 1, 2, 3), "1.2.3 is unknown"},
		"unknown, critical": {extra(true, []byte{5, 0}, 1, 2, 3), "critical extension 1.2.3"},
		"policies": {func(c *x509.Certificate) {
			c.Policies = []x509.OID{{}}
			c.Policies[0], _ = x509.OIDFromInts([]uint64{1, 2, 3})
		}, "2.5.29.32 is unknown"},
		"noRevAvail wrong": {extra(false, []byte{1, 1, 0}, 2, 5, 29, 56), "isn't NULL"},
		"noRevAvail crit":  {extra(true, []byte{5, 0}, 2, 5, 29, 56), "2.5.29.56"},
		"noRevAvail + CRL": {func(c *x509.Certificate) {
			c.CRLDistributionPoints = []string{"http://x.example"}
			extra(false, []byte{5, 0}, 2, 5, 29, 56)(c)
		}, "beside a CRL"},
	} {
		if _, err := l.Resume(plan(tt.edit), signer.Request{}); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: err = %v, want %q", name, err, tt.says)
		}
	}
}

// sanTwice is a critical subjectAltName where the subject isn't empty.
func sanTwice() []pkix.Extension {
	return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: []byte{0x30, 0x0b, 0x82, 0x09, 'a', '.', 'e', 'x', 'a', 'm', 'p', 'l', 'e'}}}
}

// faulty signs something else, as a computer with a fault does.
type faulty struct{ *ecdsa.PrivateKey }

func (f faulty) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	digest = bytes.Clone(digest)
	digest[7] ^= 0x10
	return f.PrivateKey.Sign(r, digest, o)
}

func TestFaultySignature(t *testing.T) {
	p := newPKI(t, cert.P256, CA{})
	a := p.authority()
	a.Queue = queueOf(faulty{p.caKey.(*ecdsa.PrivateKey)})
	l, err := New(Config{Name: "x", Authorities: []Authority{a}}, now)
	if err != nil {
		t.Fatal(err)
	}
	token, err := l.Prepare(t.Context(), request(t))
	if err != nil {
		t.Fatal(err)
	}
	if der, err := l.Issue(t.Context(), token); !errors.Is(err, ErrBadSignature) || der != nil {
		t.Errorf("err = %v, %d bytes", err, len(der))
	}
}

// TestIssueCancelled: a client that goes away leaves the queue, and its plan
// can be resumed.
func TestIssueCancelled(t *testing.T) {
	p := newPKI(t, cert.P256, CA{})
	l := p.local(t)
	token, err := l.Prepare(t.Context(), request(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Issue(ctx, token); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	if _, err := l.Issue(t.Context(), token); !errors.Is(err, ErrUsed) {
		t.Errorf("err = %v", err)
	}
	again, err := l.Resume(token.TBS, signer.Request{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Issue(t.Context(), again); err != nil {
		t.Error(err)
	}
}

// TestPoolOfSigners: the plans of a burst are spread over idle keys, each
// certificate names its own CA certificate, and a full queue says so.
func TestPoolOfSigners(t *testing.T) {
	var c Config
	var all []pki
	for range 3 {
		p := newPKI(t, cert.P256, CA{})
		all = append(all, p)
		c.Authorities = append(c.Authorities, p.authority())
	}
	l, err := New(c, now)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for range 30 {
		leaf := issue(t, l, request(t))
		keyID := hex.EncodeToString(leaf.AuthorityKeyId)
		chain, n, err := l.Chain(keyID, 0)
		if err != nil || n != 1 || len(chain) != 1 {
			t.Fatalf("chain of %d, %d alternates, %v", len(chain), n, err)
		}
		parent, _ := x509.ParseCertificate(chain[0])
		if err := leaf.CheckSignatureFrom(parent); err != nil {
			t.Error(err)
		}
		count[keyID]++
	}
	for _, p := range all {
		if count[hex.EncodeToString(p.ca.SubjectKeyId)] == 0 {
			t.Error("a key was never tried")
		}
	}
}

func TestQueueFull(t *testing.T) {
	p := newPKI(t, cert.P256, CA{})
	hold := make(chan struct{})
	a := p.authority()
	queue, err := signer.NewQueue(signer.QueueOptions{Depth: 1}, &signer.Signer{Signer: held{p.caKey, hold}, Parallel: 1})
	if err != nil {
		t.Fatal(err)
	}
	a.Queue = queue
	l, err := New(Config{Authorities: []Authority{a}}, now)
	if err != nil {
		t.Fatal(err)
	}
	tokens := make([]*Prepared, 3)
	for i := range tokens {
		if tokens[i], err = l.Prepare(t.Context(), request(t)); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			if _, err := l.Issue(t.Context(), tokens[i]); err != nil {
				t.Error(err)
			}
		})
	}
	for a.Queue.Stats().Waiting[schedule.Issuance] == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := l.Issue(t.Context(), tokens[2]); !errors.Is(err, signer.ErrFull) {
		t.Errorf("err = %v, want signer.ErrFull", err)
	}
	close(hold)
	wg.Wait()
}

type held struct {
	crypto.Signer
	until chan struct{}
}

func (h held) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	<-h.until
	return h.Signer.Sign(r, digest, o)
}

func FuzzResume(f *testing.F) {
	p := newPKI(f, cert.P256, CA{})
	l := p.local(f)
	for _, edit := range []func(*Request){
		func(*Request) {},
		func(r *Request) { r.Profile.CommonName = true; r.Profile.Revocation = cert.RevocationCRL },
		func(r *Request) { r.Names = ids("192.0.2.1", "2001:db8::1", "*.a.example") },
	} {
		r := request(f)
		edit(&r)
		token, err := l.Prepare(f.Context(), r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(token.TBS)
	}
	f.Add(p.ca.RawTBSCertificate)
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, tbs []byte) {
		token, err := l.Resume(tbs, signer.Request{})
		if err != nil {
			return
		}
		der, err := l.Issue(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if c.IsCA || c.KeyUsage&x509.KeyUsageCertSign != 0 || !bytes.Equal(c.RawTBSCertificate, tbs) || c.CheckSignatureFrom(p.ca) != nil {
			t.Error("the key signed what it must not")
		}
	})
}
