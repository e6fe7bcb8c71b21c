package config

import (
	"strings"
	"testing"
)

// Contradictions and dangers, each found at its place. edit is "old => new"
// on the whole configuration; a text without the arrow is put at its end.
func TestCheck(t *testing.T) {
	for _, c := range []struct{ name, edit, want string }{
		{"no external_url", "external_url: https://ca.internal => ", "external_url: it is required"},
		{"http", "https://ca.internal => http://ca.internal", ":1:15: external_url: \"http://ca.internal\" is not an https URL"},
		{"path in the URL", "https://ca.internal => https://ca.internal/acme", "external_url: scheme, host and port only"},
		{"user in the URL", "https://ca.internal => https://u@ca.internal", "external_url: scheme, host and port only"},
		{"port in the URL", "https://ca.internal => https://ca.internal:0", "external_url: port"},
		{"host in the URL", "https://ca.internal => https://ca_1.internal", "external_url: "},
		{"listen", "listen: 443", "listen: \"443\" is not an address to listen on"},
		{"listen by name", "listen: ca.internal:443", "is not an address to listen on"},
		{"listen twice", "publish: {listen: \":443\"}", "publish.listen: listen listens on this address too"},
		{"trust everybody", "trusted_proxies: [10.0.0.0/8, \"::/0\"]", ":26:31: trusted_proxies[1]: this trusts every address"},
		{"no certificate", "profile: server => names: [ca.internal]", ":2:1: tls.profile: say the server profile"},
		{"lost tls profile", "profile: server => profile: web", `:3:12: tls.profile: there is no profile "web"; there is client or server`},
		{"tls by client profile", "profile: server => profile: client", "tls.profile: profile \"client\" has no usage server"},
		{"tls key alone", "profile: server => key: a.key", "tls: certificate and key come together"},
		{"tls both ways", "profile: server => {profile: server, certificate: a, key: b}", "tls.profile: the listener's certificate comes from files or"},
		{"tls name", "profile: server => {profile: server, names: [ca.internal, a..b]}", "tls.names[1]: "},
		{"tls wildcard", "profile: server => {profile: server, names: [ca.internal, \"*.internal\"]}", "tls.names[1]: "},
		{"tls without own name", "profile: server => {profile: server, names: [other.internal]}", "warning: tls.names: the host of external_url"},
		{"two databases", "database: {dsn: a, dsn_env: B}", "database: dsn, dsn_file and dsn_env exclude"},
		{"password", "database: {dsn: \"postgres://u:secret@h/d\"}", "database.dsn: a password doesn't belong"},
		{"password as parameter", "database: {dsn: \"postgres://u@h/d?password=secret\"}", "database.dsn: a password doesn't belong"},
		{"other database", "database: {dsn: \"mysql://h/d\"}", "database.dsn: write the path"},
		{"keyword dsn", "database: {dsn: \"host=h password=secret\"}", "database.dsn: write the path"},
		{"environment", "database: {dsn_env: \"A B\"}", "database.dsn_env: "},
		{"unsafe SQLite", "database: {allow_unsafe_sync: true}", "warning: database.allow_unsafe_sync"},
		{"log format", "log: {format: xml}", `log.format: "xml" is not known here; use text or json`},
		{"log level", "log: {level: loud}", "log.level: "},
		{"open metrics", "metrics: {listen: \":9402\"}", ":26:19: metrics.listen: metrics tell much"},
		{"open metrics by address", "metrics: {listen: \"10.0.0.1:9402\"}", "metrics.listen: metrics tell much"},
		{"client_ca alone", "metrics: {client_ca: a.pem}", "warning: metrics.client_ca: there is no metrics.listen"},
		{"admin over TLS for nobody", "admin: {listen: \":8444\"}", "admin.operators: nobody could use the listener"},
		{"admin address", "admin: {listen: ca.internal}", "admin.listen: \"ca.internal\" is not an address to listen on"},
		{"operators without listener", operators("issuer: main, profile: client, name: a.internal, role: reporter"), "warning: admin.operators: there is no admin.listen"},
		{"operator without issuer", operating("profile: people, name: a.internal, role: auditor"), "admin.operators[0].issuer: say which issuer"},
		{"operator of another issuer", operating("issuer: spare, profile: people, name: a.internal, role: auditor"), `admin.operators[0].issuer: profile "people" is signed by issuer "main"`},
		{"operator without profile", operating("issuer: main, name: a.internal, role: auditor"), "admin.operators[0].profile: there is no profile \"\""},
		{"operator of a server profile", operating("issuer: main, profile: server, name: a.internal, role: reporter"), "admin.operators[0].profile: profile \"server\" has no usage client"},
		{"operator by other proofs", operating("issuer: main, profile: client, name: a.internal, role: administrator"), "admin.operators[0].profile: an administrator's certificate comes only by a security key: the challenges of profile \"client\" must be among yubikey-01, yubikey-02 and device-attest-01"},
		{"enroller by other proofs", operating("issuer: main, profile: mixed, name: a.internal, role: enroller"), "admin.operators[0].profile: an enroller's certificate comes only by a security key"},
		{"operator without name", operating("issuer: main, profile: people, role: auditor"), "admin.operators[0].name: \"\" is neither a dns name nor a person's"},
		{"operator by wildcard", operating("issuer: main, profile: people, name: \"*.internal\", role: auditor"), "admin.operators[0].name: \"*.internal\" is neither"},
		{"unknown role", operating("issuer: main, profile: people, name: a.internal, role: root"), `admin.operators[0].role: "root" is not known here; use administrator, auditor, enroller or reporter`},
		{"operator twice", operating("issuer: main, profile: people, name: a.internal, role: auditor}, {issuer: main, profile: people, name: A.internal, role: enroller"), "admin.operators[1]: this is admin.operators[0] again"},
		{"no signer", "signers:\n      - key: file:ca/main.key\n        certificate: ca/main.pem => chain: a.pem", ":5:3: issuers.main.signers: an issuer needs at least one"},
		{"no CA certificate", "certificate: ca/main.pem => password_file: x", "issuers.main.signers[0].certificate: "},
		{"unknown key kind", "file:ca/main.key => awskms:x", "issuers.main.signers[0].key: key URI scheme \"awskms\" is not one of file:"},
		{"path for a key", "file:ca/main.key => ca/main.key", "is not a URI"},
		{"empty path", "file:ca/main.key => 'file:'", "issuers.main.signers[0].key: key URI \"file:\": no path"},
		{"key in the file", "file:ca/main.key => '-----BEGIN PRIVATE KEY-----'", "a key doesn't belong into this file"},
		{"key twice", "certificate: ca/main.pem => certificate: a\n      - key: file:/etc/chancery/ca/main.key\n        certificate: b", ":9:14: issuers.main.signers[1].key: this is the key of issuers.main.signers[0] too"},
		{"https CRL", "signers: => crl_url: https://a/b\n    signers:", ":6:14: issuers.main.crl_url: use http"},
		{"bad AIA", "signers: => aia_url: ldap://a/b\n    signers:", "issuers.main.aia_url: "},
		{"CRL for nobody", "signers: => crl_url: http://a/b\n    signers:", "warning: issuers.main.crl_url: no profile of this issuer"},
		{"CRL without a place", "usages: [server] => usages: [server]\n    revocation: crl", ":13:17: profiles.server.revocation: issuer \"main\" has no crl_url"},
		{"OCSP without a place", "usages: [server] => usages: [server]\n    revocation: ocsp", ":13:17: profiles.server.revocation: issuer \"main\" has no ocsp_url"},
		{"both without a place", "usages: [server] => usages: [server]\n    revocation: crl+ocsp", ":13:17: profiles.server.revocation: issuer \"main\" has no crl_url"},
		{"unknown revocation", "usages: [server] => usages: [server]\n    revocation: stapling", `profiles.server.revocation: "stapling" is not known here; use none, crl, ocsp or crl+ocsp`},
		{"long and not revocable", "usages: [server] => usages: [server]\n    max_lifetime: 90d", "warning: profiles.server.revocation: a certificate may live 90d"},
		{"unused issuer", "issuers: => issuers:\n  spare: {signers: [{key: 'file:x', certificate: y}]}", "warning: issuers.spare: no profile is signed by this issuer"},
		{"lost issuer", "issuer: main\n    usages: [server] => issuer: mian\n    usages: [server]", `profiles.server.issuer: there is no issuer "mian"; there is main`},
		{"no usages", "usages: [server] => lifetime: 1h", "profiles.server.usages: "},
		{"unknown usage", "usages: [server] => usages: [server, email]", ":12:22: profiles.server.usages[1]: \"email\" is not known here; use server, client, ssh-user or ssh-host"},
		{"usage twice", "usages: [server] => usages: [server, server]", "profiles.server.usages[1]: \"server\" is listed twice"},
		{"lifetimes", "usages: [server] => usages: [server]\n    lifetime: 48h\n    max_lifetime: 24h", "profiles.server.lifetime: lifetime (2d) is longer than max_lifetime (1d)"},
		{"backdate", "usages: [server] => usages: [server]\n    lifetime: 1h\n    backdate: 1h", "profiles.server.backdate: "},
		{"unknown key type", "usages: [server] => usages: [server]\n    key_types: [P-224]", "profiles.server.key_types[0]: "},
		{"no key type", "usages: [server] => usages: [server]\n    key_types: []", "profiles.server.key_types: the list is empty"},
		{"unknown challenge", "usages: [server] => usages: [server]\n    challenges: [http-01, yubikey-03]", `profiles.server.challenges[1]: "yubikey-03" is not known here; use http-01, dns-01, tls-alpn-01, dns-account-01, dns-persist-01, kubernetes-01, yubikey-01, yubikey-02 or device-attest-01`},
		{"other vendors", "issuers: => devices: {issuers: vendor.pem}\nissuers:", "warning: devices.issuers: Yubico's issuers count no more"},
		{"no PIN", "profiles: [client] => profiles: [client]\n    devices: {pin_policies: [once, never]}", "warning: directories.clients.devices.pin_policies[1]: a key that never asks"},
		{"no touch", "profiles: [client] => profiles: [client]\n    devices: {touch_policies: [never]}", "warning: directories.clients.devices.touch_policies[0]: a key that needs no touch"},
		{"cached touch", "profiles: [client] => profiles: [client]\n    devices: {touch_policies: [always, cached]}", "warning: directories.clients.devices.touch_policies[1]: for 15 seconds"},
		{"unknown PIN policy", "profiles: [client] => profiles: [client]\n    devices: {pin_policies: [sometimes]}", `directories.clients.devices.pin_policies[0]: "sometimes" is not known here`},
		{"no touch policies", "profiles: [client] => profiles: [client]\n    devices: {touch_policies: []}", "directories.clients.devices.touch_policies: the list is empty"},
		{"classic proof for a client", "usages: [client] => usages: [client]\n    challenges: [dns-01]", "warning: profiles.client.challenges[0]: dns-01 proves a server's name"},
		{"unused profile", "profiles: [client] => profiles: [server]", "warning: profiles.client: no directory offers this profile"},
		{"no profiles", "profiles: [server] => profiles: []", "directories.servers.profiles: "},
		{"lost profile", "profiles: [server] => profiles: [server, web]", ":18:24: directories.servers.profiles[1]: \"web\" is not known here; use client or server"},
		{"lost default", "profiles: [server] => profiles: [server]\n    default_profile: client", "directories.servers.default_profile: \"client\" is not among"},
		{"EKU for nothing", "profiles: [server] => profiles: [server]\n    eku_from_csr: true", "warning: directories.servers.eku_from_csr: "},
		{"challenge without profile", "profiles: [server] => profiles: [server]\n    challenges: [http-01, dns-persist-01]", ":19:27: directories.servers.challenges[1]: no profile of this directory takes dns-persist-01"},
		{"unknown directory challenge", "profiles: [server] => profiles: [server]\n    challenges: [http-02]", "directories.servers.challenges[0]: \"http-02\" is not known here"},
		{"challenge twice", "profiles: [server] => profiles: [server]\n    challenges: [http-01, http-01]", "listed twice"},
		{"nobody can prove", "eab: {required: true} => eab: {required: false}", "warning: directories.clients.profiles[0]: no challenge here proves"},
		{"bad pattern", "10.0.0.0/8 => .prod.internal", ":20:34: directories.servers.names.allow[1]: \".prod.internal\": for every name below a domain write \"*.prod.internal\""},
		{"pattern twice", "10.0.0.0/8 => \"*.PROD.internal\"", "warning: directories.servers.names.allow[1]: this is entry 0 again"},
		{"all denied", "10.0.0.0/8] => 10.0.0.0/8]\n      deny: [\"*.internal\"]", ":20:15: directories.servers.names.allow[0]: all of this is denied"},
		{"network denied", "10.0.0.0/8] => 10.0.0.0/8]\n      deny: [10.0.0.0/7]", "directories.servers.names.allow[1]: all of this is denied"},
		{"bad denial", "10.0.0.0/8] => 10.0.0.0/8]\n      deny: [a_b]", "directories.servers.names.deny[0]: "},
		{"nothing allowed", "[\"*.prod.internal\", 10.0.0.0/8] => []", "warning: directories.servers.names.allow: the list is empty"},
		{"wildcards without pattern", "[\"*.prod.internal\", 10.0.0.0/8] => [a.internal]\n      wildcards: true", "warning: directories.servers.names.wildcards: no pattern"},
		{"wildcards without DNS", "profiles: [server]\n    names: => profiles: [server]\n    challenges: [http-01]\n    names:\n      wildcards: true", "warning: directories.servers.names.wildcards: wildcards are proven by DNS"},
		{"addresses by DNS", "profiles: [server] => profiles: [server]\n    challenges: [dns-01]", "warning: directories.servers.names.allow[1]: addresses are proven by connecting"},
		{"terms", "profiles: [server] => profiles: [server]\n    terms_of_service: /terms", "directories.servers.terms_of_service: "},
		{"website", "profiles: [server] => profiles: [server]\n    website: ftp://a", "directories.servers.website: "},
		{"CAA without name", "profiles: [server] => profiles: [server]\n    caa: {enabled: true}", "directories.servers.caa.identities: "},
		{"CAA with address", "profiles: [server] => profiles: [server]\n    caa: {enabled: true, identities: [10.0.0.1]}", "directories.servers.caa.identities[0]: "},
		{"port", "profiles: [server] => profiles: [server]\n    validation: {http_port: 65536}", "directories.servers.validation.http_port: 65536 is not between 1 and 65535"},
		{"timeout", "profiles: [server] => profiles: [server]\n    validation: {timeout: 2m}", "directories.servers.validation.timeout: 2m is not between 1s and 1m"},
		{"probe", "profiles: [server] => profiles: [server]\n    validation: {probe: all}", `directories.servers.validation.probe: "all" is not known here; use first or any`},
		{"probe addresses", "profiles: [server] => profiles: [server]\n    validation: {probe_addresses: 65}", "directories.servers.validation.probe_addresses: "},
		{"networks", "profiles: [server] => profiles: [server]\n    validation: {allow: [127.0.0.0/8, 10.1.0.0/16], deny: [10.0.0.0/8]}", "directories.servers.validation.allow[1]: 10.1.0.0/16 is denied"},
		{"resolver_ca", "profiles: [server] => profiles: [server]\n    validation: {resolver_ca: a.pem, resolvers: [10.0.0.53]}", "warning: directories.servers.validation.resolver_ca: "},
		{"order lifetime", "profiles: [server] => profiles: [server]\n    order_lifetime: 31d", "directories.servers.order_lifetime: "},
		{"authorization lifetime", "profiles: [server] => profiles: [server]\n    authorization_lifetime: 91d", "directories.servers.authorization_lifetime: "},
		{"identifiers", "profiles: [server] => profiles: [server]\n    max_identifiers: 1001", "directories.servers.max_identifiers: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := whole + c.edit + "\n"
			if old, edited, ok := strings.Cut(c.edit, " => "); ok {
				if !strings.Contains(whole, old) {
					t.Fatalf("%q isn't in the configuration", old)
				}
				indent := ""
				if strings.HasPrefix(edited, "{") { // the flow form replaces a section's lines
					old, indent = "\n  "+old, " "
				}
				text = strings.Replace(whole, old, indent+edited, 1)
			}
			found := Check(parse(t, text))
			if !strings.Contains(found.Error(), c.want) {
				t.Fatalf("found:\n%s\nwant: %s\n%s", found.Error(), c.want, text)
			}
			if isWarning := strings.HasPrefix(c.want, "warning: "); isWarning != (len(found.Errors()) == 0) {
				t.Fatalf("an error and a warning mixed up:\n%s", found.Error())
			}
		})
	}
}

