package revocation_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/revocation"
)

// Lists that others made, such as a root's: taken when they are what they
// should be.
func TestCRLNumber(t *testing.T) {
	key := newKey(t)
	ca := newCA(t, key, nil)
	made := func(change func(*x509.RevocationList)) []byte {
		t.Helper()
		template := &x509.RevocationList{Number: big.NewInt(41), ThisUpdate: begin, NextUpdate: begin.AddDate(1, 0, 0)}
		change(template)
		der, err := x509.CreateRevocationList(rand.Reader, template, ca, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	plain := made(func(*x509.RevocationList) {})
	number, from, to, err := revocation.CRLNumber(plain, ca)
	if err != nil || number != 41 || !from.Equal(begin) || !to.Equal(begin.AddDate(1, 0, 0)) {
		t.Errorf("%d %v %v: %v", number, from, to, err)
	}
	largest := made(func(l *x509.RevocationList) { l.Number = big.NewInt(math.MaxInt64) })
	if number, _, _, err := revocation.CRLNumber(largest, ca); err != nil || number != math.MaxInt64 {
		t.Errorf("%d: %v", number, err)
	}
	// By hand, what x509 doesn't make: RFC 5280 sections 5.1.2.5 and 5.2.3
	// demand nextUpdate and a number.
	byHand := func(rest ...[]byte) []byte {
		ecdsaSHA256 := tlv(0x30, tlv(0x06, unhex("2a8648ce3d040302")))
		from := tlv(0x17, []byte("260301120000Z"))
		tbs := tlv(0x30, append([][]byte{{2, 1, 1}, ecdsaSHA256, ca.RawSubject, from}, rest...)...)
		digest := sha256.Sum256(tbs)
		signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		return tlv(0x30, tbs, ecdsaSHA256, tlv(0x03, []byte{0}, signature))
	}
	next := tlv(0x17, []byte("270301120000Z"))
	numbered := func(n byte) []byte {
		return tlv(0xa0, tlv(0x30, tlv(0x30, tlv(0x06, []byte{0x55, 0x1d, 20}), tlv(0x04, []byte{2, 1, n}))))
	}
	if number, from, to, err := revocation.CRLNumber(byHand(next, numbered(3)), ca); err != nil || number != 3 || !from.Equal(begin) || !to.Equal(begin.AddDate(1, 0, 0)) {
		t.Errorf("%d %v %v: %v", number, from, to, err)
	}
	for name, c := range map[string]struct {
		der    []byte
		issuer *x509.Certificate
		want   string
	}{
		"nothing":          {nil, ca, "not a CRL"},
		"PEM":              {[]byte("-----BEGIN X509 CRL-----\n"), ca, "not a CRL"},
		"truncated":        {plain[:len(plain)-1], ca, "not a CRL"},
		"a certificate":    {ca.Raw, ca, "not a CRL"},
		"of another CA":    {plain, newCA(t, newKey(t), func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "Other"} }), "made by"},
		"of another key":   {plain, newCA(t, newKey(t), nil), "signature"},
		"without cRLSign":  {plain, newCA(t, key, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }), "signature"},
		"forged":           {forge(plain, "260301", "260302"), ca, "signature"},
		"number too large": {made(func(l *x509.RevocationList) { l.Number = new(big.Int).Lsh(big.NewInt(1), 63) }), ca, "2^63-1"},
		"delta": {made(func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}}
		}), ca, "delta"},
		"no number":       {byHand(next), ca, "no number"},
		"no nextUpdate":   {byHand(numbered(3)), ca, "nextUpdate"},
		"negative number": {byHand(next, numbered(0xff)), ca, "number"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, _, err := revocation.CRLNumber(c.der, c.issuer); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.issuer.Subject.String()) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

func forge(der []byte, old, changed string) []byte {
	return bytes.Replace(der, []byte(old), []byte(changed), 1)
}

// FuzzCRLNumber: nothing panics, and nothing that the issuer didn't sign is
// taken.
func FuzzCRLNumber(f *testing.F) {
	key := newKey(f)
	ca := newCA(f, key, nil)
	l := list(ca, revocation.Entry{Serial: "0a", At: begin})
	genuine := crl(f, l, key)
	l.Point = point
	part := crl(f, l, key)
	for _, der := range [][]byte{genuine, part, genuine[:40], ca.Raw} {
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		number, from, to, err := revocation.CRLNumber(der, ca)
		if err == nil {
			if l, _ := x509.ParseRevocationList(der); l == nil || l.CheckSignatureFrom(ca) != nil {
				t.Fatalf("taken: %x", der)
			}
		} else if number != 0 || !from.IsZero() || !to.IsZero() {
			t.Fatalf("%d %v %v with %v", number, from, to, err)
		}
	})
}
