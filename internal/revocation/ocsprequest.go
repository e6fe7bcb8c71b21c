package revocation

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/chancery-pki/chancery/internal/cert"
)

// MaxOCSPRequest is the longest request that is read, in octets. With one
// certificate and the longest nonce it has some 300; the rest is for the
// requestor's name, a signature, which is ignored, and its certificate.
const MaxOCSPRequest = 4 << 10

// maxNonce is RFC 9654 section 2.1's bound, in octets.
const maxNonce = 128

// What is wrong with a request, and so the status that answers it.
var (
	// ErrMalformed is answered with [OCSPMalformedRequest].
	ErrMalformed = errors.New("malformed OCSP request")
	// ErrUnauthorized is answered with [OCSPUnauthorized]: a request that
	// may be well formed, but that we will not answer.
	ErrUnauthorized = errors.New("OCSP request not answered here: it must ask for one certificate, by SHA-1 or SHA-256 hashes, and need no extension but the nonce")
)

// OCSPRequest is what a relying party asks. Its slices are parts of the
// request's bytes.
type OCSPRequest struct {
	Hash           crypto.Hash // SHA1 or SHA256: what the next two were made with
	IssuerNameHash []byte
	IssuerKeyHash  []byte
	Serial         []byte // the certificate's: 1 to 20 octets, big-endian, the first not 0
	Nonce          []byte // 1 to 128 octets, if HasNonce
	HasNonce       bool
}

// CertSerial returns the serial in the form in which it is stored.
func (r *OCSPRequest) CertSerial() cert.Serial { return cert.Serial(hex.EncodeToString(r.Serial)) }

// ParseOCSPRequest reads a request (RFC 6960 section 4.1.1) into r and
// allocates nothing. It fails with [ErrMalformed] or [ErrUnauthorized] and
// then leaves r's content undefined. A signature is skipped: requests need
// none. What r holds is der's memory.
func ParseOCSPRequest(der []byte, r *OCSPRequest) error {
	*r = OCSPRequest{}
	in := cryptobyte.String(der)
	var request, tbs cryptobyte.String
	if len(der) > MaxOCSPRequest || !in.ReadASN1(&request, cbasn1.SEQUENCE) || !in.Empty() ||
		!request.ReadASN1(&tbs, cbasn1.SEQUENCE) || !skipSignature(&request) {
		return ErrMalformed
	}
	var list, extensions cryptobyte.String
	var extended bool
	if !skipVersion(&tbs) || !skipName(&tbs) || !tbs.ReadASN1(&list, cbasn1.SEQUENCE) ||
		!tbs.ReadOptionalASN1(&extensions, &extended, explicit(2)) || !tbs.Empty() {
		return ErrMalformed
	}
	if extended {
		if err := r.readExtensions(extensions, true); err != nil {
			return err
		}
	}
	if err := r.readCertificate(&list); err != nil {
		return err
	}
	if !list.Empty() { // one more, which would be one more signature
		return ErrUnauthorized
	}
	return nil
}

// explicit is the tag of an element [n] that holds others.
func explicit(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }

// skipSignature reads an optional [0] Signature to the end.
func skipSignature(s *cryptobyte.String) bool {
	var signature cryptobyte.String
	var signed bool
	if !s.ReadOptionalASN1(&signature, &signed, explicit(0)) || !s.Empty() {
		return false
	}
	return !signed || signature.SkipASN1(cbasn1.SEQUENCE) && signature.Empty()
}

// skipVersion reads an optional [0] version, which is always v1 (0). DER would
// leave the default out; it harms nobody.
func skipVersion(s *cryptobyte.String) bool {
	var version, number cryptobyte.String
	var there bool
	if !s.ReadOptionalASN1(&version, &there, explicit(0)) {
		return false
	}
	return !there || version.ReadASN1(&number, cbasn1.INTEGER) && version.Empty() && len(number) == 1 && number[0] == 0
}

// skipName reads an optional [1] requestorName.
func skipName(s *cryptobyte.String) bool {
	var explicitly, name cryptobyte.String
	var tag cbasn1.Tag
	var named bool
	if !s.ReadOptionalASN1(&explicitly, &named, explicit(1)) {
		return false
	}
	return !named || explicitly.ReadAnyASN1(&name, &tag) && explicitly.Empty()
}

