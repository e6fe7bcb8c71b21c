//go:build pcsc && (cgo || windows)

package yubikey

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/go-piv/piv-go/v2/piv"
)

// algorithms are the key types a card makes, and from which firmware on.
var algorithms = map[cert.KeyType]struct {
	piv   piv.Algorithm
	since Firmware
}{
	// Before 5, RSA keys could be guessed (CVE-2017-15361), and attestations
	// leave things out.
	cert.P256:    {piv.AlgorithmEC256, Firmware{5, 0, 0}},
	cert.P384:    {piv.AlgorithmEC384, Firmware{5, 0, 0}},
	cert.RSA2048: {piv.AlgorithmRSA2048, Firmware{5, 0, 0}},
	cert.RSA3072: {piv.AlgorithmRSA3072, Firmware{5, 7, 0}},
	cert.RSA4096: {piv.AlgorithmRSA4096, Firmware{5, 7, 0}},
	cert.Ed25519: {piv.AlgorithmEd25519, Firmware{5, 7, 0}},
}

// Generate makes a key in the slot that the URI names, and returns it open,
// with the card's attestation of it (unverified: whom to trust is the
// caller's choice). It also puts a certificate that the key signs for itself
// into the slot, since other software shows keys by their certificates; a
// touch policy other than never wants a touch for that.
//
// A slot that holds a key or a certificate is refused unless o.Overwrite. The
// PIN is checked before anything is changed. Blocks and errors are those of
// Open, and a key that needs RSA-4096's minute takes that.
func (c *Cards) Generate(ctx context.Context, uri string, o GenerateOptions) (*Key, *Attestation, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, nil, err
	}
	if o.PINPolicy == 0 {
		o.PINPolicy = PINOnce
	}
	if o.TouchPolicy == 0 {
		o.TouchPolicy = TouchNever
	}
	if o.PINPolicy > PINAlways || o.TouchPolicy > TouchCached {
		return nil, nil, fmt.Errorf("PIN policy %s and touch policy %s: a key for this program has never, once or always, and never, always or cached", o.PINPolicy, o.TouchPolicy)
	}
	crd, err := c.find(ctx, u.Serial)
	if err != nil {
		return nil, nil, err
	}
	k := &Key{cards: c, card: crd, slot: u.Slot, source: o.PIN}
	a, err := k.generate(ctx, o)
	if err != nil {
		crd.release()
		return nil, nil, err
	}
	return k, a, nil
}

// generate does the work on the card.
func (k *Key) generate(ctx context.Context, o GenerateOptions) (*Attestation, error) {
	management, err := k.prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	a, err := k.create(management, o)
	if err != nil {
		return nil, err
	}
	if err := k.attach(ctx); err != nil {
		return nil, err
	}
	return a, k.label(management)
}

// prepare checks what can be checked before the card is changed, and returns
// the management key.
func (k *Key) prepare(ctx context.Context, o GenerateOptions) ([]byte, error) {
	c := k.card
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.yk == nil {
		return nil, fmt.Errorf("%s: %w: %v", c, ErrGone, c.away)
	}
	switch alg, ok := algorithms[o.KeyType]; {
	case !ok:
		return nil, fmt.Errorf("%s makes no %s keys: choose P-256, P-384 or RSA-2048", c, o.KeyType)
	case !c.firmware.AtLeast(alg.since.Major, alg.since.Minor, alg.since.Patch):
		return nil, fmt.Errorf("%s has firmware %s, which makes no %s keys that can be relied on: %s is needed", c, c.firmware, o.KeyType, alg.since)
	}
	if err := k.vacant(o.Overwrite); err != nil {
		return nil, err
	}
	if o.PIN != nil || o.PINPolicy != PINNever {
		if err := c.login(ctx, o.PIN); err != nil {
			return nil, err
		}
	}
	return k.managementKey(o.ManagementKey)
}

// vacant refuses a slot that holds something; c.mu is held.
func (k *Key) vacant(overwrite bool) error {
	c := k.card
	_, err := c.inspect(k.slot)
	if err == nil && !overwrite {
		return fmt.Errorf("%s holds a key already, which can't be brought back once overwritten: choose another slot, or say that it is to be overwritten", k.Token())
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	_, err = c.yk.Certificate(k.slot.piv())
	switch {
	case errors.Is(err, piv.ErrNotFound) || overwrite && !transport(err):
		return nil
	case transport(err):
		return c.gone(err)
	}
	return fmt.Errorf("%s holds a certificate already: choose another slot, or say that it is to be overwritten", k.Token())
}

// managementKey returns the one given, else the one under the PIN, else the
// factory's; c.mu is held and the PIN verified, if there is one.
func (k *Key) managementKey(given []byte) ([]byte, error) {
	c := k.card
	if given != nil {
		return given, nil
	}
	if c.pin != "" {
		m, err := c.yk.Metadata(c.pin)
		switch {
		case transport(err):
			return nil, c.gone(err)
		case err == nil && m.ManagementKey != nil:
			return *m.ManagementKey, nil
		}
	}
	return piv.DefaultManagementKey, nil
}

// create makes the key and checks what the card states of it.
func (k *Key) create(management []byte, o GenerateOptions) (*Attestation, error) {
	c := k.card
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.yk == nil {
		return nil, fmt.Errorf("%s: %w: %v", c, ErrGone, c.away)
	}
	public, err := c.yk.GenerateKey(management, k.slot.piv(), piv.Key{
		Algorithm: algorithms[o.KeyType].piv, PINPolicy: piv.PINPolicy(o.PINPolicy), TouchPolicy: piv.TouchPolicy(o.TouchPolicy),
	})
	if err != nil {
		return nil, c.failed("making a key (is it the right management key?)", err)
	}
	statement, err := c.yk.Attest(k.slot.piv())
	if err != nil {
		return nil, c.failed("attesting the new key", err)
	}
	device, err := c.yk.AttestationCertificate()
	if err != nil {
		return nil, c.failed("reading the attestation certificate", err)
	}
	a, err := ParseAttestation(statement, device)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c, err)
	}
	if !equal(public, statement.PublicKey) || a.Serial != c.serial || a.Slot != k.slot || a.PINPolicy != o.PINPolicy || a.TouchPolicy != o.TouchPolicy {
		return nil, fmt.Errorf("%s attests another key than it was asked for (serial %d, slot %s, PIN policy %s, touch policy %s): don't use it", k.Token(), a.Serial, a.Slot, a.PINPolicy, a.TouchPolicy)
	}
	return a, nil
}

// label puts a certificate into the slot.
func (k *Key) label(management []byte) error {
	certificate, err := k.selfSigned()
	if err != nil {
		return fmt.Errorf("the key is there, but its first signature failed: %w", err)
	}
	c := k.card
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.yk == nil {
		return fmt.Errorf("%s: %w: %v", c, ErrGone, c.away)
	}
	if err := c.yk.SetCertificate(management, k.slot.piv(), certificate); err != nil {
		return c.failed("the key is there, but storing a certificate beside it failed", err)
	}
	return nil
}

// selfSigned makes the certificate, which nobody is to trust: it has no end
// and may do nothing.
func (k *Key) selfSigned() (*x509.Certificate, error) {
	name := pkix.Name{CommonName: "Chancery key, " + k.Token()}
	template := &x509.Certificate{
		Subject:   name,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 section 4.1.2.5: no end
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), crypto.Signer(k))
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
