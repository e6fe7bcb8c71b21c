package mtls

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
	"github.com/chancery-pki/chancery/mtls/internal/environment"
	"github.com/chancery-pki/chancery/mtls/internal/names"
	"github.com/chancery-pki/chancery/mtls/internal/sealed"
)

const (
	maxCAs        = 64
	maxNames      = 100
	defaultHedge  = 10 * time.Second
	defaultMaxSNI = 256
)

// wrong is an error about one field of a Config.
func wrong(field, format string, args ...any) error {
	return fmt.Errorf("mtls: Config."+field+": "+format, args...)
}

// complete copies a Config, fills it in from the environment and by its
// defaults, and says all that is wrong with it.
func (cfg Config) complete(env environment.Env) (Config, error) {
	cfg.CAs, cfg.Names, cfg.Proof.Solvers = slices.Clone(cfg.CAs), slices.Clone(cfg.Names), slices.Clone(cfg.Proof.Solvers)
	if err := cfg.fromEnvironment(env); err != nil {
		return cfg, err
	}
	if cfg.HedgeAfter == 0 {
		cfg.HedgeAfter = defaultHedge
	}
	if cfg.MaxSNI == 0 {
		cfg.MaxSNI = defaultMaxSNI
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Clock == nil {
		cfg.Clock = systemClock{}
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = environment.ProgramName()
	}
	errs := append(cfg.checkCAs(), cfg.checkNames()...)
	errs = append(errs, cfg.checkNumbers()...)
	return cfg, errors.Join(append(errs, cfg.checkProof()...)...)
}

func (cfg *Config) checkCAs() (errs []error) {
	if len(cfg.CAs) > maxCAs {
		errs = append(errs, wrong("CAs", "%d of them, at most %d", len(cfg.CAs), maxCAs))
	}
	seen := map[string]bool{}
	for i, ca := range cfg.CAs {
		bad := func(field, format string, args ...any) {
			errs = append(errs, wrong(fmt.Sprintf("CAs[%d].%s", i, field), format, args...))
		}
		u, err := url.Parse(ca.Directory)
		switch {
		case ca.Directory == "":
			bad("Directory", "empty; give the URL of an ACME directory, https://HOST/acme/NAME/directory say")
		case err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "":
			bad("Directory", "%q is not an https URL; ACME is spoken over TLS only (RFC 8555 section 6.1)", ca.Directory)
		case seen[ca.Directory]:
			bad("Directory", "%q stands there twice; name each CA once", ca.Directory)
		}
		seen[ca.Directory] = true
		if !ca.Usage.known() {
			bad("Usage", "%d is none of UsageBoth, UsageServer and UsageClient", ca.Usage)
		}
		if ca.Tier < 0 {
			bad("Tier", "%d; the first tier is 0, last resorts have higher ones", ca.Tier)
		}
		if e := ca.EAB; e != nil {
			switch {
			case e.KeyID == "":
				bad("EAB.KeyID", "empty; the CA's operator gives it together with the MAC key")
			case len(e.MACKey) < 16:
				bad("EAB.MACKey", "%d bytes; it has 16 at least, decoded from base64url", len(e.MACKey))
			case !slices.Contains([]string{"", "HS256", "HS384", "HS512"}, e.Alg):
				bad("EAB.Alg", "%q is not HS256, HS384 or HS512", e.Alg)
			}
		}
		if ca.TokenFile != "" {
			if _, err := os.Stat(ca.TokenFile); err != nil {
				bad("TokenFile", "%w; mount a projected service account token there", err)
			}
		}
	}
	for _, wanted := range []Usage{UsageServer, UsageClient} {
		if cfg.Usage.known() && cfg.Usage.covers(wanted) && !slices.ContainsFunc(cfg.CAs, func(ca CA) bool { return ca.Usage.covers(wanted) }) {
			errs = append(errs, wrong("Usage", "%v, but none of the CAs is asked for %v certificates (CA.Usage): name one that is, or want no such certificate", cfg.Usage, wanted))
		}
	}
	return errs
}

// checkNames also brings the names into canonical form, each once.
func (cfg *Config) checkNames() (errs []error) {
	switch {
	case !cfg.Usage.known():
		errs = append(errs, wrong("Usage", "%d is none of UsageBoth, UsageServer and UsageClient", cfg.Usage))
	case cfg.SNI != nil && cfg.Usage == UsageClient:
		errs = append(errs, wrong("SNI", "set, but UsageClient has no certificates for servers; use UsageServer or UsageBoth"))
	case len(cfg.Names) == 0 && cfg.Usage != UsageServer:
		errs = append(errs, wrong("Names", "none, but a client's certificate needs one; with SNI alone use UsageServer"))
	}
	if len(cfg.Names) > maxNames {
		errs = append(errs, wrong("Names", "%d of them, at most %d", len(cfg.Names), maxNames))
	}
	var all []string
	for i, name := range cfg.Names {
		canonical, err := names.Canonical(name)
		if err != nil {
			errs = append(errs, wrong(fmt.Sprintf("Names[%d]", i), "%w", err))
		} else if !slices.Contains(all, canonical) {
			all = append(all, canonical)
		}
	}
	cfg.Names = all
	return errs
}

func (cfg *Config) checkNumbers() (errs []error) {
	if cfg.Pick < PickRandom || cfg.Pick > PickNearest {
		errs = append(errs, wrong("Pick", "%d is none of PickRandom, PickOrdered and PickNearest", cfg.Pick))
	}
	if cfg.MaxSNI < 0 {
		errs = append(errs, wrong("MaxSNI", "%d; a number above zero bounds the certificates on demand", cfg.MaxSNI))
	}
	if cfg.Lifetime < 0 || cfg.Lifetime > 0 && cfg.Lifetime < time.Minute {
		errs = append(errs, wrong("Lifetime", "%v; ask for a minute at least, or for nothing", cfg.Lifetime))
	}
	if cfg.RenewBefore < 0 || cfg.Lifetime > 0 && cfg.RenewBefore > cfg.Lifetime/2 {
		errs = append(errs, wrong("RenewBefore", "%v; between zero and half of Lifetime is right", cfg.RenewBefore))
	}
	if strings.ContainsFunc(cfg.UserAgent, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
		errs = append(errs, wrong("UserAgent", "%q; printable ASCII goes into an HTTP header", cfg.UserAgent))
	}
	if file, ok := cfg.Cache.(*sealed.File); ok && file.Err() != nil {
		errs = append(errs, wrong("Cache", "SealedFile: %w", file.Err()))
	}
	return errs
}

func (cfg *Config) checkProof() (errs []error) {
	for i, solver := range cfg.Proof.Solvers {
		if solver == nil || solver.Type() == "" {
			errs = append(errs, wrong(fmt.Sprintf("Proof.Solvers[%d]", i), "nil, or of no challenge type"))
		}
	}
	if file := cfg.Proof.TokenFile; file != "" {
		if _, err := os.Stat(file); err != nil {
			errs = append(errs, wrong("Proof.TokenFile", "%w; mount a projected service account token there (or see %s)", err, environment.Token))
		}
	}
	if address := cfg.Proof.ListenALPN; address != "" {
		if _, _, err := net.SplitHostPort(address); err != nil {
			errs = append(errs, wrong("Proof.ListenALPN", "%w; \":443\" is the usual one", err))
		} else if cfg.Usage == UsageClient {
			errs = append(errs, wrong("Proof.ListenALPN", "set, but %s proves names of servers only", acme.TLSALPN01))
		}
	}
	return errs
}
