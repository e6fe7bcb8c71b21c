package config

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
)

const withSSH = `external_url: https://ca.internal
tls: {profile: server}
issuers:
  main:
    signers: [{key: "file:ca/main.key", certificate: ca/main.pem}]
ssh_issuers:
  users:
    signers:
      - key: file:ca/ssh-user.key
      - public_key: ca/ssh-user-2025.pub
        retired: true
  hosts:
    signers: [{public_key: ca/ssh-host.pub}]
profiles:
  server: {issuer: main, usages: [server]}
  ssh-user:
    issuer: users
    usages: [ssh-user]
    challenges: [yubikey-01, yubikey-02]
  ssh-host:
    issuer: hosts
    usages: [ssh-host]
directories:
  servers:
    profiles: [server, ssh-host]
    names: {allow: ["*.prod.internal"]}
  people:
    profiles: [ssh-user]
    names: {allow: ["*.people.internal"]}
`

func TestSSHDefaults(t *testing.T) {
	c := parse(t, withSSH)
	if found := Check(c); len(found) > 0 {
		t.Fatal(found)
	}
	user, err := c.Profile("ssh-user")
	if err != nil || user.Lifetime != 16*time.Hour || user.Revocation != cert.RevocationKRL || user.Format() != cert.OpenSSH ||
		!slices.Equal(user.SSH.Extensions, []string{"permit-pty"}) || !slices.Contains(user.KeyTypes, "sk-Ed25519") {
		t.Errorf("%+v, %v", user, err)
	}
	host, err := c.Profile("ssh-host")
	if err != nil || len(host.SSH.Extensions) != 0 || slices.Contains(host.KeyTypes, "sk-Ed25519") || !slices.Equal(host.Challenges, usualChallenges) {
		t.Errorf("%+v, %v", host, err)
	}
	if c.KRL.Validity != span(day) {
		t.Errorf("a KRL is believed for %v", c.KRL.Validity)
	}
}

