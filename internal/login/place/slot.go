package place

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/chancery-pki/chancery/internal/yubikey"
)

// slot is the target that writes the certificate beside its key in the device:
// whatever speaks PKCS#11 finds both there. Only the leaf fits; intermediates
// must be where the program looks for them.
type slot struct{ Slot }

// Put writes the leaf into the slot.
func (t slot) Put(ctx context.Context, p Pair) (Placed, error) {
	leaf, err := p.leaf()
	if err != nil {
		return Placed{}, err
	}
	if p.Key != nil {
		return Placed{}, fmt.Errorf("slot: the key of %s isn't in the device: use files, nss or pkcs12", p.Name)
	}
	placed := p.placed("slot", leaf)
	placed.Where = []string{t.URI}
	// What can't be read can't be put back; if that is the card's fault, writing
	// says so.
	if was, err := t.Cards.Certificate(ctx, t.URI); err == nil && !was.Equal(leaf) {
		placed.Was = was.Raw
	}
	return placed, t.Cards.SetCertificate(ctx, t.URI, leaf, t.Set)
}

// Remove puts back what lay in the slot before. Where nothing did, the
// certificate stays: it says nothing that its servers weren't told, and ends by
// itself.
func (t slot) Remove(ctx context.Context, p Placed) error {
	if err := p.check("slot"); err != nil {
		return err
	}
	if p.Was == nil || len(p.Where) != 1 {
		return nil
	}
	uri := p.Where[0]
	was, err := x509.ParseCertificate(p.Was)
	if err != nil {
		return fmt.Errorf("slot: what was there before: %w", err)
	}
	now, err := t.Cards.Certificate(ctx, uri)
	if errors.Is(err, yubikey.ErrNotFound) && !errors.Is(err, yubikey.ErrAbsent) {
		return nil
	}
	if err != nil || mark(now.Raw) != p.Mark || bytes.Equal(now.Raw, was.Raw) {
		return err
	}
	return t.Cards.SetCertificate(ctx, uri, was, t.Set)
}
