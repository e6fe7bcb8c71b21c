package status

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// point makes an issuingDistributionPoint: the URLs, and other fields by their
// tags.
func point(urls []string, fields ...byte) pkix.Extension {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if urls != nil {
			b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
				b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
					for _, u := range urls {
						b.AddASN1(asn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(u)) })
					}
				})
			})
		}
		for _, tag := range fields {
			b.AddASN1(asn1.Tag(tag).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddUint8(0xff) })
		}
	})
	return pkix.Extension{Id: []int{2, 5, 29, 28}, Critical: true, Value: b.BytesOrPanic()}
}

func with(extensions ...pkix.Extension) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) { l.ExtraExtensions = extensions }
}

func says(t *testing.T, l *list, cert *x509.Certificate, want Status) {
	t.Helper()
	if got, _ := l.of(cert.SerialNumber.Bytes()); got != want {
		t.Errorf("status %d, want %d", got, want)
	}
}

// Lists that count, from every kind of key.
func TestCRLAccepted(t *testing.T) {
	now := time.Now()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"ECDSA": ecKey(t), "RSA": rsaKey, "Ed25519": edKey} {
		t.Run(name, func(t *testing.T) {
			ca := newCA(t, "ca", key)
			good, bad := newLeaf(t, ca, "", listURL), newLeaf(t, ca, "", listURL)
			low := issue(t, ca, ecKey(t), func(c *x509.Certificate) { c.SerialNumber = big.NewInt(1) }).cert
			der := listOf(t, ca, 7, now, func(l *x509.RevocationList) {
				l.RevokedCertificateEntries[0].ReasonCode = 0
				l.RevokedCertificateEntries[0].RevocationTime = time.Date(2051, 1, 1, 0, 0, 0, 0, time.UTC) // GeneralizedTime
			}, newLeaf(t, ca, "", ""), bad, low)
			l, err := verifyCRL(der, good, ca.cert, now)
			if err != nil || l.number.Int64() != 7 || len(l.serials) != 3 {
				t.Fatalf("%+v, %v", l, err)
			}
			says(t, l, good, Good)
			says(t, l, bad, Revoked)
			says(t, l, low, Revoked)
		})
	}
	ca := newCA(t, "ca", ecKey(t))
	leaf := newLeaf(t, ca, "", listURL)
	mirrored := issue(t, ca, ecKey(t), func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"http://mirror.test/", listURL} }).cert
	tests := map[string]struct {
		cert *x509.Certificate
		mod  func(*x509.RevocationList)
	}{
		"empty":                          {leaf, nil},
		"its part":                       {leaf, with(point([]string{listURL}))},
		"its part, of end entities":      {leaf, with(point([]string{listURL}, 1))},
		"its part, of several names":     {leaf, with(point([]string{"ldap://x", listURL}))},
		"its part, fetched elsewhere":    {mirrored, with(point([]string{listURL}))},
		"a point without anything in it": {leaf, with(point(nil))},
		"clocks differ":                  {leaf, func(l *x509.RevocationList) { l.ThisUpdate = now.Add(4 * time.Minute) }},
		"a large number":                 {leaf, func(l *x509.RevocationList) { l.Number = new(big.Int).Lsh(big.NewInt(1), 158) }},
	}
	for name, test := range tests {
		if l, err := verifyCRL(listOf(t, ca, 1, now, test.mod), test.cert, ca.cert, now); err != nil {
			t.Errorf("%s: %v", name, err)
		} else {
			says(t, l, test.cert, Good)
		}
	}
}

