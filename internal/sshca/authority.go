package sshca

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // of the algorithms below
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/ssh"
)

// SignFunc asks a key for one signature, with the arguments and the answer of
// crypto.Signer: a digest and its hash; the message and hash 0 with Ed25519.
// How long it blocks is the key's and its queue's matter.
type SignFunc func(digest []byte, opts crypto.SignerOpts) ([]byte, error)

// Errors that callers tell apart. ErrUsed and ErrWrongAuthority are bugs in the
// caller; an operator must see ErrBadSignature.
var (
	// ErrUsed is Sign's answer to a token that it has seen before.
	ErrUsed = errors.New("this prepared SSH certificate was signed, or tried, already; resume it from its bytes")
	// ErrWrongAuthority is Resume's answer to bytes that name another CA key.
	ErrWrongAuthority = errors.New("this SSH certificate was prepared for another CA key")
	// ErrBadSignature means that the key's signature doesn't verify: the key
	// or its hardware is faulty, and what it signed was thrown away.
	ErrBadSignature = errors.New("the SSH CA key made a signature that doesn't verify")
)

// algorithm is how a key signs.
type algorithm struct {
	name string      // in the signature
	hash crypto.Hash // 0: the key hashes by itself
}

// algorithmFor picks a key's signature algorithm: RFC 5656 section 6.2.1
// (ECDSA's hash goes with the curve), RFC 8332 section 3 (RSA; SHA-512 as
// OpenSSH chooses, never SHA-1), RFC 8709 section 4.
func algorithmFor(key ssh.PublicKey) (algorithm, bool) {
	switch name := key.Type(); name {
	case ssh.KeyAlgoECDSA256:
		return algorithm{name, crypto.SHA256}, true
	case ssh.KeyAlgoECDSA384:
		return algorithm{name, crypto.SHA384}, true
	case ssh.KeyAlgoECDSA521:
		return algorithm{name, crypto.SHA512}, true
	case ssh.KeyAlgoED25519:
		return algorithm{name, 0}, true
	case ssh.KeyAlgoRSA:
		return algorithm{ssh.KeyAlgoRSASHA512, crypto.SHA512}, true
	}
	return algorithm{}, false
}

// accepts reports whether a signature of that format may come from the key: of
// RSA's three, x/crypto would take SHA-1 too.
func accepts(key ssh.PublicKey, format string) bool {
	if key.Type() == ssh.KeyAlgoRSA {
		return format == ssh.KeyAlgoRSASHA512 || format == ssh.KeyAlgoRSASHA256
	}
	return format == key.Type()
}

// Authority is the public half of an SSH CA key. It is immutable. A key that
// signs SSH certificates should sign nothing else.
type Authority struct {
	key       ssh.PublicKey
	algorithm algorithm
	id        string
}

// NewAuthority makes an Authority of the public key of a signer: ECDSA (P-256,
// P-384, P-521), Ed25519 or RSA (2048 to 4096 bits). OpenSSH knows no others.
func NewAuthority(pub crypto.PublicKey) (*Authority, error) {
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("an SSH CA can't sign with a key of type %T; use ECDSA (P-256, P-384, P-521), Ed25519 or RSA", pub)
	}
	if r, ok := pub.(*rsa.PublicKey); ok {
		if why := rsaFault(r); why != "" {
			return nil, fmt.Errorf("an SSH CA's key: %s", why)
		}
	}
	a, ok := algorithmFor(key)
	if !ok {
		return nil, fmt.Errorf("an SSH CA can't sign with a %s key; use ECDSA (P-256, P-384, P-521), Ed25519 or RSA", key.Type())
	}
	sum := sha256.Sum256(key.Marshal())
	return &Authority{key: key, algorithm: a, id: hex.EncodeToString(sum[:])}, nil
}

// PublicKey is the CA's key, as hosts and people trust it.
func (a *Authority) PublicKey() ssh.PublicKey { return a.key }

// ID names the key in records: the hex SHA-256 of its SSH encoding, the same
// hash that ssh-keygen -l shows in base64.
func (a *Authority) ID() string { return a.id }

// sign asks for a signature over a message and verifies it: sshd would refuse a
// faulty one, and it may give the key away.
func (a *Authority) sign(message []byte, sign SignFunc) (*ssh.Signature, error) {
	digest := message
	if a.algorithm.hash != 0 {
		h := a.algorithm.hash.New()
		h.Write(message)
		digest = h.Sum(nil)
	}
	blob, err := sign(digest, a.algorithm.hash)
	if err != nil {
		return nil, err
	}
	switch a.key.Type() {
	case ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		if blob, err = ecdsaBlob(blob); err != nil {
			return nil, err
		}
	}
	s := &ssh.Signature{Format: a.algorithm.name, Blob: blob}
	if err := a.key.Verify(message, s); err != nil {
		return nil, ErrBadSignature
	}
	return s, nil
}

// ecdsaBlob turns crypto.Signer's ASN.1 into RFC 5656 section 3.1.2's two mpints.
func ecdsaBlob(der []byte) ([]byte, error) {
	var s struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &s); err != nil || len(rest) > 0 {
		return nil, ErrBadSignature
	}
	return ssh.Marshal(s), nil
}
