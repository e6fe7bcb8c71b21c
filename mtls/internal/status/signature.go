package status

import (
	"bytes"
	"crypto/fips140"
	"crypto/sha1" // names keys in OCSP; nothing rests on its strength
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// skew is how far our clock and the signer's may be apart.
const skew = 5 * time.Minute

// algorithms are the signatures that count, by the content of their object
// identifier: RFC 5758 section 3.2, RFC 4055 section 5, RFC 8410 section 3.
var algorithms = map[string]x509.SignatureAlgorithm{
	"\x2a\x86\x48\xce\x3d\x04\x03\x02":     x509.ECDSAWithSHA256,
	"\x2a\x86\x48\xce\x3d\x04\x03\x03":     x509.ECDSAWithSHA384,
	"\x2a\x86\x48\xce\x3d\x04\x03\x04":     x509.ECDSAWithSHA512,
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b": x509.SHA256WithRSA,
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c": x509.SHA384WithRSA,
	"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d": x509.SHA512WithRSA,
	"\x2b\x65\x70":                         x509.PureEd25519,
}

var errMalformed = errors.New("malformed")

// readAlgorithm reads an AlgorithmIdentifier of a signature.
func readAlgorithm(s *cryptobyte.String) (x509.SignatureAlgorithm, error) {
	var seq, oid cryptobyte.String
	if !s.ReadASN1(&seq, asn1.SEQUENCE) || !seq.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) {
		return 0, errMalformed
	}
	alg, ok := algorithms[string(oid)]
	if !ok || len(seq) > 0 && !bytes.Equal(seq, []byte{5, 0}) { // no parameters, or NULL
		return 0, errors.New("its signature algorithm isn't one that counts (ECDSA or RSA PKCS #1 with SHA-2, Ed25519)")
	}
	return alg, nil
}

// readExtensions reads Extensions and hands each to known, which reports
// whether it understood it. A critical one that nobody understands is an error.
func readExtensions(seq cryptobyte.String, known func(oid, value []byte) (bool, error)) error {
	for !seq.Empty() {
		var ext, oid, value cryptobyte.String
		critical := false
		if !seq.ReadASN1(&ext, asn1.SEQUENCE) || !ext.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) ||
			ext.PeekASN1Tag(asn1.BOOLEAN) && !ext.ReadASN1Boolean(&critical) ||
			!ext.ReadASN1(&value, asn1.OCTET_STRING) || !ext.Empty() {
			return errMalformed
		}
		ok, err := known(oid, value)
		if err != nil {
			return err
		}
		if critical && !ok {
			return fmt.Errorf("it has a critical extension that isn't known here (%x)", []byte(oid))
		}
	}
	return nil
}

// unknown knows no extension.
func unknown([]byte, []byte) (bool, error) { return false, nil }

// readExplicit reads an optional SEQUENCE that an explicit tag wraps.
func readExplicit(s *cryptobyte.String, tag uint8, out *cryptobyte.String) bool {
	var present bool
	if !s.ReadOptionalASN1(out, &present, explicit(tag)) {
		return false
	}
	if !present {
		return true
	}
	inner := *out
	return inner.ReadASN1(out, asn1.SEQUENCE) && inner.Empty()
}

func explicit(tag uint8) asn1.Tag { return asn1.Tag(tag).ContextSpecific().Constructed() }

// current checks that now lies between thisUpdate and nextUpdate.
func current(this, next, now time.Time) error {
	switch {
	case next.IsZero():
		return errors.New("it has no nextUpdate, so it can't be believed at any time")
	case !next.After(this):
		return errors.New("its nextUpdate isn't after its thisUpdate")
	case this.After(now.Add(skew)):
		return fmt.Errorf("it is of %s, in the future", stamp(this))
	case now.After(next.Add(skew)):
		return fmt.Errorf("it ended at %s", stamp(next))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// sha1Of hashes what OCSP identifies by SHA-1.
func sha1Of(b []byte) (sum [sha1.Size]byte) {
	fips140.WithoutEnforcement(func() { sum = sha1.Sum(b) })
	return sum
}

// keyBits is the content of a certificate's subjectPublicKey.
func keyBits(c *x509.Certificate) ([]byte, error) {
	var seq, alg cryptobyte.String
	var bits []byte
	spki := cryptobyte.String(c.RawSubjectPublicKeyInfo)
	if !spki.ReadASN1(&seq, asn1.SEQUENCE) || !seq.ReadASN1(&alg, asn1.SEQUENCE) || !seq.ReadASN1BitStringAsBytes(&bits) {
		return nil, errors.New("its issuer's public key is malformed")
	}
	return bits, nil
}

// magnitude strips an INTEGER's content of leading zeros and reports whether
// it isn't negative; x509 refuses certificates with negative serials.
func magnitude(content []byte) ([]byte, bool) {
	return bytes.TrimLeft(content, "\x00"), len(content) > 0 && content[0]&0x80 == 0
}
