package softcard

import (
	"crypto"
	"crypto/x509"
	"errors"
)

// Key is a key in a card and what the card says of it, for tests of those who
// check attestations: they need the signatures, not how one gets them.
type Key struct {
	crypto.Signer
	Statement, Device *x509.Certificate
}

// Algorithms of Make.
const (
	P256    byte = algP256
	P384    byte = algP384
	RSA2048 byte = algRSA2048
	Ed25519 byte = algEd25519
)

// Make generates a key in a slot, with Yubico's numbers for the policies, and
// attests it, as a person with card and PIN at hand has it done. The signer
// asks for neither PIN nor touch.
func (c *Card) Make(slot, algorithm, pin, touch byte) (*Key, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !isSlot(slot) || !c.supports(algorithm) {
		return nil, errors.New("softcard: no such slot, or not with this firmware")
	}
	private, err := newKey(algorithm)
	if err != nil {
		return nil, err
	}
	c.keys[slot] = &slotKey{alg: algorithm, private: private, pin: pin, touch: touch, generated: true}
	der, status := c.attest(slot)
	if status != swOK {
		return nil, errKey
	}
	statement, err := x509.ParseCertificate(der)
	return &Key{Signer: private, Statement: statement, Device: c.device.certificate}, err
}
