//go:build linux && pcsc && cgo

package yubikey_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-piv/piv-go/v2/piv"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// Every slot that is offered works.
func TestSlots(t *testing.T) {
	c, cards := second, new(yubikey.Cards)
	for _, slot := range []yubikey.Slot{yubikey.Authentication, yubikey.Signature, yubikey.KeyManagement, yubikey.CardAuthentication, 0x82, 0x8f, 0x95} {
		generate(t, empty(c, slot), yubikey.GenerateOptions{})
		k := open(t, cards, uri(c, slot), pin(softcard.DefaultPIN))
		mustSign(t, k)
		if want := "YubiKey 2001 slot " + slot.String(); k.Token() != want {
			t.Errorf("%s, want %s", k.Token(), want)
		}
		k.Close()
	}
}

func TestOpenFindsNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		want error
		text string
	}{
		{"yubikey:serial=5;slot=9c", yubikey.ErrNotFound, "YubiKey 1001"},    // which cards are there
		{uri(first, yubikey.KeyManagement), yubikey.ErrNotFound, "chancery"}, // what to do
		{"yubikey:serial=5", nil, "no slot"},
	} {
		k, err := new(yubikey.Cards).Open(t.Context(), c.name, pin(softcard.DefaultPIN).ask)
		if err == nil {
			k.Close()
		}
		if c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		wants(t, err, c.text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := new(yubikey.Cards).Open(ctx, uri(first, 0x82), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	// All these let go of the card.
	direct(t, firstPlace).Close()
}

// Without pcscd, the message says what is missing. It needs a process that has
// not found one yet.
func TestNoPcscd(t *testing.T) {
	if os.Getenv(noPcscd) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNoPcscd$", "-test.v")
		cmd.Env = append(os.Environ(), noPcscd+"=1", "PCSCLITE_CSOCK_NAME="+filepath.Join(t.TempDir(), "none"))
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestNoPcscd")) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	_, err := new(yubikey.Cards).Open(t.Context(), "yubikey:slot=9c", nil)
	if !errors.Is(err, yubikey.ErrNotFound) {
		t.Errorf("%v", err)
	}
	wants(t, err, "is pcscd installed and running?")
}

// Without a serial number the only card is meant; with several, none is.
func TestSerial(t *testing.T) {
	name := shared(t)
	_, slot, _ := strings.Cut(name, ";")
	cards := new(yubikey.Cards)
	ambiguous := func() {
		t.Helper()
		_, err := cards.Open(t.Context(), "yubikey:"+slot, pin(softcard.DefaultPIN).ask)
		if !errors.Is(err, yubikey.ErrAmbiguous) {
			t.Fatalf("%v", err)
		}
		wants(t, err, "YubiKey 1001", "YubiKey 2001", "YubiKey 5001", "serial=1001")
	}
	ambiguous() // none is open here
	mustSign(t, open(t, cards, name, pin(softcard.DefaultPIN)))
	ambiguous() // one is
	alone(t)
	k, err := cards.Open(t.Context(), "yubikey:"+slot, pin(softcard.DefaultPIN).ask)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	mustSign(t, k)
}

// Several keys of one card share its session and its PIN, and the last one
// lets go of it.
func TestKeysShareACard(t *testing.T) {
	names := []string{shared(t), vacant()}
	generate(t, names[1], yubikey.GenerateOptions{})
	cards, before := new(yubikey.Cards), first.Verifies()
	a := open(t, cards, names[0], pin(softcard.DefaultPIN))
	b := open(t, cards, names[1], pin("isn't asked"))
	same := open(t, cards, names[0], pin("isn't asked"))
	if got := first.Verifies() - before; got != 1 {
		t.Errorf("the PIN was shown %d times, want once", got)
	}
	var wg sync.WaitGroup
	for _, k := range []*yubikey.Key{a, b, same} {
		for range 4 {
			wg.Go(func() {
				for range 5 {
					if err := sign(k); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	a.Close()
	same.Close()
	mustSign(t, b)
	if err := sign(a); err == nil {
		t.Error("a closed key signed")
	}
	if err := a.Reopen(t.Context()); err == nil {
		t.Error("a closed key came back")
	}
	b.Close()
	b.Close() // harmless
	direct(t, firstPlace).Close()
}

// Another program has the card: for a moment that is waited for, else it is
// said.
func TestTakenCard(t *testing.T) {
	name := shared(t)
	other := direct(t, firstPlace)
	_, err := new(yubikey.Cards).Open(t.Context(), name, pin(softcard.DefaultPIN).ask)
	wants(t, err, "in use by another program", "#0 00 00")
	_, err = new(yubikey.Cards).Open(t.Context(), "yubikey:slot=82", pin(softcard.DefaultPIN).ask)
	wants(t, err, "in use")
	time.AfterFunc(200*time.Millisecond, func() { other.Close() })
	mustSign(t, open(t, new(yubikey.Cards), name, pin(softcard.DefaultPIN)))
}

// A caller's mistake is told before the card sees it, and costs no session.
func TestSignRefuses(t *testing.T) {
	digest := make([]byte, 32)
	for typ, k := range openTypes(t) {
		for what, c := range map[string]struct {
			digest []byte
			opts   crypto.SignerOpts
			only   string
		}{
			"nothing":                {nil, crypto.Hash(0), ""},
			"a digest cut short":     {digest[:31], crypto.SHA256, ""},
			"another hash's digest":  {digest, crypto.SHA384, ""},
			"no hash":                {digest, crypto.Hash(0), "RSA-2048"},
			"MD5":                    {digest[:16], crypto.MD5, "RSA-2048"},
			"a digest":               {digest, crypto.SHA256, "Ed25519"},
			"more than a card holds": {make([]byte, 3001), crypto.Hash(0), "Ed25519"},
		} {
			if c.only != "" && c.only != typ {
				continue
			}
			if _, err := k.Sign(rand.Reader, c.digest, c.opts); !errors.Is(err, yubikey.ErrInput) || errors.Is(err, yubikey.ErrGone) {
				t.Errorf("%s, %s: %v", typ, what, err)
			}
		}
		mustSign(t, k)
	}
}

func openTypes(t *testing.T) map[string]*yubikey.Key {
	t.Helper()
	names := map[string]string{"P-256": shared(t), "RSA-2048": vacant(), "Ed25519": vacant()}
	for typ, name := range names {
		if typ != "P-256" {
			generate(t, name, yubikey.GenerateOptions{KeyType: cert.KeyType(typ)})
		}
	}
	keys, cards := map[string]*yubikey.Key{}, new(yubikey.Cards)
	for typ, name := range names {
		keys[typ] = open(t, cards, name, pin(softcard.DefaultPIN))
	}
	return keys
}

// A card that is pulled, idle or at work, fails at once; it comes back in any
// reader, with its key and its PIN.
func TestPulledCard(t *testing.T) {
	c, name := second, empty(second, 0x88)
	generate(t, name, yubikey.GenerateOptions{})
	source, cards := pin(softcard.DefaultPIN), new(yubikey.Cards)
	k, steady := open(t, cards, name, source), open(t, cards, shared(t), pin(softcard.DefaultPIN))

	t.Cleanup(func() {
		if !t.Failed() {
			return // it lies where it belongs
		}
		readers.Remove(emptyPlace)
		readers.Remove(secondPlace)
		c.SetDelay(0)
		insert(t, secondPlace, c)
	})
	for _, k := range []*yubikey.Key{k, steady} {
		if err := k.Probe(); err != nil {
			t.Errorf("asked while it is there: %v", err)
		}
	}
	c.SetDelay(time.Hour)
	time.AfterFunc(100*time.Millisecond, func() { readers.Pull(secondPlace) })
	start := time.Now()
	gone(t, sign(k), "YubiKey 2001")
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("a card pulled at work was noticed after %v", took)
	}
	gone(t, sign(k))
	gone(t, k.Probe(), "YubiKey 2001")
	mustSign(t, steady) // the other card doesn't mind
	if err := k.Reopen(t.Context()); !errors.Is(err, yubikey.ErrNotFound) {
		t.Errorf("without the card: %v", err)
	}
	if k.Public() == nil {
		t.Error("the public key went with the card")
	}

	c.SetDelay(0)
	insert(t, emptyPlace, c)
	gone(t, sign(k)) // nobody reopened it
	reopen(t, k)
	if source.asked != 2 {
		t.Errorf("the PIN was asked %d times, want once per session", source.asked)
	}
	if err := k.Reopen(t.Context()); err != nil || source.asked != 2 {
		t.Errorf("reopened while there: %v, PIN asked %d times", err, source.asked)
	}

	// Idle, and back before anybody looked.
	remove(t, emptyPlace)
	insert(t, secondPlace, c)
	gone(t, sign(k))
	reopen(t, k)
	mustSign(t, steady)
}

func reopen(t *testing.T, k *yubikey.Key) {
	t.Helper()
	if err := k.Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustSign(t, k)
}

// lose makes a session end as if the card were gone.
func lose(t *testing.T, c *softcard.Card, k *yubikey.Key) {
	t.Helper()
	c.SetFault(func([]byte) []byte { return []byte{0} }) // no answer has one byte
	gone(t, sign(k))
	c.SetFault(nil)
}

func gone(t *testing.T, err error, texts ...string) {
	t.Helper()
	if !errors.Is(err, yubikey.ErrGone) {
		t.Fatalf("%v, want ErrGone", err)
	}
	wants(t, err, texts...)
}

// What comes back isn't what left.
func TestReopenIsCareful(t *testing.T) {
	c, name := second, empty(second, 0x89)
	generate(t, name, yubikey.GenerateOptions{})
	defer c.SetPIN(softcard.DefaultPIN)
	source := pin(softcard.DefaultPIN, softcard.DefaultPIN, softcard.DefaultPIN, "654321")
	k := open(t, new(yubikey.Cards), name, source)

	// The PIN was changed elsewhere: one try for the old one, however often
	// it is reopened, then the new one.
	lose(t, c, k)
	if err := c.SetPIN("654321"); err != nil {
		t.Fatal(err)
	}
	before := c.Verifies()
	for range 2 {
		if err := k.Reopen(t.Context()); !errors.Is(err, yubikey.ErrPIN) {
			t.Fatalf("with the old PIN: %v", err)
		}
	}
	if got := c.Verifies() - before; got != 1 || c.Tries() != 2 {
		t.Errorf("the old PIN was shown %d times, %d tries left", got, c.Tries())
	}
	reopen(t, k)

	// Another key in the slot.
	lose(t, c, k)
	generate(t, name, yubikey.GenerateOptions{Overwrite: true, PIN: pin("654321").ask})
	wants(t, k.Reopen(t.Context()), "another key")

	// Other cards in the readers, and not this one: none sees its PIN.
	shown := func() (n int) {
		for _, c := range append([]*softcard.Card{first}, older...) {
			n += c.Verifies()
		}
		return n
	}
	before = shown()
	remove(t, secondPlace)
	defer insert(t, secondPlace, c)
	if err := k.Reopen(t.Context()); !errors.Is(err, yubikey.ErrNotFound) {
		t.Errorf("with other cards: %v", err)
	}
	if shown() != before {
		t.Error("a PIN was shown to another card")
	}
}

// A card that answers nonsense is taken for gone; one that refuses is not.
func TestFaultyCard(t *testing.T) {
	name := shared(t)
	k := open(t, new(yubikey.Cards), name, pin(softcard.DefaultPIN))
	defer first.SetFault(nil)
	for _, c := range []struct {
		what   string
		answer []byte
		gone   bool
	}{
		{"a status word", []byte{0x6f, 0x00}, false},
		{"no touch, no PIN", []byte{0x69, 0x82}, false},
		{"nothing signed", []byte{0x90, 0x00}, true},
		{"a template cut short", []byte{0x7c, 0x20, 0x82, 0x90, 0x00}, true},
	} {
		first.SetFault(func(cmd []byte) []byte {
			if cmd[1] == 0x87 { // GENERAL AUTHENTICATE
				return c.answer
			}
			return nil
		})
		err := sign(k)
		if err == nil || errors.Is(err, yubikey.ErrGone) != c.gone {
			t.Errorf("%s: %v", c.what, err)
		}
		first.SetFault(nil)
		if err := k.Reopen(t.Context()); err != nil {
			t.Fatalf("after %s: %v", c.what, err)
		}
		mustSign(t, k)
	}
}

// Cards work side by side.
func TestCardsInParallel(t *testing.T) {
	other := empty(second, 0x8a)
	generate(t, other, yubikey.GenerateOptions{})
	cards := new(yubikey.Cards)
	a, b := open(t, cards, shared(t), pin(softcard.DefaultPIN)), open(t, cards, other, pin(softcard.DefaultPIN))
	first.SetDelay(700 * time.Millisecond)
	defer first.SetDelay(0)
	before, done := first.Signatures(), make(chan error, 1)
	go func() { done <- sign(a) }()
	for first.Signatures() == before {
		time.Sleep(time.Millisecond)
	}
	mustSign(t, b) // while the other is at it
	select {
	case err := <-done:
		t.Errorf("the second card waited for the first (%v)", err)
	default:
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if a.Parallel() != 1 {
		t.Errorf("parallel %d", a.Parallel())
	}
}

// Closing doesn't wait for ever for a card that hangs; its session ends when it
// answers after all.
func TestCloseHungCard(t *testing.T) {
	c, name := second, empty(second, 0x8b)
	generate(t, name, yubikey.GenerateOptions{})
	cards := new(yubikey.Cards)
	k, err := cards.Open(t.Context(), name, pin(softcard.DefaultPIN).ask)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDelay(1500 * time.Millisecond)
	defer c.SetDelay(0)
	before, done := c.Signatures(), make(chan error)
	go func() { done <- sign(k) }()
	for c.Signatures() == before {
		time.Sleep(time.Millisecond)
	}
	c.SetDelay(0)
	wants(t, k.Close(), "YubiKey 2001", "still busy")
	if err := <-done; err != nil {
		t.Errorf("the signature under way: %v", err)
	}
	mustSign(t, open(t, new(yubikey.Cards), name, pin(softcard.DefaultPIN))) // which waits a moment for it
}

// Nobody touches: the message says that this is it.
func TestTouch(t *testing.T) {
	name := vacant()
	generate(t, name, yubikey.GenerateOptions{TouchPolicy: yubikey.TouchAlways})
	k := open(t, new(yubikey.Cards), name, pin(softcard.DefaultPIN))
	mustSign(t, k)
	first.SetTouched(false)
	defer first.SetTouched(true)
	before := first.Verifies()
	wants(t, sign(k), "nobody touched it")
	if first.Verifies() != before {
		t.Error("the PIN was shown again for want of a touch")
	}
}

// Older firmware tells less, and keys that were brought in aren't attested.
func TestOlderFirmware(t *testing.T) {
	for i, c := range older[1:] {
		yk, serial := direct(t, olderPlace+1+i), c.Serial()
		made, err := yk.GenerateKey(piv.DefaultManagementKey, piv.SlotSignature, piv.Key{Algorithm: piv.AlgorithmEC256, PINPolicy: piv.PINPolicyOnce, TouchPolicy: piv.TouchPolicyNever})
		if err != nil {
			t.Fatal(err)
		}
		brought := ecKey(t)
		if err := yk.SetPrivateKeyInsecure(piv.DefaultManagementKey, piv.SlotAuthentication, brought, piv.Key{Algorithm: piv.AlgorithmEC256, PINPolicy: piv.PINPolicyAlways, TouchPolicy: piv.TouchPolicyNever}); err != nil {
			t.Fatal(err)
		}
		label := issue(t, ca("brought in"), nil, brought).cert
		if err := yk.SetCertificate(piv.DefaultManagementKey, piv.SlotAuthentication, label); err != nil {
			t.Fatal(err)
		}
		yk.Close()

		cards, before := new(yubikey.Cards), c.Verifies()
		k := open(t, cards, uri(c, yubikey.Signature), pin(softcard.DefaultPIN))
		if e, ok := made.(interface{ Equal(crypto.PublicKey) bool }); !ok || !e.Equal(k.Public()) {
			t.Errorf("YubiKey %d: another key than was made", serial)
		}
		mustSign(t, k)
		mustSign(t, k)
		if got := c.Verifies() - before; got != 1 {
			t.Errorf("YubiKey %d: policy once, and the PIN was shown %d times", serial, got)
		}
		imported := open(t, cards, uri(c, yubikey.Authentication), pin(softcard.DefaultPIN))
		if e := imported.Public().(interface{ Equal(crypto.PublicKey) bool }); !e.Equal(brought.Public()) {
			t.Errorf("YubiKey %d: another key than was brought in", serial)
		}
		mustSign(t, imported)
		mustSign(t, imported)
		if _, err := cards.Open(t.Context(), uri(c, 0x82), pin(softcard.DefaultPIN).ask); !errors.Is(err, yubikey.ErrNotFound) {
			t.Errorf("YubiKey %d: an empty slot: %v", serial, err)
		}
	}
}
