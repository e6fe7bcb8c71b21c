package issuer

import (
	"encoding/asn1"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// oidPermanentID is id-on-permanentIdentifier (RFC 4043 section 2).
var oidPermanentID = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 3}

// tagExplicit0 is [0] EXPLICIT: the value of an otherName.
var tagExplicit0 = cbasn1.Tag(0).ContextSpecific().Constructed()

// addPermanent writes an otherName that is a PermanentIdentifier with an
// identifierValue and no assigner, which stands for the issuer (RFC 4043
// section 2).
func addPermanent(b *cryptobyte.Builder, value string) {
	b.AddASN1(tagOther, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidPermanentID)
		b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
			})
		})
	})
}

// readPermanent reads the content of such an otherName. Its errors are badCSR
// problems.
func readPermanent(other cryptobyte.String) (protocol.Identifier, error) {
	var kind asn1.ObjectIdentifier
	var explicit, permanent, value cryptobyte.String
	switch {
	case !other.ReadASN1ObjectIdentifier(&kind):
		return protocol.Identifier{}, badCSR("the CSR's subjectAltName is not valid DER")
	case !kind.Equal(oidPermanentID):
		return protocol.Identifier{}, badCSR("the CSR's subjectAltName has an otherName of type %s; leave it out: only PermanentIdentifiers are certified here", kind)
	case !other.ReadASN1(&explicit, tagExplicit0) || !other.Empty() || !explicit.ReadASN1(&permanent, cbasn1.SEQUENCE) || !explicit.Empty() ||
		!permanent.ReadASN1(&value, cbasn1.UTF8String) || !permanent.Empty():
		return protocol.Identifier{}, badCSR("the CSR's PermanentIdentifier must have an identifierValue and nothing else (RFC 4043 section 2)")
	}
	id, err := protocol.ParseIdentifier(string(protocol.PermanentIdentifier), string(value))
	if err != nil {
		return id, badCSR("the CSR's subjectAltName: %s", protocol.AsProblem(err).Detail)
	}
	return id, nil
}

// permanentNames are the PermanentIdentifiers of a subjectAltName, which
// crypto/x509 passes over. It is false for other names that it passes over, too.
func permanentNames(san []byte) (names []protocol.Identifier, ok bool) {
	input := cryptobyte.String(san)
	var list cryptobyte.String
	if !input.ReadASN1(&list, cbasn1.SEQUENCE) || !input.Empty() {
		return nil, false
	}
	for !list.Empty() {
		var value cryptobyte.String
		var tag cbasn1.Tag
		if !list.ReadAnyASN1(&value, &tag) {
			return nil, false
		}
		switch tag {
		case tagDNS, tagIP:
		case tagOther:
			id, err := readPermanent(value)
			if err != nil {
				return nil, false
			}
			names = append(names, id)
		default:
			return nil, false
		}
	}
	return names, true
}
