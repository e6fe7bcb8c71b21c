package server

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/acmeserver"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/publish"
	"github.com/chancery-pki/chancery/internal/responder/krl"
	"github.com/chancery-pki/chancery/internal/sshca"
)

// sshParts are the SSH issuers of one reading of the configuration.
type sshParts struct {
	issuers map[string]*issuer.SSH // empty: PublishOnly
	keys    []krl.Key
	of      map[string][]krl.Key // by issuer
	users   []ssh.PublicKey      // of the issuers of ssh-user profiles
	hosts   []ssh.PublicKey
}

// sshIssuers opens the keys of all SSH issuers.
func (p *parts) sshIssuers(ctx context.Context, c *config.Config, keys *keyring) error {
	p.ssh.issuers, p.ssh.of = map[string]*issuer.SSH{}, map[string][]krl.Key{}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(c.SSHIssuers)) {
		if err := p.sshIssuer(ctx, c, name, keys); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

func (p *parts) sshIssuer(ctx context.Context, c *config.Config, name string, keys *keyring) error {
	path, ic := "ssh_issuers."+name, c.SSHIssuers[name]
	made := issuer.SSHConfig{Name: name}
	var trusted []ssh.PublicKey
	for i, sc := range ic.Signers {
		at := fmt.Sprintf("%s.signers[%d]", path, i)
		key, known, err := openSSH(ctx, c, sc, at, keys)
		if err != nil {
			return c.At(at, err)
		}
		made.Keys, p.ssh.keys = append(made.Keys, key), append(p.ssh.keys, known)
		p.ssh.of[name] = append(p.ssh.of[name], known)
		trusted = append(trusted, known.Authority.PublicKey())
		if key.Queue != nil {
			p.held = append(p.held, known.Authority.ID())
		}
	}
	for _, profile := range c.Profiles {
		if profile.Issuer != name || len(profile.Usages) != 1 {
			continue
		}
		to := &p.ssh.hosts
		if profile.Usages[0] == cert.SSHUser {
			to = &p.ssh.users
		}
		for _, key := range trusted {
			if !slices.ContainsFunc(*to, func(k ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), key.Marshal()) }) {
				*to = append(*to, key)
			}
		}
	}
	if keys == nil { // nothing is signed here
		return nil
	}
	var err error
	if ic.Blocklist != "" {
		if made.Blocklist, err = issuer.LoadBlocklist(c.Path(ic.Blocklist)); err != nil {
			return c.At(path+".blocklist", err)
		}
	}
	p.ssh.issuers[name], err = issuer.NewSSH(made)
	return c.At(path, err)
}

// openSSH opens one SSH CA key, if it is here: once for certificates, once for the
// KRL, which a retired key may sign too.
func openSSH(ctx context.Context, c *config.Config, sc config.SSHSigner, path string, keys *keyring) (k issuer.SSHKey, known krl.Key, err error) {
	if sc.PublicKey != "" {
		if k.Public, err = readSSHKey(c.Path(sc.PublicKey)); err != nil {
			return k, known, c.At(path+".public_key", err)
		}
	}
	known.Retired = sc.Retired
	uris := c.SSHKeyURIs(sc)
	if len(uris) > 0 && keys != nil {
		field := ".key"
		if len(sc.Keys) > 0 {
			field = ".keys"
		}
		known.Queue, err = keys.open(ctx, where{
			uris: uris, signing: c.Signing, path: path + field, position: c.At,
			key:      identity{public: k.Public, name: "SSH CA key", id: sshKeyID},
			password: c.Path(sc.PasswordFile), pin: c.Path(sc.PINFile),
		})
		if err != nil {
			return k, known, err
		}
		k.Public = known.Queue.Public()
	}
	if k.Public == nil { // a replica that opens no keys
		return k, known, c.At(path+".public_key", errors.New("the file of the public key is wanted where the key isn't opened"))
	}
	if known.Authority, err = sshca.NewAuthority(k.Public); err != nil {
		return k, known, err
	}
	switch {
	case sc.Retired:
	case known.Queue != nil:
		k.Queue = known.Queue
	case keys != nil:
		k.Remote = keys.remote(known.Authority.ID(), k.Public)
	}
	return k, known, nil
}

func sshKeyID(public crypto.PublicKey) (string, error) {
	a, err := sshca.NewAuthority(public)
	if err != nil {
		return "", err
	}
	return a.ID(), nil
}

// maxPublicKey bounds a public key's file: RSA of 4096 bits takes 724 characters.
const maxPublicKey = 16 << 10

// readSSHKey reads a public key as ssh-keygen writes it.
func readSSHKey(path string) (crypto.PublicKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxPublicKey {
		return nil, fmt.Errorf("%s is no public key: it is over %d KiB", path, maxPublicKey>>10)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, _, _, rest, err := ssh.ParseAuthorizedKey(text)
	if err != nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%s should have one public key in one line, as in \"ssh-ed25519 AAAA…\"", path)
	}
	public := sshca.CryptoKey(key)
	if public == nil {
		return nil, fmt.Errorf("%s: a %s key can be no SSH CA's here", path, key.Type())
	}
	return public, nil
}

// sshMeta is what directories with SSH profiles tell; nil for others.
func (p *parts) sshMeta(c *config.Config, profiles []cert.Profile) *acmeserver.SSHMeta {
	if !slices.ContainsFunc(profiles, func(p cert.Profile) bool { return p.Format() == cert.OpenSSH }) {
		return nil
	}
	lines := func(keys []ssh.PublicKey) []string {
		all := []string{}
		for _, k := range keys {
			all = append(all, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))))
		}
		return all
	}
	return &acmeserver.SSHMeta{
		UserKeys: lines(p.ssh.users), HostKeys: lines(p.ssh.hosts), KRL: strings.TrimSuffix(c.ExternalURL, "/") + publish.KRLPath,
	}
}

// published is what relying parties fetch; nil where there is no SSH issuer.
func (s *sshParts) published(k *krl.Keeper) *publish.SSH {
	if k == nil {
		return nil
	}
	text := func(keys []ssh.PublicKey) []byte {
		var b []byte
		for _, key := range keys {
			b = append(b, ssh.MarshalAuthorizedKey(key)...)
		}
		return b
	}
	return &publish.SSH{KRL: k.Current, UserKeys: text(s.users), HostKeys: text(s.hosts)}
}

// installKRL makes what keeps the KRL; nil where there is no SSH issuer.
func (p *publisher) installKRL(ctx context.Context, c *config.Config, parts *parts) (*krl.Keeper, error) {
	if len(parts.ssh.keys) == 0 {
		return nil, nil
	}
	o := krl.Options{
		DB: p.server.db, Keys: parts.ssh.keys, Validity: time.Duration(c.KRL.Validity), Replica: p.server.replica, Logger: p.server.log,
		Made: p.server.metrics.krlMade,
	}
	if before := p.current.Load(); before != nil {
		o.Previous = before.krl
	}
	k, err := krl.New(o)
	if err != nil {
		return nil, err
	}
	loading, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	if err := k.Load(loading); err != nil {
		p.server.log.Warn("the stored KRL could not be loaded yet", "error", err)
	}
	return k, nil
}
