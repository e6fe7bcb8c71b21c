package issuer

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
)

// forge signs any CA certificate, also ones that NewIntermediate wouldn't.
func forge(t testing.TB, p pki, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: cert.NewSerial().Big(), Subject: pkix.Name{CommonName: "Forged CA"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte("forged"),
	}
	edit(template)
	der, err := x509.CreateCertificate(rand.Reader, template, p.root, p.caKey.Public(), p.rootKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNewRefuses(t *testing.T) {
	p, other := newPKI(t, cert.P256, CA{}), newPKI(t, cert.P256, CA{})
	shortRoot, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: cert.NewSerial().Big(), Subject: p.root.Subject, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: p.root.SubjectKeyId,
	}, p.root, p.rootKey.Public(), p.rootKey)
	if err != nil {
		t.Fatal(err)
	}
	rootPath0, _ := x509.ParseCertificate(shortRoot)
	impostor, err := NewRoot(other.rootKey, CA{CommonName: p.root.Subject.CommonName, Organization: "Tests", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	asRoot := *p.root
	asRoot.PublicKey = other.rootKey.Public()
	perfectDER, err := x509.CreateCertificate(rand.Reader, &asRoot, &asRoot, other.rootKey.Public(), other.rootKey)
	if err != nil {
		t.Fatal(err)
	}
	perfect, _ := x509.ParseCertificate(perfectDER)
	with := func(edit func(*x509.Certificate)) func(*Authority) {
		return func(a *Authority) { a.Chains[0][0] = forge(t, p, edit) }
	}
	for name, tt := range map[string]struct {
		edit func(*Authority)
		says string
	}{
		"no chain":       {func(a *Authority) { a.Chains = nil }, "no CA certificate"},
		"an empty chain": {func(a *Authority) { a.Chains[0] = nil }, "no CA certificate"},
		"another key":    {func(a *Authority) { a.Queue = other.authority().Queue }, "the key is not the one in CA certificate"},
		"not a CA":       {with(func(c *x509.Certificate) { c.IsCA = false }), "CA:TRUE"},
		"no constraints": {with(func(c *x509.Certificate) { c.BasicConstraintsValid = false }), "CA:TRUE"},
		"no keyCertSign": {with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), "keyCertSign"},
		"no key usage":   {with(func(c *x509.Certificate) { c.KeyUsage = 0 }), "keyCertSign"},
		"expired":        {with(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }), "not valid now"},
		"not yet valid":  {with(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }), "not valid now"},
		"unknown critical": {with(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}), "critical extension"},
		"no root":            {func(a *Authority) { a.Chains[0] = a.Chains[0][:1] }, "chains end with a self-signed root"},
		"another root":       {func(a *Authority) { a.Chains[0][1] = other.root }, "comes next in the chain"},
		"an impostor root":   {func(a *Authority) { a.Chains[0][1] = impostor }, "authority key identifier"},
		"a perfect impostor": {func(a *Authority) { a.Chains[0][1] = perfect }, "not signed by"},
		"wrong order":        {func(a *Authority) { a.Chains[0] = []*x509.Certificate{p.root, p.ca} }, "the key is not"},
		"the chain twice":    {func(a *Authority) { a.Chains[0] = append(a.Chains[0], p.root, p.ca) }, "comes next"},
		"path length":        {func(a *Authority) { a.Chains[0][1] = rootPath0 }, "allows 0 CAs below it"},
		"alternate's key":    {func(a *Authority) { a.Chains = append(a.Chains, other.chain()) }, "not another certificate for the key"},
		"alternate's links":  {func(a *Authority) { a.Chains = append(a.Chains, []*x509.Certificate{p.ca, perfect}) }, "not signed by"},
	} {
		a := p.authority()
		tt.edit(&a)
		_, err := New(Config{Name: "internal", Authorities: []Authority{a}}, now)
		if err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "issuer internal, signer 1") {
			t.Errorf("%s: err = %v, want %q", name, err, tt.says)
		}
	}
	if _, err := New(Config{Name: "x"}, now); err == nil || !strings.Contains(err.Error(), "has no signer") {
		t.Errorf("no signer: err = %v", err)
	}
	if _, err := New(Config{Name: "x", Authorities: []Authority{p.authority(), p.authority()}}, now); err == nil || !strings.Contains(err.Error(), "list it once") {
		t.Errorf("the key twice: err = %v", err)
	}
	// All faults at once.
	bad := p.authority()
	bad.Chains = nil
	if _, err := New(Config{Name: "x", Authorities: []Authority{bad, p.authority(), bad}}, now); err == nil ||
		!strings.Contains(err.Error(), "signer 1") || !strings.Contains(err.Error(), "signer 3") {
		t.Errorf("two faults: err = %v", err)
	}
}

