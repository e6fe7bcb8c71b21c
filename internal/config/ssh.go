package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/sshca"
)

// SSHIssuer is one that signs SSH certificates: a pool of keys, all of which
// hosts and people trust.
type SSHIssuer struct {
	// The keys, at least one. With several that aren't retired, they share the
	// work.
	Signers []SSHSigner `yaml:"signers"`
	// A file with the SHA-256 hashes (hex, one a line) of public keys that
	// are known to be compromised and are never certified.
	Blocklist string `yaml:"blocklist"`
}

// SSHSigner is one SSH CA key: ECDSA, Ed25519 or RSA. Without a key, and not
// retired, the key is on another replica, which signs for this one too.
type SSHSigner struct {
	// The key, as a URI: "file:ca/ssh-user.key" (PEM, mode 0600), "pkcs11:…" or
	// "yubikey:…". It should sign nothing else.
	Key string `yaml:"key"`
	// Instead of key: several tokens that hold one and the same key, used in
	// parallel.
	Keys []string `yaml:"keys"`
	// A file with the password of an encrypted key file.
	PasswordFile string `yaml:"password_file"`
	// A file with the PIN of the token, or of all of keys.
	PINFile string `yaml:"pin_file"`
	// A file with the public key, one line as in authorized_keys
	// ("ssh-ed25519 AAAA…"). Required without key or keys; else it is compared,
	// and lets the server start while the token is away.
	PublicKey string `yaml:"public_key"`
	// The key signs no more certificates, and stays published until the last
	// one that it signed has ended. While it is given here it may sign the KRL.
	// Default: false.
	Retired bool `yaml:"retired"`
}

// KRL is the list of withdrawn SSH certificates and keys (sshd's RevokedKeys):
// one for all SSH issuers, at /ssh/krl of the publish listener and of
// external_url, with a signature by an SSH CA key at /ssh/krl.sig.
type KRL struct {
	// How long hosts should believe it; a new one is made a third into it,
	// and within seconds of a revocation. Default: 24h; 1m to 30d.
	Validity Duration `yaml:"validity"`
}

// ProfileSSH is what the SSH user certificates of a profile grant and restrict.
// Host certificates have none of it.
type ProfileSSH struct {
	// What sshd denies else: permit-pty, permit-port-forwarding,
	// permit-agent-forwarding, permit-X11-forwarding, permit-user-rc,
	// no-touch-required. Default: permit-pty.
	Extensions []string `yaml:"extensions"`
	// Extensions beyond OpenSSH's, "name@domain", with an empty value.
	OtherExtensions []string `yaml:"other_extensions"`
	// The one command that sshd runs, whatever the user asks for. Default:
	// none.
	ForceCommand string `yaml:"force_command"`
	// The addresses and networks from which it may be used. Default: from
	// anywhere.
	SourceAddress []netip.Prefix `yaml:"source_address"`
	// The key is one on a FIDO token, which asks for PIN or finger each time;
	// key_types are then sk-Ed25519 and sk-P-256. Default: false.
	VerifyRequired bool `yaml:"verify_required"`
}

var (
	sshKeyTypes   = []cert.KeyType{cert.P256, cert.P384, cert.P521, cert.Ed25519, sshca.SKP256, sshca.SKEd25519, cert.RSA2048, cert.RSA3072, cert.RSA4096}
	hostKeyTypes  = slices.DeleteFunc(slices.Clone(sshKeyTypes), onToken)
	tokenKeyTypes = []cert.KeyType{sshca.SKP256, sshca.SKEd25519}
)

func onToken(t cert.KeyType) bool { return t == sshca.SKP256 || t == sshca.SKEd25519 }

// isSSH reports whether a profile has an SSH usage, perhaps among others.
func (p Profile) isSSH() bool { return slices.ContainsFunc(p.Usages, cert.Usage.SSH) }

// empty reports whether nothing of the section was set.
func (p ProfileSSH) empty() bool {
	return p.Extensions == nil && p.OtherExtensions == nil && p.SourceAddress == nil && p.ForceCommand == "" && !p.VerifyRequired
}

// setSSHDefaults is setDefaults of an SSH profile.
func (p *Profile) setSSHDefaults() {
	or(&p.Lifetime, span(16*time.Hour)) // a working day
	or(&p.Revocation, cert.RevocationKRL)
	user := slices.Contains(p.Usages, cert.SSHUser)
	if user && p.SSH.Extensions == nil {
		p.SSH.Extensions = []string{"permit-pty"}
	}
	switch {
	case p.KeyTypes != nil:
	case p.SSH.VerifyRequired:
		p.KeyTypes = slices.Clone(tokenKeyTypes)
	case user:
		p.KeyTypes = slices.Clone(sshKeyTypes)
	default:
		p.KeyTypes = slices.Clone(hostKeyTypes)
	}
	if p.Challenges == nil && !user {
		p.Challenges = slices.Clone(usualChallenges)
	}
}

// signer is the signer as those of X.509 issuers are.
func (s SSHSigner) signer() Signer {
	return Signer{Key: s.Key, Keys: s.Keys, PasswordFile: s.PasswordFile, PINFile: s.PINFile, Retired: s.Retired}
}

// SSHKeyURIs is KeyURIs of an SSH signer.
func (c *Config) SSHKeyURIs(s SSHSigner) []string { return c.KeyURIs(s.signer()) }

