package revocation_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-pki/chancery/internal/revocation"
)

// RFC 6960 section 4.2.1: the unsuccessful statuses, with no responseBytes.
func TestOCSPErrors(t *testing.T) {
	for status, want := range map[int]ocsp.ResponseStatus{
		revocation.OCSPMalformedRequest: ocsp.Malformed, revocation.OCSPInternalError: ocsp.InternalError, revocation.OCSPTryLater: ocsp.TryLater,
		revocation.OCSPSigRequired: ocsp.SignatureRequired, revocation.OCSPUnauthorized: ocsp.Unauthorized,
		0: ocsp.InternalError, 4: ocsp.InternalError, 7: ocsp.InternalError, -1: ocsp.InternalError, 1 << 40: ocsp.InternalError, // not such statuses
	} {
		_, err := ocsp.ParseResponse(revocation.OCSPError(status), nil)
		if e, ok := errors.AsType[ocsp.ResponseError](err); !ok || e.Status != want {
			t.Errorf("%d: %v, want %v", status, err, want)
		}
		if n := testing.AllocsPerRun(10, func() { revocation.OCSPError(status) }); n != 0 {
			t.Errorf("%d: %v allocations", status, n)
		}
	}
	if got := revocation.OCSPError(3); !bytes.Equal(got, []byte{0x30, 3, 0x0a, 1, 3}) {
		t.Errorf("%x", got)
	}
}

// RFC 6960 section 4.2.2.2: who may answer in an issuer's place.
func TestCheckResponder(t *testing.T) {
	key, other := newKey(t), newKey(t)
	ca := newCA(t, key, nil)
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	noCheck := pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: asn1Null}
	if err := revocation.CheckResponder(newResponder(t, ca, key, other.Public(), nil), ca); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		responder *x509.Certificate
		want      string
	}{
		"a server's": {newResponder(t, ca, key, other.Public(), func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "OCSPSigning"},
		"any usage":  {newResponder(t, ca, key, other.Public(), func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), "OCSPSigning"},
		"no usage":   {newResponder(t, ca, key, other.Public(), func(c *x509.Certificate) { c.ExtKeyUsage = nil }), "OCSPSigning"},
		"key usage":  {newResponder(t, ca, key, other.Public(), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), "digitalSignature"},
		"no nocheck": {newResponder(t, ca, key, other.Public(), func(c *x509.Certificate) { c.ExtraExtensions = nil }), "ocsp-nocheck"},
		"a CA": {newResponder(t, ca, key, other.Public(), func(c *x509.Certificate) {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
		}), "is a CA's"},
		"critical extension": {newResponder(t, ca, key, other.Public(), func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{noCheck, {Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: asn1Null}}
		}), "critical extension 1.2.3"},
		"the issuer's key": {newResponder(t, ca, key, key.Public(), nil), "own key"},
		"of another CA":    {newResponder(t, newCA(t, other, func(c *x509.Certificate) { c.Subject.CommonName = "Other CA" }), other, newKey(t).Public(), nil), "issued by"},
		// The same name but another key: RFC 6960 wants the key's word.
		"of a CA of that name": {newResponder(t, newCA(t, other, nil), other, newKey(t).Public(), nil), "isn't signed by"},
		"unknown key":          {newResponder(t, ca, key, p224.Public(), nil), "*ecdsa.PublicKey"},
	} {
		t.Run(name, func(t *testing.T) {
			err := revocation.CheckResponder(c.responder, ca)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "OCSP responder") {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

// RFC 5280 section 4.2.1.3: OCSP responses are signed with digitalSignature.
func TestCheckOCSP(t *testing.T) {
	key := newKey(t)
	if err := revocation.CheckOCSP(newCA(t, key, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature })); err != nil {
		t.Error(err)
	}
	if err := revocation.CheckOCSP(newCA(t, key, nil)); err == nil || !strings.Contains(err.Error(), "digitalSignature") {
		t.Errorf("%v", err)
	}
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err := revocation.CheckOCSP(newCA(t, p224, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature })); err == nil || !strings.Contains(err.Error(), "*ecdsa") {
		t.Errorf("%v", err)
	}
}
