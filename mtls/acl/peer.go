package acl

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Peer is a verified certificate, seen as the one who holds it. It is the
// certificate itself, not a copy: it must not be changed. Rules look at
// DNSNames, URIs and IPAddresses; a [Func] may look at everything.
//
// In tests &acl.Peer{DNSNames: []string{"web.internal"}} is a peer.
type Peer x509.Certificate

// PeerOf returns the holder of a certificate that has been verified. It
// copies nothing and allocates nothing. The peer of nil is denied everything.
func PeerOf(leaf *x509.Certificate) *Peer { return (*Peer)(leaf) }

// Name returns the first name, dns names before URIs before addresses; "" if
// there is none. What can't be printed is quoted.
func (p *Peer) Name() string {
	names := p.names(1)
	if len(names) == 0 {
		return ""
	}
	if quoted := strconv.QuoteToASCII(names[0].text); len(quoted) != len(names[0].text)+2 {
		return quoted
	}
	return names[0].text
}

// maxShown is how many of a peer's names a text shows.
const maxShown = 8

// String returns the names for logs, as in `dns:"web.internal", ip:"10.2.0.7"`.
func (p *Peer) String() string {
	var b strings.Builder
	for i, name := range p.names(maxShown) {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(name.kind + ":" + strconv.QuoteToASCII(shortened(name.text)))
	}
	if b.Len() == 0 {
		return "a certificate without names"
	}
	if more := len(p.DNSNames) + len(p.URIs) + len(p.IPAddresses) - maxShown; more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	return b.String()
}

// LogValue is the peer in a log: its names, its issuer and its serial number.
func (p *Peer) LogValue() slog.Value {
	if p == nil {
		return slog.StringValue("no certificate")
	}
	return slog.GroupValue(slog.String("names", p.String()), slog.String("issuer", p.Issuer.String()), slog.String("serial", p.serial()))
}

func (p *Peer) serial() string {
	if p.SerialNumber == nil {
		return ""
	}
	return p.SerialNumber.Text(16)
}

// aName is one name as texts show it.
type aName struct{ kind, text string }

func (p *Peer) names(limit int) []aName {
	if p == nil {
		return nil
	}
	var all []aName
	for _, name := range p.DNSNames[:min(limit, len(p.DNSNames))] {
		all = append(all, aName{"dns", strings.ToLower(name)})
	}
	for _, u := range p.URIs[:min(limit-len(all), len(p.URIs))] {
		if u != nil {
			all = append(all, aName{"uri", u.String()})
		}
	}
	for _, ip := range p.IPAddresses[:min(limit-len(all), len(p.IPAddresses))] {
		all = append(all, aName{"ip", addressText(ip)})
	}
	return all
}

// addressText shows an IPv4-mapped address as what it is, which net.IP hides.
func addressText(ip net.IP) string {
	if addr, ok := netip.AddrFromSlice(ip); ok {
		return addr.String()
	}
	return ip.String()
}

// shortened keeps what others wrote from filling a log.
func shortened(s string) string {
	if len(s) <= 300 {
		return s
	}
	return s[:300] + "…"
}
