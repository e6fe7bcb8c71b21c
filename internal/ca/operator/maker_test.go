package operator

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// maker is a test's Yubico.
type maker struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
}

func newMaker(t testing.TB) *maker {
	m := &maker{t: t, key: p256()}
	m.cert = m.certify("Test PIV Attestation CA", nil, m.key, m.key.Public())
	return m
}

func p256() crypto.Signer {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

func (m *maker) certify(cn string, parent *x509.Certificate, by crypto.Signer, pub crypto.PublicKey, more ...pkix.Extension) *x509.Certificate {
	m.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: cn}, NotBefore: time.Date(2016, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter: time.Date(2052, 1, 1, 0, 0, 0, 0, time.UTC), ExtraExtensions: more,
	}
	if more == nil {
		template.BasicConstraintsValid, template.IsCA, template.KeyUsage = true, true, x509.KeyUsageCertSign
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, by)
	if err != nil {
		m.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// stick is a YubiKey with a key in a slot.
type stick struct {
	key        crypto.Signer
	serial     int64
	slot       string
	firmware   []byte
	pin, touch byte
	by         *maker
}

func (m *maker) stick(serial int64) *stick {
	return &stick{key: p256(), serial: serial, slot: "9a", firmware: []byte{5, 7, 4}, pin: 2, touch: 2, by: m}
}

func (s *stick) attestation() *yubikey.Attestation {
	s.by.t.Helper()
	serial, err := asn1.Marshal(s.serial)
	if err != nil {
		s.by.t.Fatal(err)
	}
	arc := func(n int) asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 3, n} }
	key := p256()
	device := s.by.certify("YubiKey PIV Attestation", s.by.cert, s.by.key, key.Public())
	statement := s.by.certify("YubiKey PIV Attestation "+s.slot, device, key, s.key.Public(), []pkix.Extension{
		{Id: arc(3), Value: s.firmware}, {Id: arc(7), Value: serial}, {Id: arc(8), Value: []byte{s.pin, s.touch}}, {Id: arc(9), Value: []byte{3}},
	}...)
	a, err := yubikey.ParseAttestation(statement, device)
	if err != nil {
		s.by.t.Fatal(err)
	}
	return a
}

// request asks to enroll it.
func (s *stick) request(owner string, at time.Time, i protocol.Identities) NewDevice {
	s.by.t.Helper()
	a := s.attestation()
	signature, err := yubikey.SignMessage(s.key, yubikey.EnrolmentMessage(a, owner, at))
	if err != nil {
		s.by.t.Fatal(err)
	}
	return NewDevice{Owner: owner, Identities: i, Attestation: a.PEM(), Possession: signature, MadeAt: at}
}

func generate(t testing.TB, kind string) (key crypto.Signer) {
	t.Helper()
	var err error
	switch kind {
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "p521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func named(names ...string) protocol.Identities { return protocol.Identities{Names: names} }

// trusting is a world whose console trusts a maker.
func (w *world) trusting(t *testing.T) *maker {
	m := newMaker(t)
	w.rules.Issuers = []*x509.Certificate{m.cert}
	return m
}

// enroll enrolls one that must be taken.
func (w *world) enroll(t *testing.T, s *stick, owner string, i protocol.Identities) Device {
	t.Helper()
	d, err := w.Enroll(t.Context(), administrator, s.request(owner, w.now(), i))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// sign is another key's signature over what a request says.
func sign(key crypto.Signer, n *NewDevice, owner string) []byte {
	a, err := readAttestation(n.Attestation)
	if err != nil {
		panic(err)
	}
	b, err := yubikey.SignMessage(key, yubikey.EnrolmentMessage(a, owner, n.MadeAt))
	if err != nil {
		panic(err)
	}
	return b
}

func hashOf(t *testing.T, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(der)
	return hex.EncodeToString(hash[:])
}
