//go:build linux && pcsc && cgo

package yubikey_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/go-piv/piv-go/v2/piv"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// Each key type can be made, attested, opened again, and issues certificates
// that Go verifies.
func TestGenerateKeyTypes(t *testing.T) {
	for _, typ := range []cert.KeyType{cert.P256, cert.P384, cert.RSA2048, cert.RSA3072, cert.Ed25519} {
		t.Run(string(typ), func(t *testing.T) {
			cards, name, source := new(yubikey.Cards), vacant(), pin(softcard.DefaultPIN)
			k, a, err := cards.Generate(t.Context(), name, yubikey.GenerateOptions{KeyType: typ, PIN: source.ask})
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			if source.asked != 1 {
				t.Errorf("the PIN was asked %d times", source.asked)
			}
			if err := a.Verify(maker.Issuers(), time.Now()); err != nil {
				t.Error(err)
			}
			if u, _ := yubikey.ParseURI(name); a.Slot != u.Slot || a.Serial != 1001 || a.Firmware.String() != "5.7.1" ||
				a.PINPolicy != yubikey.PINOnce || a.TouchPolicy != yubikey.TouchNever || a.FormFactor.String() != "USB-C Keychain" {
				t.Errorf("attested: %+v", a)
			}
			if e, ok := k.Public().(interface{ Equal(any) bool }); ok && !e.Equal(a.Statement.PublicKey) {
				t.Error("another key is attested")
			}
			mustSign(t, k)
			issues(t, k)
			again := open(t, cards, name, pin("none is needed"))
			if !bytes.Equal(spki(t, again), spki(t, k)) {
				t.Error("opened again, it is another key")
			}
			mustSign(t, again)
		})
	}
}

func spki(t *testing.T, k *yubikey.Key) []byte {
	t.Helper()
	b, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// issues makes a CA certificate with the key, as an authority does.
func issues(t *testing.T, k *yubikey.Key) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(c)
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots}); err != nil {
		t.Error(err)
	}
}

// go-piv's own check of the attestation agrees with ours.
func TestAttestationSecondOpinion(t *testing.T) {
	a := generate(t, vacant(), yubikey.GenerateOptions{PINPolicy: yubikey.PINAlways, TouchPolicy: yubikey.TouchCached})
	roots := x509.NewCertPool()
	roots.AddCert(maker.Issuers()[1])
	theirs, err := (&piv.Verifier{Roots: roots}).Verify(a.Device, a.Statement)
	if err != nil {
		t.Fatal(err)
	}
	if theirs.Serial != a.Serial || byte(theirs.PINPolicy) != byte(a.PINPolicy) || byte(theirs.TouchPolicy) != byte(a.TouchPolicy) ||
		byte(theirs.Slot.Key) != byte(a.Slot) || byte(theirs.Formfactor) != byte(a.FormFactor) || theirs.Version.Minor != int(a.Firmware.Minor) {
		t.Errorf("go-piv reads %+v, we %+v", theirs, a)
	}
}

func TestGenerateRefusesWhatIsThere(t *testing.T) {
	name := vacant()
	before := generate(t, name, yubikey.GenerateOptions{})
	o := yubikey.GenerateOptions{KeyType: cert.P256, PIN: pin(softcard.DefaultPIN).ask}
	_, _, err := new(yubikey.Cards).Generate(t.Context(), name, o)
	wants(t, err, "YubiKey 1001", "holds a key already")
	k := open(t, new(yubikey.Cards), name, pin(softcard.DefaultPIN))
	if b, _ := x509.MarshalPKIXPublicKey(before.Statement.PublicKey); !bytes.Equal(spki(t, k), b) {
		t.Error("the refusal changed the key")
	}
	k.Close()

	o.Overwrite = true
	k, a, err := new(yubikey.Cards).Generate(t.Context(), name, o)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if bytes.Equal(a.Statement.RawSubjectPublicKeyInfo, before.Statement.RawSubjectPublicKeyInfo) {
		t.Error("it was told to overwrite and didn't")
	}
}

// A slot whose key is gone but whose certificate isn't belongs to somebody.
func TestGenerateRefusesACertificate(t *testing.T) {
	name := vacant()
	u, err := yubikey.ParseURI(name)
	if err != nil {
		t.Fatal(err)
	}
	a := generate(t, vacant(), yubikey.GenerateOptions{})
	yk := direct(t, firstPlace)
	slot, _ := piv.RetiredKeyManagementSlot(uint32(u.Slot))
	if err := yk.SetCertificate(piv.DefaultManagementKey, slot, a.Statement); err != nil {
		t.Fatal(err)
	}
	yk.Close()
	_, _, err = new(yubikey.Cards).Generate(t.Context(), name, yubikey.GenerateOptions{KeyType: cert.P256, PIN: pin(softcard.DefaultPIN).ask})
	wants(t, err, "holds a certificate already")
	generate(t, name, yubikey.GenerateOptions{Overwrite: true})
}

