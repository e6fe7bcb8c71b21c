//go:build linux && pcsc && cgo

package yubikey_test

import (
	"context"
	"errors"
	"os/exec"
	"testing"

	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// How often the card sees the PIN for one opening and three signatures.
func TestPINPolicies(t *testing.T) {
	for _, c := range []struct {
		policy yubikey.PINPolicy
		asked  int // of the source
		shown  int // to the card
	}{
		{yubikey.PINNever, 0, 0},
		{yubikey.PINOnce, 1, 1},
		{yubikey.PINAlways, 1, 4},
	} {
		t.Run(c.policy.String(), func(t *testing.T) {
			name := vacant()
			generate(t, name, yubikey.GenerateOptions{PINPolicy: c.policy})
			before, source := first.Verifies(), pin(softcard.DefaultPIN)
			k := open(t, new(yubikey.Cards), name, source)
			for range 3 {
				mustSign(t, k)
			}
			if got := first.Verifies() - before; got != c.shown || source.asked != c.asked {
				t.Errorf("asked %d times, shown %d times; want %d and %d", source.asked, got, c.asked, c.shown)
			}
		})
	}
}

// A key without PIN needs no source; one with PIN says so.
func TestNoPINSource(t *testing.T) {
	never, once := vacant(), shared(t)
	generate(t, never, yubikey.GenerateOptions{PINPolicy: yubikey.PINNever})
	cards := new(yubikey.Cards)
	k, err := cards.Open(t.Context(), never, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	mustSign(t, k)
	if _, err := cards.Open(t.Context(), once, nil); !errors.Is(err, yubikey.ErrPIN) {
		t.Errorf("%v", err)
	}
	lost := errors.New("no such file")
	_, err = cards.Open(t.Context(), once, func(context.Context) ([]byte, error) { return nil, lost })
	if !errors.Is(err, lost) || !errors.Is(err, yubikey.ErrPIN) {
		t.Errorf("%v", err)
	}
}

// A wrong PIN costs one try, however often somebody asks, and the last try is
// never taken.
func TestWrongPIN(t *testing.T) {
	c, name := second, empty(second, 0x90)
	generate(t, name, yubikey.GenerateOptions{})
	defer c.SetPIN(softcard.DefaultPIN)
	before := c.Verifies()
	shown := func(want, left int) {
		t.Helper()
		if got := c.Verifies() - before; got != want || c.Tries() != left {
			t.Fatalf("shown %d times, %d tries left; want %d and %d", got, c.Tries(), want, left)
		}
	}
	fails := func(cards *yubikey.Cards, p string, texts ...string) {
		t.Helper()
		_, err := cards.Open(t.Context(), name, pin(p).ask)
		if !errors.Is(err, yubikey.ErrPIN) {
			t.Fatalf("%v, want ErrPIN", err)
		}
		wants(t, err, append(texts, "YubiKey 2001")...)
	}
	cards := new(yubikey.Cards)
	fails(cards, "111111", "2 tries left")
	shown(1, 2)
	for range 3 {
		fails(cards, "111111", "before")
	}
	fails(cards, "", "not tried")
	fails(cards, "123456789", "not tried")
	shown(1, 2)

	// Another PIN is another try; it may be wrong, too.
	fails(cards, "222222", "1 try left")
	shown(2, 1)
	// Now neither another one, nor the right one, nor a restarted process.
	fails(cards, "333333", "1 try left", "verify-pin")
	fails(cards, softcard.DefaultPIN, "1 try left")
	fails(new(yubikey.Cards), "111111", "1 try left")
	shown(2, 1)

	// What the message says to do helps.
	tool(t, "yubico-piv-tool", "-r", "#1", "-a", "verify-pin", "-P", softcard.DefaultPIN)
	shown(3, 3)
	fails(cards, "111111", "before")
	mustSign(t, open(t, cards, name, pin(softcard.DefaultPIN)))
	shown(4, 3)
}

// tool runs a program that is to succeed, and returns what it said.
func tool(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v (apt-get install yubico-piv-tool ykcs11 opensc openssl)\n%s", name, args, err, out)
	}
	return out
}

func TestBlockedPIN(t *testing.T) {
	c, name := second, empty(second, 0x91)
	generate(t, name, yubikey.GenerateOptions{})
	defer c.SetPIN(softcard.DefaultPIN)
	yk := direct(t, secondPlace)
	for range 3 {
		if err := yk.VerifyPIN("999999"); err == nil {
			t.Fatal("taken")
		}
	}
	yk.Close()
	before := c.Verifies()
	_, err := new(yubikey.Cards).Open(t.Context(), name, pin(softcard.DefaultPIN).ask)
	wants(t, err, "YubiKey 2001", "blocked", "0 tries left", "PUK")
	if !errors.Is(err, yubikey.ErrPIN) || c.Verifies() != before {
		t.Errorf("%v, shown %d times", err, c.Verifies()-before)
	}
}

// The card lost the session's memory: the PIN that it took before is shown
// once more.
func TestForgottenPIN(t *testing.T) {
	k := open(t, new(yubikey.Cards), shared(t), pin(softcard.DefaultPIN))
	mustSign(t, k)
	before := first.Verifies()
	first.Forget()
	mustSign(t, k)
	mustSign(t, k)
	if got := first.Verifies() - before; got != 1 {
		t.Errorf("shown %d times, want once", got)
	}
}

// Somebody changed the PIN while the key was open: one try, not one per
// signature.
func TestPINChangedMeanwhile(t *testing.T) {
	name := vacant()
	generate(t, name, yubikey.GenerateOptions{PINPolicy: yubikey.PINAlways})
	k := open(t, new(yubikey.Cards), name, pin(softcard.DefaultPIN))
	mustSign(t, k)
	if err := first.SetPIN("654321"); err != nil {
		t.Fatal(err)
	}
	defer first.SetPIN(softcard.DefaultPIN)
	before := first.Verifies()
	for range 4 {
		if err := sign(k); !errors.Is(err, yubikey.ErrPIN) {
			t.Fatalf("%v", err)
		}
	}
	if got := first.Verifies() - before; got != 1 || first.Tries() != 2 {
		t.Errorf("shown %d times, %d tries left", got, first.Tries())
	}
}
