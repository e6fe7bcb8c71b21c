package config

import (
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
)

// Config is the whole file. Names of issuers, profiles, clusters and
// directories are lower-case letters, digits and hyphens, at most 32.
type Config struct {
	// Where clients reach the server, as in "https://ca.internal" or
	// "https://ca.internal:8443": every URL that clients are given begins
	// so, whatever Host header they send. Required.
	ExternalURL string `yaml:"external_url"`

	// Address and port of the ACME listener. Default: the port of
	// external_url on all addresses.
	Listen string `yaml:"listen"`

	// Networks of the load balancers that speak PROXY protocol version 2 to
	// us. From there the header is required and tells the client's address;
	// from elsewhere it is refused. Default: none.
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`

	TLS      TLS      `yaml:"tls"`
	Database Database `yaml:"database"`
	Log      Log      `yaml:"log"`
	Metrics  Metrics  `yaml:"metrics"`
	Admin    Admin    `yaml:"admin"`
	Publish  Publish  `yaml:"publish"`

	// Who signs, by name.
	Issuers map[string]Issuer `yaml:"issuers"`
	// Who signs SSH certificates, by name; no name is both an issuer's and an
	// SSH issuer's.
	SSHIssuers map[string]SSHIssuer `yaml:"ssh_issuers"`
	KRL        KRL                  `yaml:"krl"`
	Signing    Signing              `yaml:"signing"`
	// The kinds of certificates, by name. Clients see the names and the
	// descriptions of those that a directory offers.
	Profiles map[string]Profile `yaml:"profiles"`
	// The Kubernetes clusters whose pods may get certificates, by name.
	Clusters map[string]Cluster `yaml:"clusters"`
	// The devices that people hold.
	Devices Devices `yaml:"devices"`
	// The ACME directories, by name: https://HOST/acme/NAME/directory.
	Directories map[string]Directory `yaml:"directories"`

	RateLimits   RateLimits   `yaml:"rate_limits"`
	Audit        Audit        `yaml:"audit"`
	Accounts     Accounts     `yaml:"accounts"`
	Certificates Certificates `yaml:"certificates"`

	source source
}

// TLS is the certificate of the ACME listener itself: one that the server
// issues to itself and renews in memory (profile), or files.
type TLS struct {
	// The dns names and addresses in the certificate that the server issues
	// to itself. Default: the host of external_url.
	Names []string `yaml:"names"`
	// The server profile under which it is issued. Required without
	// certificate and key.
	Profile string `yaml:"profile"`
	// A PEM file with the certificate and its chain, where another CA made
	// it; read again at SIGHUP.
	Certificate string `yaml:"certificate"`
	// The PEM file of its key, readable by the server's user only.
	Key string `yaml:"key"`
}

// Database is where everything is kept. At most one of the three names of it
// is given.
type Database struct {
	// The path of an SQLite file, or a PostgreSQL address as in
	// "postgres://chancery@db.internal/chancery". A password doesn't belong
	// here: use dsn_file, dsn_env or PGPASSFILE. Default: chancery.db.
	DSN string `yaml:"dsn"`
	// A file that holds the dsn.
	DSNFile string `yaml:"dsn_file"`
	// An environment variable that holds the dsn.
	DSNEnv string `yaml:"dsn_env"`
	// Start although PostgreSQL has fsync or synchronous_commit off, which
	// may lose or double certificates at a power cut. Default: false.
	AllowUnsafeSync bool `yaml:"allow_unsafe_sync"`
}

// Log is what is written to standard error.
type Log struct {
	// text or json. Default: text.
	Format string `yaml:"format"`
	// debug, info, warn or error. Default: info.
	Level string `yaml:"level"`
}

// Metrics is the listener for Prometheus (/metrics) and health (/healthz).
type Metrics struct {
	// Address and port; the address must be loopback unless client_ca is
	// set. Default: no such listener.
	Listen string `yaml:"listen"`
	// A PEM file of CA certificates: callers must present a client
	// certificate of one of them, over TLS with the server's certificate.
	ClientCA string `yaml:"client_ca"`
}

// Admin is the API of those who run the CA: on a unix socket with mode 0600,
// which root and the user that the server runs as may use, and where listen is
// set, over mutual TLS for operators with certificates of this very CA.
type Admin struct {
	// The path of the socket. Default: admin.sock.
	Socket string `yaml:"socket"`
	// Address and port of the API over TLS 1.3, with the server's own
	// certificate, as in "10.0.0.5:8444". Default: no such listener.
	Listen string `yaml:"listen"`
	// Who may use it, and for what.
	Operators []Operator `yaml:"operators"`
}

// Operator is who holds a certificate that this server's issuer gave under
// this profile for this name. The server looks its own record of it up at each
// request, so that a revoked one ends at once.
type Operator struct {
	// The issuer that signed it. Required.
	Issuer string `yaml:"issuer"`
	// The client profile under which it was issued. Those of all but
	// reporters take nothing but yubikey-01, yubikey-02 and device-attest-01,
	// and a certificate that was issued by other means (an EAB key's
	// pre-approved names) doesn't count. Required.
	Profile string `yaml:"profile"`
	// The dns name in it, or the person (a permanent-identifier). Required.
	Name string `yaml:"name"`
	// administrator: everything; auditor: looks at everything but secrets;
	// enroller: enrolls devices, lists and shows them; reporter: a host that
	// reports the use of watched SSH keys. Required.
	Role string `yaml:"role"`
}

// Publish is what relying parties fetch: OCSP responses, CRLs and issuer
// certificates, over plain HTTP since they are signed and fetched before any
// trust exists.
type Publish struct {
	// Address and port. Default: no such listener.
	Listen string `yaml:"listen"`
	// Files with CRLs that are made elsewhere and served here, as the root's
	// own (`chanceryd ca crl`), PEM or DER, at /crl/KEYID.crl with the KEYID
	// of who signed them. The certificate of who signed them is a signer's or
	// stands in a chain. Default: none.
	CRLs []string `yaml:"crls"`
}

// Issuer is one that signs: a pool of signers under one chain.
type Issuer struct {
	// The keys, at least one. With several, each has its own CA certificate
	// and they share the work.
	Signers []Signer `yaml:"signers"`
	// A PEM file with the certificates above the signers' CA certificates, up
	// to the self-signed root, which clients aren't sent. Required.
	Chain string `yaml:"chain"`
	// PEM files, one for each alternate chain (RFC 8555 section 7.4.2): again
	// what stands above, or first another certificate for the signer's key.
	AlternateChains []string `yaml:"alternate_chains"`
	// Where relying parties reach the publish listener for CRLs, as in
	// "http://crl.internal": certificates point to /crl/KEYID.crl there. http,
	// since who checks a certificate can't be asked to check another one
	// first. Required where a profile of this issuer has revocation crl.
	CRLURL string `yaml:"crl_url"`
	// Where they reach it for OCSP, as in "http://ocsp.internal":
	// certificates point to /ocsp there; http. Required where a profile of
	// this issuer has revocation ocsp, and only then.
	OCSPURL string `yaml:"ocsp_url"`
	// Where they reach it for the issuer's certificate, /ca/KEYID.cer; http.
	// Default: not in the certificates.
	AIAURL string `yaml:"aia_url"`
	CRL    CRL    `yaml:"crl"`
	OCSP   OCSP   `yaml:"ocsp"`
	// A file with the SHA-256 hashes (hex, one a line) of public keys that
	// are known to be compromised and are never certified.
	Blocklist string `yaml:"blocklist"`
}

// CRL is the lists of withdrawn certificates of one issuer, one set for each
// key of it.
type CRL struct {
	// In how many parts the list is served: each certificate points to the
	// part that it would be on, for ever. With a hundred thousand withdrawn
	// certificates, what a relying party fetches gets large. At most 256.
	// Default: not in parts. The whole list is always served too.
	Shards int `yaml:"shards"`
	// How long a list is believed; a new one is made a third into it, and
	// within seconds of a revocation. It is also how long relying parties can
	// go on while the key is away. Default: 24h; 1m to 30d.
	Validity Duration `yaml:"validity"`
}

// OCSP is the responses of one issuer.
type OCSP struct {
	// How long a response is believed. Each certificate that is asked about
	// costs a signature in this time. Default: 8h; 1m to 10d.
	Validity Duration `yaml:"validity"`
}

// Signer is one private key with its CA certificate. Without a key, and not
// retired, the key is on another replica, which signs for this one too.
type Signer struct {
	// The key, as a URI: "file:ca/servers.key" (PEM, mode 0600),
	// "pkcs11:token=ca;object=servers?module-path=/usr/lib/…/opensc-pkcs11.so"
	// (RFC 7512) or "yubikey:serial=12345678;slot=9c".
	Key string `yaml:"key"`
	// Instead of key: several tokens that hold one and the same key, used in
	// parallel.
	Keys []string `yaml:"keys"`
	// A file with the password of an encrypted key file.
	PasswordFile string `yaml:"password_file"`
	// A file with the PIN of the token, or of all of keys.
	PINFile string `yaml:"pin_file"`
	// A PEM file with the CA certificate of this key. Required.
	Certificate string `yaml:"certificate"`
	// The key signs no more certificates; relying parties still find its
	// certificate and, while a key is given here, its CRL and OCSP responses.
	// Default: false.
	Retired bool `yaml:"retired"`
	// A key of its own for OCSP, certified by this one (RFC 6960 section
	// 4.2.2.2). It answers with nonces and for unknown certificates, which
	// the CA's key never does. Default: the CA's key answers.
	OCSPResponder OCSPResponder `yaml:"ocsp_responder"`
}

// OCSPResponder is a key that signs OCSP responses in the CA's name. Without
// a key, it is on another replica.
type OCSPResponder struct {
	// The key, as a URI.
	Key string `yaml:"key"`
	// A file with the password of an encrypted key file.
	PasswordFile string `yaml:"password_file"`
	// A file with the PIN of the token.
	PINFile string `yaml:"pin_file"`
	// A PEM file with its certificate, made by `chanceryd ca create
	// --ocsp-responder`.
	Certificate string `yaml:"certificate"`
}

