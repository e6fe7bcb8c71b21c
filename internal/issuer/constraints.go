package issuer

import (
	"crypto/x509"
	"net"
	"net/netip"
	"strings"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// checkConstraints refuses names that a CA certificate's name constraints (RFC
// 5280 section 4.2.1.10) forbid: relying parties would refuse the certificate,
// and the signature be wasted. Kinds of names that a certificate doesn't
// constrain are free.
func checkConstraints(ca *x509.Certificate, names []protocol.Identifier) error {
	var wrong []*protocol.Problem
	for _, id := range names {
		ok := false
		switch id.Type {
		case protocol.DNS:
			ok = dnsPermitted(ca, id)
		case protocol.IP:
			addr, err := netip.ParseAddr(id.Value)
			ok = err == nil && ipPermitted(ca, addr.AsSlice())
		case protocol.PermanentIdentifier:
			ok = true // no CA certificate that crypto/x509 reads constrains otherNames
		}
		if !ok {
			wrong = append(wrong, protocol.NewProblem(protocol.RejectedIdentifier,
				"%s is outside the names that this CA's certificate lets it certify", id.Value).For(id))
		}
	}
	if p := protocol.Join(protocol.RejectedIdentifier, wrong); p != nil {
		return p
	}
	return nil
}

func dnsPermitted(ca *x509.Certificate, id protocol.Identifier) bool {
	for _, domain := range ca.ExcludedDNSDomains {
		// A wildcard is also out when it could stand for an excluded name.
		_, parent, _ := strings.Cut(strings.ToLower(domain), ".")
		if within(id.Value, domain) || id.IsWildcard() && parent == id.Base().Value {
			return false
		}
	}
	for _, domain := range ca.PermittedDNSDomains {
		if within(id.Value, domain) {
			return true
		}
	}
	return len(ca.PermittedDNSDomains) == 0
}

// within reports whether a name is the domain or lies below it; the empty
// domain holds all. A leading dot, which RFC 5280 knows for URIs only and many
// use here, leaves the domain itself out.
func within(name, domain string) bool {
	domain = strings.ToLower(domain)
	if domain == "" || name == domain {
		return true
	}
	return strings.HasSuffix(name, "."+strings.TrimPrefix(domain, "."))
}

func ipPermitted(ca *x509.Certificate, addr net.IP) bool {
	for _, network := range ca.ExcludedIPRanges {
		if network.Contains(addr) {
			return false
		}
	}
	for _, network := range ca.PermittedIPRanges {
		if network.Contains(addr) {
			return true
		}
	}
	return len(ca.PermittedIPRanges) == 0
}
