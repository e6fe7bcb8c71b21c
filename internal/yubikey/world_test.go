//go:build pcsc && cgo

package yubikey_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard/reader"
)

// The tests' pcscd has three readers. In the first lies one card from the
// first test to the last, of which each test takes slots of its own; the
// others are empty where a test begins. libpcsclite knows one pcscd in a
// process's life, so the tests run one after the other.
var (
	readers  *reader.Reader
	maker    *softcard.Maker
	first    *softcard.Card
	slotsTo  atomic.Int32 // how many retired slots of the first card are taken
	shortDir string       // of pcscd: a socket's path is bounded
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	var err error
	if shortDir, err = os.MkdirTemp("", "pcscd"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(shortDir)
	if readers, err = reader.Start(shortDir, 3); err != nil {
		return 1, err
	}
	defer readers.Close()
	name, value, _ := strings.Cut(readers.Env()[0], "=")
	if err := os.Setenv(name, value); err != nil {
		return 1, err
	}
	if maker, err = softcard.NewMaker(); err != nil {
		return 1, err
	}
	if first, err = softcard.New(softcard.Options{Serial: 1001, Maker: maker}); err != nil {
		return 1, err
	}
	if err := readers.Insert(0, first); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// newCard makes a card and puts it into a reader until the test ends.
func newCard(t *testing.T, place int, o softcard.Options) *softcard.Card {
	t.Helper()
	o.Maker = maker
	c, err := softcard.New(o)
	if err != nil {
		t.Fatal(err)
	}
	insert(t, place, c)
	return c
}

func insert(t *testing.T, place int, c *softcard.Card) {
	t.Helper()
	if err := readers.Insert(place, c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, place) })
}

func remove(t *testing.T, place int) {
	t.Helper()
	if err := readers.Remove(place); err != nil {
		t.Error(err)
	}
}

// uri names a slot of a card.
func uri(c *softcard.Card, slot yubikey.Slot) string {
	return yubikey.URI{Serial: c.Serial(), Slot: slot}.String()
}

// vacant returns the URI of a slot of the first card that no test used. 9c is
// the one that shared takes.
func vacant() string { return uri(first, yubikey.Slot(0x81+slotsTo.Add(1))) }

// shared returns the URI of a key on the first card for all tests that only
// use it: P-256, PIN once, no touch.
func shared(t *testing.T) string {
	t.Helper()
	name := uri(first, yubikey.Signature)
	o := yubikey.GenerateOptions{KeyType: cert.P256, PIN: pin(softcard.DefaultPIN).ask}
	k, _, err := new(yubikey.Cards).Generate(t.Context(), name, o)
	if err == nil {
		k.Close()
	} else if !strings.Contains(err.Error(), "already") {
		t.Fatal(err)
	}
	return name
}

// pins is a source that gives these PINs, one after the other, the last one
// ever after, and counts.
type pins struct {
	give  []string
	asked int
}

func (p *pins) ask(context.Context) ([]byte, error) {
	pin := p.give[min(p.asked, len(p.give)-1)]
	p.asked++
	return []byte(pin), nil
}

func pin(give ...string) *pins { return &pins{give: give} }

// generate makes a key in a fresh view of the cards, and closes it.
func generate(t *testing.T, uri string, o yubikey.GenerateOptions) *yubikey.Attestation {
	t.Helper()
	if o.KeyType == "" {
		o.KeyType = cert.P256
	}
	if o.PIN == nil {
		o.PIN = pin(softcard.DefaultPIN).ask
	}
	k, a, err := new(yubikey.Cards).Generate(t.Context(), uri, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	return a
}

// open opens a key until the test ends.
func open(t *testing.T, cards *yubikey.Cards, uri string, p *pins) *yubikey.Key {
	t.Helper()
	k, err := cards.Open(t.Context(), uri, p.ask)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// sign makes a signature and verifies it.
func sign(k *yubikey.Key) error {
	message := []byte(rand.Text())
	digest := sha256.Sum256(message)
	in, opts := digest[:], crypto.SignerOpts(crypto.SHA256)
	if _, ok := k.Public().(ed25519.PublicKey); ok {
		in, opts = message, crypto.Hash(0)
	}
	sig, err := k.Sign(rand.Reader, in, opts)
	if err != nil {
		return err
	}
	ok := false
	switch public := k.Public().(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(public, in, sig)
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(public, crypto.SHA256, in, sig) == nil
	case ed25519.PublicKey:
		ok = ed25519.Verify(public, in, sig)
	}
	if !ok {
		return fmt.Errorf("%T: the signature doesn't verify", k.Public())
	}
	return nil
}

// mustSign ends the test where no signature comes.
func mustSign(t *testing.T, k *yubikey.Key) {
	t.Helper()
	if err := sign(k); err != nil {
		t.Fatal(err)
	}
}

// wants checks that an error says all of this.
func wants(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%v\nwants %q", err, text)
		}
	}
}
