package acme

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// KeyAuthorization joins a challenge's token and the account key's thumbprint
// (RFC 8555 section 8.1). A token outside the base64url alphabet is refused:
// tokens become file names and URL paths.
func KeyAuthorization(token string, accountKey crypto.PublicKey) (string, error) {
	thumbprint, err := Thumbprint(accountKey)
	if err != nil {
		return "", err
	}
	return keyAuthorization(token, thumbprint)
}

func keyAuthorization(token, thumbprint string) (string, error) {
	if !isBase64URL(token) {
		return "", fmt.Errorf("acme: the challenge's token %q is not base64url (RFC 8555 section 8.3)", printable(token))
	}
	return token + "." + thumbprint, nil
}

// HTTP01Path returns the path whose body must be the key authorization (RFC
// 8555 section 8.3).
func HTTP01Path(token string) string { return http01Prefix + token }

const http01Prefix = "/.well-known/acme-challenge/"

// DNS01Name returns the name of the TXT record for a domain, wildcard or not
// (RFC 8555 section 8.4), without a final dot.
func DNS01Name(domain string) string {
	return "_acme-challenge." + strings.TrimPrefix(domain, "*.")
}

// DNS01Value returns the content of the TXT record, for dns-01 and
// dns-account-01 (RFC 8555 section 8.4).
func DNS01Value(keyAuth string) string {
	sum := sha256.Sum256([]byte(keyAuth))
	return b64.EncodeToString(sum[:])
}

// DNSAccount01Name returns the name of the TXT record of dns-account-01, which
// is another for every account (draft-ietf-acme-dns-account-label section 3.2).
func DNSAccount01Name(accountURL, domain string) string {
	sum := sha256.Sum256([]byte(accountURL))
	return "_" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:10])) + "." + DNS01Name(domain)
}

// DNSPersist01Name returns the name of the TXT record of dns-persist-01
// (draft-ietf-acme-dns-persist).
func DNSPersist01Name(domain string) string {
	return "_validation-persist." + strings.TrimPrefix(domain, "*.")
}

// DNSPersist01Value returns a content of that record: issuer is one of the
// challenge's issuer-domain-names, wildcard extends it to names below, and a
// zero until never ends it.
func DNSPersist01Value(issuer, accountURL string, wildcard bool, until time.Time) string {
	value := issuer + "; accounturi=" + accountURL
	if wildcard {
		value += "; policy=wildcard"
	}
	if !until.IsZero() {
		value += "; persistUntil=" + strconv.FormatInt(until.Unix(), 10)
	}
	return value
}

// ALPNProto is the protocol that tls-alpn-01 negotiates (RFC 8737 section 6.2).
const ALPNProto = "acme-tls/1"

// idPeACMEIdentifier is RFC 8737 section 6.1's extension.
var idPeACMEIdentifier = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}

// TLSALPN01ServerName returns the server name a validator asks for: the name
// itself, or an address's name under in-addr.arpa or ip6.arpa (RFC 8738
// section 6), in lower case.
func TLSALPN01ServerName(id Identifier) (string, error) {
	if id.Type != TypeIP {
		return strings.ToLower(id.Value), nil
	}
	addr, err := netip.ParseAddr(id.Value)
	if err != nil || addr.Zone() != "" {
		return "", fmt.Errorf("acme: %q is not an address", printable(id.Value))
	}
	if addr = addr.Unmap(); addr.Is4() {
		b := addr.As4()
		return fmt.Sprintf("%d.%d.%d.%d.in-addr.arpa", b[3], b[2], b[1], b[0]), nil
	}
	b := addr.As16()
	digits := []byte(hex.EncodeToString(b[:]))
	slices.Reverse(digits)
	var name strings.Builder
	for _, d := range digits {
		name.WriteByte(d)
		name.WriteByte('.')
	}
	return name.String() + "ip6.arpa", nil
}