// operators is an admin section in flow form.
func operators(list string) string { return "admin: {operators: [{" + list + "}]}" }

// operating is one with a listener, and profiles that take security keys.
func operating(list string) string {
	return "profiles: => admin: {listen: \":8444\", operators: [{" + list + "}]}\nprofiles:\n" +
		"  people: {issuer: main, usages: [client], challenges: [yubikey-01, device-attest-01]}\n" +
		"  mixed: {issuer: main, usages: [client], challenges: [yubikey-01, kubernetes-01]}"
}

func TestCheckTakes(t *testing.T) {
	for name, edit := range map[string]string{
		"metrics on loopback":  "metrics: {listen: \"127.0.0.1:9402\"}",
		"metrics on IPv6":      "metrics: {listen: \"[::1]:9402\"}",
		"metrics by name":      "metrics: {listen: \"localhost:9402\"}",
		"metrics with mTLS":    "metrics: {listen: \":9402\", client_ca: a.pem}",
		"PostgreSQL":           "database: {dsn: \"postgres://u@h/d?sslmode=verify-full\", allow_unsafe_sync: true}",
		"dsn from a file":      "database: {dsn_file: dsn}",
		"dsn from environment": "database: {dsn_env: CHANCERY_DSN}",
		"any free port":        "listen: 127.0.0.1:0\npublish: {listen: \"127.0.0.1:0\"}",
		"proxies":              "trusted_proxies: [10.0.0.0/28, 10.1.2.3, \"fd00::/64\"]",
	} {
		if found := Check(parse(t, whole+edit+"\n")); len(found) > 0 {
			t.Errorf("%s: %v", name, found.Error())
		}
	}
}

// Problems come in the order of the file.
func TestCheckOrder(t *testing.T) {
	found := Check(parse(t, strings.NewReplacer("https://ca", "http://ca", "usages: [server]", "usages: [x]", "10.0.0.0/8", "a_b").Replace(whole)))
	line := 0
	for _, p := range found {
		if p.Line < line {
			t.Fatal(found.Error())
		}
		line = p.Line
	}
	if len(found) < 3 {
		t.Fatal(found.Error())
	}
}