// direct opens the card in a reader past our code, as another program does.
func direct(t *testing.T, place int) *piv.YubiKey {
	t.Helper()
	names, err := piv.Cards()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if bytes.Contains([]byte(n), []byte{'#', byte('0' + place), ' ', '0', '0', ' ', '0', '0'}) {
			yk, err := piv.Open(n)
			if err != nil {
				t.Fatal(err)
			}
			return yk
		}
	}
	t.Fatalf("no reader #%d in %q", place, names)
	return nil
}

// Nothing is changed on the card where something is wrong beforehand.
func TestGenerateChecksFirst(t *testing.T) {
	old, infineon := older[0], older[2]
	defer old.SetPIN(softcard.DefaultPIN)
	good := func() yubikey.GenerateOptions {
		return yubikey.GenerateOptions{KeyType: cert.P256, PIN: pin(softcard.DefaultPIN).ask}
	}
	name := empty(old, yubikey.Signature)
	for what, c := range map[string]struct {
		name   string
		change func(o *yubikey.GenerateOptions)
		want   string
	}{
		"no slot":              {"yubikey:serial=3001", func(*yubikey.GenerateOptions) {}, "no slot"},
		"no such card":         {"yubikey:serial=3999;slot=9c", func(*yubikey.GenerateOptions) {}, "no YubiKey 3999"},
		"P-521":                {name, func(o *yubikey.GenerateOptions) { o.KeyType = cert.P521 }, "makes no P-521 keys"},
		"no key type":          {name, func(o *yubikey.GenerateOptions) { o.KeyType = "" }, "choose P-256"},
		"RSA-3072 before 5.7":  {name, func(o *yubikey.GenerateOptions) { o.KeyType = cert.RSA3072 }, "5.7.0 is needed"},
		"Ed25519 before 5.7":   {name, func(o *yubikey.GenerateOptions) { o.KeyType = cert.Ed25519 }, "firmware 5.4.3"},
		"a fingerprint":        {name, func(o *yubikey.GenerateOptions) { o.PINPolicy = yubikey.PINMatchOnce }, "match-once"},
		"an unknown touch":     {name, func(o *yubikey.GenerateOptions) { o.TouchPolicy = 9 }, "TouchPolicy(9)"},
		"no PIN":               {name, func(o *yubikey.GenerateOptions) { o.PIN = nil }, "wants its PIN"},
		"wrong management key": {name, func(o *yubikey.GenerateOptions) { o.ManagementKey = bytes.Repeat([]byte{7}, 24) }, "management key"},
		"short management key": {name, func(o *yubikey.GenerateOptions) { o.ManagementKey = []byte{1} }, "management key"},
		"wrong PIN":            {name, func(o *yubikey.GenerateOptions) { o.PIN = pin("000000").ask }, "2 tries left"},
		"firmware 4":           {uri(infineon, yubikey.Signature), func(*yubikey.GenerateOptions) {}, "5.0.0 is needed"},
	} {
		o := good()
		c.change(&o)
		k, _, err := new(yubikey.Cards).Generate(t.Context(), c.name, o)
		if err == nil {
			k.Close()
			t.Errorf("%s: a key was made", what)
			continue
		}
		t.Run(what, func(t *testing.T) { wants(t, err, c.want) })
	}
	if _, err := new(yubikey.Cards).Open(t.Context(), name, pin(softcard.DefaultPIN).ask); !errors.Is(err, yubikey.ErrNotFound) {
		t.Errorf("after so many refusals, the slot: %v", err)
	}
	generate(t, name, yubikey.GenerateOptions{})
}

// A card whose management key lies under the PIN, as ykman sets it up, needs
// nothing but the PIN.
func TestManagementKeys(t *testing.T) {
	c, secret := second, bytes.Repeat([]byte{9}, 24)
	yk := direct(t, secondPlace)
	defer func() {
		yk := direct(t, secondPlace)
		defer yk.Close()
		if err := yk.SetManagementKey(secret, piv.DefaultManagementKey); err != nil {
			t.Error(err)
		}
		if err := yk.SetMetadata(piv.DefaultManagementKey, &piv.Metadata{}); err != nil {
			t.Error(err)
		}
	}()
	if err := yk.SetManagementKey(piv.DefaultManagementKey, secret); err != nil {
		t.Fatal(err)
	}
	yk.Close()
	_, _, err := new(yubikey.Cards).Generate(t.Context(), empty(c, 0x85), yubikey.GenerateOptions{KeyType: cert.P256, PIN: pin(softcard.DefaultPIN).ask})
	wants(t, err, "management key")
	generate(t, empty(c, 0x85), yubikey.GenerateOptions{ManagementKey: secret})
	// Without a PIN, since the key wants none.
	k, _, err := new(yubikey.Cards).Generate(t.Context(), empty(c, 0x86), yubikey.GenerateOptions{KeyType: cert.P256, ManagementKey: secret, PINPolicy: yubikey.PINNever})
	if err != nil {
		t.Fatal(err)
	}
	k.Close()

	yk = direct(t, secondPlace)
	if err := yk.SetMetadata(secret, &piv.Metadata{ManagementKey: &secret}); err != nil {
		t.Fatal(err)
	}
	yk.Close()
	generate(t, empty(c, 0x87), yubikey.GenerateOptions{})
}