// TLSALPN01Certificate makes the self-signed certificate that answers a
// tls-alpn-01 challenge for a dns or ip identifier (RFC 8737 section 3, RFC
// 8738 section 4), with a key of its own.
func TLSALPN01Certificate(id Identifier, keyAuth string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("acme: %w", err)
	}
	sum := sha256.Sum256([]byte(keyAuth))
	digest, err := asn1.Marshal(sum[:])
	if err != nil {
		return nil, fmt.Errorf("acme: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject:         pkix.Name{CommonName: "ACME challenge"},
		NotBefore:       now.Add(-time.Hour), // clocks differ
		NotAfter:        now.Add(24 * time.Hour),
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		ExtraExtensions: []pkix.Extension{{Id: idPeACMEIdentifier, Critical: true, Value: digest}},
	}
	if template.DNSNames, template.IPAddresses, err = altNames(id); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("acme: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// NewCSR makes a PKCS#10 request in DER for dns and ip identifiers, as
// subject alternative names with an empty subject (RFC 8555 section 7.4).
func NewCSR(key crypto.Signer, ids ...Identifier) ([]byte, error) { return NewCSRFor(nil, key, ids...) }

// oidExtKeyUsage is the Extended Key Usage extension (RFC 5280 section
// 4.2.1.12).
var oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}

// NewCSRFor is NewCSR that asks for Extended Key Usages too, as an extension
// request (RFC 2986 section 4.1, RFC 5280 section 4.2.1.12): ServerAuth,
// ClientAuth or both. No usages: none are asked for.
func NewCSRFor(usages []x509.ExtKeyUsage, key crypto.Signer, ids ...Identifier) ([]byte, error) {
	var template x509.CertificateRequest
	if len(usages) > 0 {
		var oids []asn1.ObjectIdentifier
		for _, usage := range usages {
			switch usage {
			case x509.ExtKeyUsageServerAuth:
				oids = append(oids, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1})
			case x509.ExtKeyUsageClientAuth:
				oids = append(oids, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2})
			default:
				return nil, fmt.Errorf("acme: CSR: the Extended Key Usage %d is neither serverAuth nor clientAuth; make the request yourself", usage)
			}
		}
		value, err := asn1.Marshal(oids)
		if err != nil {
			return nil, fmt.Errorf("acme: CSR: %w", err)
		}
		template.ExtraExtensions = []pkix.Extension{{Id: oidExtKeyUsage, Value: value}}
	}
	var err error
	if template.DNSNames, template.IPAddresses, err = altNames(ids...); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		return nil, fmt.Errorf("acme: CSR: %w", err)
	}
	return der, nil
}

func altNames(ids ...Identifier) (names []string, ips []net.IP, err error) {
	for _, id := range ids {
		switch id.Type {
		case TypeDNS:
			names = append(names, id.Value)
		case TypeIP:
			addr, err := netip.ParseAddr(id.Value)
			if err != nil || addr.Zone() != "" {
				return nil, nil, fmt.Errorf("acme: %q is not an address", printable(id.Value))
			}
			ips = append(ips, addr.AsSlice())
		default:
			return nil, nil, fmt.Errorf("acme: an identifier of type %q has no place in a plain request; make it yourself", printable(id.Type))
		}
	}
	return names, ips, nil
}

// CertID returns the name of a certificate in renewalInfo and replaces: its
// authority key identifier and the bytes of its serial number (RFC 9773
// section 4.1).
func CertID(leaf *x509.Certificate) (string, error) {
	switch {
	case len(leaf.AuthorityKeyId) == 0:
		return "", errors.New("acme: the certificate has no authority key identifier, so no renewal information")
	case leaf.SerialNumber == nil || leaf.SerialNumber.Sign() < 0:
		return "", errors.New("acme: the certificate's serial number is missing or negative")
	}
	serial := leaf.SerialNumber.Bytes()
	if len(serial) == 0 || serial[0] >= 0x80 { // DER keeps a positive number's sign bit clear
		serial = append([]byte{0}, serial...)
	}
	return b64.EncodeToString(leaf.AuthorityKeyId) + "." + b64.EncodeToString(serial), nil
}
