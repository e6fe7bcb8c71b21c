package ceremony

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/config"
)

// Rotation makes the next issuing certificate of an issuer, with a new key,
// beside the one it has: the new one signs from then on, the old one's
// certificates live to their end.
type Rotation struct {
	Config   *config.Config
	Issuer   string        // its name there
	Name     string        // the common name; "": the old one's with the next number
	Lifetime time.Duration // 0: the old one's
	Key      Key           // of the new certificate
	By       Parent        // who certified the old one
	Out      string
}

// Rotated is what a rotation made, and what is to be done with it.
type Rotated struct {
	Certificates []*x509.Certificate
	Files        []string // where they are
	Advice       string   // the lines to add to the configuration, and what comes then
}

// Run makes the certificate. All but name, key and dates is as in the newest
// one that the issuer has. It changes no configuration.
func (r Rotation) Run(ctx context.Context, source Source) (*Rotated, error) {
	if err := free(r.Out); err != nil {
		return nil, err
	}
	present, err := r.present()
	if err != nil {
		return nil, err
	}
	parent, parentKey, err := r.By.open(ctx)
	if err != nil {
		return nil, err
	}
	defer Close(parentKey)
	if present.CheckSignatureFrom(parent) != nil {
		return nil, fmt.Errorf("%q in %s didn't certify %q; for a new root: chanceryd ca rotate --root", parent.Subject, r.By.Certificate, present.Subject)
	}
	n, err := like(present)
	if err != nil {
		return nil, err
	}
	if n.Name = r.Name; n.Name == "" {
		n.Name = nextName(present.Subject.CommonName)
	}
	if n.Name == present.Subject.CommonName {
		return nil, fmt.Errorf("the issuing certificate before is called %q too; give the new one another name", n.Name)
	}
	if r.Lifetime > 0 {
		n.Lifetime = r.Lifetime
	}
	key, err := source(ctx)
	if err != nil {
		return nil, err
	}
	defer Close(key)
	c, err := n.under(parent, parentKey, key.Public())
	if err != nil {
		return nil, err
	}
	if err := WriteNew(r.Out, EncodeCertificate(c), 0o644); err != nil {
		return nil, err
	}
	return &Rotated{Certificates: []*x509.Certificate{c}, Files: []string{r.Out}, Advice: r.advice(c)}, nil
}

// present is the newest certificate of the issuer that signs.
func (r Rotation) present() (*x509.Certificate, error) {
	is, ok := r.Config.Issuers[r.Issuer]
	if !ok {
		return nil, fmt.Errorf("%s has no issuer %q", r.Config.File(), r.Issuer)
	}
	var newest *x509.Certificate
	for i, s := range is.Signers {
		c, err := ReadCertificate(r.Config.Path(s.Certificate))
		if err != nil {
			return nil, r.Config.At(fmt.Sprintf("issuers.%s.signers[%d].certificate", r.Issuer, i), err)
		}
		if !s.Retired && (newest == nil || c.NotBefore.After(newest.NotBefore)) {
			newest = c
		}
	}
	if newest == nil {
		return nil, fmt.Errorf("issuer %q has no signer to go by; use chanceryd ca create", r.Issuer)
	}
	return newest, nil
}

func (r Rotation) advice(c *x509.Certificate) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("1. In %s, add under issuers.%s.signers:", r.Config.File(), r.Issuer)
	p("      - key: %s", strconv.Quote(r.uri()))
	if r.Key.PINFile != "" {
		p("        pin_file: %s", strconv.Quote(named(r.Config, r.Key.PINFile)))
	}
	if r.Key.PasswordFile != "" {
		p("        password_file: %s", strconv.Quote(named(r.Config, r.Key.PasswordFile)))
	}
	p("        certificate: %s", strconv.Quote(named(r.Config, r.Out)))
	p("2. Mark those before it, so that they sign no more certificates. Leave their keys: CRLs and OCSP responses need them.")
	for i, s := range r.Config.Issuers[r.Issuer].Signers {
		if !s.Retired {
			p("        retired: true   # %s", at(r.Config, fmt.Sprintf("issuers.%s.signers[%d]", r.Issuer, i)))
		}
	}
	p("3. chanceryd check %s, then reload the server (SIGHUP).", r.Config.File())
	p("4. chanceryd ca list shows when the last certificate of an old one ends; take it and its key away then.")
	return b.String()
}

