package status

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"
)

// Answers that count, from every kind of key.
func TestOCSPAccepted(t *testing.T) {
	now := time.Now()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"ECDSA": ecKey(t), "RSA": rsaKey} {
		t.Run(name, func(t *testing.T) {
			ca := newCA(t, "ca", key)
			leaf := newLeaf(t, ca, responderURL, "")
			by := newResponder(t, ca, nil)
			for _, der := range [][]byte{
				answerFor(t, ca, nil, leaf, now, nil),
				answerFor(t, ca, by, leaf, now, nil),
				answerFor(t, ca, by, leaf, now, func(r *ocsp.Response) { r.IssuerHash = crypto.SHA256 }),
				answerFor(t, ca, by, leaf, now, func(r *ocsp.Response) { r.ThisUpdate = now.Add(4 * time.Minute) }), // the clocks differ
				answerFor(t, ca, by, leaf, now, func(r *ocsp.Response) { r.NextUpdate = now.Add(-4 * time.Minute) }),
			} {
				a, err := verifyOCSP(der, leaf, ca.cert, now)
				if err != nil || a.status != Good {
					t.Errorf("%+v, %v", a, err)
				}
			}
			at := now.Add(-time.Minute).Truncate(time.Second)
			a, err := verifyOCSP(answerFor(t, ca, by, leaf, now, revoke(now)), leaf, ca.cert, now)
			if err != nil || a.status != Revoked || !a.revokedAt.Equal(at) {
				t.Errorf("revoked: %+v, %v", a, err)
			}
			a, err = verifyOCSP(answerFor(t, ca, by, leaf, now, func(r *ocsp.Response) { r.Status = ocsp.Unknown }), leaf, ca.cert, now)
			if err != nil || a.status != Unknown {
				t.Errorf("unknown: %+v, %v", a, err)
			}
		})
	}
}

// Ed25519, which x/crypto/ocsp can't write, and a ResponderID by key.
func TestOCSPEd25519(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := newCA(t, "ca", key)
	leaf := newLeaf(t, ca, responderURL, "")
	now := time.Now()
	der := resign(t, answerFor(t, &authority{ca.cert, ecKey(t)}, nil, leaf, now, nil), ca, nil)
	if a, err := verifyOCSP(der, leaf, ca.cert, now); err != nil || a.status != Good {
		t.Fatalf("%+v, %v", a, err)
	}
	der[len(der)-1] ^= 1 // of the signature
	if _, err := verifyOCSP(der, leaf, ca.cert, now); err == nil {
		t.Error("a wrong signature counts")
	}
}

// resign takes a response apart and signs it with Ed25519, the ResponderID by
// key. mod, if set, changes the ResponseData's parts first.
func resign(t testing.TB, der []byte, by *authority, mod func(singles, extensions *[]byte)) []byte {
	t.Helper()
	r, err := parseOCSP(der)
	if err != nil {
		t.Fatal(err)
	}
	var data, version, id, produced, singles cryptobyte.String
	var present bool
	tbs := cryptobyte.String(r.tbs)
	if !tbs.ReadASN1(&data, asn1.SEQUENCE) || !data.ReadOptionalASN1(&version, &present, explicit(0)) ||
		!data.ReadASN1(&id, explicit(1)) || !data.ReadASN1Element(&produced, asn1.GeneralizedTime) || !data.ReadASN1(&singles, asn1.SEQUENCE) {
		t.Fatal("not as expected")
	}
	body, extensions := []byte(singles), []byte(nil)
	if mod != nil {
		mod(&body, &extensions)
	}
	bits, err := keyBits(by.cert)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum(bits)
	sequence := func(f func(*cryptobyte.Builder)) []byte {
		var b cryptobyte.Builder
		b.AddASN1(asn1.SEQUENCE, f)
		return b.BytesOrPanic()
	}
	signed := sequence(func(b *cryptobyte.Builder) {
		b.AddASN1(explicit(2), func(b *cryptobyte.Builder) { b.AddASN1OctetString(sum[:]) })
		b.AddBytes(produced)
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(body) })
		b.AddBytes(extensions)
	})
	signature, err := by.key.Sign(rand.Reader, signed, crypto.Hash(0))
	if err != nil {
		t.Fatal(err)
	}
	basic := sequence(func(b *cryptobyte.Builder) {
		b.AddBytes(signed)
		b.AddBytes([]byte{0x30, 5, 6, 3, 0x2b, 0x65, 0x70})
		b.AddASN1BitString(signature)
	})
	return sequence(func(b *cryptobyte.Builder) {
		b.AddASN1Enum(0)
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(oidBasic) })
				b.AddASN1OctetString(basic)
			})
		})
	})
}

