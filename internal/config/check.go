package config

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// Check looks for what contradicts itself or can't work, in the
// configuration alone: it opens no file and asks no network. The problems
// come in the order of the file; those that aren't warnings keep the server
// from starting.
func Check(c *Config) Problems {
	k := &checker{c: c}
	k.server()
	k.database()
	k.listeners()
	for _, name := range slices.Sorted(maps.Keys(c.Issuers)) {
		k.issuer("issuers."+name, name, c.Issuers[name])
	}
	k.sshIssuers()
	for _, name := range slices.Sorted(maps.Keys(c.Profiles)) {
		k.profile("profiles."+name, name, c.Profiles[name])
	}
	k.operators()
	k.clusters()
	k.devices()
	if len(c.Directories) == 0 {
		k.warn("directories", "there is no directory, so nobody can get a certificate")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Directories)) {
		k.directory("directories."+name, c.Directories[name])
	}
	slices.SortStableFunc(k.found, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return k.found
}

type checker struct {
	c     *Config
	found Problems
}

func (k *checker) fail(path, format string, args ...any) {
	k.found = append(k.found, k.c.source.problem(path, format, args...))
}

func (k *checker) warn(path, format string, args ...any) {
	p := k.c.source.problem(path, format, args...)
	p.Warning = true
	k.found = append(k.found, p)
}

func (k *checker) server() {
	c := k.c
	host := k.externalURL()
	for i, network := range c.TrustedProxies {
		if network.Bits() == 0 {
			k.fail(fmt.Sprintf("trusted_proxies[%d]", i), "this trusts every address, so that anybody could claim to be anybody; list the balancers' networks")
		}
	}
	oneOf(k, "log.format", c.Log.Format, []string{"text", "json"})
	oneOf(k, "log.level", c.Log.Level, []string{"debug", "info", "warn", "error"})
	k.keepAfterExpiry()
	k.signing()
	t := c.TLS
	switch {
	case (t.Certificate == "") != (t.Key == ""):
		k.fail("tls", "certificate and key come together")
	case t.Certificate != "" && t.Profile != "":
		k.fail("tls.profile", "the listener's certificate comes from files or is issued by the server itself; leave out profile, or certificate and key")
	case t.Certificate != "":
	case t.Profile == "":
		k.fail("tls.profile", "say the server profile under which the server issues its own certificate, or give certificate and key")
	default:
		k.tlsProfile(host)
	}
}

func (k *checker) tlsProfile(host string) {
	t := k.c.TLS
	if p, ok := k.c.Profiles[t.Profile]; !ok {
		k.fail("tls.profile", "there is no profile %q; %s", t.Profile, listing("there is", slices.Sorted(maps.Keys(k.c.Profiles))))
	} else if !slices.Contains(p.Usages, cert.Server) {
		k.fail("tls.profile", "profile %q has no usage server", t.Profile)
	}
	for i, name := range t.Names {
		if _, err := parseHost(name); err != nil {
			k.fail(fmt.Sprintf("tls.names[%d]", i), "%v", err)
		}
	}
	if host != "" && !slices.ContainsFunc(t.Names, func(n string) bool { return strings.EqualFold(n, host) }) {
		k.warn("tls.names", "the host of external_url, %q, is missing: clients will refuse the certificate", host)
	}
}

// externalURL returns its host, "" if there is none.
func (k *checker) externalURL() string {
	if k.c.ExternalURL == "" {
		k.fail("external_url", "it is required: the https URL under which clients reach this server, as in \"https://ca.internal\"")
		return ""
	}
	u, err := url.Parse(k.c.ExternalURL)
	switch {
	case err != nil || u.Scheme != "https" || u.Hostname() == "":
		k.fail("external_url", "%q is not an https URL", k.c.ExternalURL)
		return ""
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		k.fail("external_url", "scheme, host and port only: the paths are the server's own")
		return ""
	}
	if _, err := parseHost(u.Hostname()); err != nil {
		k.fail("external_url", "%v", err)
		return ""
	}
	if port := u.Port(); port != "" && !isPort(port) {
		k.fail("external_url", "port %q is not between 1 and 65535", port)
	}
	return u.Hostname()
}

