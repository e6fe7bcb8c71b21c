//go:build linux && pcsc && cgo

package yubikey_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-piv/piv-go/v2/piv"

	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// certify makes a client certificate for a key, by a CA made for it.
func certify(t *testing.T, public crypto.PublicKey, extra ...pkix.Extension) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), DNSNames: []string{"alice.people.test"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, ExtraExtensions: extra,
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, public, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A certificate goes into the slot and comes out again, on a card of today and
// an older one; neither PIN nor signature is needed for it.
func TestSetCertificate(t *testing.T) {
	for _, c := range []*softcard.Card{first, older[0]} {
		name := empty(c, 0x94)
		public := generate(t, name, yubikey.GenerateOptions{TouchPolicy: yubikey.TouchAlways}).Statement.PublicKey
		cards, verifies, signatures := new(yubikey.Cards), c.Verifies(), c.Signatures()
		asked := pin(softcard.DefaultPIN)
		for range 2 { // the second one replaces the first
			want := certify(t, public)
			if err := cards.SetCertificate(t.Context(), name, want, yubikey.SetOptions{PIN: asked.ask}); err != nil {
				t.Fatal(err)
			}
			got, err := cards.Certificate(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if !got.Equal(want) {
				t.Error("another certificate came out")
			}
		}
		if asked.asked != 0 || c.Verifies() != verifies || c.Signatures() != signatures {
			t.Errorf("the PIN was asked %d times, and shown %d times; %d signatures", asked.asked, c.Verifies()-verifies, c.Signatures()-signatures)
		}
		mustSign(t, open(t, new(yubikey.Cards), name, pin(softcard.DefaultPIN)))
	}
}

// What doesn't belong there changes nothing.
func TestSetCertificateRefuses(t *testing.T) {
	name := vacant()
	public := generate(t, name, yubikey.GenerateOptions{}).Statement.PublicKey
	cards := new(yubikey.Cards)
	before, err := cards.Certificate(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	long := pkix.Extension{Id: []int{1, 3, 6, 1, 4, 1, 99999, 1}, Value: bytes.Repeat([]byte{1}, 3000)}
	wrong := yubikey.SetOptions{ManagementKey: bytes.Repeat([]byte{7}, 24)}
	for about, c := range map[string]struct {
		uri  string
		cert *x509.Certificate
		o    yubikey.SetOptions
		says string
	}{
		"another key":           {name, certify(t, stranger.Public()), yubikey.SetOptions{}, "holds another key than the certificate is for"},
		"too long":              {name, certify(t, public, long), yubikey.SetOptions{}, "holds up to 3000"},
		"nothing":               {name, &x509.Certificate{}, yubikey.SetOptions{}, "of 0 bytes"},
		"wrong management key":  {name, certify(t, public), wrong, "management key"},
		"empty slot":            {vacant(), certify(t, public), yubikey.SetOptions{}, "holds no key"},
		"no such card":          {"yubikey:serial=4711;slot=9a", certify(t, public), yubikey.SetOptions{}, "no YubiKey 4711"},
		"not the URI of a slot": {"yubikey:slot=42", certify(t, public), yubikey.SetOptions{}, "slot"},
	} {
		err := cards.SetCertificate(t.Context(), c.uri, c.cert, c.o)
		if err == nil {
			t.Errorf("%s: no error", about)
			continue
		}
		wants(t, err, c.says)
	}
	after, err := cards.Certificate(t.Context(), name)
	if err != nil || !after.Equal(before) {
		t.Errorf("a refusal changed the certificate: %v", err)
	}
	if _, err := cards.Certificate(t.Context(), vacant()); !errors.Is(err, yubikey.ErrNotFound) {
		t.Errorf("an empty slot's certificate: %v", err)
	}
}

// A management key under the PIN is found there, and the PIN is asked once,
// for that alone.
func TestSetCertificateManagementKey(t *testing.T) {
	c := second // go-piv changes the key's kind, too, which yubico-piv-tool wouldn't know on an older card
	name := empty(c, 0x93)
	public := generate(t, name, yubikey.GenerateOptions{}).Statement.PublicKey
	secret := bytes.Repeat([]byte{5}, 24)
	protect(t, secondPlace, secret)

	cards := new(yubikey.Cards)
	wants(t, cards.SetCertificate(t.Context(), name, certify(t, public), yubikey.SetOptions{}), "is it the right management key?")
	asked := pin(softcard.DefaultPIN)
	want := certify(t, public)
	if err := cards.SetCertificate(t.Context(), name, want, yubikey.SetOptions{PIN: asked.ask}); err != nil {
		t.Fatal(err)
	}
	if got, err := cards.Certificate(t.Context(), name); err != nil || !got.Equal(want) || asked.asked != 1 {
		t.Errorf("the PIN was asked %d times: %v", asked.asked, err)
	}
	if err := cards.SetCertificate(t.Context(), name, certify(t, public), yubikey.SetOptions{ManagementKey: secret}); err != nil {
		t.Error(err)
	}
	tries := c.Tries()
	err := new(yubikey.Cards).SetCertificate(t.Context(), name, certify(t, public), yubikey.SetOptions{PIN: pin("000000").ask})
	if !errors.Is(err, yubikey.ErrPIN) || c.Tries() != tries-1 {
		t.Errorf("with a wrong PIN: %v, %d tries of %d", err, c.Tries(), tries)
	}
	if err := c.SetPIN(softcard.DefaultPIN); err != nil {
		t.Fatal(err)
	}
}

// protect puts another management key under the PIN until the test ends.
func protect(t *testing.T, place int, secret []byte) {
	t.Helper()
	change := func(from, to []byte, m *piv.Metadata) {
		t.Helper()
		yk := direct(t, place)
		defer yk.Close()
		if err := yk.SetManagementKey(from, to); err != nil {
			t.Fatal(err)
		}
		if err := yk.SetMetadata(to, m); err != nil {
			t.Fatal(err)
		}
	}
	change(piv.DefaultManagementKey, secret, &piv.Metadata{ManagementKey: &secret})
	t.Cleanup(func() { change(secret, piv.DefaultManagementKey, &piv.Metadata{}) })
}

// Programs that know the card through PKCS#11 show the certificate that was
// set, and sign with its key.
func TestSetCertificateOtherSoftware(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "opensc.conf") // see TestOtherSoftware
	if err := os.WriteFile(conf, []byte("app opensc-pkcs11 { pkcs11 { max_virtual_slots = 64; } }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OPENSC_CONF", conf)
	alone(t)
	name := empty(first, yubikey.Authentication)
	want := certify(t, generate(t, name, yubikey.GenerateOptions{}).Statement.PublicKey)
	if err := new(yubikey.Cards).SetCertificate(t.Context(), name, want, yubikey.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	message, signature := filepath.Join(dir, "message"), filepath.Join(dir, "signature")
	if err := os.WriteFile(message, []byte("what is signed"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, module := range []string{"libykcs11.so", "opensc-pkcs11.so"} {
		got := filepath.Join(dir, "got.der")
		tool(t, "pkcs11-tool", "--module", module, "--read-object", "--type", "cert", "--id", "01", "--output-file", got)
		der, err := os.ReadFile(got)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(der, want.Raw) {
			t.Errorf("%s shows another certificate", module)
		}
		tool(t, "pkcs11-tool", "--module", module, "--login", "--pin", softcard.DefaultPIN, "--id", "01", "--sign",
			"--mechanism", "ECDSA-SHA256", "--input-file", message, "--output-file", signature, "--signature-format", "openssl")
		text, err := os.ReadFile(signature)
		if err != nil {
			t.Fatal(err)
		}
		if err := want.CheckSignature(x509.ECDSAWithSHA256, []byte("what is signed"), text); err != nil {
			t.Errorf("%s: %v", module, err)
		}
	}
}
