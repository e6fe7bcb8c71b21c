package issuer

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// MaxCSR bounds a CSR: RSA-4096 with a hundred long names takes 28 KiB,
// ML-DSA-87 8 KiB with a few.
const MaxCSR = 32 << 10

// CSR is what counts of a certificate signing request.
type CSR struct {
	commonName string // as it is; doesn't tell what kind of name it is
	PublicKey  crypto.PublicKey
	KeyHash    string                // hex SHA-256 of the SubjectPublicKeyInfo
	Names      []protocol.Identifier // canonical, sorted, each once; at least one
	// Usage is the extended key usage it asks for where that is exactly
	// serverAuth or exactly clientAuth, else "". OtherUsage says that it
	// asks for something else.
	Usage      cert.Usage
	OtherUsage bool
	// SSH is the key that came in place of a CSR, for an SSH certificate; nil
	// for others. PublicKey and KeyHash are its own then; nothing else is set.
	SSH ssh.PublicKey
}

var (
	oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidServerAuth = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
	oidClientAuth = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
)

// ParseCSR reads a CSR in DER (RFC 2986), as finalize carries it (RFC 8555
// section 7.4), and verifies its signature by its own key. Names are those of
// the subjectAltName and the CommonName together. All else that it may ask
// for, CA:TRUE and extensions included, is ignored. Whether the key is good
// enough is CheckKey's question. Every error is a badCSR problem.
func ParseCSR(der []byte) (*CSR, error) {
	if len(der) > MaxCSR {
		return nil, badCSR("the CSR is longer than %d KiB; ask for fewer names at once", MaxCSR>>10)
	}
	if bytes.HasPrefix(der, []byte("-----BEGIN")) {
		return nil, badCSR("the CSR is PEM, not a PKCS#10 request in DER; send the bytes that its base64 lines stand for")
	}
	in, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, badCSR("the CSR is not a PKCS#10 request in DER that can be read (%v); look at it with: openssl req -verify -text", err)
	}
	// PKCS#10 knows only 0 (RFC 2986 section 4.1), but the version decides
	// nothing and ruby-acme-client always says 2.
	if in.Version < 0 || in.Version > 2 {
		return nil, badCSR("the CSR's version is %d; PKCS#10 knows only 0", in.Version)
	}
	if err := checkProof(in); err != nil {
		return nil, err
	}
	names, commonName, err := csrNames(in)
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(in.RawSubjectPublicKeyInfo)
	c := &CSR{commonName: commonName, PublicKey: in.PublicKey, KeyHash: hex.EncodeToString(hash[:]), Names: names}
	c.Usage, c.OtherUsage = csrUsage(in)
	return c, nil
}

func badCSR(format string, args ...any) *protocol.Problem {
	return protocol.NewProblem(protocol.BadCSR, format, args...)
}

// checkProof verifies that whoever made the CSR holds the key. The size comes
// first: a signature by an RSA key that fills the whole CSR would take long.
func checkProof(in *x509.CertificateRequest) error {
	switch pub := in.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := pub.N.BitLen(); bits < 2048 || bits > 4096 {
			return badCSR("an RSA key of %d bits: want 2048 to 4096; make a new key", bits)
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		if _, ok := mldsaType(pub); !ok {
			return badCSR("the CSR's kind of public key (%s) is not supported; use ECDSA (P-256), RSA or Ed25519", keyKind(in))
		}
	}
	switch in.SignatureAlgorithm {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519:
	default:
		if !mldsaSignature(in.SignatureAlgorithm) {
			return badCSR("the CSR is signed with %v; sign it with SHA-256 or better", in.SignatureAlgorithm)
		}
	}
	if err := in.CheckSignature(); err != nil {
		return badCSR("the CSR's signature doesn't verify with its own key; make it again with the key's private half")
	}
	return nil
}

// keyKind names a key that isn't taken.
func keyKind(in *x509.CertificateRequest) string {
	s := cryptobyte.String(in.RawSubjectPublicKeyInfo)
	var outer, algorithm cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1(&outer, cbasn1.SEQUENCE) || !outer.ReadASN1(&algorithm, cbasn1.SEQUENCE) || !algorithm.ReadASN1ObjectIdentifier(&oid) {
		return "unknown"
	}
	// RFC 9881: crypto/x509 knows these since Go 1.27.
	if len(oid) == 9 && oid[:8].Equal(asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3}) && oid[8] >= 17 && oid[8] <= 19 {
		return "ML-DSA, which needs a server built with Go 1.27"
	}
	return oid.String()
}

