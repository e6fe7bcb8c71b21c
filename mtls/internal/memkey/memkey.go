// Package memkey holds a private key in memory until it is erased.
//
// Erasing takes the key away at once: who signs with it afterwards gets an
// error, never a broken signature. The words of the key are overwritten; that
// is best effort, since crypto/ecdsa keeps a copy beside the key, which goes
// with the garbage collection after it.
//
// It imports the standard library only. Sources: FIPS 186-5 (ECDSA), RFC 5958
// (PKCS #8), RFC 5869 (HKDF).
package memkey

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"sync"
)

// ErrErased says that the key is gone.
var ErrErased = errors.New("the key has been erased")

// Key is an ECDSA key on P-256 as a crypto.Signer. Its methods may be called
// from many goroutines at once.
type Key struct {
	public *ecdsa.PublicKey

	mu      sync.RWMutex // held for reading while the key signs
	private *ecdsa.PrivateKey
}

// New makes a new key.
func New() (*Key, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return hold(key), nil
}

func hold(key *ecdsa.PrivateKey) *Key {
	public := key.PublicKey // a copy, lest it keep the private key alive
	return &Key{public: &public, private: key}
}

// Derive makes the key that belongs to a secret and a purpose, always the
// same one (HKDF-SHA-256; a value outside the curve's order, once in 2^32, is
// drawn again).
func Derive(secret []byte, purpose string) (*Key, error) {
	for i := range 64 {
		raw, err := hkdf.Key(sha256.New, secret, nil, fmt.Sprintf("%s#%d", purpose, i), 32)
		if err != nil {
			return nil, err
		}
		if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw); err == nil {
			return hold(key), nil
		}
	}
	return nil, errors.New("no key can be derived")
}

// Parse reads a key from PKCS #8. It fails for anything but ECDSA on P-256.
func Parse(der []byte) (*Key, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("a %T, not an ECDSA key on P-256", parsed)
	}
	return hold(key), nil
}

// Public returns the public key, an *ecdsa.PublicKey, also after Erase.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Sign signs a digest, or fails with ErrErased.
func (k *Key) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.private == nil {
		return nil, ErrErased
	}
	return k.private.Sign(random, digest, opts)
}

// PKCS8 returns the private key in DER, or fails with ErrErased.
func (k *Key) PKCS8() ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.private == nil {
		return nil, ErrErased
	}
	return x509.MarshalPKCS8PrivateKey(k.private)
}

// Erase overwrites the key and lets it go. It waits for signatures that are
// being made. A second call does nothing.
func (k *Key) Erase() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.private == nil {
		return
	}
	//lint:ignore SA1019 there is no other way to reach the words
	clear(k.private.D.Bits())
	k.private = nil
}
