package config

import (
	"net/url"
	"slices"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// knownChallenges are the types there are, in the order shown to clients.
var knownChallenges = []protocol.ChallengeType{
	protocol.HTTP01, protocol.DNS01, protocol.TLSALPN01, protocol.DNSAccount01, protocol.DNSPersist01,
	protocol.Kubernetes01, protocol.YubiKey01, protocol.YubiKey02, protocol.DeviceAttest01,
}

// usualChallenges are offered unless asked otherwise: every client knows
// them, while some fail at the mere sight of others.
var usualChallenges = knownChallenges[:3]

var (
	knownUsages   = []cert.Usage{cert.Server, cert.Client, cert.SSHUser, cert.SSHHost}
	knownKeyTypes = []cert.KeyType{
		cert.P256, cert.P384, cert.P521, cert.Ed25519, cert.RSA2048, cert.RSA3072, cert.RSA4096,
		cert.MLDSA44, cert.MLDSA65, cert.MLDSA87,
	}
	usualKeyTypes    = knownKeyTypes[:7]
	knownRevocations = []cert.Revocation{cert.RevocationNone, cert.RevocationCRL, cert.RevocationOCSP, cert.RevocationBoth}
)

// or sets the value where nothing was said.
func or[T comparable](v *T, usual T) {
	var zero T
	if *v == zero {
		*v = usual
	}
}

func span(d time.Duration) Duration { return Duration(d) }

// setDefaults fills in what was left out, so that readers of the structs need
// to know no defaults.
func (c *Config) setDefaults() {
	if u, err := url.Parse(c.ExternalURL); err == nil && u.Hostname() != "" {
		port := u.Port()
		or(&port, "443")
		or(&c.Listen, ":"+port)
		if len(c.TLS.Names) == 0 {
			c.TLS.Names = []string{u.Hostname()}
		}
	}
	if c.Database.DSNFile == "" && c.Database.DSNEnv == "" {
		or(&c.Database.DSN, "chancery.db")
	}
	or(&c.Log.Format, "text")
	or(&c.Log.Level, "info")
	or(&c.Admin.Socket, "admin.sock")
	or(&c.Audit.Keep, span(400*day))
	or(&c.Accounts.Keep, span(7*day))
	or(&c.Certificates.KeepAfterExpiry, span(7*day))
	c.RateLimits = c.RateLimits.over(usualLimits())
	c.Signing.setDefaults()
	or(&c.KRL.Validity, span(day))
	for name, is := range c.Issuers {
		or(&is.CRL.Validity, span(day))
		or(&is.OCSP.Validity, span(8*time.Hour))
		c.Issuers[name] = is
	}
	for name, p := range c.Profiles {
		p.setDefaults()
		c.Profiles[name] = p
	}
	for name, cl := range c.Clusters {
		or(&cl.Domain, "cluster.local")
		c.Clusters[name] = cl
	}
	for name, d := range c.Directories {
		d.setDefaults(c.Profiles)
		c.Directories[name] = d
	}
}

func (s *Signing) setDefaults() {
	usual := schedule.DefaultShares()
	or(&s.Renewal, Share(usual[schedule.Renewal]))
	or(&s.OCSP, Share(usual[schedule.OCSP]))
	or(&s.CRL, Share(usual[schedule.CRL]))
	or(&s.MaxWaiting, 4096)
	or(&s.Stuck, span(30*time.Second))
}

func (p *Profile) setDefaults() {
	if p.isSSH() {
		p.setSSHDefaults()
	}
	or(&p.Lifetime, span(day))
	or(&p.MaxLifetime, p.Lifetime)
	or(&p.Backdate, span(time.Minute))
	or(&p.Revocation, cert.RevocationNone)
	if p.KeyTypes == nil {
		p.KeyTypes = slices.Clone(usualKeyTypes)
	}
	if p.Challenges == nil && slices.Equal(p.Usages, []cert.Usage{cert.Server}) {
		p.Challenges = slices.Clone(usualChallenges)
	}
}

func (d *Directory) setDefaults(profiles map[string]Profile) {
	if len(d.Profiles) > 0 {
		or(&d.DefaultProfile, d.Profiles[0])
	}
	if d.Kubernetes.Cluster != "" {
		or(&d.Kubernetes.Proof, ProofToken)
	}
	if d.Challenges == nil {
		for _, t := range knownChallenges {
			if d.takes(profiles, t) && (t != protocol.Kubernetes01 || d.Kubernetes.Cluster != "") {
				d.Challenges = append(d.Challenges, t)
			}
		}
	}
	d.Devices.setDefaults()
	or(&d.OrderLifetime, span(day))
	or(&d.AuthorizationLifetime, span(8*time.Hour))
	or(&d.MaxIdentifiers, policy.DefaultMaxIdentifiers)
	or(&d.Validation.HTTPPort, 80)
	or(&d.Validation.TLSPort, 443)
	or(&d.Validation.Timeout, span(10*time.Second))
	or(&d.Validation.Probe, "first")
	or(&d.Validation.ProbeAddresses, 8)
}

// takes reports whether one of the directory's profiles takes the challenge
// type.
func (d *Directory) takes(profiles map[string]Profile, t protocol.ChallengeType) bool {
	return slices.ContainsFunc(d.Profiles, func(name string) bool {
		return slices.Contains(profiles[name].Challenges, t)
	})
}

func usualLimits() RateLimits {
	return RateLimits{
		NewAccountsPerAddress:       Limit{Count: 1000, Per: time.Hour},
		OrdersPerAccount:            Limit{Count: 1000, Per: time.Hour},
		OrdersPerClient:             Limit{Count: 3000, Per: time.Hour},
		CertificatesPerName:         Limit{Count: 1000, Per: day},
		FailedValidationsPerAccount: Limit{Count: 100, Per: time.Hour},
		AccountsPerPod:              Limit{Count: 30, Per: time.Hour},
	}
}

// over returns r with the limits that it doesn't set taken from below.
func (r RateLimits) over(below RateLimits) RateLimits {
	or(&r.NewAccountsPerAddress, below.NewAccountsPerAddress)
	or(&r.OrdersPerAccount, below.OrdersPerAccount)
	or(&r.OrdersPerClient, below.OrdersPerClient)
	or(&r.CertificatesPerName, below.CertificatesPerName)
	or(&r.FailedValidationsPerAccount, below.FailedValidationsPerAccount)
	or(&r.AccountsPerPod, below.AccountsPerPod)
	return r
}
