package issuer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
)

type x509Certificate = x509.Certificate

func wantProblem(t *testing.T, l *Local, r Request, typ protocol.ProblemType, says string) {
	t.Helper()
	_, err := l.Prepare(t.Context(), r)
	p, ok := errors.AsType[*protocol.Problem](err)
	if !ok || p.Type != typ || !strings.Contains(p.Detail, says) {
		t.Errorf("err = %v, want %s with %q", err, typ, says)
	}
}

// certificates covers the profiles' choices; every test of what is issued runs
// over all of them.
func certificates(t *testing.T, each func(t *testing.T, p pki, r Request, c *x509.Certificate)) {
	edit := map[string]func(*Request){
		"plain":       func(*Request) {},
		"client":      func(r *Request) { r.Profile.Usages = []cert.Usage{cert.Client} },
		"both":        func(r *Request) { r.Profile.Usages = []cert.Usage{cert.Server, cert.Client} },
		"common name": func(r *Request) { r.Profile.CommonName = true },
		"crl":         func(r *Request) { r.Profile.Revocation = cert.RevocationCRL },
		"many names": func(r *Request) {
			r.Names = ids("b.example", "a.example", "192.0.2.1", "2001:db8::1", "*.c.example", "xn--bcher-kva.example")
		},
		"only addresses": func(r *Request) { r.Names = ids("192.0.2.1"); r.Profile.CommonName = true },
		"p-384":          func(r *Request) { r.PublicKey = newKey(t, cert.P384).Public() },
		"p-521":          func(r *Request) { r.PublicKey = newKey(t, cert.P521).Public() },
		"ed25519":        func(r *Request) { r.PublicKey = newKey(t, cert.Ed25519).Public() },
		"rsa server":     func(r *Request) { r.PublicKey = rsaKey().Public() },
		"rsa client": func(r *Request) {
			r.PublicKey, r.Profile.Usages = rsaKey().Public(), []cert.Usage{cert.Client}
		},
	}
	for _, typ := range []cert.KeyType{cert.P256, cert.P384, cert.RSA2048, cert.Ed25519} {
		p := newPKI(t, typ, CA{})
		l := p.local(t)
		for name, edit := range edit {
			t.Run(string(typ)+" "+name, func(t *testing.T) {
				r := request(t)
				edit(&r)
				each(t, p, r, issue(t, l, r))
			})
		}
	}
}

// TestIssued: issue 2's list of what a certificate says, by RFC 5280 sections
// 4.1 and 4.2.
func TestIssued(t *testing.T) {
	certificates(t, func(t *testing.T, p pki, r Request, c *x509.Certificate) {
		isRSA := c.PublicKeyAlgorithm == x509.RSA
		server := slices.Contains(r.Profile.Usages, cert.Server)
		usage := x509.KeyUsageDigitalSignature
		if isRSA && server {
			usage |= x509.KeyUsageKeyEncipherment
		}
		cn := ""
		if r.Profile.CommonName && r.Names[0].Type == protocol.DNS {
			cn = r.Names[0].Value
		}
		switch {
		case c.Version != 3, c.IsCA, !c.BasicConstraintsValid:
			t.Error("not a v3 certificate with CA:FALSE")
		case c.KeyUsage != usage:
			t.Errorf("key usage %b, want %b", c.KeyUsage, usage)
		case c.Subject.String() != pkix.Name{CommonName: cn}.String():
			t.Errorf("subject %q, want CN %q", c.Subject, cn)
		case !bytes.Equal(c.RawIssuer, p.ca.RawSubject) || !bytes.Equal(c.AuthorityKeyId, p.ca.SubjectKeyId):
			t.Error("the issuer isn't named right")
		case len(c.SubjectKeyId) != 20:
			t.Errorf("SKI of %d bytes", len(c.SubjectKeyId))
		case c.SerialNumber.BitLen() <= 120 || c.SerialNumber.BitLen() > 128 || c.SerialNumber.Sign() <= 0:
			t.Errorf("serial %x", c.SerialNumber)
		case !slices.Equal(c.IssuingCertificateURL, []string{"http://pki.example/ca.cer"}):
			t.Errorf("AIA %v", c.IssuingCertificateURL)
		case c.NotAfter.Sub(c.NotBefore) != 24*time.Hour-time.Second:
			t.Errorf("%v long", c.NotAfter.Sub(c.NotBefore))
		}
		san := extensionOf(c, asn1.ObjectIdentifier{2, 5, 29, 17})
		if san == nil || san.Critical != (cn == "") { // section 4.2.1.6
			t.Errorf("subjectAltName: %+v with CN %q", san, cn)
		}
		// RFC 9608 section 2: 2.5.29.56, NULL, never critical, and no pointers.
		none := extensionOf(c, asn1.ObjectIdentifier{2, 5, 29, 56})
		if r.Profile.Revocation == cert.RevocationNone {
			if none == nil || none.Critical || !bytes.Equal(none.Value, []byte{5, 0}) || len(c.CRLDistributionPoints) > 0 {
				t.Errorf("noRevAvail %+v, CRL %v", none, c.CRLDistributionPoints)
			}
		} else if want := "http://pki.example/crl/" + string(cert.SerialOf(c.SerialNumber)[:1]); none != nil || !slices.Equal(c.CRLDistributionPoints, []string{want}) {
			t.Errorf("noRevAvail %+v, CRL %v, want %s", none, c.CRLDistributionPoints, want)
		}
		for _, u := range r.Profile.Usages {
			if err := verify(c, extKeyUsage[u], p.ca, p.root); err != nil {
				t.Error(err)
			}
		}
		if len(c.ExtKeyUsage) != len(r.Profile.Usages) {
			t.Errorf("EKU %v", c.ExtKeyUsage)
		}
	})
}