// csrNames collects the names of the subject's CommonName and of the
// subjectAltName: RFC 8555 section 7.4 lets them stand in either or both.
func csrNames(in *x509.CertificateRequest) (names []protocol.Identifier, commonName string, err error) {
	for _, ext := range in.Extensions {
		if !ext.Id.Equal(oidSubjectAltName) {
			continue
		}
		if names, err = sanNames(ext.Value); err != nil {
			return nil, "", err
		}
	}
	commonNames := 0
	for _, attribute := range in.Subject.Names {
		if !attribute.Type.Equal(oidCommonName) {
			continue
		}
		if commonNames++; commonNames > 1 {
			return nil, "", badCSR("the CSR's subject has more than one CommonName; leave the subject empty and use subjectAltName")
		}
		commonName, _ = attribute.Value.(string)
		name, err := csrName(commonName)
		if err != nil {
			return nil, "", badCSR("the CSR's CommonName is not a name that can be certified (%s); leave it out, or make it one of the order's names", protocol.AsProblem(err).Detail)
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil, "", badCSR("the CSR names nothing; put the order's names into its subjectAltName")
	}
	return sortNames(names), commonName, nil
}

// csrName is the identifier in a CommonName, which doesn't tell its type: an
// address, a dns name, or what can only be a person or a device, as the step
// CLI has it. What can be both, Match finds out.
func csrName(text string) (protocol.Identifier, error) {
	if _, err := netip.ParseAddr(text); err == nil {
		return protocol.ParseIdentifier(string(protocol.IP), text)
	}
	id, err := protocol.ParseIdentifier(string(protocol.DNS), text)
	if err != nil {
		if permanent, bad := protocol.ParseIdentifier(string(protocol.PermanentIdentifier), text); bad == nil {
			return permanent, nil
		}
	}
	return id, err
}

// The tags of GeneralName (RFC 5280 section 4.2.1.6).
var (
	tagOther = cbasn1.Tag(0).ContextSpecific().Constructed()
	tagDNS   = cbasn1.Tag(2).ContextSpecific()
	tagURI   = cbasn1.Tag(6).ContextSpecific()
	tagIP    = cbasn1.Tag(7).ContextSpecific()
)

// sanNames reads a subjectAltName strictly: crypto/x509 passes over the kinds
// of names it doesn't know, and then we'd seem to have granted them.
func sanNames(der []byte) ([]protocol.Identifier, error) {
	input := cryptobyte.String(der)
	var list cryptobyte.String
	if !input.ReadASN1(&list, cbasn1.SEQUENCE) || !input.Empty() {
		return nil, badCSR("the CSR's subjectAltName is not valid DER")
	}
	var names []protocol.Identifier
	for !list.Empty() {
		var value cryptobyte.String
		var tag cbasn1.Tag
		if !list.ReadAnyASN1(&value, &tag) {
			return nil, badCSR("the CSR's subjectAltName is not valid DER")
		}
		var id protocol.Identifier
		var err error
		switch tag {
		case tagDNS:
			id, err = protocol.ParseIdentifier(string(protocol.DNS), string(value))
		case tagIP:
			addr, ok := netip.AddrFromSlice(value)
			if !ok {
				return nil, badCSR("an IP address in the CSR's subjectAltName has %d bytes; want 4 or 16", len(value))
			}
			id, err = protocol.ParseIdentifier(string(protocol.IP), addr.String())
		case tagOther:
			if id, err = readPermanent(value); err != nil {
				return nil, err
			}
		default:
			return nil, badCSR("the CSR's subjectAltName has %s; leave it out: only dns names, IP addresses and PermanentIdentifiers are certified here", generalName(tag))
		}
		if err != nil {
			return nil, badCSR("the CSR's subjectAltName: %s", protocol.AsProblem(err).Detail)
		}
		names = append(names, id)
	}
	return names, nil
}

// generalName says what a GeneralName's tag stands for.
func generalName(tag cbasn1.Tag) string {
	switch tag &^ 0xe0 { // without class and form
	case 0:
		return "an otherName"
	case 1:
		return "an email address"
	case 4:
		return "a directory name"
	case 6:
		return "a URI"
	}
	return fmt.Sprintf("a name of kind %d", tag&^0xe0)
}

// csrUsage reads the extended key usage: exactly one of two purposes counts.
func csrUsage(in *x509.CertificateRequest) (usage cert.Usage, other bool) {
	for _, ext := range in.Extensions {
		if !ext.Id.Equal(oidExtKeyUsage) {
			continue
		}
		var purposes []asn1.ObjectIdentifier
		rest, err := asn1.Unmarshal(ext.Value, &purposes)
		switch {
		case err != nil || len(rest) > 0 || len(purposes) != 1:
			return "", true
		case purposes[0].Equal(oidServerAuth):
			return cert.Server, false
		case purposes[0].Equal(oidClientAuth):
			return cert.Client, false
		}
		return "", true
	}
	return "", false
}

// sortNames brings names into the one order in which they are compared, and
// drops repetitions.
func sortNames(names []protocol.Identifier) []protocol.Identifier {
	slices.SortFunc(names, func(a, b protocol.Identifier) int {
		return cmp.Or(strings.Compare(string(a.Type), string(b.Type)), strings.Compare(a.Value, b.Value))
	})
	return slices.Compact(names)
}

// Match checks that the CSR names exactly what the order does (RFC 8555
// section 7.4). Its error is a badCSR problem that lists the difference.
func (c *CSR) Match(order []protocol.Identifier) error {
	want := sortNames(slices.Clone(order))
	if slices.Equal(c.Names, want) || slices.Equal(c.permanent(want), want) {
		return nil
	}
	var wrong []string
	if missing := without(want, c.Names); missing != "" {
		wrong = append(wrong, "it lacks "+missing)
	}
	if extra := without(c.Names, want); extra != "" {
		wrong = append(wrong, "the order doesn't have "+extra)
	}
	return badCSR("the CSR must name exactly what the order does: %s", strings.Join(wrong, "; "))
}

// permanent are the CSR's names with the CommonName read as a person or a device
// rather than as a dns name, where the order has such a one.
func (c *CSR) permanent(order []protocol.Identifier) []protocol.Identifier {
	id, err := protocol.ParseIdentifier(string(protocol.PermanentIdentifier), c.commonName)
	if err != nil || !slices.Contains(order, id) {
		return nil
	}
	names := slices.DeleteFunc(slices.Clone(c.Names), func(name protocol.Identifier) bool {
		return name == protocol.Identifier{Type: protocol.DNS, Value: id.Value}
	})
	return sortNames(append(names, id))
}

// without lists the first few names of a that b lacks.
func without(a, b []protocol.Identifier) string {
	const most = 5
	var lacking []string
	for _, id := range a {
		if slices.Contains(b, id) {
			continue
		}
		if len(lacking) == most {
			lacking = append(lacking, "…")
			break
		}
		lacking = append(lacking, id.String())
	}
	return strings.Join(lacking, ", ")
}
