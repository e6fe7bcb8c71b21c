//go:build linux && pcsc && cgo

package yubikey_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard/reader"
)

// The tests' pcscd has a reader for each of these cards, which lie there from
// the first test to the last, and an empty one. libpcsclite knows one pcscd in
// a process's life, so the tests run one after the other. Each takes slots of
// its own, and leaves PIN and management key as they were.
var (
	readers *reader.Reader
	maker   *softcard.Maker
	first   *softcard.Card   // for most tests
	second  *softcard.Card   // to be pulled, blocked and changed
	older   []*softcard.Card // of firmware 5.4.3, 5.2.7, 4.3.5
	slotsTo atomic.Int32     // how many retired slots of the first card were taken
)

// Where the cards lie.
const (
	firstPlace, secondPlace, olderPlace, emptyPlace = 0, 1, 2, 5
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// noPcscd is the environment variable of a process that has no readers.
const noPcscd = "YUBIKEY_TEST_NO_PCSCD"

func run(m *testing.M) (int, error) {
	if os.Getenv(noPcscd) != "" {
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "pcscd") // not t.TempDir: a socket's path is bounded
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if readers, err = reader.Start(dir, emptyPlace+1); err != nil {
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
	var cards []*softcard.Card
	for i, firmware := range [][3]byte{{}, {}, {5, 4, 3}, {5, 2, 7}, {4, 3, 5}} {
		c, err := softcard.New(softcard.Options{Serial: uint32(1001 + 1000*i), Firmware: firmware, Maker: maker})
		if err != nil {
			return 1, err
		}
		cards = append(cards, c)
	}
	first, second, older = cards[firstPlace], cards[secondPlace], cards[olderPlace:]
	if err := all(cards, readers.Insert); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// all does something with some cards and their places at once.
func all(cards []*softcard.Card, do func(place int, c *softcard.Card) error) error {
	errs := make([]error, len(cards))
	var wg sync.WaitGroup
	for i, c := range cards {
		if c != nil {
			wg.Go(func() { errs[i] = do(i, c) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// alone takes all cards but the first out until the test ends.
func alone(t *testing.T) {
	t.Helper()
	others := append([]*softcard.Card{nil, second}, older...)
	if err := all(others, func(place int, _ *softcard.Card) error { return readers.Remove(place) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := all(others, readers.Insert); err != nil {
			t.Error(err)
		}
	})
}

func insert(t *testing.T, place int, c *softcard.Card) {
	t.Helper()
	if err := readers.Insert(place, c); err != nil {
		t.Fatal(err)
	}
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

// vacant returns the URI of the next slot of the first card, emptied. 9c is the
// one that shared takes.
func vacant() string { return empty(first, yubikey.Slot(0x82+(slotsTo.Add(1)-1)%20)) }

// empty empties a slot and returns its URI.
func empty(c *softcard.Card, slot yubikey.Slot) string {
	c.Clear(byte(slot))
	return uri(c, slot)
}

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
