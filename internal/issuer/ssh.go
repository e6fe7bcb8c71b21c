package issuer

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/sshca"
)

// SSHKey is one signing key of an SSH issuer.
type SSHKey struct {
	Public crypto.PublicKey
	// Queue is the key's, where this process holds it; Remote stands for one
	// that another replica holds. With neither the key is retired: it signs no
	// more, but is trusted until the last certificate that it signed has ended.
	Queue  *signer.Queue
	Remote *signer.Remote
}

// SSHConfig says what an SSH issuer is made of.
type SSHConfig struct {
	Name      string // in the configuration; for messages
	Keys      []SSHKey
	Blocklist *Blocklist // nil: none
}

// SSHSubject is what an SSH certificate is for, in place of names and a key.
type SSHSubject struct {
	Key        ssh.PublicKey
	KeyID      string   // from sshca.KeyID
	Principals []string // user names or host names
}

// SSH is an issuer of SSH certificates, whose keys are ours. It is safe for
// concurrent use and doesn't change; it holds nothing that needs closing.
type SSH struct {
	name    string
	blocked *Blocklist
	all     []*sshKey // those that are retired too
	active  []*sshKey // places as in pool
	byKeyID map[string]*sshKey
	pool    *signer.Pool
}

// sshKey is an SSHKey that was found to be in order.
type sshKey struct {
	place
	authority *sshca.Authority
}

// NewSSH checks that each key is one that SSH knows, and is there once. The
// error names every fault.
func NewSSH(c SSHConfig) (*SSH, error) {
	s := &SSH{name: c.Name, blocked: c.Blocklist, byKeyID: map[string]*sshKey{}}
	var faults []error
	var keys []signer.Candidate
	for i, in := range c.Keys {
		k, err := newSSHKey(in)
		if err == nil && s.byKeyID[k.keyID] != nil {
			err = errors.New("the same key as another signer's; list it once")
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("SSH issuer %s, signer %d: %w", c.Name, i+1, err))
			continue
		}
		s.all, s.byKeyID[k.keyID] = append(s.all, k), k
		if k.key != nil {
			s.active = append(s.active, k)
			keys = append(keys, k.key)
		}
	}
	if len(c.Keys) == 0 {
		faults = append(faults, fmt.Errorf("SSH issuer %s has no signer", c.Name))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	s.pool = signer.NewPool(keys...)
	return s, nil
}

func newSSHKey(in SSHKey) (*sshKey, error) {
	if in.Queue != nil && !equalKeys(in.Queue.Public(), in.Public) {
		return nil, errors.New("the key is not the one in its public key file")
	}
	authority, err := sshca.NewAuthority(in.Public)
	if err != nil {
		return nil, err
	}
	return &sshKey{newPlace(authority.ID(), in.Queue, in.Remote), authority}, nil
}

// PublicKeys are all keys that relying parties must trust, retired ones too, in
// the order of the configuration.
func (s *SSH) PublicKeys() []ssh.PublicKey {
	var all []ssh.PublicKey
	for _, k := range s.all {
		all = append(all, k.authority.PublicKey())
	}
	return all
}

// Supports checks at start that the issuer can issue what a profile says. The
// error tells an operator what to change.
func (s *SSH) Supports(p cert.Profile) error {
	err := sshFault(p)
	if err == nil && len(s.active) == 0 {
		err = errors.New("every signer is retired")
	}
	if err != nil {
		return fmt.Errorf("profile %s, SSH issuer %s: %w", p.Name, s.name, err)
	}
	return nil
}

func sshFault(p cert.Profile) error {
	switch {
	case len(p.Usages) != 1 || p.Format() != cert.OpenSSH:
		return fmt.Errorf("usages %v; want ssh-user or ssh-host alone", p.Usages)
	case p.Lifetime <= 0 || p.Lifetime > p.MaxLifetime:
		return fmt.Errorf("a lifetime of %v, with at most %v", p.Lifetime, p.MaxLifetime)
	case p.Backdate < 0 || p.Backdate >= p.Lifetime:
		return fmt.Errorf("backdate %v doesn't fit into a lifetime of %v", p.Backdate, p.Lifetime)
	case len(p.KeyTypes) == 0:
		return errors.New("no key types")
	}
	return nil
}

// Prepare decides a certificate, as [Local.Prepare] does. A key that has no
// replica at hand is still chosen where no other is: the plan waits for it.
func (s *SSH) Prepare(ctx context.Context, r Request) (*Prepared, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.Supports(r.Profile); err != nil {
		return nil, err
	}
	if err := s.checkKey(r); err != nil {
		return nil, err
	}
	place, reserved := s.pool.Choose(r.Signature, nil)
	k := s.active[max(place, 0)]
	made, err := k.authority.Prepare(sshRequest(r))
	if err != nil {
		reserved.Cancel()
		return nil, fmt.Errorf("SSH certificate for profile %s: %w", r.Profile.Name, err)
	}
	p := k.token(made, r.Signature)
	p.turn.Reservation = reserved
	return p, nil
}

