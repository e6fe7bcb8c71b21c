package issuer

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

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
		"ocsp":        func(r *Request) { r.Profile.Revocation = cert.RevocationOCSP },
		"crl+ocsp":    func(r *Request) { r.Profile.Revocation = cert.RevocationBoth },
		"many names": func(r *Request) {
			r.Names = ids("b.example", "a.example", "*.c.example", "xn--bcher-kva.example", "192.0.2.1", "2001:db8::1")
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
		var crl, ocsp []string
		if kind := r.Profile.Revocation; kind == cert.RevocationCRL || kind == cert.RevocationBoth {
			crl = []string{"http://pki.example/crl/" + string(cert.SerialOf(c.SerialNumber)[:1])}
		}
		if kind := r.Profile.Revocation; kind == cert.RevocationOCSP || kind == cert.RevocationBoth {
			ocsp = []string{"http://pki.example/ocsp"}
		}
		if !slices.Equal(c.CRLDistributionPoints, crl) || !slices.Equal(c.OCSPServer, ocsp) {
			t.Errorf("CRL %v, want %v; OCSP %v, want %v", c.CRLDistributionPoints, crl, c.OCSPServer, ocsp)
		}
		if says := none != nil && !none.Critical && bytes.Equal(none.Value, []byte{5, 0}); says != (r.Profile.Revocation == cert.RevocationNone) {
			t.Errorf("noRevAvail %+v with revocation %s", none, r.Profile.Revocation)
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
			SubjectKeyId: c.SubjectKeyId, IssuingCertificateURL: c.IssuingCertificateURL, CRLDistributionPoints: c.CRLDistributionPoints, OCSPServer: c.OCSPServer,
		}
		for _, id := range r.Names {
			// crypto/x509 writes dns names first, and so do the requests here.
			if id.Type == protocol.DNS {
				template.DNSNames = append(template.DNSNames, id.Value)
			} else {
				template.IPAddresses = append(template.IPAddresses, net.ParseIP(id.Value))
			}
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

// TestLateDates: RFC 5280 section 4.1.2.5 has UTCTime through 2049 and
// GeneralizedTime after.
func TestLateDates(t *testing.T) {
	p := newPKI(t, cert.P256, CA{})
	const years = 365 * 24 * time.Hour
	var err error
	if p.root, err = NewRoot(p.rootKey, CA{CommonName: "Long Root", Now: now, Lifetime: 60 * years}); err != nil {
		t.Fatal(err)
	}
	if p.ca, err = NewIntermediate(p.root, p.rootKey, p.caKey.Public(), CA{CommonName: "Long CA", Now: now, Lifetime: 50 * years}); err != nil {
		t.Fatal(err)
	}
	r := request(t)
	r.Profile.MaxLifetime = 40 * years
	for _, tt := range []struct {
		to   time.Time
		tags string // of notBefore and notAfter
	}{
		{time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC), "1717"},
		{time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC), "1718"},
	} {
		r.NotAfter = tt.to
		c := issue(t, p.local(t), r)
		from := c.NotBefore.Format("060102150405Z")
		at := bytes.Index(c.RawTBSCertificate, []byte(from))
		if !c.NotAfter.Equal(tt.to) || at < 0 || hex.EncodeToString([]byte{c.RawTBSCertificate[at-2], c.RawTBSCertificate[at+len(from)]}) != tt.tags {
			t.Errorf("%v: read back as %v, or the wrong kind of time", tt.to, c.NotAfter)
		}
	}
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
	// The operator's faults, and the caller's, are no problems of the client.
	for name, edit := range map[string]func(*Request){
		"no names":         func(r *Request) { r.Names = nil },
		"no dates":         func(r *Request) { r.NotBefore, r.NotAfter = time.Time{}, time.Time{} },
		"dates swapped":    func(r *Request) { r.NotBefore, r.NotAfter = r.NotAfter, r.NotBefore },
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
		"revocation":       func(r *Request) { r.Profile.Revocation = "rumour" },
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
