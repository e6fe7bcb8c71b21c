package softcard

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"
)

// identity is a certificate and its key.
type identity struct {
	certificate *x509.Certificate
	private     crypto.Signer
}

// Maker is a test's Yubico: the CAs above the attestation certificates of its
// cards. Before firmware 5.7 the root signs these itself, since then an
// intermediate for PIV does.
type Maker struct {
	root, piv identity
}

// The validity of all certificates here, Yubico's.
var (
	notBefore = time.Date(2016, 3, 14, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(2052, 4, 17, 0, 0, 0, 0, time.UTC)
)

// NewMaker makes a root and its intermediate.
func NewMaker() (*Maker, error) {
	m := &Maker{}
	var err error
	if m.root, err = authority("Test PIV Root CA", identity{}, 2, newEC); err != nil {
		return nil, err
	}
	m.piv, err = authority("Test PIV Attestation CA", m.root, 1, newEC)
	return m, err
}

func newEC() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) }

func newRSA() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }

// authority makes a CA certificate; without issuer it signs itself.
func authority(name string, issuer identity, pathLen int, key func() (crypto.Signer, error), more ...pkix.Extension) (identity, error) {
	private, err := key()
	if err != nil {
		return identity{}, fmt.Errorf("softcard: %s: %w", name, err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: notBefore, NotAfter: notAfter,
		BasicConstraintsValid: true, IsCA: true, MaxPathLen: pathLen, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign, ExtraExtensions: more,
	}
	parent := issuer.certificate
	if parent == nil {
		parent, issuer.private = template, private
	}
	certificate, err := certify(template, parent, private.Public(), issuer.private)
	return identity{certificate, private}, err
}

func certify(template, parent *x509.Certificate, public crypto.PublicKey, private crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, private)
	if err != nil {
		return nil, fmt.Errorf("softcard: %q: %w", template.Subject, err)
	}
	return x509.ParseCertificate(der)
}

// device makes the key and certificate of a card's slot f9.
func (m *Maker) device(firmware [3]byte) (identity, error) {
	version := pkix.Extension{Id: extension(3), Value: firmware[:]}
	if firmware[0] > 5 || firmware[0] == 5 && firmware[1] >= 7 {
		return authority("YubiKey PIV Attestation", m.piv, 0, newEC, version)
	}
	return authority("Yubico PIV Attestation", m.root, 0, newRSA, version)
}

// Root returns the root above all cards of the maker.
func (m *Maker) Root() *x509.Certificate { return m.root.certificate }

// Issuers returns the certificates that sign cards' attestation certificates:
// those to pin. One is the root.
func (m *Maker) Issuers() []*x509.Certificate {
	return []*x509.Certificate{m.root.certificate, m.piv.certificate}
}

// extension is an object identifier of Yubico's for attestations.
func extension(n int) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, n}
}

// attest is Yubico's ATTEST: a certificate for a key that was made here, in
// which the device says so.
func (c *Card) attest(slot byte) ([]byte, uint16) {
	key := c.keys[slot]
	if key == nil || !key.generated {
		return nil, swData
	}
	serial, err := asn1.Marshal(int64(c.options.Serial))
	if err != nil {
		return nil, swConditions
	}
	statement, err := certify(&x509.Certificate{
		Subject:   pkix.Name{CommonName: fmt.Sprintf("YubiKey PIV Attestation %02x", slot)},
		NotBefore: c.device.certificate.NotBefore, NotAfter: c.device.certificate.NotAfter,
		ExtraExtensions: []pkix.Extension{ // raw bytes but for the serial number
			{Id: extension(3), Value: c.options.Firmware[:]},
			{Id: extension(7), Value: serial},
			{Id: extension(8), Value: []byte{key.pin, key.touch}},
			{Id: extension(9), Value: []byte{c.options.FormFactor}},
		},
	}, c.device.certificate, key.private.Public(), c.device.private)
	if err != nil {
		return nil, swConditions
	}
	return statement.Raw, swOK
}

// errKey is what a card doesn't sign, or no key.
var errKey = errors.New("softcard: not for this key")
