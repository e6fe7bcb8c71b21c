//go:build linux && pcsc && cgo

package place_test

import (
	"context"
	"crypto"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/login/place"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard/reader"
)

func pin(context.Context) ([]byte, error) { return []byte(softcard.DefaultPIN), nil }

// readers are those of a pcscd of the tests' own, also where a test runs several
// times.
var readers *reader.Reader

func TestMain(m *testing.M) { reader.Main(m, 1, &readers) }

// device is a person's key, made in a card that is new.
func device(t *testing.T) (o place.Options, public crypto.PublicKey, pull func()) {
	t.Helper()
	name, value, _ := strings.Cut(readers.Env()[0], "=")
	t.Setenv(name, value)
	card, err := softcard.New(softcard.Options{Serial: 12345678})
	if err != nil {
		t.Fatal(err)
	}
	if err := readers.Insert(0, card); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { readers.Remove(0) }) // where the test hasn't
	o = home(t)
	o.Slot = place.Slot{Cards: new(yubikey.Cards), URI: "yubikey:serial=12345678;slot=9a", Set: yubikey.SetOptions{PIN: pin}}
	k, _, err := o.Slot.Cards.Generate(t.Context(), o.Slot.URI, yubikey.GenerateOptions{KeyType: cert.P256, PIN: pin, TouchPolicy: yubikey.TouchAlways})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	return o, k.Public(), func() {
		if err := readers.Remove(0); err != nil {
			t.Fatal(err)
		}
	}
}

// A certificate goes into the slot, where OpenSC and Yubico's module find it
// and sign with its key, and what was there before comes back.
func TestSlot(t *testing.T) {
	o, public, pull := device(t)
	ca, target := newCA(t), named(t, "slot", o)
	before, err := o.Slot.Cards.Certificate(t.Context(), o.Slot.URI)
	if err != nil {
		t.Fatal(err)
	}
	own := func(public crypto.PublicKey) place.Pair {
		p := ca.pair(t, "tls", certified{public})
		p.Key = nil
		return p
	}
	pair := own(public)
	placed := put(t, target, pair)
	message, signature := filepath.Join(o.Home, "message"), filepath.Join(o.Home, "signature")
	write(t, message, "what is signed", 0o600)
	leaf, key := filepath.Join(o.Home, "leaf.der"), filepath.Join(o.Home, "public.pem")
	for _, module := range []string{"opensc-pkcs11.so", "libykcs11.so"} {
		run(t, "pkcs11-tool", "--module", module, "--read-object", "--type", "cert", "--id", "01", "--output-file", leaf)
		if der, err := os.ReadFile(leaf); err != nil || string(der) != string(pair.Chain[0]) {
			t.Errorf("%s shows another certificate: %v", module, err)
		}
		run(t, "pkcs11-tool", "--module", module, "--login", "--pin", softcard.DefaultPIN, "--id", "01", "--sign", "--mechanism", "ECDSA-SHA256",
			"--signature-format", "openssl", "--input-file", message, "--output-file", signature)
		run(t, "openssl", "x509", "-inform", "DER", "-in", leaf, "-noout", "-pubkey", "-out", key)
		run(t, "openssl", "dgst", "-sha256", "-verify", key, "-signature", signature, message)
	}

	// The next login, and the record of the last one.
	next := own(public)
	later := put(t, target, next)
	remove(t, target, placed)
	if now, err := o.Slot.Cards.Certificate(t.Context(), o.Slot.URI); err != nil || string(now.Raw) != string(next.Chain[0]) {
		t.Errorf("the old record removed the new certificate: %v", err)
	}
	again := put(t, target, next)
	if again.Was != nil {
		t.Error("a certificate came before itself")
	}
	remove(t, target, later)
	remove(t, target, later)
	if now, err := o.Slot.Cards.Certificate(t.Context(), o.Slot.URI); err != nil || string(now.Raw) != string(pair.Chain[0]) {
		t.Errorf("what was there before didn't come back: %v", err)
	}
	remove(t, target, placed)
	if now, err := o.Slot.Cards.Certificate(t.Context(), o.Slot.URI); err != nil || !now.Equal(before) {
		t.Errorf("what was there at first didn't come back: %v", err)
	}

	_, err = target.Put(t.Context(), own(newKey(t).Public()))
	wants(t, err, "another key than the certificate is for")
	_, err = target.Put(t.Context(), ca.pair(t, "tls", newKey(t)))
	wants(t, err, "isn't in the device")
	pull()
	_, err = target.Put(t.Context(), pair)
	wants(t, err, "YubiKey 12345678")
	wants(t, target.Remove(t.Context(), placed), "YubiKey 12345678")
}

// certified is a key of which only the public half is here.
type certified struct{ crypto.PublicKey }

func (c certified) Public() crypto.PublicKey { return c.PublicKey }