// The attacks on lists: none of these speaks for the certificate.
func TestCRLRefused(t *testing.T) {
	now := time.Now()
	ca, other, twin := newCA(t, "ca", ecKey(t)), newCA(t, "other", ecKey(t)), newCA(t, "ca", ecKey(t))
	leaf := newLeaf(t, ca, "", listURL)
	mute := issue(t, nil, ca.key, func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.KeyUsage = "ca", true, x509.KeyUsageCertSign
	})
	middle := issue(t, ca, ecKey(t), func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.CRLDistributionPoints = "middle", true, []string{listURL}
	})
	of := func(mod func(*x509.RevocationList)) []byte { return listOf(t, ca, 5, now, mod, newLeaf(t, ca, "", "")) }
	entry := func(id ...int) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{{Id: id, Critical: true, Value: []byte{0x30, 0}}}
		}
	}
	bent := func(back int) []byte {
		der := slices.Clone(of(nil))
		der[len(der)-back] ^= 1
		return der
	}
	tests := map[string]struct {
		der    []byte
		cert   *x509.Certificate // default: leaf
		issuer *x509.Certificate // default: ca
		want   string
	}{
		"another issuer's":               {der: listOf(t, other, 5, now, nil), want: "isn't of"},
		"of that name, by another key":   {der: listOf(t, twin, 5, now, nil), want: "isn't signed by"},
		"of an issuer without cRLSign":   {der: of(nil), issuer: mute.cert, want: "isn't signed by"},
		"ended":                          {der: of(func(l *x509.RevocationList) { l.NextUpdate = now.Add(-6 * time.Minute) }), want: "ended at"},
		"from the future":                {der: of(func(l *x509.RevocationList) { l.ThisUpdate = now.Add(6 * time.Minute) }), want: "future"},
		"of another part":                {der: of(with(point([]string{"http://crl.test/part8.crl"}))), want: "another part"},
		"of a part without a URL":        {der: of(with(point([]string{}))), want: "another part"},
		"of CAs only":                    {der: of(with(point([]string{listURL}, 2))), want: "this kind"},
		"of end entities only, for a CA": {der: of(with(point([]string{listURL}, 1))), cert: middle.cert, want: "this kind"},
		"of some reasons":                {der: of(with(point([]string{listURL}, 3))), want: "some reasons"},
		"indirect":                       {der: of(with(point([]string{listURL}, 4))), want: "indirect"},
		"of attribute certificates":      {der: of(with(point([]string{listURL}, 5))), want: "attribute"},
		"an unknown field in the point":  {der: of(with(point([]string{listURL}, 6))), want: "malformed"},
		"point twice":                    {der: of(with(point([]string{listURL}), point([]string{"http://crl.test/part8.crl"}))), want: "malformed"},
		"a delta":                        {der: of(with(pkix.Extension{Id: []int{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 4}})), want: "critical"},
		"an unknown critical extension":  {der: of(with(critical()...)), want: "critical"},
		"an entry of another issuer":     {der: of(entry(2, 5, 29, 29)), want: "critical"},
		"an entry with something else":   {der: of(entry(1, 2, 3)), want: "critical"},
		"SHA-1":                          {der: withSHA1(t, of(nil)), want: "signature algorithm"},
		"two algorithms":                 {der: twoAlgorithms(of(nil)), want: "malformed"},
		"signature bent":                 {der: bent(1), want: "isn't signed"},
		"content bent":                   {der: bent(100), want: ""},
		"more behind":                    {der: append(of(nil), 0), want: "malformed"},
		"cut short":                      {der: of(nil)[:150], want: "malformed"},
		"garbage":                        {der: []byte("<html>please log in</html>"), want: "malformed"},
		"PEM":                            {der: []byte("-----BEGIN X509 CRL-----\n"), want: "malformed"},
		"empty":                          {der: nil, want: "malformed"},
		"too large":                      {der: make([]byte, maxCRL+1), want: "more than"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cert, issuer := leaf, ca.cert
			if test.cert != nil {
				cert = test.cert
			}
			if test.issuer != nil {
				issuer = test.issuer
			}
			l, err := verifyCRL(test.der, cert, issuer, now)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%+v, error %v, want one with %q", l, err, test.want)
			}
		})
	}
}

// withSHA1 makes the signature's algorithm one with SHA-1 (by its length, an
// identifier like it), inside and outside.
func withSHA1(t *testing.T, der []byte) []byte {
	t.Helper()
	return []byte(strings.ReplaceAll(string(der), "\x2a\x86\x48\xce\x3d\x04\x03\x02", "\x2a\x86\x48\xce\x3d\x04\x03\x01"))
}

// twoAlgorithms names another one outside than inside.
func twoAlgorithms(der []byte) []byte {
	at := bytes.LastIndex(der, []byte("\x2a\x86\x48\xce\x3d\x04\x03\x02"))
	der[at+7] = 3
	return der
}

// What x509.CreateRevocationList won't make: a list without a number, without a
// nextUpdate, of version 1.
func TestCRLLacking(t *testing.T) {
	ca := newCA(t, "ca", ecKey(t))
	leaf, now := newLeaf(t, ca, "", listURL), time.Now()
	number := "\x30\x0a\x06\x03\x55\x1d\x14\x04\x03\x02\x01\x05"
	tests := map[string]struct{ cut, put, want string }{
		"number":  {number, "\x30\x0a\x06\x03\x55\x1d\x15\x04\x03\x02\x01\x05", "no number"},
		"version": {"\x02\x01\x01\x30", "\x02\x01\x00\x30", "version 2"},
		"twice":   {"\x06\x03\x55\x1d\x23", "\x06\x03\x55\x1d\x14", "malformed"},
	}
	for name, test := range tests {
		der := string(listOf(t, ca, 5, now, nil))
		if !strings.Contains(der, test.cut) {
			t.Fatalf("%s: not in it", name)
		}
		_, err := verifyCRL([]byte(strings.Replace(der, test.cut, test.put, 1)), leaf, ca.cert, now)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
	c, err := parseCRL(listOf(t, ca, 5, now, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := current(c.this, time.Time{}, now); err == nil || !strings.Contains(err.Error(), "no nextUpdate") {
		t.Errorf("without a nextUpdate: %v", err)
	}
}

// A list never goes back.
func TestCRLFollows(t *testing.T) {
	at := time.Now()
	known := &list{number: big.NewInt(7), this: at}
	for _, test := range []struct {
		number int64
		this   time.Time
		ok     bool
	}{{6, at.Add(time.Hour), false}, {7, at.Add(-time.Second), false}, {7, at, true}, {7, at.Add(time.Second), true}, {8, at.Add(-time.Second), true}} {
		if err := (&list{number: big.NewInt(test.number), this: test.this}).follows(known); (err == nil) != test.ok {
			t.Errorf("%+v: %v", test, err)
		}
	}
	if err := known.follows(nil); err != nil {
		t.Errorf("the first: %v", err)
	}
}
