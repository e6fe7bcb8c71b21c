package revocation

import (
	"crypto"
	"crypto/sha1" // names keys in OCSP; nothing rests on its strength
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/chancery-pki/chancery/internal/cert"
)

// OCSPStatus is what a response says of a certificate (RFC 6960 section 4.2.1:
// CertStatus); the numbers are its tags.
type OCSPStatus int

// The three states.
const (
	Good    OCSPStatus = 0
	Revoked OCSPStatus = 1
	Unknown OCSPStatus = 2
)

// String returns "good", "revoked" or "unknown".
func (s OCSPStatus) String() string {
	switch s {
	case Good:
		return "good"
	case Revoked:
		return "revoked"
	case Unknown:
		return "unknown"
	}
	return fmt.Sprintf("OCSP status %d", int(s))
}

// OCSPResponse is what a response about one certificate shall say. Times are
// cut to the second.
type OCSPResponse struct {
	Issuer    *x509.Certificate // of the certificate, as x509 parsed it
	Responder *x509.Certificate // who signs in its place; nil: the issuer signs
	Hash      crypto.Hash       // of the request: SHA1 or SHA256
	Serial    cert.Serial
	Status    OCSPStatus
	RevokedAt time.Time   // if Revoked, else zero
	Reason    cert.Reason // if Revoked, else Unspecified
	// ProducedAt is when it is signed, ThisUpdate when Status was known to be
	// true, not after ProducedAt. NextUpdate comes after both: until then the
	// response is believed. A delegated responder's must not end after the
	// responder's certificate.
	ProducedAt, ThisUpdate, NextUpdate time.Time
	Nonce                              []byte // of the request, 1 to 128 octets; nil: none
}

// UnsignedOCSP is a response that lacks its signature.
type UnsignedOCSP struct {
	signer    *x509.Certificate
	delegated bool
	algorithm algorithm
	tbs       []byte // ResponseData
}

// BuildOCSP encodes the to-be-signed part, the same bytes for the same
// response. It fails when the response contradicts itself, and refuses what
// would let a stranger spend the issuing key: an answer to a nonce, or about an
// unknown certificate, is for a delegated responder. That one passes
// [CheckResponder] is for the caller to see to, once.
func BuildOCSP(r OCSPResponse) (*UnsignedOCSP, error) {
	u := &UnsignedOCSP{signer: r.Issuer}
	if r.Responder != nil {
		u.signer, u.delegated = r.Responder, true
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("OCSP response about %.50q: %w", r.Serial, err)
	}
	var err error
	if u.algorithm, err = algorithmFor(u.signer.PublicKey); err != nil {
		return nil, err
	}
	key, err := keyBits(u.signer)
	if err != nil {
		return nil, err
	}
	single, err := r.single()
	if err != nil {
		return nil, fmt.Errorf("OCSP response: %w", err)
	}
	if u.tbs, err = r.data(sha1.Sum(key), single); err != nil {
		return nil, fmt.Errorf("OCSP response about %s: %w", r.Serial, err)
	}
	return u, nil
}

// data is the ResponseData.
func (r *OCSPResponse) data(keyHash [sha1.Size]byte, single []byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, 256+len(r.Nonce)))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(explicit(2), func(b *cryptobyte.Builder) { b.AddASN1OctetString(keyHash[:]) }) // responderID: byKey
		b.AddBytes(appendGeneralizedTime(nil, r.ProducedAt))
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(single) })
		if r.Nonce != nil {
			b.AddASN1(explicit(1), func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					addExtension(b, oidNonce, func(b *cryptobyte.Builder) { b.AddASN1OctetString(r.Nonce) })
				})
			})
		}
	})
	return b.Bytes()
}

