package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// longWithoutRevocation is how long a certificate may live before having no
// revocation looks like an oversight: about as long as a CRL is believed.
const longWithoutRevocation = 10 * day

func (k *checker) profile(path, name string, p Profile) {
	issuer, ok := k.c.Issuers[p.Issuer]
	if p.isSSH() {
		k.sshProfile(path, p)
	} else if !p.SSH.empty() {
		k.fail(path+".ssh", "this is for profiles with usage ssh-user; leave it out")
	}
	if !ok && !p.isSSH() {
		k.fail(path+".issuer", "there is no issuer %q; %s", p.Issuer, listing("there is", slices.Sorted(maps.Keys(k.c.Issuers))))
	}
	if len(p.Usages) == 0 {
		k.fail(path+".usages", "say what the certificates are for: server, client, both, ssh-user or ssh-host")
	}
	allOf(k, path+".usages", p.Usages, knownUsages)
	allOf(k, path+".challenges", p.Challenges, knownChallenges)
	if slices.Contains(p.Usages, cert.Client) {
		for i, t := range p.Challenges {
			if t.Classic() {
				k.warn(fmt.Sprintf("%s.challenges[%d]", path, i),
					"%s proves a server's name: whoever can answer for the name gets a certificate to act as this client", t)
			}
		}
	}
	k.podProfile(path, name, p)
	if p.KeyTypes != nil && len(p.KeyTypes) == 0 {
		k.fail(path+".key_types", "the list is empty, so that no key could be certified")
	}
	k.lifetimes(path, p)
	if !p.isSSH() {
		allOf(k, path+".key_types", p.KeyTypes, knownKeyTypes)
		oneOf(k, path+".revocation", p.Revocation, knownRevocations)
	}
	switch {
	case p.Revocation.CRL() && ok && issuer.CRLURL == "":
		k.fail(path+".revocation", "issuer %q has no crl_url for the certificates to point to; set it, or use revocation none", p.Issuer)
	case p.Revocation.OCSP() && ok && issuer.OCSPURL == "":
		k.fail(path+".revocation", "issuer %q has no ocsp_url for the certificates to point to; set it, or use revocation none", p.Issuer)
	case p.Revocation == cert.RevocationNone && time.Duration(p.MaxLifetime) > longWithoutRevocation:
		k.warn(path+".revocation", "a certificate may live %s and can't be revoked; shorten max_lifetime, or use revocation crl or ocsp", p.MaxLifetime)
	}
	used := k.c.TLS.Profile == name
	for _, d := range k.c.Directories {
		used = used || slices.Contains(d.Profiles, name)
	}
	if !used {
		k.warn(path, "no directory offers this profile")
	}
}

func (k *checker) lifetimes(path string, p Profile) {
	if p.Lifetime > p.MaxLifetime {
		k.fail(path+".lifetime", "lifetime (%s) is longer than max_lifetime (%s)", p.Lifetime, p.MaxLifetime)
	}
	if p.Backdate >= p.Lifetime {
		k.fail(path+".backdate", "backdate (%s) counts inside the lifetime (%s) and would leave nothing of it", p.Backdate, p.Lifetime)
	}
}

func (k *checker) directory(path string, d Directory) {
	if len(d.Profiles) == 0 {
		k.fail(path+".profiles", "a directory offers at least one profile")
	}
	allOf(k, path+".profiles", d.Profiles, slices.Sorted(maps.Keys(k.c.Profiles)))
	if len(d.Profiles) > 0 && !slices.Contains(d.Profiles, d.DefaultProfile) {
		k.fail(path+".default_profile", "%q is not among the directory's profiles; %s", d.DefaultProfile, listing("use", d.Profiles))
	}
	if d.EKUFromCSR && !(k.hasUsage(d, cert.Server) && k.hasUsage(d, cert.Client)) {
		k.warn(path+".eku_from_csr", "there is nothing to choose: the directory's profiles lack usage server or usage client")
	}
	k.challenges(path, d)
	k.kubernetes(path, d)
	k.devicePolicies(path+".devices", d)
	k.names(path+".names", d)
	k.webURL(path+".terms_of_service", d.TermsOfService)
	k.webURL(path+".website", d.Website)
	if d.CAA.Enabled && len(d.CAA.Identities) == 0 {
		k.fail(path+".caa.identities", "say which domain names mean this CA in a CAA record, or turn CAA off")
	}
	for i, name := range d.CAA.Identities {
		if id, err := parseHost(name); err != nil || id.Type != protocol.DNS {
			k.fail(fmt.Sprintf("%s.caa.identities[%d]", path, i), "%q is not a domain name", name)
		}
	}
	k.validation(path+".validation", d.Validation)
	k.within(path+".order_lifetime", d.OrderLifetime, 30*day)
	k.within(path+".authorization_lifetime", d.AuthorizationLifetime, 90*day)
	k.between(path+".max_identifiers", d.MaxIdentifiers, 1, 1000)
}

func (k *checker) hasUsage(d Directory, u cert.Usage) bool {
	return slices.ContainsFunc(d.Profiles, func(name string) bool {
		return slices.Contains(k.c.Profiles[name].Usages, u)
	})
}

