package config

import (
	"fmt"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/policy"
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