func extensionOf(c *x509.Certificate, id asn1.ObjectIdentifier) *pkix.Extension {
	for _, e := range c.Extensions {
		if e.Id.Equal(id) {
			return &e
		}
	}
	return nil
}

// TestSameAsStandardLibrary: our encoder and crypto/x509's agree on every byte.
func TestSameAsStandardLibrary(t *testing.T) {
	certificates(t, func(t *testing.T, p pki, r Request, c *x509.Certificate) {
		template := &x509.Certificate{
			SerialNumber: c.SerialNumber, RawSubject: c.RawSubject, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
			KeyUsage: c.KeyUsage, ExtKeyUsage: c.ExtKeyUsage, BasicConstraintsValid: true,
			SubjectKeyId: c.SubjectKeyId, IssuingCertificateURL: c.IssuingCertificateURL, CRLDistributionPoints: c.CRLDistributionPoints,
		}
		for _, id := range r.Names {
			// crypto/x509 writes dns names first, so that order is fixed.
			if id.Type == protocol.DNS {
				template.DNSNames = append(template.DNSNames, id.Value)
			} else {
				template.IPAddresses = append(template.IPAddresses, net.ParseIP(id.Value))
			}
		}
		if i := slices.IndexFunc(r.Names, func(id protocol.Identifier) bool { return id.Type == protocol.IP }); i >= 0 && slices.ContainsFunc(r.Names[i:], func(id protocol.Identifier) bool { return id.Type == protocol.DNS }) {
			t.Skip("mixed order: the names are the same, in another order")
		}
		if r.Profile.Revocation == cert.RevocationNone {
			template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 56}, Value: []byte{5, 0}}}
		}
		der, err := x509.CreateCertificate(rand.Reader, template, p.ca, r.PublicKey, p.caKey)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(theirs.RawTBSCertificate, c.RawTBSCertificate) {
			t.Errorf("ours\n%x\ntheirs\n%x", c.RawTBSCertificate, theirs.RawTBSCertificate)
		}
	})
}

// TestZLint runs every lint that is about certificates as such; those of the
// public web's Baseline Requirements, of browsers and of S/MIME aren't.
func TestZLint(t *testing.T) {
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: lint.SourceList{lint.RFC3279, lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC6960, lint.RFC6962, lint.RFC8813, lint.Community}})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(registry.Names()); n < 100 {
		t.Fatalf("only %d lints", n)
	}
	run := func(t *testing.T, c *x509.Certificate) {
		z, err := zx509.ParseCertificate(c.Raw)
		if err != nil {
			t.Fatal(err)
		}
		for name, result := range zlint.LintCertificateEx(z, registry).Results {
			if result.Status > lint.Pass {
				t.Errorf("%s: %v %s", name, result.Status, result.Details)
			}
		}
	}
	certificates(t, func(t *testing.T, p pki, _ Request, c *x509.Certificate) {
		run(t, c)
		run(t, p.ca)
		run(t, p.root)
	})
	limited := newPKI(t, cert.P256, CA{Usages: []cert.Usage{cert.Server}, PermittedDNS: []string{"example"}, CRLURL: "http://pki.example/root.crl", IssuerURL: "http://pki.example/root.cer"})
	run(t, limited.ca)
}

