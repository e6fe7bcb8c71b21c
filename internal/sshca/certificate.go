package sshca

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/cert"
)

// Kind says whom a certificate is for (PROTOCOL.certkeys: type).
type Kind uint32

// The kinds.
const (
	User Kind = ssh.UserCert
	Host Kind = ssh.HostCert
)

// Request is what shall be certified, after policy has agreed to it. Nothing in
// it but the key comes from the client.
type Request struct {
	Kind        Kind
	Key         ssh.PublicKey  // from ParseKey or NewKey
	KeyTypes    []cert.KeyType // the profile's; nil allows all that we know
	Serial      uint64         // from NewSerial; never 0, which no KRL can revoke
	KeyID       string         // from KeyID: sshd logs it
	Principals  []string       // user names or host names; at least one
	ValidAfter  time.Time      // both to the second
	ValidBefore time.Time
	Options     Options
	// Extensions grant what sshd else denies, with their values, which are
	// empty but for those that OtherExtensions names. See [Extensions].
	Extensions map[string]string
	// OtherExtensions are names beyond OpenSSH's that the profile allows,
	// such as "login@github.com".
	OtherExtensions []string
}

// Prepared is a token for one signature: the certificate is decided, and its
// bytes won't change. The exported fields are for the record.
type Prepared struct {
	Serial      cert.Serial
	TBS         []byte // all of the certificate that is signed, the nonce included
	ValidAfter  time.Time
	ValidBefore time.Time
	AuthorityID string // of the CA key
	KeyHash     string // hex SHA-256 of the key's SubjectPublicKeyInfo
	Key         ssh.PublicKey
	KeyID       string
	Principals  []string

	tbs  []byte // what is signed, whatever became of TBS
	by   *Authority
	used atomic.Bool
}

// nonceSize is what OpenSSH takes: PROTOCOL.certkeys says 16 or 32 bytes, so
// that nobody who chooses the key chooses what is hashed.
const nonceSize = 32

// Prepare decides a certificate: its bytes, all of it read back and checked. It
// signs nothing. Problems (badCSR) are about the client's key; other errors are
// the operator's to see.
func (a *Authority) Prepare(r Request) (*Prepared, error) {
	if err := CheckKey(r.Key, r.KeyTypes); err != nil {
		return nil, err
	}
	critical, err := r.Options.encode()
	if err != nil {
		return nil, err
	}
	if err := checkAllowed(r); err != nil {
		return nil, err
	}
	after, before := r.ValidAfter.Unix(), r.ValidBefore.Unix()
	if after <= 0 || before <= after {
		return nil, fmt.Errorf("an SSH certificate can't be valid from %v to %v", r.ValidAfter, r.ValidBefore)
	}
	c := &ssh.Certificate{
		Nonce: make([]byte, nonceSize), Key: r.Key, Serial: r.Serial, CertType: uint32(r.Kind), KeyId: r.KeyID,
		ValidPrincipals: r.Principals, ValidAfter: uint64(after), ValidBefore: uint64(before),
		Permissions:  ssh.Permissions{CriticalOptions: critical, Extensions: r.Extensions},
		SignatureKey: a.key,
	}
	rand.Read(c.Nonce) // never fails (crypto/rand)
	tbs := c.Marshal() // without a signature, but with the four bytes of its length
	return a.Resume(tbs[:len(tbs)-4])
}

// Resume makes a token again of the bytes that an earlier Prepare gave, after a
// crash or a failed Sign. They are checked anew: bytes that name another CA key
// get ErrWrongAuthority, and none that Prepare wouldn't make get a token.
func (a *Authority) Resume(tbs []byte) (*Prepared, error) {
	c, err := parse(appendString(bytes.Clone(tbs), unsigned))
	if err != nil {
		return nil, fmt.Errorf("a planned SSH certificate is damaged: %w", err)
	}
	if !sameKey(c.SignatureKey, a.key) {
		return nil, fmt.Errorf("CA key %s: %w", ssh.FingerprintSHA256(c.SignatureKey), ErrWrongAuthority)
	}
	if err := lint(c); err != nil {
		return nil, fmt.Errorf("SSH certificate %d: %w", c.Serial, err)
	}
	hash, err := KeyHash(c.Key)
	if err != nil {
		return nil, err
	}
	return &Prepared{
		Serial: serialText(c.Serial), TBS: tbs, AuthorityID: a.id, KeyHash: hash, Key: c.Key, KeyID: c.KeyId, Principals: c.ValidPrincipals,
		ValidAfter: time.Unix(int64(c.ValidAfter), 0).UTC(), ValidBefore: time.Unix(int64(c.ValidBefore), 0).UTC(),
		tbs: bytes.Clone(tbs), by: a,
	}, nil
}