// checkKey refuses keys that are weak or known to others, as for X.509; type
// and size are sshca's to see.
func (s *SSH) checkKey(r Request) error {
	if err := sshca.CheckKey(r.SSH.Key, r.Profile.KeyTypes); err != nil {
		return err
	}
	inner := sshca.CryptoKey(r.SSH.Key)
	if why := keyFault(inner); why != "" {
		return protocol.NewProblem(protocol.BadCSR, "sshPublicKey: %s; make a new key of type %v", why, r.Profile.KeyTypes)
	}
	spki, err := x509.MarshalPKIXPublicKey(inner)
	if err != nil {
		return err
	}
	if s.blocked.Contains(sha256.Sum256(spki)) {
		return protocol.NewProblem(protocol.BadCSR, "sshPublicKey: this key is known to be compromised; make a new one of type %v", r.Profile.KeyTypes)
	}
	return nil
}

// sshRequest says what the certificate holds: nothing of it but the key is the
// client's.
func sshRequest(r Request) sshca.Request {
	q := sshca.Request{
		Kind: sshca.Host, Key: r.SSH.Key, KeyTypes: r.Profile.KeyTypes, Serial: sshca.NewSerial(), KeyID: r.SSH.KeyID,
		Principals: r.SSH.Principals, ValidAfter: r.NotBefore, ValidBefore: r.NotAfter,
	}
	if !slices.Contains(r.Profile.Usages, cert.SSHUser) {
		return q
	}
	grants := r.Profile.SSH
	q.Kind, q.OtherExtensions = sshca.User, grants.OtherExtensions
	q.Options = sshca.Options{ForceCommand: grants.ForceCommand, SourceAddress: grants.SourceAddress, VerifyRequired: grants.VerifyRequired}
	q.Extensions = map[string]string{}
	for _, name := range slices.Concat(grants.Extensions, grants.OtherExtensions) {
		q.Extensions[name] = ""
	}
	return q
}

func (k *sshKey) token(made *sshca.Prepared, turn signer.Request) *Prepared {
	return &Prepared{
		Serial: made.Serial, TBS: made.TBS, NotBefore: made.ValidAfter, NotAfter: made.ValidBefore,
		IssuerKeyID: k.keyID, KeyHash: made.KeyHash, KeyID: made.KeyID, Principals: made.Principals,
		ssh: made, at: &k.place, turn: turn,
	}
}

// Resume makes a token again of the bytes that an earlier Prepare gave, as
// [Local.Resume] does.
func (s *SSH) Resume(tbs []byte, turn signer.Request) (*Prepared, error) {
	for _, k := range s.active {
		made, err := k.authority.Resume(tbs)
		if err == nil {
			return k.token(made, turn), nil
		}
		if !errors.Is(err, sshca.ErrWrongAuthority) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("SSH issuer %s: %w", s.name, ErrWrongIssuer)
}

// Issue signs a prepared certificate, once, in its turn at the key's queue, and
// returns its wire bytes; see [Local.Issue].
func (s *SSH) Issue(ctx context.Context, p *Prepared) ([]byte, error) {
	if p == nil || p.at == nil || p.ssh == nil {
		return nil, ErrWrongIssuer
	}
	k := s.byKeyID[p.at.keyID]
	if k == nil || &k.place != p.at {
		return nil, ErrWrongIssuer
	}
	if k.queue == nil {
		return nil, fmt.Errorf("SSH issuer %s: certificate %s: %w", s.name, p.Serial, ErrRemote)
	}
	if p.used.Swap(true) {
		return nil, ErrUsed
	}
	wire, err := p.ssh.Sign(func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		return k.queue.Sign(ctx, p.turn, digest, opts)
	})
	if errors.Is(err, sshca.ErrBadSignature) {
		err = ErrBadSignature
	}
	if err != nil {
		return nil, fmt.Errorf("SSH issuer %s: certificate %s: %w", s.name, p.Serial, err)
	}
	return wire, nil
}

// Chain has nothing above an SSH certificate: relying parties trust the key
// itself. Its error and count are as [Local.Chain]'s.
func (s *SSH) Chain(keyID string, alternate int) (chain [][]byte, count int, err error) {
	switch {
	case s.byKeyID[keyID] == nil:
		return nil, 0, fmt.Errorf("%w: SSH CA key %s", ErrUnknownKeyID, keyID)
	case alternate != 0:
		return nil, 1, fmt.Errorf("no chain %d: SSH certificates have none", alternate)
	}
	return nil, 1, nil
}

// Wait estimates how long a certificate would take that is asked for now; see
// [Local.Wait].
func (s *SSH) Wait(r signer.Request) time.Duration { return s.pool.Wait(r) }

// WaitAt is Wait at one key, 0 for one that doesn't sign.
func (s *SSH) WaitAt(keyID string, r signer.Request) time.Duration {
	if k := s.byKeyID[keyID]; k != nil && k.key != nil {
		return k.key.Wait(r)
	}
	return 0
}

// Rate is how many certificates a second its keys make at most, as measured.
func (s *SSH) Rate() float64 { return s.pool.Rate() }

// SSHCSR is an SSH key in the place of a CSR.
func SSHCSR(key ssh.PublicKey) (*CSR, error) {
	hash, err := sshca.KeyHash(key)
	if err != nil {
		return nil, err
	}
	return &CSR{PublicKey: sshca.CryptoKey(key), KeyHash: hash, SSH: key}, nil
}

func askedSSH(tbs []byte) (*CSR, error) {
	key, err := sshca.Planned(tbs)
	if err != nil {
		return nil, err
	}
	return SSHCSR(key)
}