// challenges looks for types that can never be offered, and for profiles that
// nobody can get.
func (k *checker) challenges(path string, d Directory) {
	allOf(k, path+".challenges", d.Challenges, knownChallenges)
	for i, t := range d.Challenges {
		if slices.Contains(knownChallenges, t) && !d.takes(k.c.Profiles, t) {
			k.fail(fmt.Sprintf("%s.challenges[%d]", path, i), "no profile of this directory takes %s, so that it would never be offered", t)
		}
	}
	if d.EAB.Required {
		return // its key's pre-approved names may be the proof
	}
	for i, name := range d.Profiles {
		p, ok := k.c.Profiles[name]
		offered := func(t protocol.ChallengeType) bool { return slices.Contains(d.Challenges, t) }
		if ok && !slices.ContainsFunc(p.Challenges, offered) {
			k.warn(fmt.Sprintf("%s.profiles[%d]", path, i),
				"no challenge here proves for profile %q: only EAB keys with pre-approved names get it (eab.required says that this is meant)", name)
		}
	}
}

func (k *checker) names(path string, d Directory) {
	n := d.Names
	allow, ok := k.patterns(path+".allow", n.Allow)
	deny, ok2 := k.patterns(path+".deny", n.Deny)
	if !ok || !ok2 {
		return
	}
	if len(n.Allow) == 0 {
		k.warn(path+".allow", "the list is empty, so that every name is refused; list names or \"*.\" and a domain")
	}
	suffix, byDNS, byConnecting := false, d.EAB.Required, d.EAB.Required
	for _, t := range d.Challenges {
		byDNS = byDNS || t.Proves(protocol.DNS, true)
		byConnecting = byConnecting || t.Proves(protocol.IP, false)
	}
	for i, pattern := range allow.Patterns() {
		at := fmt.Sprintf("%s.allow[%d]", path, i)
		suffix = suffix || strings.HasPrefix(pattern, "*")
		_, notNet := netip.ParsePrefix(pattern)
		_, notIP := netip.ParseAddr(pattern)
		switch {
		case deny.CoversPattern(pattern):
			k.fail(at, "all of this is denied by names.deny, so that it can never match")
		case (notNet == nil || notIP == nil) && !byConnecting:
			k.warn(at, "addresses are proven by connecting to them, or by the pod that has them, and no such challenge is offered (http-01, tls-alpn-01, kubernetes-01)")
		}
	}
	switch {
	case n.Wildcards && !suffix:
		k.warn(path+".wildcards", "no pattern of names.allow covers a wildcard; one that begins with \"*.\" would")
	case n.Wildcards && !byDNS:
		k.warn(path+".wildcards", "wildcards are proven by DNS, and no such challenge is offered (dns-01, dns-account-01, dns-persist-01)")
	}
}

// patterns checks each pattern and returns them compiled, false if one is bad.
func (k *checker) patterns(path string, patterns []string) (policy.NameSet, bool) {
	good := true
	first := map[string]int{}
	for i, p := range patterns {
		at := fmt.Sprintf("%s[%d]", path, i)
		canonical, err := policy.Canonical(p)
		if err != nil {
			k.fail(at, "%v", err)
			good = false
		} else if j, ok := first[canonical]; ok {
			k.warn(at, "this is entry %d again", j)
		} else {
			first[canonical] = i
		}
	}
	if !good {
		return policy.NameSet{}, false
	}
	s, err := policy.NewNameSet(patterns...)
	return s, err == nil
}

func (k *checker) validation(path string, v Validation) {
	k.between(path+".http_port", v.HTTPPort, 1, 65535)
	k.between(path+".tls_port", v.TLSPort, 1, 65535)
	k.within(path+".timeout", v.Timeout, time.Minute)
	oneOf(k, path+".probe", v.Probe, []string{"first", "any"})
	k.between(path+".probe_addresses", v.ProbeAddresses, 1, 64)
	for i, allowed := range v.Allow {
		for _, denied := range v.Deny {
			if denied.Bits() <= allowed.Bits() && denied.Contains(allowed.Addr()) {
				k.fail(fmt.Sprintf("%s.allow[%d]", path, i), "%s is denied by validation.deny, which wins", allowed)
			}
		}
	}
	if v.ResolverCA != "" && !slices.ContainsFunc(v.Resolvers, func(r Resolver) bool { return r.TLS }) {
		k.warn(path+".resolver_ca", "no resolver is asked over TLS")
	}
}

// within checks a span that must be longer than nothing and have an end.
func (k *checker) within(path string, d Duration, most time.Duration) {
	if d <= 0 || time.Duration(d) > most {
		k.fail(path, "%s is not between 1s and %s", d, Duration(most))
	}
}

func (k *checker) span(path string, d Duration, least, most time.Duration) {
	if time.Duration(d) < least || time.Duration(d) > most {
		k.fail(path, "%s is not between %s and %s", d, Duration(least), Duration(most))
	}
}

func (k *checker) between(path string, n, least, most int) {
	if n < least || n > most {
		k.fail(path, "%d is not between %d and %d", n, least, most)
	}
}