// TestPathLength: RFC 5280 section 4.2.1.9 counts the CAs below.
func TestPathLength(t *testing.T) {
	p := newPKI(t, cert.P256, CA{})
	tier := func(parent *x509.Certificate, parentKey crypto.Signer, path int) (*x509.Certificate, crypto.Signer) {
		key := newKey(t, cert.P256)
		template := &x509.Certificate{
			SerialNumber: cert.NewSerial().Big(), Subject: pkix.Name{CommonName: "Tier " + strconv.Itoa(path)},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign, MaxPathLen: path, MaxPathLenZero: path == 0,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c, key
	}
	for _, tt := range []struct {
		upper, lower int // path lengths; -1: none
		ok           bool
	}{{1, 0, true}, {-1, 0, true}, {0, 0, false}, {0, -1, false}, {5, -1, true}} {
		upper, upperKey := tier(p.root, p.rootKey, tt.upper)
		lower, lowerKey := tier(upper, upperKey, tt.lower)
		_, err := New(Config{Authorities: []Authority{{Queue: queueOf(lowerKey), Chains: [][]*x509.Certificate{{lower, upper, p.root}}}}}, now)
		if tt.ok != (err == nil) || err != nil && !strings.Contains(err.Error(), "allows 0 CAs below it") {
			t.Errorf("%+v: err = %v", tt, err)
		}
	}
}

func TestSupports(t *testing.T) {
	servers := newPKI(t, cert.P256, CA{Usages: []cert.Usage{cert.Server}}).local(t)
	r := request(t)
	if err := servers.Supports(r.Profile); err != nil {
		t.Error(err)
	}
	r.Profile.Usages = []cert.Usage{cert.Client}
	if err := servers.Supports(r.Profile); err == nil || !strings.Contains(err.Error(), `usage "client"`) {
		t.Errorf("a client by a CA for servers: %v", err)
	}
	if _, err := servers.Prepare(t.Context(), r); err == nil {
		t.Error("a client was prepared by a CA for servers")
	}
	p := newPKI(t, cert.P256, CA{})
	a := p.authority()
	a.CRLURL = nil
	l, err := New(Config{Authorities: []Authority{a}}, now)
	if err != nil {
		t.Fatal(err)
	}
	r = request(t)
	r.Profile.Revocation = cert.RevocationCRL
	if err := l.Supports(r.Profile); err == nil || !strings.Contains(err.Error(), "no CRL URL") {
		t.Errorf("a CRL without URL: %v", err)
	}
	a.OCSPURL = ""
	if l, err = New(Config{Authorities: []Authority{a}}, now); err != nil {
		t.Fatal(err)
	}
	r.Profile.Revocation = cert.RevocationOCSP
	if err := l.Supports(r.Profile); err == nil || !strings.Contains(err.Error(), "no OCSP URL") {
		t.Errorf("OCSP without URL: %v", err)
	}
	r.Profile = profile()
	r.Profile.KeyTypes = []cert.KeyType{cert.P256, cert.MLDSA65}
	if err := l.Supports(r.Profile); mldsaBuilt != (err == nil) || err != nil && !strings.Contains(err.Error(), "Go 1.27") {
		t.Errorf("ML-DSA: %v", err)
	}
}

// TestChains: RFC 8555 section 7.4.2's alternates by cross-signing, retired
// authorities, and alternates that have ended.
func TestChains(t *testing.T) {
	old, fresh := newPKI(t, cert.P256, CA{}), newPKI(t, cert.P256, CA{})
	// The new root is also certified by the old one, whom everybody trusts.
	cross, err := CrossSign(fresh.root, old.root, old.rootKey, CA{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	short, err := CrossSign(fresh.root, old.root, old.rootKey, CA{Now: now, Lifetime: caBackdate / 2})
	if err != nil {
		t.Fatal(err)
	}
	// Old certificates need their chain when all who signed are retired; new
	// ones can't be promised.
	left := old.authority()
	left.Queue = nil
	if l, err := New(Config{Name: "x", Authorities: []Authority{left}}, now); err != nil {
		t.Error(err)
	} else if _, _, err := l.Chain(hex.EncodeToString(old.ca.SubjectKeyId), 0); err != nil {
		t.Error(err)
	} else if err := l.Supports(profile()); err == nil || !strings.Contains(err.Error(), "retired") {
		t.Errorf("a profile without signer: %v", err)
	}
	var log bytes.Buffer
	a := fresh.authority()
	a.Chains = append(a.Chains, []*x509.Certificate{fresh.ca, short, old.root}, []*x509.Certificate{fresh.ca, cross, old.root})
	retired := old.authority()
	retired.Queue = nil
	l, err := New(Config{Name: "x", Authorities: []Authority{a, retired}, Log: slog.New(slog.NewTextHandler(&log, nil))}, now)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "alternate chain left out") {
		t.Errorf("no warning: %s", &log)
	}
	leaf := issue(t, l, request(t))
	keyID := hex.EncodeToString(fresh.ca.SubjectKeyId)
	for alternate, want := range [][]*x509.Certificate{{fresh.ca, fresh.root}, {fresh.ca, cross, old.root}} {
		chain, count, err := l.Chain(keyID, alternate)
		if err != nil || count != 2 || len(chain) != len(want)-1 {
			t.Fatalf("alternate %d: %d certificates of %d chains, %v", alternate, len(chain), count, err)
		}
		for i, der := range chain {
			if !bytes.Equal(der, want[i].Raw) {
				t.Errorf("alternate %d: certificate %d is another", alternate, i)
			}
		}
		if err := verify(leaf, x509.ExtKeyUsageServerAuth, want...); err != nil {
			t.Errorf("alternate %d: %v", alternate, err)
		}
		out, err := openssl(t, "verify", "-x509_strict", "-attime", strconv.FormatInt(now.Unix(), 10),
			"-CAfile", writePEM(t, want[len(want)-1]), "-untrusted", writePEM(t, want[:len(want)-1]...), writePEM(t, leaf))
		if err != nil {
			t.Errorf("alternate %d: %s", alternate, out)
		}
	}
	for _, alternate := range []int{-1, 2} {
		if _, count, err := l.Chain(keyID, alternate); err == nil || count != 2 {
			t.Errorf("alternate %d: %v", alternate, err)
		}
	}
	if chain, _, err := l.Chain(hex.EncodeToString(old.ca.SubjectKeyId), 0); err != nil || !bytes.Equal(chain[0], old.ca.Raw) {
		t.Errorf("the retired authority's chain: %v", err)
	}
	if _, _, err := l.Chain("00", 0); !errors.Is(err, ErrUnknownKeyID) {
		t.Errorf("an unknown key: %v", err)
	}
	plan, err := old.local(t).Prepare(t.Context(), request(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Resume(plan.TBS, signer.Request{}); !errors.Is(err, ErrWrongIssuer) {
		t.Errorf("a retired authority's plan: %v", err)
	}
	// Years later the server must still start, and serve what it issued.
	later := now.Add(IntermediateLifetime)
	if _, err := New(Config{Authorities: []Authority{a}}, later); err == nil {
		t.Error("an expired CA certificate may sign")
	}
	next := newPKI(t, cert.P256, CA{})
	next.root, next.ca = laterPKI(t, next, later)
	if _, err := New(Config{Authorities: []Authority{next.authority(), retired}}, later); err != nil {
		t.Errorf("a retired authority that has expired: %v", err)
	}
}

func laterPKI(t *testing.T, p pki, at time.Time) (root, ca *x509.Certificate) {
	root, err := NewRoot(p.rootKey, CA{CommonName: "Later Root", Now: at})
	if err != nil {
		t.Fatal(err)
	}
	ca, err = NewIntermediate(root, p.rootKey, p.caKey.Public(), CA{CommonName: "Later CA", Now: at})
	if err != nil {
		t.Fatal(err)
	}
	return root, ca
}

// TestNameConstraints: what we refuse is what crypto/x509 would refuse of the
// certificate (RFC 5280 section 4.2.1.10), found before anything is signed.
func TestNameConstraints(t *testing.T) {
	prefix := netip.MustParsePrefix
	for _, tt := range []struct {
		ca   CA
		name string
		ok   bool
	}{
		{CA{PermittedDNS: []string{"corp.example"}}, "corp.example", true},
		{CA{PermittedDNS: []string{"corp.example"}}, "a.b.corp.example", true},
		{CA{PermittedDNS: []string{"corp.example"}}, "*.corp.example", true},
		{CA{PermittedDNS: []string{"corp.example"}}, "*.example", false},
		{CA{PermittedDNS: []string{"corp.example"}}, "notcorp.example", false},
		{CA{PermittedDNS: []string{"corp.example"}}, "example", false},
		{CA{PermittedDNS: []string{"corp.example"}}, "corp.example.evil.test", false},
		{CA{PermittedDNS: []string{"Corp.Example"}}, "a.corp.example", true},
		{CA{PermittedDNS: []string{"a.example", "b.example"}}, "x.b.example", true},
		{CA{PermittedDNS: []string{"corp.example"}}, "192.0.2.1", false},
		{CA{PermittedDNS: []string{"corp.example"}}, "2001:db8::1", false},
		{CA{PermittedIPs: []netip.Prefix{prefix("10.0.0.0/8")}}, "10.1.2.3", true},
		{CA{PermittedIPs: []netip.Prefix{prefix("10.1.2.3/8")}}, "10.9.9.9", true},
		{CA{PermittedIPs: []netip.Prefix{prefix("10.0.0.0/8")}}, "11.0.0.1", false},
		{CA{PermittedIPs: []netip.Prefix{prefix("10.0.0.0/8")}}, "2001:db8::1", false},
		{CA{PermittedIPs: []netip.Prefix{prefix("2001:db8::/32")}}, "2001:db8::1", true},
		{CA{PermittedIPs: []netip.Prefix{prefix("10.0.0.0/8")}}, "a.example", false},
		{CA{PermittedDNS: []string{"a.example"}, PermittedIPs: []netip.Prefix{prefix("10.0.0.0/8")}}, "10.0.0.1", true},
		{CA{PermittedDNS: []string{"a.example"}, PermittedIPs: []netip.Prefix{prefix("10.0.0.0/8")}}, "a.example", true},
	} {
		compareConstraints(t, newPKI(t, cert.P256, tt.ca), tt.name, tt.ok)
	}
	// Exclusions, which only certificates of others have.
	for _, tt := range []struct {
		excluded, name string
		ok             bool
	}{
		{"bad.example", "bad.example", false}, {"bad.example", "a.bad.example", false}, {"bad.example", "good.example", true},
		{"bad.example", "*.example", false}, {"bad.example", "*.bad.example", false}, {"a.bad.example", "*.example", true},
		{"BAD.example", "bad.example", false}, {"bad.example", "192.0.2.1", true},
	} {
		p := newPKI(t, cert.P256, CA{})
		p.ca = forge(t, p, func(c *x509.Certificate) {
			c.ExcludedDNSDomains, c.PermittedDNSDomainsCritical = []string{tt.excluded}, true
			c.SubjectKeyId = p.ca.SubjectKeyId
			c.NotAfter = now.Add(48 * time.Hour)
		})
		compareConstraints(t, p, tt.name, tt.ok)
	}
}

func compareConstraints(t *testing.T, p pki, name string, ok bool) {
	t.Helper()
	r := request(t)
	r.Names = ids(name)
	free := *p.ca // the same CA, its constraints unseen by us: what would a verifier say?
	free.PermittedDNSDomains, free.ExcludedDNSDomains, free.PermittedIPRanges, free.ExcludedIPRanges = nil, nil, nil, nil
	a := p.authority()
	a.Chains = [][]*x509.Certificate{{&free, p.root}}
	l, err := New(Config{Authorities: []Authority{a}}, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(issue(t, l, r), x509.ExtKeyUsageServerAuth, p.ca, p.root); (err == nil) != ok {
		t.Errorf("crypto/x509 on %s: %v, want ok=%v", name, err, ok)
	}
	_, err = p.local(t).Prepare(t.Context(), r)
	problem, _ := errors.AsType[*protocol.Problem](err)
	if ok && err != nil || !ok && (problem == nil || problem.Type != protocol.RejectedIdentifier || problem.Identifier == nil || *problem.Identifier != r.Names[0]) {
		t.Errorf("%s: err = %v, want ok=%v", name, err, ok)
	}
}

// TestConstraintsListAll: a client learns about every name at once.
func TestConstraintsListAll(t *testing.T) {
	l := newPKI(t, cert.P256, CA{PermittedDNS: []string{"corp.example"}}).local(t)
	r := request(t)
	r.Names = ids("a.corp.example", "b.test", "c.test")
	_, err := l.Prepare(t.Context(), r)
	if p := protocol.AsProblem(err); p.Type != protocol.RejectedIdentifier || len(p.Sub) != 2 {
		t.Errorf("err = %v with %d subproblems", err, len(p.Sub))
	}
}

func TestCeremonies(t *testing.T) {
	for _, typ := range []cert.KeyType{cert.P256, cert.P384, cert.P521, cert.RSA2048, cert.Ed25519} {
		key := newKey(t, typ)
		root, err := NewRoot(key, CA{CommonName: "Root", Now: now})
		if err != nil {
			t.Fatal(err)
		}
		spki, _ := x509.MarshalPKIXPublicKey(key.Public())
		switch {
		case root.CheckSignatureFrom(root) != nil:
			t.Error("not self-signed")
		case root.MaxPathLen != -1:
			t.Errorf("path length %d", root.MaxPathLen)
		case root.NotAfter.Sub(root.NotBefore) != RootLifetime-time.Second:
			t.Errorf("%v long", root.NotAfter.Sub(root.NotBefore))
		case !bytes.Equal(root.SubjectKeyId, keyID(spki)):
			t.Error("SKI isn't the key's")
		}
	}
	p := newPKI(t, cert.P256, CA{Usages: []cert.Usage{cert.Client}, PermittedDNS: []string{"a.example"}, IssuerURL: "http://x/r.cer", CRLURL: "http://x/r.crl"})
	switch {
	case !p.ca.MaxPathLenZero || p.ca.MaxPathLen != 0:
		t.Errorf("path length %d", p.ca.MaxPathLen)
	case len(p.ca.ExtKeyUsage) != 1 || p.ca.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth:
		t.Errorf("EKU %v", p.ca.ExtKeyUsage)
	case !p.ca.PermittedDNSDomainsCritical || len(p.ca.ExcludedIPRanges) != 2:
		t.Error("name constraints: addresses are free, or they aren't critical")
	case p.ca.IssuingCertificateURL[0] != "http://x/r.cer" || p.ca.CRLDistributionPoints[0] != "http://x/r.crl":
		t.Error("URLs")
	case !bytes.Equal(p.ca.AuthorityKeyId, p.root.SubjectKeyId):
		t.Error("AKI")
	}
	long, err := NewIntermediate(p.root, p.rootKey, p.caKey.Public(), CA{CommonName: "Long", Now: now, Lifetime: 20 * RootLifetime})
	if err != nil || long.NotAfter.After(p.root.NotAfter) {
		t.Errorf("it outlives its parent: %v", err)
	}
	for name, make := range map[string]func() (*x509.Certificate, error){
		"no name": func() (*x509.Certificate, error) { return NewRoot(p.rootKey, CA{Now: now}) },
		"a long name": func() (*x509.Certificate, error) {
			return NewRoot(p.rootKey, CA{CommonName: strings.Repeat("x", 65), Now: now})
		},
		"a limited root": func() (*x509.Certificate, error) {
			return NewRoot(p.rootKey, CA{CommonName: "x", Usages: []cert.Usage{cert.Client}, Now: now})
		},
		"under a path length of 0": func() (*x509.Certificate, error) {
			return NewIntermediate(p.ca, p.caKey, newKey(t, cert.P256).Public(), CA{CommonName: "x", Now: now})
		},
		"another parent's key": func() (*x509.Certificate, error) {
			return NewIntermediate(p.root, p.caKey, p.caKey.Public(), CA{CommonName: "x", Now: now})
		},
		"after the parent's end": func() (*x509.Certificate, error) {
			return NewIntermediate(p.root, p.rootKey, p.caKey.Public(), CA{CommonName: "x", Now: p.root.NotAfter.Add(2 * time.Hour)})
		},
		"an unknown usage": func() (*x509.Certificate, error) {
			return NewIntermediate(p.root, p.rootKey, p.caKey.Public(), CA{CommonName: "x", Now: now, Usages: []cert.Usage{"code"}})
		},
		"a cross-signed namesake": func() (*x509.Certificate, error) {
			twin, err := NewRoot(newKey(t, cert.P256), CA{CommonName: p.root.Subject.CommonName, Organization: "Tests", Now: now})
			if err != nil {
				t.Fatal(err)
			}
			return CrossSign(twin, p.root, p.rootKey, CA{Now: now})
		},
		"a leaf as parent": func() (*x509.Certificate, error) {
			unlimited := newPKI(t, cert.P256, CA{})
			key := newKey(t, cert.P256)
			r := request(t)
			r.PublicKey = key.Public()
			return NewIntermediate(issue(t, unlimited.local(t), r), key, p.caKey.Public(), CA{CommonName: "x", Now: now})
		},
	} {
		if c, err := make(); err == nil || c != nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// RFC 6960 section 4.2.2.2: a delegated responder's certificate has the OCSP
// signing usage, is issued by the CA itself, and (4.2.2.2.1) says nocheck.
func TestNewResponder(t *testing.T) {
	p := newPKI(t, cert.P256, CA{})
	key := newPKI(t, cert.P256, CA{}).caKey
	c, err := NewResponder(p.ca, p.caKey, key.Public(), CA{CommonName: "Responder", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	noCheck := extensionOf(c, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5})
	switch {
	case c.CheckSignatureFrom(p.ca) != nil:
		t.Error("not issued by the CA")
	case c.IsCA || c.KeyUsage != x509.KeyUsageDigitalSignature:
		t.Errorf("CA %v, key usage %b", c.IsCA, c.KeyUsage)
	case !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}):
		t.Errorf("EKU %v", c.ExtKeyUsage)
	case noCheck == nil || noCheck.Critical || !bytes.Equal(noCheck.Value, []byte{5, 0}):
		t.Errorf("nocheck: %+v", noCheck)
	case len(c.CRLDistributionPoints)+len(c.OCSPServer) > 0:
		t.Error("it points to what would have to be checked first")
	}
	if _, err := NewResponder(c, key, key.Public(), CA{CommonName: "x", Now: now}); err == nil {
		t.Error("a responder delegated on")
	}
}
