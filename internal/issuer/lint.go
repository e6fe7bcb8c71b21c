package issuer

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// maxTBS bounds what Resume parses: a hundred names of 253 bytes and an ML-DSA
// key take 28 KiB.
const maxTBS = 64 << 10

// parseTBS reads to-be-signed bytes back with crypto/x509, which has its own
// idea of every rule; for that it wants a certificate, so they get a signature
// of no bits.
func parseTBS(tbs []byte) (*x509.Certificate, error) {
	if len(tbs) > maxTBS {
		return nil, fmt.Errorf("%d bytes: over %d KiB", len(tbs), maxTBS>>10)
	}
	algorithm, ok := innerAlgorithm(tbs)
	if !ok {
		return nil, errors.New("not a TBSCertificate")
	}
	der, err := assemble(tbs, algorithm, nil)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// innerAlgorithm finds the AlgorithmIdentifier inside (RFC 5280 section
// 4.1.2.3).
func innerAlgorithm(tbs []byte) (cryptobyte.String, bool) {
	input := cryptobyte.String(tbs)
	var fields, algorithm cryptobyte.String
	ok := input.ReadASN1(&fields, cbasn1.SEQUENCE) && input.Empty() &&
		fields.SkipASN1(cbasn1.Tag(0).ContextSpecific().Constructed()) && // version
		fields.SkipASN1(cbasn1.INTEGER) && // serial
		fields.ReadASN1Element(&algorithm, cbasn1.SEQUENCE)
	return algorithm, ok
}

// known are the extensions that a certificate of ours may have; others don't
// get signed. subjectAltName is critical where the subject is empty.
var known = [...]struct {
	id             asn1.ObjectIdentifier
	must, critical bool
}{
	{oidKeyUsage, true, true},
	{oidExtKeyUsage, true, false},
	{oidBasicConstraints, true, true},
	{oidSubjectKeyID, true, false},
	{oidAuthorityKeyID, true, false},
	{oidAuthorityInfo, false, false},
	{oidSubjectAltName, true, false},
	{oidCRLPoints, false, false},
	{oidNoRevAvail, false, false},
}

// lint checks what is true of every certificate that this authority signs,
// whoever encoded it: it is the last look before the key, at a new plan as at
// one that comes back from the database.
func (a *authority) lint(c *x509.Certificate) error {
	if err := lintExtensions(c); err != nil {
		return err
	}
	algorithm, _ := innerAlgorithm(c.RawTBSCertificate)
	allowed := x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	permanent, ours := permanentNames(sanOf(c))
	hasNames := len(c.DNSNames)+len(c.IPAddresses)+len(permanent) > 0
	switch {
	case c.Version != 3:
		return fmt.Errorf("version %d", c.Version)
	case !bytes.Equal(algorithm, a.algorithm.der):
		return errors.New("it names another signature algorithm than the key's")
	case !bytes.Equal(c.RawIssuer, a.cert.RawSubject) || !bytes.Equal(c.AuthorityKeyId, a.cert.SubjectKeyId):
		return ErrWrongIssuer
	case len(cert.SerialOf(c.SerialNumber)) != 32:
		return errors.New("the serial isn't 128 bits long") // RFC 5280 section 4.1.2.2
	case !c.BasicConstraintsValid || c.IsCA:
		return errors.New("it doesn't say CA:FALSE")
	case c.KeyUsage&x509.KeyUsageDigitalSignature == 0 || c.KeyUsage&^allowed != 0:
		return fmt.Errorf("key usage %b", c.KeyUsage)
	case len(c.UnknownExtKeyUsage) > 0 || len(c.ExtKeyUsage) == 0:
		return errors.New("extended key usage is missing or unknown")
	case !hasNames || !ours:
		return errors.New("it names nothing, or something else than hosts, people and devices")
	case c.NotAfter.Before(c.NotBefore) || c.NotBefore.Before(a.notBefore) || c.NotAfter.After(a.notAfter):
		return fmt.Errorf("its dates, %s to %s, lie outside the issuing chain's", stamp(c.NotBefore), stamp(c.NotAfter))
	case !bytes.Equal(c.SubjectKeyId, keyID(c.RawSubjectPublicKeyInfo)):
		return errors.New("the subject key identifier is not the key's")
	case len(c.OCSPServer) > 1:
		return errors.New("it names several OCSP servers")
	}
	for _, usage := range c.ExtKeyUsage {
		ok := slices.ContainsFunc(a.usages, func(u cert.Usage) bool { return extKeyUsage[u] == usage })
		if !ok {
			return fmt.Errorf("extended key usage %v is outside the CA certificate's", usage)
		}
	}
	return nil
}

// sanOf is the subjectAltName.
func sanOf(c *x509.Certificate) []byte {
	i := slices.IndexFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidSubjectAltName) })
	if i < 0 {
		return nil
	}
	return c.Extensions[i].Value
}