// The attacks on OCSP: none of these is an answer about the certificate.
func TestOCSPRefused(t *testing.T) {
	now := time.Now()
	ca, other := newCA(t, "ca", ecKey(t)), newCA(t, "other", ecKey(t))
	twin := newCA(t, "ca", ecKey(t))   // of the same name
	alias := newCA(t, "alias", ca.key) // of the same key
	leaf := newLeaf(t, ca, responderURL, "")
	sibling := newLeaf(t, ca, responderURL, "")
	foreign := newLeaf(t, other, responderURL, "")
	by := newResponder(t, ca, nil)
	middle := issue(t, ca, ecKey(t), func(c *x509.Certificate) { c.Subject.CommonName, c.IsCA = "middle", true })
	with := func(mod func(*ocsp.Response)) []byte { return answerFor(t, ca, by, leaf, now, mod) }
	responder := func(ca *authority, mod func(*x509.Certificate)) []byte {
		return answerFor(t, ca, newResponder(t, ca, mod), leaf, now, nil)
	}
	stolen := newResponder(t, other, nil)
	bent := func(at func([]byte) int) []byte {
		der := slices.Clone(with(nil))
		der[at(der)] ^= 1
		return der
	}
	tests := map[string]struct {
		der  []byte
		want string
	}{
		"of another issuer":               {answerFor(t, other, nil, foreign, now, nil), "isn't about"},
		"issuer of another name, its key": {answerFor(t, alias, nil, leaf, now, nil), "isn't about"},
		"another issuer's, same serial":   {answerFor(t, other, nil, leaf, now, nil), "isn't about"},
		"issuer of that name, other key":  {answerFor(t, twin, nil, leaf, now, nil), "isn't about"},
		"about ours, by another's key":    {answerFor(t, &authority{ca.cert, other.key}, nil, leaf, now, nil), "neither"},
		"about ours, responder of others": {answerFor(t, ca, stolen, leaf, now, nil), "was not issued by"},
		"responder of the issuer's name":  {answerFor(t, ca, newResponder(t, twin, nil), leaf, now, nil), "was not issued by"},
		"responder below an intermediate": {answerFor(t, ca, newResponder(t, middle, nil), leaf, now, nil), "was not issued by"},
		"wrong serial":                    {answerFor(t, ca, by, sibling, now, nil), "isn't about"},
		"serial with another sign": {with(func(r *ocsp.Response) {
			r.SerialNumber = new(big.Int).Sub(leaf.SerialNumber, new(big.Int).Lsh(big.NewInt(1), 128))
		}), "isn't about"},
		"a leaf as responder":                       {responder(ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "OCSP signing"},
		"responder for any usage":                   {responder(ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), "OCSP signing"},
		"responder without usages":                  {responder(ca, func(c *x509.Certificate) { c.ExtKeyUsage = nil }), "OCSP signing"},
		"responder that may not sign":               {responder(ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }), "digital signature"},
		"responder expired":                         {responder(ca, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }), "valid from"},
		"responder not yet valid":                   {responder(ca, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }), "valid from"},
		"responder's certificate withheld":          {answerFor(t, ca, by, leaf, now, func(r *ocsp.Response) { r.Certificate = nil }), "neither"},
		"responder of our key, another issuer name": {answerFor(t, ca, newResponder(t, alias, nil), leaf, now, nil), "was not issued by"},
		"signed by ours, in another's name":         {answerFor(t, ca, alias, leaf, now, func(r *ocsp.Response) { r.Certificate = nil }), "neither"},
		"responder with a critical extension":       {responder(ca, func(c *x509.Certificate) { c.ExtraExtensions = critical() }), "critical extension"},
		"old":                                       {with(func(r *ocsp.Response) { r.NextUpdate = now.Add(-6 * time.Minute) }), "ended at"},
		"from the future":                           {with(func(r *ocsp.Response) { r.ThisUpdate = now.Add(6 * time.Minute) }), "future"},
		"ends before it begins":                     {with(func(r *ocsp.Response) { r.ThisUpdate, r.NextUpdate = now.Add(time.Minute), now.Add(time.Minute) }), "nextUpdate"},
		"SHA-1":                                     {with(func(r *ocsp.Response) { r.SignatureAlgorithm = x509.ECDSAWithSHA1 }), "signature algorithm"},
		"try later":                                 {ocsp.TryLaterErrorResponse, "try later"},
		"unauthorized":                              {ocsp.UnauthorizedErrorResponse, "unauthorized"},
		"no such error":                             {[]byte{0x30, 3, 0x0a, 1, 0x44}, "status 68"},
		"good, but empty":                           {[]byte{0x30, 3, 0x0a, 1, 0}, "malformed"},
		"empty":                                     {nil, "malformed"},
		"garbage":                                   {[]byte("<html>please log in</html>"), "malformed"},
		"more behind":                               {append(with(nil), 0), "malformed"},
		"cut short":                                 {with(nil)[:200], "malformed"},
		"too long":                                  {make([]byte, maxOCSP+1), "more than"},
		"signature bent": {bent(func(der []byte) int {
			r, _ := parseOCSP(der)
			return bytes.Index(der, r.signature) + len(r.signature) - 1
		}), "signature"},
		"content bent":       {bent(func(der []byte) int { r, _ := parseOCSP(der); return bytes.Index(der, r.tbs) + len(r.tbs) - 3 }), "signature"},
		"critical extension": {with(func(r *ocsp.Response) { r.ExtraExtensions = critical() }), "critical"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a, err := verifyOCSP(test.der, leaf, ca.cert, now)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%+v, error %v, want one with %q", a, err, test.want)
			}
		})
	}
}