// TestOpenSSL: the relying party most use, at its strictest.
func TestOpenSSL(t *testing.T) {
	certificates(t, func(t *testing.T, p pki, r Request, c *x509.Certificate) {
		purpose := "sslserver"
		if r.Profile.Usages[0] == cert.Client {
			purpose = "sslclient"
		}
		out, err := openssl(t, "verify", "-x509_strict", "-attime", strconv.FormatInt(now.Unix(), 10), "-purpose", purpose,
			"-CAfile", writePEM(t, p.root), "-untrusted", writePEM(t, p.ca), writePEM(t, c))
		if err != nil || !strings.Contains(out, ": OK") {
			t.Errorf("%v: %s", err, out)
		}
	})
}

func TestRefusals(t *testing.T) {
	p := newPKI(t, cert.P256, CA{})
	l := p.local(t)
	r := request(t)
	r.PublicKey = &rsa.PublicKey{N: random(t, 1024), E: 65537}
	wantProblem(t, l, r, protocol.BadCSR, "1024 bits")
	r = request(t)
	r.Profile.KeyTypes = []cert.KeyType{cert.RSA2048}
	wantProblem(t, l, r, protocol.BadCSR, "P-256 keys are not allowed")
	r.PublicKey = nil
	wantProblem(t, l, r, protocol.BadCSR, "not supported")
	r = request(t)
	r.NotAfter = now.Add(-time.Hour)
	wantProblem(t, l, r, protocol.Malformed, "not in the future")

	// The operator's faults, and the caller's, are no problems of the client.
	for name, edit := range map[string]func(*Request){
		"no names":         func(r *Request) { r.Names = nil },
		"a name twice":     func(r *Request) { r.Names = ids("a.example", "a.example") },
		"upper case":       func(r *Request) { r.Names = ids("A.example") },
		"trailing dot":     func(r *Request) { r.Names = ids("a.example.") },
		"an odd type":      func(r *Request) { r.Names = []protocol.Identifier{{Type: "email", Value: "a@b"}} },
		"no usages":        func(r *Request) { r.Profile.Usages = nil },
		"usage twice":      func(r *Request) { r.Profile.Usages = []cert.Usage{cert.Server, cert.Server} },
		"unknown usage":    func(r *Request) { r.Profile.Usages = []cert.Usage{"code"} },
		"no lifetime":      func(r *Request) { r.Profile.Lifetime = 0 },
		"over the maximum": func(r *Request) { r.Profile.MaxLifetime = time.Hour },
		"backdate":         func(r *Request) { r.Profile.Backdate = r.Profile.Lifetime },
		"no key types":     func(r *Request) { r.Profile.KeyTypes = nil },
		"revocation":       func(r *Request) { r.Profile.Revocation = "ocsp" },
	} {
		r := request(t)
		edit(&r)
		_, err := l.Prepare(t.Context(), r)
		if _, isProblem := errors.AsType[*protocol.Problem](err); err == nil || isProblem {
			t.Errorf("%s: err = %v, want one for the operator", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Prepare(ctx, request(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}

func TestCommonName(t *testing.T) {
	long := strings.Repeat("a", 60) + ".example" // 68 characters: over ub-common-name
	for _, tt := range []struct {
		names []protocol.Identifier
		want  string
	}{
		{ids("b.example", "a.example"), "b.example"},
		{ids("192.0.2.1", "a.example"), "a.example"},
		{ids(long, "a.example"), "a.example"},
		{ids(long), ""},
		{ids("192.0.2.1"), ""},
		{ids(strings.Repeat("a", 56) + ".example"), strings.Repeat("a", 56) + ".example"}, // exactly 64
	} {
		if got := commonName(tt.names); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.names, got, tt.want)
		}
	}
}

// TestToken: RFC-less, and the heart of it: one token, one signature.
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
	hash, _ := KeyHash(r.PublicKey)
	switch {
	case !bytes.Equal(c.RawTBSCertificate, planned):
		t.Error("it isn't what was planned")
	case cert.SerialOf(c.SerialNumber) != token.Serial || len(token.Serial) != 32:
		t.Errorf("serial %s, planned %s", cert.SerialOf(c.SerialNumber), token.Serial)
	case !c.NotBefore.Equal(token.NotBefore) || !c.NotAfter.Equal(token.NotAfter):
		t.Error("other dates than planned")
	case token.IssuerKeyID != hex.EncodeToString(p.ca.SubjectKeyId) || token.KeyHash != hash:
		t.Errorf("key %s, hash %s", token.IssuerKeyID, token.KeyHash)
	case token.Wait() <= 0 || l.Wait() <= 0:
		t.Error("no wait expected")
	}

	// After a crash: the same bytes again, and with an ECDSA key in memory the
	// very same certificate.
	again, err := l.Resume(planned)
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
	if _, err := other.Resume(again.TBS[:len(again.TBS)-1]); err == nil {
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
	if _, err := newPKI(t, cert.P256, CA{}).local(t).Resume(good.TBS); !errors.Is(err, ErrWrongIssuer) {
		t.Errorf("another issuer: %v", err)
	}
	rsaIssuer := newPKI(t, cert.RSA2048, CA{}).local(t)
	if _, err := rsaIssuer.Resume(good.TBS); !errors.Is(err, ErrWrongIssuer) {
		t.Errorf("another kind of issuer: %v", err)
	}
	if _, err := l.Resume(make([]byte, maxTBS+1)); err == nil {
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
	if _, err := l.Resume(plan(func(*x509.Certificate) {})); err != nil {
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
		"an OCSP server":    {func(c *x509.Certificate) { c.OCSPServer = []string{"http://o.example"} }, "OCSP"},
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
		if _, err := l.Resume(plan(tt.edit)); err == nil || !strings.Contains(err.Error(), tt.says) {
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
	again, err := l.Resume(token.TBS)
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
	a.Queue = signer.NewQueue(&signer.Signer{Signer: held{p.caKey, hold}, Parallel: 1}, 1)
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
	for a.Queue.Stats().Waiting[signer.Issuance] == 0 {
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
		token, err := l.Resume(tbs)
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

// BenchmarkIssue against what no issuance can do without: one signature and one
// verification. The two alternate, so that a busy machine slows both.
func BenchmarkIssue(b *testing.B) {
	p := newPKI(b, cert.P256, CA{})
	l := p.local(b)
	r := request(b)
	key := p.caKey.(*ecdsa.PrivateKey)
	digest := make([]byte, 32)
	var floor, prepare, issue time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		sig, err := key.Sign(nil, digest, crypto.SHA256)
		if err != nil || !ecdsa.VerifyASN1(&key.PublicKey, digest, sig) {
			b.Fatal(err)
		}
		floor += time.Since(start)
		start = time.Now()
		token, err := l.Prepare(b.Context(), r)
		if err != nil {
			b.Fatal(err)
		}
		prepare += time.Since(start)
		start = time.Now()
		if _, err := l.Issue(b.Context(), token); err != nil {
			b.Fatal(err)
		}
		issue += time.Since(start)
	}
	b.ReportMetric(float64(floor.Microseconds())/float64(b.N), "floor-µs/op")
	b.ReportMetric(float64(prepare.Microseconds())/float64(b.N), "prepare-µs/op")
	b.ReportMetric(float64(issue.Microseconds())/float64(b.N), "issue-µs/op")
	b.ReportMetric(float64(prepare+issue)/float64(floor), "×floor")
}

func BenchmarkPrepare(b *testing.B) {
	p := newPKI(b, cert.P256, CA{})
	l := p.local(b)
	r := request(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Prepare(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseCSR(b *testing.B) {
	for _, v := range readVectors(b) {
		if v.file == "ok-san.txt" {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseCSR(v.der); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
}
