package mtls

import (
	"fmt"

	"github.com/chancery-pki/chancery/mtls/internal/environment"
)

// fromEnvironment fills in what the program left out.
func (cfg *Config) fromEnvironment(env environment.Env) error {
	if len(cfg.CAs) == 0 {
		cas, err := env.CAs()
		if err != nil {
			return fmt.Errorf("mtls: %w", err)
		}
		if len(cas) == 0 {
			return wrong("CAs", "none, and %s is not set: give the URL of an ACME directory", environment.Directory)
		}
		for _, ca := range cas {
			usage := map[string]Usage{"server": UsageServer, "client": UsageClient}[ca.Usage]
			cfg.CAs = append(cfg.CAs, CA{Directory: ca.Directory, Usage: usage, Tier: ca.Tier, EAB: ca.EAB})
		}
	}
	if len(cfg.Names) == 0 && cfg.SNI == nil {
		cfg.Names = env.Names()
		switch {
		case len(cfg.Names) > 0:
		case env.InPod():
			return wrong("Names", "none, and %s is not set: set it in the pod's manifest to the names of its Services, NAME.NAMESPACE.svc.DOMAIN", environment.Names)
		default:
			return wrong("Names", "none, and %s is not set: name what the certificates are for", environment.Names)
		}
	}
	if cfg.Proof.TokenFile != "" {
		return nil
	}
	all, each, err := env.Tokens(len(cfg.CAs))
	if err != nil {
		return fmt.Errorf("mtls: %w", err)
	}
	cfg.Proof.TokenFile = all
	for i, file := range each {
		if cfg.CAs[i].TokenFile == "" {
			cfg.CAs[i].TokenFile = file
		}
	}
	return nil
}

// trustFromEnvironment makes the Trust of a Config without one.
func trustFromEnvironment(env environment.Env, cfg Config) (*Trust, error) {
	file := env(environment.Roots)
	if file == "" {
		return nil, wrong("Trust", "nil, and %s is not set: make one with NewTrust, or set %[1]s to the PEM file of the PKI's roots", environment.Roots)
	}
	roots := []Roots{RootsFile(file)}
	trust, err := NewTrust(TrustConfig{Servers: roots, Clients: roots, Logger: cfg.Logger, Clock: cfg.Clock})
	if err != nil {
		return nil, fmt.Errorf("%w (of %s)", err, environment.Roots)
	}
	return trust, nil
}
