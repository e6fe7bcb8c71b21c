package config

import (
	"fmt"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// Profile returns the named profile as the rest of the server knows it.
func (c *Config) Profile(name string) (cert.Profile, error) {
	p, ok := c.Profiles[name]
	if !ok {
		return cert.Profile{}, fmt.Errorf("there is no profile %q", name)
	}
	return cert.Profile{
		Name:        name,
		Description: p.Description,
		Usages:      p.Usages,
		Challenges:  p.Challenges,
		Lifetime:    time.Duration(p.Lifetime),
		MaxLifetime: time.Duration(p.MaxLifetime),
		Backdate:    time.Duration(p.Backdate),
		KeyTypes:    p.KeyTypes,
		Revocation:  p.Revocation,
		CommonName:  p.CommonName,
		Issuer:      p.Issuer,
		SSH:         p.SSH.convert(),
	}, nil
}

// Directory returns what the named directory lets its callers do. Its errors
// are among those that Check finds.
func (c *Config) Directory(name string) (policy.Directory, error) {
	d, ok := c.Directories[name]
	if !ok {
		return policy.Directory{}, fmt.Errorf("there is no directory %q", name)
	}
	allow, err := policy.NewNameSet(d.Names.Allow...)
	if err != nil {
		return policy.Directory{}, fmt.Errorf("directory %q: names.allow: %w", name, err)
	}
	deny, err := policy.NewNameSet(d.Names.Deny...)
	if err != nil {
		return policy.Directory{}, fmt.Errorf("directory %q: names.deny: %w", name, err)
	}
	converted := policy.Directory{
		Name:           name,
		DefaultProfile: d.DefaultProfile,
		Challenges:     d.Challenges,
		Names:          policy.Names{Allow: allow, Deny: deny, Wildcards: d.Names.Wildcards},
		EABRequired:    d.EAB.Required,
		EKUFromCSR:     d.EKUFromCSR,
		MaxIdentifiers: d.MaxIdentifiers,
	}
	for _, profile := range d.Profiles {
		p, err := c.Profile(profile)
		if err != nil {
			return policy.Directory{}, fmt.Errorf("directory %q: %w", name, err)
		}
		converted.Profiles = append(converted.Profiles, p)
	}
	return converted, nil
}

// Limits returns the rate limits that hold in the named directory: its own,
// and the server's where it has none.
func (c *Config) Limits(directory string) RateLimits {
	return c.Directories[directory].RateLimits.over(c.RateLimits)
}

// Shares returns how a key's time is shared out; issuance has what the others
// leave.
func (s Signing) Shares() schedule.Shares {
	shares := schedule.Shares{
		schedule.Renewal: float64(s.Renewal), schedule.OCSP: float64(s.OCSP), schedule.CRL: float64(s.CRL),
	}
	shares[schedule.Issuance] = 1 - shares[schedule.Renewal] - shares[schedule.OCSP] - shares[schedule.CRL]
	return shares
}

// Notice is how long before its end a certificate of an issuer is announced,
// where life is how long it is good in all: 60 days, since a new key, its
// ceremony and its roll-out take time; longer where the certificates that it
// signs would be cut short before; a fifth of its life at the most. issuer ""
// stands for one without profiles.
func (c *Config) Notice(issuer string, life time.Duration) time.Duration {
	notice := 60 * day
	for _, p := range c.Profiles {
		if p.Issuer == issuer {
			notice = max(notice, time.Duration(p.MaxLifetime)+30*day)
		}
	}
	return min(notice, life/5)
}
