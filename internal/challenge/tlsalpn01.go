package challenge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// acmeTLS is the protocol of RFC 8737 section 6.2.
const acmeTLS = "acme-tls/1"

var (
	oidACMEIdentifier = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31} // RFC 8737 section 6.1
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// TLSALPN01 looks for the digest of the key authorization in a certificate
// that the server shows under a protocol of its own (RFC 8737; for ip
// identifiers RFC 8738 section 6).
type TLSALPN01 struct {
	Network *Network
}

// Validate makes a TLS connection that offers acme-tls/1 alone, and sends
// nothing over it. It blocks for at most the network's timeout. A server that
// can't be reached may be tried again; one that answers otherwise is final,
// so that clients which try this challenge first get on to the next.
func (t TLSALPN01) Validate(ctx context.Context, v protocol.Validation) (protocol.Evidence, error) {
	if v.Wildcard {
		return protocol.Evidence{}, no(protocol.Malformed, false, "tls-alpn-01 can't prove a wildcard; use dns-01")
	}
	serverName, err := alpnServerName(v.Identifier)
	if err != nil {
		return protocol.Evidence{}, err
	}
	n := t.Network
	inner, cancel := context.WithTimeout(ctx, n.timeout())
	defer cancel()
	at, err := n.probe(inner, v.Identifier.Value, n.tlsPort(), func(ctx context.Context, conn net.Conn, at netip.AddrPort) error {
		return shakeHands(ctx, conn, at, serverName, v)
	})
	if err != nil {
		return protocol.Evidence{}, outcome(ctx, err)
	}
	return protocol.Evidence{Type: protocol.TLSALPN01, Target: at.String(), SeenAt: time.Now()}, nil
}

// alpnServerName is the SNI: the name, or for an address its name in the
// reverse tree (RFC 8738 section 6).
func alpnServerName(id protocol.Identifier) (string, error) {
	if id.Type == protocol.DNS {
		return id.Value, nil
	}
	reverse, err := dns.ReverseAddr(id.Value)
	if err != nil {
		return "", no(protocol.Malformed, false, "the identifier is not an IP address")
	}
	return strings.TrimSuffix(reverse, "."), nil
}

func shakeHands(ctx context.Context, conn net.Conn, at netip.AddrPort, serverName string, v protocol.Validation) error {
	stop := interruptible(ctx, conn)
	defer stop()
	c := tls.Client(&boundedConn{Conn: conn, left: maxHandshake}, &tls.Config{
		ServerName:             serverName,
		NextProtos:             []string{acmeTLS},
		InsecureSkipVerify:     true, // the certificate is checked below, by rules of its own
		SessionTicketsDisabled: true,
		MinVersion:             tls.VersionTLS12, // RFC 8737 section 4
	})
	if err := c.Handshake(); err != nil {
		return handshakeFailed(at, err)
	}
	state := c.ConnectionState()
	c.Close()
	if state.NegotiatedProtocol != acmeTLS {
		return no(protocol.TLSFailed, false, "%s doesn't speak %s; the server must select that protocol", at, acmeTLS)
	}
	if len(state.PeerCertificates) == 0 {
		return no(protocol.Unauthorized, false, "%s showed no certificate", at)
	}
	if why := certificateFault(state.PeerCertificates[0], v); why != "" {
		return no(protocol.Unauthorized, false, "the certificate that %s shows for %s %s", at, acmeTLS, why)
	}
	return nil
}

func handshakeFailed(at netip.AddrPort, err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" { // an alert; the words are crypto/tls's
		return no(protocol.TLSFailed, false, "%s refused the handshake (%s); does it have a certificate for %s?", at, op.Err, acmeTLS)
	}
	if why := brief(err); why != "failed" {
		return no(protocol.ConnectionFailed, true, "the TLS handshake with %s did not finish: %s", at, why)
	}
	return no(protocol.TLSFailed, false, "the TLS handshake with %s failed: it doesn't speak TLS 1.2 or later, or its certificate can't be read", at)
}

// certificateFault says what is wrong with a certificate by RFC 8737 section
// 3, as the continuation of "the certificate …", or "".
func certificateFault(cert *x509.Certificate, v protocol.Validation) string {
	if !bytes.Equal(cert.RawIssuer, cert.RawSubject) || cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil {
		return "is not self-signed"
	}
	san, ok := only(cert.Extensions, oidSubjectAltName)
	if !ok || !namesOnly(san.Value, v.Identifier) {
		return "must have one subject alternative name, the identifier's, and no other"
	}
	proof, ok := only(cert.Extensions, oidACMEIdentifier)
	if !ok {
		return "must have exactly one acmeIdentifier extension (1.3.6.1.5.5.7.1.31)"
	}
	if !proof.Critical {
		return "has an acmeIdentifier extension that is not critical"
	}
	want := sha256.Sum256([]byte(v.KeyAuthorization()))
	var digest cryptobyte.String
	value := cryptobyte.String(proof.Value)
	if !value.ReadASN1(&digest, casn1.OCTET_STRING) || !value.Empty() || len(digest) != len(want) {
		return "has an acmeIdentifier extension that is not the octet string of a SHA-256 digest"
	}
	if subtle.ConstantTimeCompare(digest, want[:]) != 1 {
		return "bears the digest of another key authorization"
	}
	return ""
}

// only returns the extension of that kind if there is exactly one.
func only(all []pkix.Extension, id asn1.ObjectIdentifier) (found pkix.Extension, ok bool) {
	for _, e := range all {
		if e.Id.Equal(id) {
			if ok {
				return found, false
			}
			found, ok = e, true
		}
	}
	return found, ok
}

// namesOnly reports whether the subjectAltName holds the identifier and
// nothing else. It reads the DER itself: crypto/x509 drops kinds of names it
// doesn't know.
func namesOnly(der []byte, id protocol.Identifier) bool {
	var names, name cryptobyte.String
	var tag casn1.Tag
	s := cryptobyte.String(der)
	if !s.ReadASN1(&names, casn1.SEQUENCE) || !s.Empty() || !names.ReadAnyASN1(&name, &tag) || !names.Empty() {
		return false
	}
	switch id.Type {
	case protocol.DNS: // dNSName [2]
		return tag == casn1.Tag(2).ContextSpecific() && strings.EqualFold(string(name), id.Value)
	case protocol.IP: // iPAddress [7]
		addr, ok := netip.AddrFromSlice(name)
		return tag == casn1.Tag(7).ContextSpecific() && ok && addr.String() == id.Value
	}
	return false
}
