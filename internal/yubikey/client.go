//go:build pcsc && (cgo || windows)

package yubikey

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-piv/piv-go/v2/piv"
)

// List says which cards are plugged in, by serial number. It wants no PIN, and
// leaves the cards to other programs when it returns. One that another program
// holds is waited for a moment, then left out. The error is ErrAbsent where
// that leaves none, and says what is in the way.
func (c *Cards) List(ctx context.Context) ([]Info, error) {
	deadline := time.Now().Add(takenFor)
	for {
		all, err := c.list(ctx)
		if !errors.Is(err, errTaken) && !errors.Is(err, errSettling) || time.Now().After(deadline) {
			if len(all) > 0 {
				return all, nil
			}
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(poll):
		}
	}
}

// list looks through the readers once. With errTaken it also returns the cards
// that it could read.
func (c *Cards) list(ctx context.Context) ([]Info, error) {
	s := scan{}
	defer s.close()
	ours, err := c.sessions(ctx, &s)
	if err != nil {
		return nil, err
	}
	var all []Info
	for _, crd := range ours {
		crd.mu.Lock()
		if crd.yk != nil {
			all = append(all, Info{crd.serial, crd.firmware, retries(crd.yk)})
		}
		crd.mu.Unlock()
		crd.release()
	}
	for _, f := range s.found {
		v := f.yk.Version()
		all = append(all, Info{f.serial, Firmware{byte(v.Major), byte(v.Minor), byte(v.Patch)}, retries(f.yk)})
	}
	slices.SortFunc(all, func(a, b Info) int { return cmp.Compare(a.Serial, b.Serial) })
	if len(s.taken) > 0 {
		return all, fmt.Errorf("%w: %s is %w: stop that (gpg's scdaemon, a browser, ykman)", ErrAbsent, s.list(nil), errTaken)
	}
	if len(all) == 0 {
		_, err := s.choose(nil)
		return nil, err
	}
	return all, nil
}

// sessions opens all cards into the scan but those that have a session here,
// which it returns with one user more each.
func (c *Cards) sessions(ctx context.Context, s *scan) ([]*card, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	open, readers := c.open()
	if c.settling() {
		return nil, errSettling
	}
	if err := s.readers(readers); err != nil {
		return nil, err
	}
	var ours []*card
	for _, crd := range open {
		crd.users.Add(1)
		ours = append(ours, crd)
	}
	return ours, nil
}

// retries is how many wrong PINs the card still takes. One that has seen the
// right PIN in this session doesn't say; it has all its tries then.
func retries(yk *piv.YubiKey) int {
	n, err := yk.Retries()
	if err != nil {
		return allTries
	}
	return n
}

// allTries is how many a YubiKey has unless it was told otherwise.
const allTries = 3

// Attest has the card state where the key of a URI was made. It wants neither
// PIN nor touch, and leaves the card to other programs when it returns. The
// public key is the statement's; nothing of it is verified. Errors are those
// of Open; a key that was brought in from outside is ErrNotFound, since no
// card states anything of it.
func (c *Cards) Attest(ctx context.Context, uri string) (*Attestation, crypto.PublicKey, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, nil, err
	}
	crd, err := c.find(ctx, u.Serial)
	if err != nil {
		return nil, nil, err
	}
	defer crd.release()
	a, err := crd.attest(u.Slot)
	if err != nil {
		return nil, nil, err
	}
	return a, a.Statement.PublicKey, nil
}

// attest reads the statement of a slot, and the certificate above it.
func (c *card) attest(slot Slot) (*Attestation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.yk == nil {
		return nil, fmt.Errorf("%s: %w: %v", c, ErrGone, c.away)
	}
	statement, err := c.yk.Attest(slot.piv())
	switch {
	case errors.Is(err, piv.ErrNotFound) || !transport(err) && err != nil:
		return nil, fmt.Errorf("%w: %s has no key in slot %s that was made in it: make one with chancery devices enroll", ErrNotFound, c, slot)
	case err != nil:
		return nil, c.gone(err)
	}
	device, err := c.yk.AttestationCertificate()
	if err != nil {
		return nil, c.failed("reading the attestation certificate", err)
	}
	a, err := ParseAttestation(statement, device)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c, err)
	}
	return a, nil
}