func (p ProfileSSH) convert() cert.SSH {
	return cert.SSH{
		Extensions: p.Extensions, OtherExtensions: p.OtherExtensions, ForceCommand: p.ForceCommand,
		SourceAddress: p.SourceAddress, VerifyRequired: p.VerifyRequired,
	}
}

// sshIssuers checks all of them, and the KRL.
func (k *checker) sshIssuers() {
	for _, name := range slices.Sorted(maps.Keys(k.c.SSHIssuers)) {
		path := "ssh_issuers." + name
		if _, twice := k.c.Issuers[name]; twice {
			k.fail(path, "there is an issuer of that name too; call one of them otherwise")
		}
		k.sshIssuer(path, name, k.c.SSHIssuers[name])
	}
	k.span("krl.validity", k.c.KRL.Validity, time.Minute, 30*day)
}

func (k *checker) sshIssuer(path, name string, is SSHIssuer) {
	if len(is.Signers) == 0 {
		k.fail(path+".signers", "an SSH issuer needs at least one signer")
	}
	keys, active := map[string]string{}, 0
	for i, s := range is.Signers {
		at := fmt.Sprintf("%s.signers[%d]", path, i)
		k.signerKeys(at, s.signer(), keys)
		if s.PublicKey == "" && s.Key == "" && len(s.Keys) == 0 {
			k.fail(at+".public_key", "the file of the public key is wanted where the key itself isn't here")
		}
		if !s.Retired {
			active++
		}
	}
	usages := map[cert.Usage]bool{}
	for _, p := range k.c.Profiles {
		if p.Issuer == name && len(p.Usages) == 1 {
			usages[p.Usages[0]] = true
		}
	}
	switch {
	case len(usages) == 0:
		k.warn(path, "no profile is signed by this SSH issuer, so that its keys aren't published either; keep the profile until the last certificate has ended")
	case active == 0 && len(is.Signers) > 0:
		k.fail(path+".signers", "all of them are retired, and profiles are signed by this SSH issuer")
	case len(usages) > 1:
		k.warn(path, "it signs for users and for hosts: with a key for each, one that is lost loses only half")
	}
}

// sshProfile checks what is particular to a profile with an SSH usage; false:
// nothing else of it need be looked at.
func (k *checker) sshProfile(path string, p Profile) {
	if len(p.Usages) != 1 {
		k.fail(path+".usages", "ssh-user and ssh-host stand alone: make a profile for each")
		return
	}
	if _, ok := k.c.SSHIssuers[p.Issuer]; !ok {
		k.fail(path+".issuer", "there is no SSH issuer %q; %s", p.Issuer, listing("there is", slices.Sorted(maps.Keys(k.c.SSHIssuers))))
	}
	if p.Revocation != cert.RevocationKRL {
		k.fail(path+".revocation", "SSH certificates are withdrawn by the KRL, always; leave it out")
	}
	if p.CommonName {
		k.fail(path+".common_name", "an SSH certificate has no common name; leave it out")
	}
	for i, t := range p.KeyTypes {
		if !slices.Contains(sshKeyTypes, t) {
			k.fail(fmt.Sprintf("%s.key_types[%d]", path, i), "%q is not known here; %s", t, listing("use", sshKeyTypes))
		}
	}
	if p.Usages[0] == cert.SSHHost {
		if !p.SSH.empty() {
			k.fail(path+".ssh", "host certificates have no options or extensions; leave it out")
		}
		return
	}
	for i, t := range p.Challenges {
		at := fmt.Sprintf("%s.challenges[%d]", path, i)
		switch {
		case t == protocol.DeviceAttest01: // what its key signs, SSH signs alike (docs/decisions/0016)
			k.fail(at, "device-attest-01 is refused for devices with SSH principals; use yubikey-01 or yubikey-02")
		case !t.Device() && slices.Contains(knownChallenges, t):
			k.fail(at, "%s proves no person's device; an ssh-user profile takes yubikey-01 and yubikey-02", t)
		}
	}
	k.sshGrants(path, p)
}

// sshGrants checks what user certificates grant and restrict.
func (k *checker) sshGrants(path string, p Profile) {
	at := path + ".ssh"
	allOf(k, at+".extensions", p.SSH.Extensions, sshca.Extensions())
	for i, name := range p.SSH.OtherExtensions {
		if head, domain, ok := strings.Cut(name, "@"); !ok || head == "" || domain == "" || strings.ContainsAny(name, " \t\r\n") {
			k.fail(fmt.Sprintf("%s.other_extensions[%d]", at, i), "%q is not \"name@domain\", as PROTOCOL.certkeys wants extensions of others' making", name)
		}
	}
	if p.SSH.VerifyRequired && slices.ContainsFunc(p.KeyTypes, func(t cert.KeyType) bool { return !onToken(t) }) {
		k.fail(at+".verify_required", "sshd heeds it for keys on FIDO tokens only: let key_types be sk-Ed25519 and sk-P-256")
	}
	if p.SSH.VerifyRequired && slices.Contains(p.Challenges, protocol.YubiKey01) {
		k.fail(at+".verify_required", "yubikey-01 certifies a PIV key, which is none on a FIDO token; use yubikey-02 alone")
	}
}