// check finds contradictions.
func (r *OCSPResponse) check() error {
	from, to := r.ThisUpdate.Truncate(time.Second), r.NextUpdate.Truncate(time.Second) // as it will say
	switch {
	case r.Status < Good || r.Status > Unknown:
		return fmt.Errorf("there is no %v", r.Status)
	case r.Status == Revoked && !encodable(r.RevokedAt):
		return fmt.Errorf("no such revocation date: %v", r.RevokedAt)
	case r.Status == Revoked && !r.Reason.Valid():
		return fmt.Errorf("no such reason: %d", r.Reason)
	case r.Status != Revoked && (!r.RevokedAt.IsZero() || r.Reason != cert.Unspecified):
		return fmt.Errorf("status %v of a certificate that was revoked at %v", r.Status, r.RevokedAt)
	case !encodable(from) || !encodable(to) || from.After(r.ProducedAt) || !to.After(r.ProducedAt):
		return fmt.Errorf("it can't be produced at %v and valid from %v to %v", r.ProducedAt, r.ThisUpdate, r.NextUpdate)
	case r.Nonce != nil && (len(r.Nonce) < 1 || len(r.Nonce) > maxNonce):
		return fmt.Errorf("a nonce of %d octets; RFC 9654 has 1 to %d", len(r.Nonce), maxNonce)
	case r.Responder != nil && !slices.Contains(r.Responder.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return fmt.Errorf("certificate %q may not sign OCSP responses", r.Responder.Subject)
	case r.Responder != nil && to.After(r.Responder.NotAfter):
		return fmt.Errorf("it is valid until %v, the OCSP responder's certificate %q only until %v", to, r.Responder.Subject, r.Responder.NotAfter)
	case r.Responder == nil && r.Status == Unknown:
		return errors.New("status unknown is for a delegated responder to sign, not for the issuing key")
	case r.Responder == nil && r.Nonce != nil:
		return errors.New("a nonce is for a delegated responder to sign, not for the issuing key")
	}
	return nil
}

// single is the SingleResponse.
func (r *OCSPResponse) single() ([]byte, error) {
	hashes := HashIssuer(r.Issuer)
	name, key := hashes.of(r.Hash)
	if name == nil || !hashes.known {
		return nil, fmt.Errorf("issuer %q can't be named by hash %v", r.Issuer.Subject, r.Hash)
	}
	serial, err := appendSerial(nil, r.Serial)
	if err != nil {
		return nil, err
	}
	oid := oidSHA1
	if r.Hash == crypto.SHA256 {
		oid = oidSHA256
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // CertID
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(oid) })
				b.AddBytes(null) // as most requests have it; one answer is for all
			})
			b.AddASN1OctetString(name)
			b.AddASN1OctetString(key)
			b.AddBytes(serial)
		})
		r.addStatus(b)
		b.AddBytes(appendGeneralizedTime(nil, r.ThisUpdate))
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddBytes(appendGeneralizedTime(nil, r.NextUpdate)) })
	})
	return b.Bytes()
}

// addStatus adds the CertStatus.
func (r *OCSPResponse) addStatus(b *cryptobyte.Builder) {
	tag := cbasn1.Tag(r.Status).ContextSpecific()
	if r.Status != Revoked {
		b.AddASN1(tag, func(*cryptobyte.Builder) {}) // IMPLICIT NULL
		return
	}
	b.AddASN1(tag.Constructed(), func(b *cryptobyte.Builder) {
		b.AddBytes(appendGeneralizedTime(nil, r.RevokedAt))
		if r.Reason != cert.Unspecified { // RFC 5280 section 5.3.1: it should be left out
			b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(r.Reason)) })
		}
	})
}

// oidBasic is id-pkix-ocsp-basic, 1.3.6.1.5.5.7.48.1.1.
var oidBasic = []byte{0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01}

// TBS returns the ResponseData, which the signature covers; not to be changed.
func (u *UnsignedOCSP) TBS() []byte { return u.tbs }

// Sign gets a signature over the response and returns the OCSPResponse in DER,
// with the certificate of a delegated responder in it. sign is called once,
// with the arguments of crypto.Signer: a digest, or with Ed25519 the
// ResponseData itself. Its error is returned, and so is a signature that
// doesn't verify; then Sign may be called again.
func (u *UnsignedOCSP) Sign(sign func(digest []byte, opts crypto.SignerOpts) ([]byte, error)) ([]byte, error) {
	signature, err := u.algorithm.sign(u.signer, u.tbs, sign)
	if err != nil {
		return nil, fmt.Errorf("sign an OCSP response: %w", err)
	}
	size := len(u.tbs) + len(signature) + 128
	if u.delegated {
		size += len(u.signer.Raw)
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, size))
	sequence := func(b *cryptobyte.Builder, f cryptobyte.BuilderContinuation) { b.AddASN1(cbasn1.SEQUENCE, f) }
	sequence(b, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(0) // successful
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			sequence(b, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(oidBasic) })
				b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) {
					sequence(b, func(b *cryptobyte.Builder) { // BasicOCSPResponse
						b.AddBytes(u.tbs)
						b.AddBytes(u.algorithm.der)
						b.AddASN1BitString(signature)
						if u.delegated {
							b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
								sequence(b, func(b *cryptobyte.Builder) { b.AddBytes(u.signer.Raw) })
							})
						}
					})
				})
			})
		})
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("sign an OCSP response: %w", err)
	}
	return der, nil
}

// appendGeneralizedTime encodes a time to the second, without fractions (RFC
// 6960 section 4.2.2.1, RFC 5280 section 4.1.2.5.2).
func appendGeneralizedTime(dst []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(append(dst, 0x18, 15), "20060102150405Z")
}