// unsigned stands where a signature will be, so that the bytes to be signed can
// be read as a certificate.
var unsigned = ssh.Marshal(ssh.Signature{Format: ssh.KeyAlgoED25519})

// Sign has the certificate signed, once, verifies the signature with the CA's
// key and the certificate with x/crypto's checker, and returns it as its wire
// bytes: see [CertificateLine]. Whatever comes of it, the token is used: resume
// it from its bytes to try again. Errors are ErrUsed, ErrBadSignature and sign's.
func (p *Prepared) Sign(sign SignFunc) ([]byte, error) {
	if p.used.Swap(true) {
		return nil, ErrUsed
	}
	signature, err := p.by.sign(p.tbs, sign)
	if err != nil {
		return nil, fmt.Errorf("sign SSH certificate %s: %w", p.Serial, err)
	}
	wire := appendString(bytes.Clone(p.tbs), ssh.Marshal(signature))
	if err := p.by.check(wire); err != nil {
		return nil, fmt.Errorf("SSH certificate %s: %w", p.Serial, err)
	}
	return wire, nil
}

// Used reports whether Sign has seen the token.
func (p *Prepared) Used() bool { return p.used.Load() }

// check reads a finished certificate as a relying party does.
func (a *Authority) check(wire []byte) error {
	c, err := parse(wire)
	if err != nil {
		return err
	}
	if err := lint(c); err != nil {
		return err
	}
	if !sameKey(c.SignatureKey, a.key) || c.Signature.Format != a.algorithm.name {
		return ErrBadSignature
	}
	checker := ssh.CertChecker{
		SupportedCriticalOptions: []string{forceCommand, sourceAddress, verifyRequired},
		Clock:                    func() time.Time { return time.Unix(int64(c.ValidAfter), 0) },
	}
	return checker.CheckCert(c.ValidPrincipals[0], c)
}

// Planned reads the bytes of a Prepare for the key that they are about,
// whichever CA key they are for.
func Planned(tbs []byte) (ssh.PublicKey, error) {
	c, err := parse(appendString(bytes.Clone(tbs), unsigned))
	if err != nil {
		return nil, fmt.Errorf("a planned SSH certificate is damaged: %w", err)
	}
	return c.Key, nil
}

// Read reads a finished certificate, as from a client that brings one back: its
// serial as records have it, and the plain key. Whose certificate it is
// and whether its signature verifies is for the caller to find out, by the record.
func Read(wire []byte) (serial cert.Serial, key ssh.PublicKey, err error) {
	c, err := parse(wire)
	if err != nil {
		return "", nil, err
	}
	return serialText(c.Serial), c.Key, nil
}

// parse reads a certificate and demands that it is encoded as we would encode
// it, so that all who read it read the same.
func parse(wire []byte) (*ssh.Certificate, error) {
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		return nil, err
	}
	c, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, errors.New("a plain key, not a certificate")
	}
	if !bytes.Equal(c.Marshal(), wire) {
		return nil, errors.New("not in canonical form")
	}
	return c, nil
}

// lint demands what every certificate of ours must hold, whoever asked for it.
func lint(c *ssh.Certificate) error {
	const year10000 = 253402300800 // "forever" (2^64-1) lies beyond
	switch {
	case len(c.Nonce) != nonceSize:
		return fmt.Errorf("a nonce of %d bytes", len(c.Nonce))
	case c.CertType != ssh.UserCert && c.CertType != ssh.HostCert:
		return fmt.Errorf("unknown kind %d", c.CertType)
	case c.Serial == 0:
		return errors.New("serial 0, which no KRL can revoke")
	case c.ValidAfter == 0 || c.ValidBefore <= c.ValidAfter || c.ValidBefore >= year10000:
		return fmt.Errorf("valid from %d to %d", c.ValidAfter, c.ValidBefore)
	case len(c.Reserved) != 0:
		return errors.New("bytes in the reserved field")
	}
	if err := CheckKey(c.Key, nil); err != nil {
		return err
	}
	if err := checkKeyID(c.KeyId); err != nil {
		return err
	}
	if err := checkPrincipals(Kind(c.CertType), c.ValidPrincipals); err != nil {
		return err
	}
	return lintOptions(c)
}