// lintExtensions checks that the extensions are ours, each once, critical where
// they must be, and that they don't contradict each other.
func lintExtensions(c *x509.Certificate) error {
	if len(c.UnhandledCriticalExtensions) > 0 {
		return fmt.Errorf("critical extension %v", c.UnhandledCriticalExtensions[0])
	}
	var seen [len(known)]bool
	for _, ext := range c.Extensions {
		place := 0
		for place < len(known) && !known[place].id.Equal(ext.Id) {
			place++
		}
		if place == len(known) || seen[place] {
			return fmt.Errorf("extension %v is unknown or comes twice", ext.Id)
		}
		seen[place] = true
		critical := known[place].critical
		if ext.Id.Equal(oidSubjectAltName) { // RFC 5280 section 4.2.1.6
			critical = len(c.Subject.Names) == 0
		}
		if ext.Critical != critical {
			return fmt.Errorf("extension %v has critical=%v", ext.Id, ext.Critical)
		}
		if ext.Id.Equal(oidNoRevAvail) {
			if !bytes.Equal(ext.Value, asn1.NullBytes) {
				return errors.New("noRevAvail isn't NULL")
			}
			if len(c.CRLDistributionPoints)+len(c.OCSPServer) > 0 { // RFC 9608 section 3
				return errors.New("noRevAvail beside a CRL distribution point or an OCSP server")
			}
		}
	}
	for i, k := range known {
		if k.must && !seen[i] {
			return fmt.Errorf("extension %v is missing", k.id)
		}
	}
	return nil
}

// check compares what crypto/x509 reads with what was asked for.
func (t *template) check(c *x509.Certificate) error {
	names, _ := permanentNames(sanOf(c))
	for _, name := range c.DNSNames {
		names = append(names, protocol.Identifier{Type: protocol.DNS, Value: name})
	}
	for _, ip := range c.IPAddresses {
		addr, _ := netip.AddrFromSlice(ip)
		names = append(names, protocol.Identifier{Type: protocol.IP, Value: addr.String()})
	}
	var usages []x509.ExtKeyUsage
	for _, u := range t.usages {
		usages = append(usages, extKeyUsage[u])
	}
	var crlURLs, ocspURLs []string
	if t.crlURL != "" {
		crlURLs = []string{t.crlURL}
	}
	if t.ocspURL != "" {
		ocspURLs = []string{t.ocspURL}
	}
	encipher := c.KeyUsage&x509.KeyUsageKeyEncipherment != 0
	noRevAvail := slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidNoRevAvail) })
	if cert.SerialOf(c.SerialNumber) != t.serial || !c.NotBefore.Equal(t.notBefore) || !c.NotAfter.Equal(t.notAfter) ||
		c.Subject.CommonName != t.commonName || !bytes.Equal(c.RawSubjectPublicKeyInfo, t.spki) ||
		!slices.Equal(sortNames(names), sortNames(slices.Clone(t.names))) || !slices.Equal(c.ExtKeyUsage, usages) ||
		!slices.Equal(c.CRLDistributionPoints, crlURLs) || !slices.Equal(c.OCSPServer, ocspURLs) || encipher != t.encipher || noRevAvail != t.noRevAvail {
		return errors.New("it doesn't read back as what was asked for")
	}
	return nil
}