// Signing is how the time of a signing key is shared out while more is asked
// of it than it can do. What the others leave, and at least what these leave
// of the whole, is for new certificates.
type Signing struct {
	// For renewals. Default: 35%.
	Renewal Share `yaml:"renewal"`
	// For OCSP responses. Default: 4%.
	OCSP Share `yaml:"ocsp"`
	// For CRLs. Default: 1%.
	CRL Share `yaml:"crl"`
	// How many may wait for one key, of each kind. Default: 4096; at most
	// 1000000.
	MaxWaiting int `yaml:"max_waiting"`
	// A token that takes longer than this for one signature is out of turn
	// until it answers. Default: 30s; 1s to 10m.
	Stuck Duration `yaml:"stuck"`
}

// Audit is the record of all decisions.
type Audit struct {
	// How long entries are kept. Default: 400d.
	Keep Duration `yaml:"keep"`
}

// Accounts is about the throwaway accounts that workloads leave behind.
type Accounts struct {
	// An account that issued nothing for so long, holds no unexpired
	// certificate and isn't bound to an EAB key is deleted. Default: 7d.
	Keep Duration `yaml:"keep"`
}

// Certificates is about the bodies of certificates in the database.
type Certificates struct {
	// How long a certificate stays after its end. Default: 7d.
	KeepAfterExpiry Duration `yaml:"keep_after_expiry"`
}