// What an honest responder, seen in Ed25519, may not have either.
func TestOCSPParts(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := newCA(t, "ca", key)
	leaf, now := newLeaf(t, ca, responderURL, ""), time.Now()
	der := answerFor(t, &authority{ca.cert, ecKey(t)}, nil, leaf, now, nil)
	extension := func(critical bool) []byte {
		var b cryptobyte.Builder
		b.AddASN1(explicit(1), func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte{0x2a, 3}) })
					if critical {
						b.AddASN1Boolean(true)
					}
					b.AddASN1OctetString([]byte{1})
				})
			})
		})
		return b.BytesOrPanic()
	}
	other := answerFor(t, &authority{ca.cert, ecKey(t)}, nil, newLeaf(t, ca, responderURL, ""), now, revoke(now))
	var otherSingle []byte
	resign(t, other, ca, func(singles, _ *[]byte) { otherSingle = *singles })
	tests := map[string]struct {
		mod  func(singles, extensions *[]byte)
		want string // of the error; "": good
	}{
		"an extension":          {func(_, e *[]byte) { *e = extension(false) }, ""},
		"a critical one":        {func(_, e *[]byte) { *e = extension(true) }, "critical"},
		"another's answer too":  {func(s, _ *[]byte) { *s = slices.Concat(otherSingle, *s) }, ""},
		"only another's":        {func(s, _ *[]byte) { *s = otherSingle }, "isn't about"},
		"no answer":             {func(s, _ *[]byte) { *s = nil }, "isn't about"},
		"many answers":          {func(s, _ *[]byte) { *s = slices.Repeat(*s, maxSingles+1) }, "more than"},
		"no nextUpdate":         {func(s, _ *[]byte) { *s = withoutNext(t, *s) }, "no nextUpdate"},
		"an unknown CertStatus": {func(s, _ *[]byte) { *s = bytes.Replace(*s, []byte{0x80, 0}, []byte{0x83, 0}, 1) }, "malformed"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a, err := verifyOCSP(resign(t, der, ca, test.mod), leaf, ca.cert, now)
			switch {
			case test.want == "" && (err != nil || a.status != Good):
				t.Errorf("%+v, %v", a, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("%+v, error %v, want one with %q", a, err, test.want)
			}
		})
	}
}

// withoutNext drops the nextUpdate of a SingleResponse.
func withoutNext(t testing.TB, der []byte) []byte {
	t.Helper()
	var one, id, status, this cryptobyte.String
	var tag asn1.Tag
	s := cryptobyte.String(der)
	if !s.ReadASN1(&one, asn1.SEQUENCE) || !one.ReadASN1Element(&id, asn1.SEQUENCE) || !one.ReadAnyASN1Element(&status, &tag) ||
		!one.ReadASN1Element(&this, asn1.GeneralizedTime) {
		t.Fatal("not as expected")
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(slices.Concat(id, status, this)) })
	return b.BytesOrPanic()
}

// An answer never goes back, and revoked is final.
func TestOCSPFollows(t *testing.T) {
	at := time.Now()
	for _, test := range []struct {
		known, next Status
		later       time.Duration
		ok          bool
	}{
		{Good, Good, 0, true}, {Good, Good, time.Second, true}, {Good, Good, -time.Second, false}, {Good, Revoked, 0, true}, {Good, Revoked, -time.Second, false},
		{Unknown, Good, time.Second, true}, {Unknown, Good, -time.Second, false}, {Revoked, Good, time.Hour, false}, {Revoked, Unknown, time.Hour, false},
	} {
		if err := (&answer{status: test.next, this: at.Add(test.later)}).follows(&answer{status: test.known, this: at}); (err == nil) != test.ok {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// critical is an extension that nobody knows, and must.
func critical() []pkix.Extension {
	return []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
}

// The request is what another implementation makes of it.
func TestOCSPRequest(t *testing.T) {
	ca := newCA(t, "ca", ecKey(t))
	leaf := newLeaf(t, ca, responderURL, "")
	got, err := requestOCSP(leaf, ca.cert)
	if err != nil {
		t.Fatal(err)
	}
	want, err := ocsp.CreateRequest(leaf, ca.cert, nil)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, want %x (%v)", got, want, err)
	}
}
