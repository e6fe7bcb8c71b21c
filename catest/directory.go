package catest

import (
	"errors"
	"net/netip"
	"time"

	"github.com/chancery-pki/chancery/internal/acmeserver"
	authority "github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/challenge"
	"github.com/chancery-pki/chancery/internal/challenge/loopdns"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// The names of the one directory and the one issuer.
const (
	directoryName = "test"
	issuerName    = "local"
)

// How long certificates live: as long as the product's do, and as an order may
// ask for.
const (
	lifetime    = 24 * time.Hour
	maxLifetime = 366 * 24 * time.Hour
)

// Challenges says which challenges a CA offers and where it looks. Fields left
// empty aren't offered.
type Challenges struct {
	HTTPPort int    // http-01: the port of 127.0.0.1 where the solver listens
	TLSPort  int    // tls-alpn-01: likewise
	DNS      string // dns-01: address and port of the DNS server that is asked, for the names' addresses too
}

// WithChallenges makes a CA that looks before it issues, for tests of solvers:
// [CA.Config] then has no external account key. Every name is at 127.0.0.1,
// unless there is a DNS server to ask. Each challenge is looked at once, without
// retries, so that a failing test fails soon.
func WithChallenges(c Challenges) Option { return option(func(s *settings) { s.challenges = &c }) }

// types lists what is offered.
func (c *Challenges) types() (types []protocol.ChallengeType) {
	if c == nil {
		return nil
	}
	if c.HTTPPort != 0 {
		types = append(types, protocol.HTTP01)
	}
	if c.TLSPort != 0 {
		types = append(types, protocol.TLSALPN01)
	}
	if c.DNS != "" {
		types = append(types, protocol.DNS01)
	}
	return types
}

// lookTime bounds one validation: what is to be found is on this machine.
const lookTime = 5 * time.Second

// validators look, for challenges; a DNS server of ours ends with the test.
func (ca *CA) validators(c *Challenges) (map[protocol.ChallengeType]authority.Validator, error) {
	switch {
	case c == nil:
		return nil, nil
	case len(c.types()) == 0:
		return nil, errors.New("WithChallenges: say the port of at least one challenge")
	}
	server := c.DNS
	if server == "" {
		dns, err := loopdns.Start()
		if err != nil {
			return nil, err
		}
		ca.t.Cleanup(func() { dns.Close() })
		server = dns.Addr()
	}
	resolver, err := challenge.NewResolver(challenge.ResolverConfig{Servers: []string{server}})
	if err != nil {
		return nil, err
	}
	network := &challenge.Network{
		Resolver: resolver, HTTPPort: c.HTTPPort, TLSPort: c.TLSPort, Timeout: lookTime, UserAgent: "catest",
		Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
	}
	return map[protocol.ChallengeType]authority.Validator{
		protocol.HTTP01:    challenge.HTTP01{Network: network},
		protocol.TLSALPN01: challenge.TLSALPN01{Network: network},
		protocol.DNS01:     challenge.DNS01{Resolver: resolver},
	}, nil
}

// newDirectory makes the one directory, which issues any name.
func (ca *CA) newDirectory(s settings) (*authority.Directory, error) {
	all, err := policy.NewNameSet("*")
	if err != nil {
		return nil, err
	}
	validators, err := ca.validators(s.challenges)
	if err != nil {
		return nil, err
	}
	types := s.challenges.types()
	profile := cert.Profile{
		Challenges: types, Lifetime: lifetime, MaxLifetime: maxLifetime, Backdate: time.Minute, Revocation: cert.RevocationNone, Issuer: issuerName,
		KeyTypes: []cert.KeyType{cert.P256, cert.P384, cert.P521, cert.Ed25519, cert.RSA2048, cert.RSA3072, cert.RSA4096},
	}
	if s.revocation {
		profile.Revocation = cert.RevocationBoth
	}
	var profiles []cert.Profile
	for _, p := range []struct {
		name   string
		usages []cert.Usage
	}{
		{"server", []cert.Usage{cert.Server}},
		{"client", []cert.Usage{cert.Client}},
		{"both", []cert.Usage{cert.Server, cert.Client}},
	} {
		profile.Name, profile.Usages = p.name, p.usages
		profiles = append(profiles, profile)
	}
	return &authority.Directory{
		Policy: policy.Directory{
			Name: directoryName, Profiles: profiles, DefaultProfile: "server", EKUFromCSR: true, Challenges: types,
			Names: policy.Names{Allow: all, Wildcards: true}, EABRequired: s.challenges == nil,
		},
		Validators: validators,
		AccountURL: func(id protocol.AccountID) string { return acmeserver.AccountURL(ca.front.base, directoryName, id) },
	}, nil
}

func (ca *CA) directories() map[string]*authority.Directory {
	return map[string]*authority.Directory{directoryName: ca.directory}
}
