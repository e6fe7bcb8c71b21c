//go:build pcsc && (cgo || windows)

package yubikey

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/go-piv/piv-go/v2/piv"
)

// Certificate returns the certificate that the slot holds beside its key, which
// nobody vouches for. It wants no PIN. Where there is none the error is
// ErrNotFound; blocks and other errors are those of Open.
func (c *Cards) Certificate(ctx context.Context, uri string) (*x509.Certificate, error) {
	k, err := c.slot(ctx, uri)
	if err != nil {
		return nil, err
	}
	defer k.card.release()
	crd := k.card
	crd.mu.Lock()
	defer crd.mu.Unlock()
	if crd.yk == nil {
		return nil, fmt.Errorf("%s: %w: %v", crd, ErrGone, crd.away)
	}
	held, err := crd.yk.Certificate(k.slot.piv())
	switch {
	case errors.Is(err, piv.ErrNotFound):
		return nil, fmt.Errorf("%w: %s holds no certificate", ErrNotFound, k.Token())
	case err != nil:
		return nil, crd.failed("reading the certificate in slot "+k.slot.String(), err)
	}
	return held, nil
}

// SetCertificate puts a certificate into the slot that the URI names, in the
// place of the one that is there: programs that use the card through PKCS#11
// show the key by it. A slot holds one certificate, so what is above it must
// come from elsewhere. A certificate of another key than the slot's is refused.
//
// The PIN is asked only where the management key isn't known otherwise: the
// one given, the one under a PIN that was shown in this session, the factory's.
// Blocks and errors are those of Open.
func (c *Cards) SetCertificate(ctx context.Context, uri string, certificate *x509.Certificate, o SetOptions) error {
	if n := len(certificate.Raw); n == 0 || n > maxCertificate {
		return fmt.Errorf("a certificate of %d bytes: a YubiKey's slot holds up to %d", n, maxCertificate)
	}
	k, err := c.slot(ctx, uri)
	if err != nil {
		return err
	}
	defer k.card.release()
	k.source = o.PIN
	return k.setCertificate(ctx, certificate, o.ManagementKey)
}

// maxCertificate is what an object of a YubiKey 5 holds (3052 bytes), less its
// wrapping (SP 800-73-4 part 1 appendix A).
const maxCertificate = 3000

// slot finds card and slot; the caller must release the card.
func (c *Cards) slot(ctx context.Context, uri string) (*Key, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	crd, err := c.find(ctx, u.Serial)
	if err != nil {
		return nil, err
	}
	return &Key{cards: c, card: crd, slot: u.Slot}, nil
}

// setCertificate does the work on the card.
func (k *Key) setCertificate(ctx context.Context, certificate *x509.Certificate, management []byte) error {
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
	if !equal(h.public, certificate.PublicKey) {
		return fmt.Errorf("%s holds another key than the certificate is for: nothing was written", k.Token())
	}
	key, err := k.managementKey(management)
	if err != nil {
		return err
	}
	err = k.store(key, certificate)
	if err == nil || errors.Is(err, ErrGone) || management != nil || k.source == nil || c.pin != "" {
		return err
	}
	// A wrong management key costs nothing: the card doesn't count tries. It
	// may be under the PIN, which is worth asking for only now.
	if err := c.login(ctx, k.source); err != nil {
		return err
	}
	if key, err = k.managementKey(nil); err != nil {
		return err
	}
	return k.store(key, certificate)
}

// store writes; c.mu is held and a session there.
func (k *Key) store(management []byte, certificate *x509.Certificate) error {
	err := k.card.yk.SetCertificate(management, k.slot.piv(), certificate)
	switch {
	case err == nil:
		return nil
	case !k.card.alive(): // go-piv drops the status word of some errors
		return fmt.Errorf("%s: %w: %w", k.card, ErrGone, err)
	}
	return fmt.Errorf("%s: storing a certificate (is it the right management key?): %w", k.Token(), err)
}
