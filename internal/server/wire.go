package server

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/acmeserver"
	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/challenge"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/store"
)

// parts are what one reading of the configuration makes; a reload makes them
// anew and swaps them in whole.
type parts struct {
	directories map[string]*ca.Directory
	issuers     map[string]*issuer.Local
	meta        map[string]acmeserver.Meta
	authorities []issuer.Authority // all issuing certificates, for publishing
	crlKeys     map[string]bool    // key IDs of those that publish a CRL
}

// wire opens keys and makes issuers, validators and directories. It reads
// files, opens no listener and writes nothing. keys are those of the reading
// before, by URI: a key has one queue in a process.
func wire(ctx context.Context, c *config.Config, keys map[string]*signer.Queue, log *slog.Logger) (*parts, error) {
	p := &parts{
		directories: map[string]*ca.Directory{}, issuers: map[string]*issuer.Local{},
		meta: map[string]acmeserver.Meta{}, crlKeys: map[string]bool{},
	}
	var faults []error
	for name, ic := range c.Issuers {
		local, err := p.issuer(ctx, c, name, ic, keys, log)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		p.issuers[name] = local
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	own := ownAddresses(c)
	for name := range c.Directories {
		if err := p.directory(c, name, own); err != nil {
			faults = append(faults, err)
		}
	}
	return p, errors.Join(faults...)
}

func (p *parts) issuer(ctx context.Context, c *config.Config, name string, ic config.Issuer, keys map[string]*signer.Queue, log *slog.Logger) (*issuer.Local, error) {
	above, err := readCertificates(c.Path(ic.Chain))
	if err != nil {
		return nil, fmt.Errorf("issuers.%s.chain: %w", name, err)
	}
	ours := issuer.Config{Name: name, Log: log}
	for i, sc := range ic.Signers {
		where := fmt.Sprintf("issuers.%s.signers[%d]", name, i)
		a, err := openAuthority(ctx, c, ic, sc, above, keys)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
		if a.CRLURL != nil {
			p.crlKeys[keyID(a.Chains[0][0])] = true
		}
		ours.Authorities = append(ours.Authorities, a)
	}
	if ic.Blocklist != "" {
		if ours.Blocklist, err = issuer.LoadBlocklist(c.Path(ic.Blocklist)); err != nil {
			return nil, fmt.Errorf("issuers.%s.blocklist: %w", name, err)
		}
	}
	p.authorities = append(p.authorities, ours.Authorities...)
	return issuer.New(ours, time.Now())
}

func keyID(c *x509.Certificate) string { return fmt.Sprintf("%x", c.SubjectKeyId) }

// openAuthority opens one key with its CA certificate and chains.
func openAuthority(ctx context.Context, c *config.Config, ic config.Issuer, sc config.Signer, above []*x509.Certificate, keys map[string]*signer.Queue) (issuer.Authority, error) {
	var a issuer.Authority
	mine, err := readCertificates(c.Path(sc.Certificate))
	if err != nil {
		return a, err
	}
	if len(mine) == 0 {
		return a, errors.New("certificate: which file has the CA certificate of this key?")
	}
	a.Chains = append(a.Chains, append(mine, above...))
	for _, file := range ic.AlternateChains {
		other, err := readCertificates(c.Path(file))
		if err != nil {
			return a, err
		}
		// The file may begin with another certificate for this key, or with
		// what stands above the usual one.
		if len(other) > 0 && !bytes.Equal(other[0].RawSubjectPublicKeyInfo, mine[0].RawSubjectPublicKeyInfo) {
			other = append(mine[:1:1], other...)
		}
		a.Chains = append(a.Chains, other)
	}
	uri := c.KeyURI(sc.Key)
	if a.Queue = keys[uri]; a.Queue == nil || !fits(a.Queue, mine[0]) { // the file may have another key by now
		var o signer.Options
		if sc.PasswordFile != "" {
			o.Password = signer.PasswordFile(c.Path(sc.PasswordFile))
		}
		key, err := signer.Open(ctx, uri, o)
		if err != nil {
			return a, err
		}
		a.Queue = signer.NewQueue(key, 0)
		if fits(a.Queue, mine[0]) {
			keys[uri] = a.Queue
		}
	}
	id := keyID(mine[0])
	if ic.AIAURL != "" {
		a.IssuerURL = publishURL(ic.AIAURL, "/ca/", id, ".cer")
	}
	if ic.CRLURL != "" {
		crl := publishURL(ic.CRLURL, "/crl/", id, ".crl")
		a.CRLURL = func(cert.Serial) string { return crl }
	}
	return a, nil
}

// fits reports whether the key is that of the certificate.
func fits(q *signer.Queue, c *x509.Certificate) bool {
	key, ok := q.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(c.PublicKey)
}

// publishURL is where the publish listener has something of a key's, seen
// from outside.
func publishURL(base, path, id, ending string) string {
	return strings.TrimSuffix(base, "/") + path + id + ending
}

// directory makes one directory's rules, validators and description.
func (p *parts) directory(c *config.Config, name string, own []netip.AddrPort) error {
	rules, err := c.Directory(name)
	if err != nil {
		return err
	}
	for _, profile := range rules.Profiles {
		local, ok := p.issuers[profile.Issuer]
		if !ok {
			return fmt.Errorf("profiles.%s.issuer: there is no issuer %q", profile.Name, profile.Issuer)
		}
		if err := local.Supports(profile); err != nil {
			return err
		}
	}
	dc := c.Directories[name]
	network, err := newNetwork(c, dc.Validation, own)
	if err != nil {
		return fmt.Errorf("directories.%s.validation: %w", name, err)
	}
	d := &ca.Directory{
		Policy: rules, Limits: limits(c.Limits(name)),
		Lifetimes: ca.Lifetimes{
			Order: time.Duration(dc.OrderLifetime), Pending: time.Duration(dc.OrderLifetime),
			Authorization: time.Duration(dc.AuthorizationLifetime), IdleAccount: time.Duration(c.Accounts.Keep),
		},
		AccountURL: func(id protocol.AccountID) string { return acmeserver.AccountURL(c.ExternalURL, name, id) },
	}
	identities := dc.CAA.Identities
	if len(identities) == 0 { // dns-persist-01 needs a name for us in any case
		if u, err := url.Parse(c.ExternalURL); err == nil {
			identities = []string{u.Hostname()}
		}
	}
	// Records hold it, so it stays as long as external_url does.
	hashPrefix := strings.TrimSuffix(c.ExternalURL, "/") + "/acme/" + name + "/account-hash/"
	// The one table of challenges.
	d.Validators = map[protocol.ChallengeType]ca.Validator{
		protocol.HTTP01:       challenge.HTTP01{Network: network},
		protocol.TLSALPN01:    challenge.TLSALPN01{Network: network},
		protocol.DNS01:        challenge.DNS01{Resolver: network.Resolver},
		protocol.DNSAccount01: challenge.DNSAccount01{Resolver: network.Resolver},
		protocol.DNSPersist01: challenge.DNSPersist01{Resolver: network.Resolver, Issuers: identities, HashPrefix: hashPrefix, PlainAccountURL: true},
	}
	if dc.CAA.Enabled {
		d.CAA = challenge.CAA{Resolver: network.Resolver, Issuers: dc.CAA.Identities}
	}
	p.directories[name] = d
	p.meta[name] = acmeserver.Meta{
		TermsOfService: dc.TermsOfService, RequireTerms: dc.TermsOfService != "", Website: dc.Website,
		CAAIdentities: dc.CAA.Identities, ExternalAccountRequired: dc.EAB.Required, Profiles: rules.Profiles, IssuerNames: identities,
		AccountHashPrefix: hashPrefix,
	}
	return nil
}

func limits(l config.RateLimits) ca.Limits {
	one := func(l config.Limit) store.Limit {
		if l.Off {
			return store.Limit{}
		}
		return store.Limit{Count: l.Count, Per: l.Per}
	}
	return ca.Limits{
		AccountsPerAddress: one(l.NewAccountsPerAddress), OrdersPerAccount: one(l.OrdersPerAccount),
		OrdersPerAddress: one(l.OrdersPerAddress), CertificatesPerName: one(l.CertificatesPerName),
		FailuresPerAccount: one(l.FailedValidationsPerAccount),
	}
}

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

// ownAddresses are our listeners and the database, which validation must not
// be turned against.
func ownAddresses(c *config.Config) []netip.AddrPort {
	var own []netip.AddrPort
	for _, listen := range []string{c.Listen, c.Metrics.Listen, c.Publish.Listen, databaseHost(c.Database.DSN)} {
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

// readCertificates reads the PEM certificates of a file; "" has none.
func readCertificates(path string) ([]*x509.Certificate, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no PEM certificate", path)
	}
	return all, nil
}

// dsn finds the database's address, which may hold a password and so may
// stand in a file or the environment.
func dsn(c *config.Config) (string, error) {
	switch d := c.Database; {
	case d.DSNFile != "":
		b, err := os.ReadFile(c.Path(d.DSNFile))
		return strings.TrimSpace(string(b)), err
	case d.DSNEnv != "":
		v := os.Getenv(d.DSNEnv)
		if v == "" {
			return "", fmt.Errorf("database.dsn_env: the environment has no %s", d.DSNEnv)
		}
		return v, nil
	default:
		return c.DatabasePath(d.DSN), nil
	}
}

// OpenDatabase opens the configured database and brings its schema up to date.
func OpenDatabase(ctx context.Context, c *config.Config, log *slog.Logger) (*store.DB, error) {
	address, err := dsn(c)
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, store.Options{DSN: address, UnsafeSync: c.Database.AllowUnsafeSync && config.IsPostgres(address), Logger: log})
}