func TestCheckSSH(t *testing.T) {
	const user = "usages: [ssh-user]"
	for _, c := range []struct{ name, old, edited, want string }{
		{"classic proof for a person", "[yubikey-01, yubikey-02]", "[yubikey-01, dns-01]", ":19:30: profiles.ssh-user.challenges[1]: dns-01 proves no person's device"},
		{"a pod for a person", "[yubikey-01, yubikey-02]", "[kubernetes-01]", "profiles.ssh-user.challenges[0]: kubernetes-01 proves no person's device"},
		{"an attested key", "[yubikey-01, yubikey-02]", "[device-attest-01]", "profiles.ssh-user.challenges[0]: device-attest-01 is refused for devices with SSH principals"},
		{"usages together", user, "usages: [ssh-user, client]", ":18:5: profiles.ssh-user.usages: ssh-user and ssh-host stand alone"},
		{"user and host", user, "usages: [ssh-user, ssh-host]", "profiles.ssh-user.usages: ssh-user and ssh-host stand alone"},
		{"X.509 issuer", "issuer: users", "issuer: main", `profiles.ssh-user.issuer: there is no SSH issuer "main"; there is hosts or users`},
		{"SSH issuer for X.509", "{issuer: main, usages: [server]}", "{issuer: users, usages: [server]}", `profiles.server.issuer: there is no issuer "users"; there is main`},
		{"two of one name", "  hosts:\n", "  main:\n", "ssh_issuers.main: there is an issuer of that name too"},
		{"revocation", user, user + "\n    revocation: none", ":19:17: profiles.ssh-user.revocation: SSH certificates are withdrawn by the KRL, always"},
		{"KRL for X.509", "usages: [server]}", "usages: [server], revocation: krl}", `profiles.server.revocation: "krl" is not known here`},
		{"common name", user, user + "\n    common_name: true", "profiles.ssh-user.common_name: "},
		{"ML-DSA", user, user + "\n    key_types: [ML-DSA-44]", `profiles.ssh-user.key_types[0]: "ML-DSA-44" is not known here`},
		{"token for TLS", "usages: [server]}", "usages: [server], key_types: [sk-P-256]}", `profiles.server.key_types[0]: "sk-P-256" is not known here`},
		{"grants of a host", "usages: [ssh-host]", "usages: [ssh-host]\n    ssh: {force_command: ls}", "profiles.ssh-host.ssh: host certificates have no options"},
		{"grants of a server", "usages: [server]}", "usages: [server], ssh: {verify_required: true}}", "profiles.server.ssh: this is for profiles with usage ssh-user"},
		{"unknown extension", user, user + "\n    ssh: {extensions: [permit-everything]}", `profiles.ssh-user.ssh.extensions[0]: "permit-everything" is not known here; use no-touch-required`},
		{"other's extension", user, user + "\n    ssh: {other_extensions: [login]}", `profiles.ssh-user.ssh.other_extensions[0]: "login" is not "name@domain"`},
		{"network", user, user + "\n    ssh: {source_address: [10.0.0.1/8]}", "10.0.0.1/8"},
		{"command", user, user + "\n    ssh: {force_command: \"a\\nb\"}", "profiles.ssh-user.ssh.force_command: the value has line breaks"},
		{"PIN for PIV", user, user + "\n    ssh: {verify_required: true}", "profiles.ssh-user.ssh.verify_required: yubikey-01 certifies a PIV key"},
		{"PIN for any key", user, user + "\n    key_types: [P-256]\n    ssh: {verify_required: true}", "profiles.ssh-user.ssh.verify_required: sshd heeds it for keys on FIDO tokens only"},
		{"no signer", "signers: [{public_key: ca/ssh-host.pub}]", "signers: []", "ssh_issuers.hosts.signers: an SSH issuer needs at least one signer"},
		{"no key", "[{public_key: ca/ssh-host.pub}]", "[{retired: false}]", "ssh_issuers.hosts.signers[0].public_key: the file of the public key is wanted"},
		{"all retired", "{public_key: ca/ssh-host.pub}", "{public_key: ca/ssh-host.pub, retired: true}", "ssh_issuers.hosts.signers: all of them are retired"},
		{"key twice", "- public_key: ca/ssh-user-2025.pub", "- key: file:ca/ssh-user.key", "ssh_issuers.users.signers[1].key: this is the key of ssh_issuers.users.signers[0] too"},
		{"password for nothing", "{public_key: ca/ssh-host.pub}", "{public_key: a, password_file: b}", "ssh_issuers.hosts.signers[0].password_file: "},
		{"unused", "issuer: hosts", "issuer: users", "warning: ssh_issuers.hosts: no profile is signed by this SSH issuer"},
		{"both kinds", "issuer: hosts", "issuer: users", "warning: ssh_issuers.users: it signs for users and for hosts"},
		{"KRL", "ssh_issuers:\n", "krl: {validity: 10s}\nssh_issuers:\n", ":6:17: krl.validity: 10s is not between 1m and 30d"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(withSSH, c.old) {
				t.Fatalf("%q isn't in the configuration", c.old)
			}
			text := strings.Replace(withSSH, c.old, c.edited, 1)
			config, err := Parse("/etc/chancery/chancery.yaml", []byte(text))
			if err != nil { // it can't even be read
				if !strings.Contains(err.Error(), c.want) {
					t.Fatalf("found:\n%v\nwant: %s", err, c.want)
				}
				return
			}
			found := Check(config)
			if !strings.Contains(found.Error(), c.want) {
				t.Fatalf("found:\n%s\nwant: %s\n%s", found.Error(), c.want, text)
			}
			if isWarning := strings.HasPrefix(c.want, "warning: "); isWarning != (len(found.Errors()) == 0) {
				t.Fatalf("an error and a warning mixed up:\n%s", found.Error())
			}
		})
	}
}
