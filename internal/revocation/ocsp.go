package revocation

import (
	"bytes"
	"crypto"
	"crypto/sha1" // names issuers in OCSP; nothing rests on its strength
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// The unsuccessful values of OCSPResponseStatus (RFC 6960 section 4.2.1).
const (
	OCSPMalformedRequest = 1
	OCSPInternalError    = 2
	OCSPTryLater         = 3
	OCSPSigRequired      = 5
	OCSPUnauthorized     = 6
)

// The encoded OCSPErrors: an ENUMERATED in a SEQUENCE, no responseBytes.
var ocspErrors = [...][]byte{
	OCSPMalformedRequest: {0x30, 3, 0x0a, 1, OCSPMalformedRequest},
	OCSPInternalError:    {0x30, 3, 0x0a, 1, OCSPInternalError},
	OCSPTryLater:         {0x30, 3, 0x0a, 1, OCSPTryLater},
	OCSPSigRequired:      {0x30, 3, 0x0a, 1, OCSPSigRequired},
	OCSPUnauthorized:     {0x30, 3, 0x0a, 1, OCSPUnauthorized},
}

// OCSPError returns the unsigned response of that status, in DER; not to be
// changed, since all callers get the same bytes. A status that isn't one of
// the five above gives that of internalError.
func OCSPError(status int) []byte {
	if status < 0 || status >= len(ocspErrors) || ocspErrors[status] == nil {
		status = OCSPInternalError
	}
	return ocspErrors[status]
}

// IssuerHashes are the ways in which an OCSP request may name an issuer. The
// zero value matches no request.
type IssuerHashes struct {
	nameSHA1, keySHA1     [sha1.Size]byte
	nameSHA256, keySHA256 [sha256.Size]byte
	known                 bool
}

// HashIssuer computes the hashes of an issuing certificate as x509 parsed it:
// of its subject and of its public key, the bits without tag, length and count
// of unused bits (RFC 6960 section 4.1.1).
func HashIssuer(c *x509.Certificate) IssuerHashes {
	key, err := keyBits(c)
	if err != nil {
		return IssuerHashes{}
	}
	return IssuerHashes{
		nameSHA1: sha1.Sum(c.RawSubject), keySHA1: sha1.Sum(key),
		nameSHA256: sha256.Sum256(c.RawSubject), keySHA256: sha256.Sum256(key),
		known: true,
	}
}

// Match reports whether the request is about a certificate of this issuer. It
// allocates nothing.
func (h *IssuerHashes) Match(r *OCSPRequest) bool {
	name, key := h.of(r.Hash)
	return h.known && name != nil && bytes.Equal(name, r.IssuerNameHash) && bytes.Equal(key, r.IssuerKeyHash)
}

// of returns the hashes made with that function, nil if there are none.
func (h *IssuerHashes) of(hash crypto.Hash) (name, key []byte) {
	switch hash {
	case crypto.SHA1:
		return h.nameSHA1[:], h.keySHA1[:]
	case crypto.SHA256:
		return h.nameSHA256[:], h.keySHA256[:]
	}
	return nil, nil
}

// keyBits returns the BIT STRING of the certificate's SubjectPublicKeyInfo.
func keyBits(c *x509.Certificate) ([]byte, error) {
	spki := cryptobyte.String(c.RawSubjectPublicKeyInfo)
	var bits []byte
	if !spki.ReadASN1(&spki, cbasn1.SEQUENCE) || !spki.SkipASN1(cbasn1.SEQUENCE) || !spki.ReadASN1BitStringAsBytes(&bits) {
		return nil, fmt.Errorf("certificate %q has no readable public key", c.Subject)
	}
	return bits, nil
}

var oidOCSPNoCheck = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}

// CheckOCSP finds out whether the issuer's own key can sign OCSP responses; the
// error says what its certificate lacks.
func CheckOCSP(issuer *x509.Certificate) error {
	if _, err := keyBits(issuer); err != nil {
		return err
	}
	// RFC 5280 section 4.2.1.3: for signatures other than on certificates
	// and CRLs.
	if issuer.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return fmt.Errorf("CA certificate %q lacks the key usage digitalSignature, so relying parties may refuse OCSP responses that it signs; give the issuer a delegated OCSP responder, or a CA certificate with it", issuer.Subject)
	}
	_, err := algorithmFor(issuer.PublicKey)
	return err
}

// CheckResponder finds out whether relying parties will take the word of a
// delegated responder for that issuer's certificates (RFC 6960 sections
// 4.2.2.2 and 4.2.2.2.1); the error says what is wrong with its certificate.
// Dates aren't looked at.
func CheckResponder(responder, issuer *x509.Certificate) error {
	bad := func(err error) error {
		return fmt.Errorf("OCSP responder's certificate %q: %w", responder.Subject, err)
	}
	switch {
	case !slices.Contains(responder.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return bad(errors.New("it lacks the extended key usage OCSPSigning"))
	case responder.KeyUsage != 0 && responder.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return bad(errors.New("it lacks the key usage digitalSignature"))
	case responder.IsCA:
		return bad(errors.New("it is a CA's; a responder needs a certificate of its own"))
	case len(responder.UnhandledCriticalExtensions) > 0:
		return bad(fmt.Errorf("it has the critical extension %v, which relying parties don't know", responder.UnhandledCriticalExtensions[0]))
	case !hasNoCheck(responder):
		// Else relying parties ask for its own status, of which only it
		// could tell.
		return bad(errors.New("it lacks the extension ocsp-nocheck"))
	case !bytes.Equal(responder.RawIssuer, issuer.RawSubject):
		return bad(fmt.Errorf("it was issued by %q; a responder for %q must be issued by that CA itself", responder.Issuer, issuer.Subject))
	case bytes.Equal(responder.RawSubjectPublicKeyInfo, issuer.RawSubjectPublicKeyInfo):
		return bad(errors.New("it has the issuer's own key, so it would spare that nothing"))
	}
	if err := responder.CheckSignatureFrom(issuer); err != nil {
		return bad(fmt.Errorf("it isn't signed by the key of CA certificate %q: %w", issuer.Subject, err))
	}
	if _, err := keyBits(responder); err != nil {
		return err
	}
	if _, err := algorithmFor(responder.PublicKey); err != nil {
		return bad(err)
	}
	return nil
}

func hasNoCheck(c *x509.Certificate) bool {
	for _, e := range c.Extensions {
		if e.Id.Equal(oidOCSPNoCheck) {
			return true
		}
	}
	return false
}