// File is the path of the file that the configuration was read from, "" for
// one made otherwise.
func (c *Config) File() string { return c.source.file }

// Path returns the path of a file that the configuration names: relative
// paths start at the folder of the configuration's own file. "" stays "".
func (c *Config) Path(name string) string {
	if name == "" || filepath.IsAbs(name) || c.source.file == "" {
		return name
	}
	return filepath.Join(filepath.Dir(c.source.file), name)
}

// KeyURI returns the URI of a key; the path of a file: URI becomes absolute
// as by Path.
func (c *Config) KeyURI(uri string) string {
	if path, ok := strings.CutPrefix(uri, "file:"); ok {
		// The folder's own name may have characters that a URI can't.
		plain, err := url.PathUnescape(strings.TrimPrefix(path, "//"))
		if err != nil {
			return uri // opening it says what is wrong
		}
		return "file:" + (&url.URL{Path: c.Path(plain)}).EscapedPath()
	}
	return uri
}

// KeyURIs returns the URIs of all tokens that hold the signer's key, as by
// KeyURI; none where it is on another replica.
func (c *Config) KeyURIs(s Signer) []string {
	if s.Key != "" {
		return []string{c.KeyURI(s.Key)}
	}
	var uris []string
	for _, uri := range s.Keys {
		uris = append(uris, c.KeyURI(uri))
	}
	return uris
}

// DatabasePath returns the DSN with an SQLite path made absolute as by Path;
// a DSN from a file or the environment is for the caller to fetch first.
func (c *Config) DatabasePath(dsn string) string {
	if IsPostgres(dsn) {
		return dsn
	}
	return c.Path(dsn)
}

// IsPostgres reports whether the DSN is a PostgreSQL address and not the path
// of an SQLite file.
func IsPostgres(dsn string) bool {
	return strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://")
}
