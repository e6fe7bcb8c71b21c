//go:build pcsc && (cgo || windows)

package yubikey

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/go-piv/piv-go/v2/piv"
)

// Key is a private key in a card. It is safe for concurrent use: the card
// signs for one caller after the other.
type Key struct {
	cards  *Cards
	card   *card
	slot   Slot
	source func(context.Context) ([]byte, error) // of the PIN
	closed atomic.Bool

	// What the card said of the slot; guarded by card.mu.
	held    held
	session *piv.YubiKey // in which the key was seen last
}

// attach makes the key ready in the card's session, and checks that it is
// still the same key.
func (k *Key) attach(ctx context.Context) error {
	c := k.card
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.yk == nil {
		return fmt.Errorf("%s: %w: %v", c, ErrGone, c.away)
	}
	h, err := c.inspect(k.slot)
	if err != nil {
		return err
	}
	if k.held.public != nil && !equal(k.held.public, h.public) {
		return fmt.Errorf("%w: slot %s of %s holds another key than before", ErrNotFound, k.slot, c)
	}
	if h.pin == PINMatchOnce || h.pin == PINMatchAlways {
		return fmt.Errorf("%w: the key in slot %s of %s wants a fingerprint (PIN policy %s), which a program can't give", ErrPIN, k.slot, c, h.pin)
	}
	if h.pin != PINNever {
		if err := c.login(ctx, k.source); err != nil {
			return err
		}
	}
	k.held, k.session = h, c.yk
	return nil
}

// equal compares public keys, of whatever kinds.
func equal(a, b crypto.PublicKey) bool {
	e, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(b)
}

// Public returns the public key as the card told it at Open: an
// *ecdsa.PublicKey, *rsa.PublicKey or ed25519.PublicKey.
func (k *Key) Public() crypto.PublicKey {
	k.card.mu.Lock()
	defer k.card.mu.Unlock()
	return k.held.public
}

// Parallel returns 1: a card does one thing at a time.
func (k *Key) Parallel() int { return 1 }

// Token names card and slot in messages, as in "YubiKey 12345678 slot 9c".
func (k *Key) Token() string { return fmt.Sprintf("%s slot %s", k.card, k.slot) }

// Sign makes one signature: ECDSA in ASN.1 form, RSA as PKCS #1 v1.5 or, with
// *rsa.PSSOptions, PSS, Ed25519 over the message. It blocks until the card has
// done what others asked for before, and then the signature, which takes
// 50 ms to some seconds, and 15 more where the touch policy wants a finger.
//
// An error that wraps ErrGone means that the card is gone, and until Reopen
// succeeds all further calls fail at once; one that wraps ErrInput blames digest
// or opts.
func (k *Key) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	c := k.card
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := k.there(); err != nil {
		return nil, err
	}
	if err := check(k.held.public, digest, opts); err != nil {
		return nil, fmt.Errorf("%s slot %s: %w: %w", c, k.slot, ErrInput, err)
	}
	if k.held.pin == PINAlways {
		if err := c.verify(c.pin); err != nil {
			return nil, err
		}
	}
	sig, err := k.sign(rand, digest, opts)
	if status(err) == notSatisfied && k.held.pin == PINOnce && k.held.touch == TouchNever {
		// The card forgot the PIN, as after a reset by its reader. It has
		// taken this very one before.
		if err := c.verify(c.pin); err != nil {
			return nil, err
		}
		sig, err = k.sign(rand, digest, opts)
	}
	if status(err) == notSatisfied && k.held.touch != TouchNever {
		return nil, fmt.Errorf("%s: nobody touched it (touch policy %s)", k.Token(), k.held.touch)
	}
	if err != nil {
		return nil, c.failed("signing in slot "+k.slot.String(), err)
	}
	return sig, nil
}

// Probe asks the card something, without a signature: an idle card that was
// pulled is noticed so. The error wraps ErrGone, and from then on Sign fails as
// well. It blocks until the card has done what others asked for before.
func (k *Key) Probe() error {
	c := k.card
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.closed.Load() {
		return nil
	}
	c.alive() // says in c what it finds
	return k.there()
}

// there says why the key can't be used, if so; card.mu is held.
func (k *Key) there() error {
	c := k.card
	switch {
	case k.closed.Load():
		return fmt.Errorf("%s: the key is closed", k.Token())
	case c.yk == nil:
		return fmt.Errorf("%s: %w: %v", c, ErrGone, c.away)
	case c.yk != k.session:
		return fmt.Errorf("%s: %w: it was away meanwhile; reopen the key", c, ErrGone)
	}
	return nil
}

// notSatisfied is "security status not satisfied": no PIN, or no touch.
const notSatisfied = 0x6982

// sign asks the card; the PIN is our business, not go-piv's, which would show
// it as often as it takes.
func (k *Key) sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	private, err := k.session.PrivateKey(k.slot.piv(), k.held.public, piv.KeyAuth{PINPolicy: piv.PINPolicyNever})
	if err != nil {
		return nil, err
	}
	return private.(crypto.Signer).Sign(rand, digest, opts)
}

// check looks at what is to be signed before the card sees it, so that a
// caller's mistake isn't taken for the card's.
func check(public crypto.PublicKey, digest []byte, opts crypto.SignerOpts) error {
	hash := opts.HashFunc()
	if len(digest) == 0 || hash != 0 && len(digest) != hash.Size() {
		return fmt.Errorf("a digest of %d bytes for %v", len(digest), hash)
	}
	switch public.(type) {
	case *ecdsa.PublicKey:
	case *rsa.PublicKey:
		switch hash {
		case crypto.SHA256, crypto.SHA384, crypto.SHA512:
		default:
			return fmt.Errorf("RSA with %v; SHA-256, SHA-384 and SHA-512 are known", hash)
		}
	case ed25519.PublicKey:
		if hash != 0 {
			return errors.New("Ed25519 signs messages, not digests")
		}
		if len(digest) > maxMessage {
			return fmt.Errorf("a message of %d bytes; the card takes %d", len(digest), maxMessage)
		}
	default:
		return fmt.Errorf("keys of type %T don't sign", public)
	}
	return nil
}

// maxMessage bounds what Ed25519 signs: a YubiKey's buffer has 3072 bytes,
// less the template around the message.
const maxMessage = 3000

// Reopen brings the key back after ErrGone: it looks for the card of the same
// serial number, checks that the slot holds the same key, and shows the PIN
// that the source gives now. It does nothing where card and key are there.
// Blocks and errors are those of Open; the Key stays usable for another
// Reopen.
func (k *Key) Reopen(ctx context.Context) error {
	if k.closed.Load() {
		return fmt.Errorf("%s: the key is closed", k.Token())
	}
	crd, err := k.cards.find(ctx, k.card.serial)
	if err != nil {
		return err
	}
	defer crd.release()
	return k.attach(ctx)
}

// Close gives the key up, and the card with its last key, which other programs
// can use then. It waits up to a second for a signature under way.
func (k *Key) Close() error {
	if k.closed.Swap(true) {
		return nil
	}
	return k.card.release()
}