// uri is the key's URI as the configuration has it.
func (r Rotation) uri() string {
	if !r.Key.isFile() {
		return r.Key.URI
	}
	path, err := filePath(r.Key.URI)
	if err != nil {
		return r.Key.URI
	}
	return "file:" + (&url.URL{Path: named(r.Config, path)}).EscapedPath()
}

// at says where in the file something stands.
func at(c *config.Config, path string) string {
	if p, ok := errors.AsType[config.Problem](c.At(path, errors.New("here"))); ok && p.Line > 0 {
		return fmt.Sprintf("%s, line %d", path, p.Line)
	}
	return path
}

// named is a path as the configuration names it: from its own folder where it
// lies in it, else absolute.
func named(c *config.Config, path string) string {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if relative, err := filepath.Rel(filepath.Dir(c.File()), absolute); err == nil && filepath.IsLocal(relative) {
		return relative
	}
	return absolute
}

// nextName counts CAs of one name: "Example Server CA", "Example Server CA 2".
func nextName(name string) string {
	if i := strings.LastIndexByte(name, ' '); i >= 0 {
		if n, err := strconv.Atoi(name[i+1:]); err == nil && n > 0 && n < 1000 {
			return fmt.Sprintf("%s %d", name[:i], n+1)
		}
	}
	return name + " 2"
}

// like says how to make a certificate like one that there is.
func like(c *x509.Certificate) (NewCA, error) {
	n := NewCA{
		Name: c.Subject.CommonName, Organization: strings.Join(c.Subject.Organization, ""),
		Lifetime: c.NotAfter.Sub(c.NotBefore) + time.Second,
		CRLURL:   first(c.CRLDistributionPoints), AIAURL: first(c.IssuingCertificateURL),
	}
	for _, u := range c.ExtKeyUsage {
		switch u {
		case x509.ExtKeyUsageServerAuth:
			n.Usages = append(n.Usages, cert.Server)
		case x509.ExtKeyUsageClientAuth:
			n.Usages = append(n.Usages, cert.Client)
		default:
			return n, fmt.Errorf("%q has an extended key usage that isn't made here; use chanceryd ca create", c.Subject)
		}
	}
	n.Constrain = slices.Clone(c.PermittedDNSDomains)
	for _, network := range c.PermittedIPRanges {
		n.Constrain = append(n.Constrain, network.String())
	}
	if !c.IsCA || len(c.UnknownExtKeyUsage) > 0 || !sameLimits(n, c) {
		return n, fmt.Errorf("%q has limits that aren't made here; use chanceryd ca create", c.Subject)
	}
	return n, nil
}

// sameLimits reports whether the name constraints that n asks for are all that
// the certificate has.
func sameLimits(n NewCA, c *x509.Certificate) bool {
	others := len(c.PermittedEmailAddresses) + len(c.PermittedURIDomains) + len(c.ExcludedEmailAddresses) + len(c.ExcludedURIDomains)
	if others > 0 {
		return false
	}
	domains, networks, err := permitted(n.Constrain)
	if err != nil {
		return false
	}
	// issuer.CA excludes the kind of which none is permitted.
	excludedDNS, excludedIPs := 0, 0
	switch {
	case len(domains) > 0 && len(networks) == 0:
		excludedIPs = 2
	case len(domains) == 0 && len(networks) > 0:
		excludedDNS = 1
	}
	return len(c.ExcludedDNSDomains) == excludedDNS && len(c.ExcludedIPRanges) == excludedIPs &&
		(excludedDNS == 0 || c.ExcludedDNSDomains[0] == "")
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
