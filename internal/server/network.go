package server

import (
	"crypto/x509"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/chancery-pki/chancery/internal/challenge"
	"github.com/chancery-pki/chancery/internal/config"
)

// newNetwork makes what validation may reach, and through which resolver.
func newNetwork(c *config.Config, v config.Validation, own []netip.AddrPort) (*challenge.Network, error) {
	rc := challenge.ResolverConfig{}
	for _, r := range v.Resolvers {
		text := r.Addr.String()
		if r.TLS {
			text = "tls://" + text
			rc.ServerName = r.ServerName
		}
		rc.Servers = append(rc.Servers, text)
	}
	if v.ResolverCA != "" {
		roots, err := readCertificates(c.Path(v.ResolverCA))
		if err != nil {
			return nil, err
		}
		rc.Roots = x509.NewCertPool()
		for _, root := range roots {
			rc.Roots.AddCert(root)
		}
	}
	resolver, err := challenge.NewResolver(rc)
	if err != nil {
		return nil, err
	}
	n := &challenge.Network{
		Resolver: resolver, HTTPPort: v.HTTPPort, TLSPort: v.TLSPort, Allow: v.Allow, Deny: v.Deny, Own: own,
		Timeout: time.Duration(v.Timeout), UserAgent: "chancery",
	}
	if v.Probe == "any" {
		n.ProbeAny = v.ProbeAddresses
	}
	return n, nil
}

// ownAddresses are our listeners, the database and the Kubernetes APIs, as far
// as addresses are given, which validation must not be turned against.
func ownAddresses(c *config.Config) []netip.AddrPort {
	var own []netip.AddrPort
	all := []string{c.Listen, c.Metrics.Listen, c.Publish.Listen, c.Admin.Listen, databaseHost(c.Database.DSN)}
	for _, of := range c.Clusters {
		all = append(all, c.APIServers(of)...)
	}
	for _, listen := range all {
		host, port, err := net.SplitHostPort(listen)
		if err != nil {
			continue
		}
		addr, err := netip.ParseAddr(host)
		if host == "" {
			addr, err = netip.IPv6Unspecified(), nil
		}
		number, portErr := net.LookupPort("tcp", port)
		if err == nil && portErr == nil {
			own = append(own, netip.AddrPortFrom(addr, uint16(number)))
		}
	}
	return own
}

func databaseHost(dsn string) string {
	if !config.IsPostgres(dsn) {
		return ""
	}
	u, err := url.Parse(dsn)
	if err != nil || u.Host == "" {
		return ""
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "5432")
	}
	return u.Host
}
