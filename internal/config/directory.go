package config

import (
	"net/netip"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// Profile is a kind of certificate.
type Profile struct {
	// One line that tells people what it is for; shown to clients.
	Description string `yaml:"description"`
	// The issuer that signs. Required.
	Issuer string `yaml:"issuer"`
	// server, client, or both of them; or, alone, ssh-user or ssh-host, whose
	// issuer is one of ssh_issuers. Required.
	Usages []cert.Usage `yaml:"usages"`
	// The challenge types that may prove a name for it. The classic ones
	// (http-01, dns-01, tls-alpn-01, dns-account-01, dns-persist-01) prove a
	// server's name and not who may act as a client, so a profile with usage
	// client has none unless they are listed here. kubernetes-01 proves what a
	// pod is, yubikey-01 and device-attest-01 that a person holds an enrolled
	// device, whose own key is certified, yubikey-02 that such a person vouches
	// for another key; they count for clients, and nothing else for ssh-user.
	// EAB keys with pre-approved names count always, but not for ssh-user.
	// Default: http-01, dns-01, tls-alpn-01 for server and ssh-host
	// profiles, none for others.
	Challenges []protocol.ChallengeType `yaml:"challenges"`
	// The lifetime where the client asks for none. Default: 24h; 16h for SSH.
	Lifetime Duration `yaml:"lifetime"`
	// The longest that a client may ask for. Default: lifetime.
	MaxLifetime Duration `yaml:"max_lifetime"`
	// How far back notBefore lies, for clocks that are behind; it counts
	// inside the lifetime. Default: 1m.
	Backdate Duration `yaml:"backdate"`
	// The certificate keys that are taken: P-256, P-384, P-521, Ed25519,
	// RSA-2048, RSA-3072, RSA-4096, ML-DSA-44, ML-DSA-65, ML-DSA-87.
	// Default: P-256, P-384, P-521, Ed25519 and the three RSA sizes. SSH
	// knows no ML-DSA, and for users sk-P-256 and sk-Ed25519 besides, keys on
	// FIDO tokens, which are in its default.
	KeyTypes []cert.KeyType `yaml:"key_types"`
	// none: the certificate lives too short to bother and says so (RFC 9608);
	// crl: it points to the issuer's crl_url; ocsp: to its ocsp_url; crl+ocsp:
	// to both. Default: none. SSH certificates are withdrawn by the KRL,
	// always: then it is left out.
	Revocation cert.Revocation `yaml:"revocation"`
	// Put the first dns name into the subject's common name too, for old
	// software. Default: false.
	CommonName bool `yaml:"common_name"`
	// What ssh-user certificates grant and restrict.
	SSH ProfileSSH `yaml:"ssh"`
}

// Directory is one ACME endpoint: who may use it, and for what. Accounts,
// authorizations and EAB keys belong to one directory.
type Directory struct {
	// The profiles it offers, the preferred ones first. Required.
	Profiles []string `yaml:"profiles"`
	// The profile for clients that ask for none. Default: the first.
	DefaultProfile string `yaml:"default_profile"`
	// The challenge types it offers, in the order shown to clients. Default:
	// all those that its profiles take, kubernetes-01 where there is a
	// kubernetes section.
	Challenges []protocol.ChallengeType `yaml:"challenges"`

	Names Names `yaml:"names"`
	EAB   EAB   `yaml:"eab"`

	// Let the CSR's Extended Key Usage, if it is exactly serverAuth or
	// exactly clientAuth, choose the profile of an order that names none.
	// Default: false.
	EKUFromCSR bool `yaml:"eku_from_csr"`
	// The URL of the terms of service, to which clients must agree. Default:
	// none.
	TermsOfService string `yaml:"terms_of_service"`
	// A URL that tells more about this CA. Default: none.
	Website string `yaml:"website"`

	Kubernetes Kubernetes     `yaml:"kubernetes"`
	Devices    DevicePolicies `yaml:"devices"`
	CAA        CAA            `yaml:"caa"`
	Validation Validation     `yaml:"validation"`
	// Limits that differ from the server's.
	RateLimits RateLimits `yaml:"rate_limits"`

	// How long a client has to finish an order. Default: 24h; at most 30d.
	OrderLifetime Duration `yaml:"order_lifetime"`
	// How long a proven authorization serves further orders of its account.
	// What a pod or a device proved serves one order, within ten minutes. Default: 8h; at
	// most 90d.
	AuthorizationLifetime Duration `yaml:"authorization_lifetime"`
	// How many names one order may have. Default: 100; at most 1000.
	MaxIdentifiers int `yaml:"max_identifiers"`
}

// Names is what a directory issues for. A pattern is a name
// ("api.prod.internal"), all names below one ("*.prod.internal", at any
// depth, not prod.internal itself), an address or a network ("10.1.2.3",
// "10.0.0.0/8"), or "*" for everything. A pattern that begins with * needs
// quotes in YAML.
type Names struct {
	// Patterns that may be issued. Default: none, so nothing is.
	Allow []string `yaml:"allow"`
	// Patterns that are refused whatever allows them.
	Deny []string `yaml:"deny"`
	// Issue wildcard certificates too, for "*." and a domain all of whose
	// names are allowed and none denied. Default: false.
	Wildcards bool `yaml:"wildcards"`
}

// EAB is external account binding (RFC 8555 section 7.3.4); keys are made by
// `chancery admin eab`.
type EAB struct {
	// Only accounts with an EAB key may use the directory. Default: false.
	Required bool `yaml:"required"`
}

// CAA is whether DNS is asked which CAs may issue (RFC 8659, RFC 8657).
type CAA struct {
	// Ask, and obey. Default: false.
	Enabled bool `yaml:"enabled"`
	// The domain names that mean this CA in a CAA record. Required where
	// enabled.
	Identities []string `yaml:"identities"`
}

// Validation is how challenges are looked at.
type Validation struct {
	// DNS servers, asked in this order: "10.0.0.53", "10.0.0.53:5353", or
	// "tls://10.0.0.53#dns.internal" for DNS over TLS (port 853) to a server
	// with that name in its certificate. Default: those of the system.
	Resolvers []Resolver `yaml:"resolvers"`
	// A PEM file of the CA certificates that DNS over TLS servers are checked
	// with. Default: those of the system.
	ResolverCA string `yaml:"resolver_ca"`
	// Where http-01 connects. Default: 80.
	HTTPPort int `yaml:"http_port"`
	// Where tls-alpn-01 connects, and http-01 redirects to https. Default:
	// 443.
	TLSPort int `yaml:"tls_port"`
	// How long one try may take. Default: 10s; at most 1m.
	Timeout Duration `yaml:"timeout"`
	// first: the first address that a connection is made to has to answer
	// rightly. any: where instances share a name, they are tried in turn
	// until one answers for this account. Default: first.
	Probe string `yaml:"probe"`
	// How many addresses probe any tries. Default: 8; at most 64.
	ProbeAddresses int `yaml:"probe_addresses"`
	// Networks that validation may reach although they are special:
	// loopback, link-local, multicast, unspecified and cloud metadata
	// addresses are refused unless they are listed here.
	Allow []netip.Prefix `yaml:"allow"`
	// Networks that it must not reach besides. Deny wins over allow.
	Deny []netip.Prefix `yaml:"deny"`
}

// RateLimits protect the server from its clients' mistakes. Each is a number
// per time, as in "300 per 3h", or off. A directory's own win over the
// server's.
type RateLimits struct {
	// New accounts from one address (IPv6: one /64). Default: 1000 per 1h.
	NewAccountsPerAddress Limit `yaml:"new_accounts_per_address"`
	// New orders by one account. Default: 1000 per 1h.
	OrdersPerAccount Limit `yaml:"orders_per_account"`
	// New orders by one client: by all accounts of one EAB key, else from one
	// address (IPv6: one /64). Default: 3000 per 1h.
	OrdersPerClient Limit `yaml:"orders_per_client"`
	// Certificates for one registered name, that is the name directly below
	// the "*." pattern that allows it. Default: 1000 per 1d.
	CertificatesPerName Limit `yaml:"certificates_per_name"`
	// Validations that failed, by one account. Default: 100 per 1h.
	FailedValidationsPerAccount Limit `yaml:"failed_validations_per_account"`
	// Accounts that prove by one and the same pod or device. Default: 30 per 1h.
	AccountsPerPod Limit `yaml:"accounts_per_pod"`
}