func (k *checker) database() {
	d := k.c.Database
	given := 0
	for _, s := range []string{d.DSN, d.DSNFile, d.DSNEnv} {
		if s != "" {
			given++
		}
	}
	if given > 1 {
		k.fail("database", "dsn, dsn_file and dsn_env exclude each other")
	}
	if d.DSNEnv != "" && strings.Trim(d.DSNEnv, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		k.fail("database.dsn_env", "%q is not the name of an environment variable", d.DSNEnv)
	}
	switch {
	case IsPostgres(d.DSN):
		if u, err := url.Parse(d.DSN); err != nil {
			k.fail("database.dsn", "this is not a valid URL; write it as in \"postgres://chancery@db.internal/chancery\"")
		} else if _, secret := u.User.Password(); secret || u.Query().Has("password") {
			k.fail("database.dsn", "a password doesn't belong into this file; put the dsn into a file (dsn_file) or the environment (dsn_env), or the password into PGPASSFILE")
		}
	case strings.Contains(d.DSN, "://") || strings.HasPrefix(d.DSN, "host="):
		k.fail("database.dsn", "write the path of an SQLite file, or \"postgres://USER@HOST/DATABASE\"")
	case d.AllowUnsafeSync && d.DSN != "":
		k.warn("database.allow_unsafe_sync", "this says something about PostgreSQL; SQLite always syncs")
	}
}

// listeners checks the addresses, and that no two are one.
func (k *checker) listeners() {
	taken := map[string]string{}
	for _, l := range []struct{ path, address string }{
		{"listen", k.c.Listen}, {"metrics.listen", k.c.Metrics.Listen}, {"publish.listen", k.c.Publish.Listen},
		{"admin.listen", k.c.Admin.Listen},
	} {
		if l.address == "" {
			continue
		}
		host, port, err := net.SplitHostPort(l.address)
		addr, notIP := netip.ParseAddr(host)
		if err != nil || port != "0" && !isPort(port) || host != "" && host != "localhost" && notIP != nil {
			k.fail(l.path, "%q is not an address to listen on; write it as in \":443\" or \"127.0.0.1:9402\"", l.address)
			continue
		}
		if other, ok := taken[l.address]; ok && port != "0" {
			k.fail(l.path, "%s listens on this address too", other)
		}
		taken[l.address] = l.path
		if l.path == "metrics.listen" && k.c.Metrics.ClientCA == "" && host != "localhost" && !(notIP == nil && addr.IsLoopback()) {
			k.fail(l.path, "metrics tell much, so they are served on loopback only (\"127.0.0.1:%s\"), or set client_ca to ask callers for a certificate", port)
		}
	}
	if k.c.Metrics.ClientCA != "" && k.c.Metrics.Listen == "" {
		k.warn("metrics.client_ca", "there is no metrics.listen")
	}
	if len(k.c.Publish.CRLs) > 0 && k.c.Publish.Listen == "" {
		k.warn("publish.crls", "there is no publish.listen")
	}
	k.distinct("publish.crls", k.c.Publish.CRLs)
}

func (k *checker) webURL(path, value string) {
	if value == "" {
		return
	}
	if u, err := url.Parse(value); err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		k.fail(path, "%q is not an https or http URL", value)
	}
}

// oneOf checks a value of an enumeration.
func oneOf[T ~string](k *checker, path string, value T, known []T) {
	if !slices.Contains(known, value) {
		k.fail(path, "%q is not known here; %s", value, listing("use", known))
	}
}

// allOf checks a list of values of an enumeration, each at most once.
func allOf[T ~string](k *checker, path string, values, known []T) {
	for i, v := range values {
		at := fmt.Sprintf("%s[%d]", path, i)
		oneOf(k, at, v, known)
		if slices.Contains(values[:i], v) {
			k.fail(at, "%q is listed twice", v)
		}
	}
}

// distinct looks for values that are listed twice.
func (k *checker) distinct(path string, values []string) {
	for i, v := range values {
		if slices.Contains(values[:i], v) {
			k.fail(fmt.Sprintf("%s[%d]", path, i), "%q is listed twice", v)
		}
	}
}

// listing says "there is a, b or c", and what to say where there is nothing.
func listing[T ~string](verb string, values []T) string {
	var b strings.Builder
	b.WriteString(verb + " ")
	for i, v := range values {
		switch {
		case i == 0:
		case i == len(values)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(string(v))
	}
	if len(values) == 0 {
		b.WriteString("none")
	}
	return b.String()
}

// parseHost checks a host name or address.
func parseHost(s string) (protocol.Identifier, error) {
	if id, err := protocol.ParseIdentifier("ip", s); err == nil {
		return id, nil
	}
	id, err := protocol.ParseIdentifier("dns", s)
	switch {
	case err != nil:
		return id, fmt.Errorf("%s", protocol.AsProblem(err).Detail)
	case id.IsWildcard():
		return id, fmt.Errorf("%q is a wildcard; a host is wanted", s)
	}
	return id, nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}