// readCertificate reads the first Request of the list.
func (r *OCSPRequest) readCertificate(list *cryptobyte.String) error {
	var request, id, algorithm, oid, name, key, serial, extensions cryptobyte.String
	var extended bool
	if !list.ReadASN1(&request, cbasn1.SEQUENCE) || !request.ReadASN1(&id, cbasn1.SEQUENCE) ||
		!request.ReadOptionalASN1(&extensions, &extended, explicit(0)) || !request.Empty() ||
		!id.ReadASN1(&algorithm, cbasn1.SEQUENCE) || !algorithm.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) ||
		!id.ReadASN1(&name, cbasn1.OCTET_STRING) || !id.ReadASN1(&key, cbasn1.OCTET_STRING) ||
		!id.ReadASN1(&serial, cbasn1.INTEGER) || !id.Empty() {
		return ErrMalformed
	}
	if extended {
		if err := r.readExtensions(extensions, false); err != nil {
			return err
		}
	}
	switch {
	case bytes.Equal(oid, oidSHA1):
		r.Hash = crypto.SHA1
	case bytes.Equal(oid, oidSHA256):
		r.Hash = crypto.SHA256
	default:
		return ErrUnauthorized
	}
	// Parameters are NULL or absent (RFC 3370 section 2.1, RFC 5754 section 2).
	if !algorithm.Empty() && !bytes.Equal(algorithm, null) || len(name) != r.Hash.Size() || len(key) != r.Hash.Size() {
		return ErrMalformed
	}
	r.IssuerNameHash, r.IssuerKeyHash = name, key
	return r.readSerial(serial)
}

var (
	oidSHA1   = []byte{0x2b, 0x0e, 0x03, 0x02, 0x1a}
	oidSHA256 = []byte{0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01}
	oidNonce  = []byte{0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x02}
	null      = []byte{0x05, 0x00}
)

// readSerial takes the octets of an INTEGER. Those of certificates are
// positive and have at most 20 octets (RFC 5280 section 4.1.2.2), so we know
// of no others.
func (r *OCSPRequest) readSerial(s []byte) error {
	if len(s) == 0 || len(s) > 1 && (s[0] == 0 && s[1] < 0x80 || s[0] == 0xff && s[1] >= 0x80) {
		return ErrMalformed // X.690 section 8.3.2: the shortest form
	}
	if s[0] >= 0x80 {
		return ErrUnauthorized
	}
	if s[0] == 0 {
		s = s[1:]
	}
	if len(s) == 0 || len(s) > 20 {
		return ErrUnauthorized
	}
	r.Serial = s
	return nil
}

// readExtensions reads those of the request or of the one certificate asked
// for. Only the former may have a nonce. Others are ignored, but if they are
// critical (RFC 6960 section 4.1.2).
func (r *OCSPRequest) readExtensions(explicitly cryptobyte.String, ofRequest bool) error {
	var extensions cryptobyte.String
	if !explicitly.ReadASN1(&extensions, cbasn1.SEQUENCE) || !explicitly.Empty() || extensions.Empty() {
		return ErrMalformed
	}
	var unknown bool
	for !extensions.Empty() {
		var extension, oid, flag, value cryptobyte.String
		var flagged bool
		if !extensions.ReadASN1(&extension, cbasn1.SEQUENCE) || !extension.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) ||
			!extension.ReadOptionalASN1(&flag, &flagged, cbasn1.BOOLEAN) || flagged && len(flag) != 1 ||
			!extension.ReadASN1(&value, cbasn1.OCTET_STRING) || !extension.Empty() {
			return ErrMalformed
		}
		if ofRequest && bytes.Equal(oid, oidNonce) {
			if err := r.readNonce(value); err != nil {
				return err
			}
		} else if flagged && flag[0] != 0 {
			unknown = true
		}
	}
	if unknown {
		return ErrUnauthorized
	}
	return nil
}

func (r *OCSPRequest) readNonce(value cryptobyte.String) error {
	var nonce cryptobyte.String
	if r.HasNonce || !value.ReadASN1(&nonce, cbasn1.OCTET_STRING) || !value.Empty() || len(nonce) < 1 || len(nonce) > maxNonce {
		return ErrMalformed
	}
	r.Nonce, r.HasNonce = nonce, true
	return nil
}
