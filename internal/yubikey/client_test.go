//go:build linux && pcsc && cgo

package yubikey_test

import (
	"crypto/ecdsa"
	"errors"
	"slices"
	"testing"

	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// List tells every card that is plugged in, also one that has a session here,
// and leaves all to other programs.
func TestList(t *testing.T) {
	cards := new(yubikey.Cards)
	k := open(t, cards, shared(t), pin(softcard.DefaultPIN))
	for range 2 {
		all, err := cards.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != 2+len(older) {
			t.Fatalf("%v", all)
		}
		for i, c := range append([]*softcard.Card{first, second}, older...) {
			if all[i].Serial != c.Serial() || all[i].Tries != 3 {
				t.Errorf("%v, want %d", all[i], c.Serial())
			}
		}
		if got := all[len(all)-1].Firmware.String(); got != "4.3.5" {
			t.Errorf("firmware %s", got)
		}
	}
	mustSign(t, k)
	// Another program sees all but the one that is held here.
	all, err := new(yubikey.Cards).List(t.Context())
	if err != nil || len(all) != 1+len(older) || slices.ContainsFunc(all, func(i yubikey.Info) bool { return i.Serial == first.Serial() }) {
		t.Errorf("%v, %v", all, err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if all, err := new(yubikey.Cards).List(t.Context()); err != nil || len(all) != 2+len(older) {
		t.Errorf("%v, %v", all, err)
	}
}

// What is in the way is said.
func TestListNothing(t *testing.T) {
	alone(t)
	k := open(t, new(yubikey.Cards), shared(t), pin(softcard.DefaultPIN))
	_, err := new(yubikey.Cards).List(t.Context())
	wants(t, err, "in use by another program")
	if !errors.Is(err, yubikey.ErrAbsent) {
		t.Error(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	remove(t, firstPlace)
	_, err = new(yubikey.Cards).List(t.Context())
	insert(t, firstPlace, first)
	wants(t, err, "no YubiKey in the readers", "plug it in")
}

// A statement is for the asking: no PIN, no touch, no signature by the key.
func TestAttest(t *testing.T) {
	name := vacant()
	want := generate(t, name, yubikey.GenerateOptions{TouchPolicy: yubikey.TouchAlways, PINPolicy: yubikey.PINAlways})
	signed, shown := first.Signatures(), first.Verifies()
	cards := new(yubikey.Cards)
	for range 2 {
		a, public, err := cards.Attest(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if k, ok := public.(*ecdsa.PublicKey); !ok || !k.Equal(want.Statement.PublicKey) {
			t.Error("another key")
		}
		if a.Serial != first.Serial() || a.TouchPolicy != yubikey.TouchAlways || a.PINPolicy != yubikey.PINAlways || a.Slot != want.Slot {
			t.Errorf("%+v", a)
		}
	}
	if first.Signatures() != signed || first.Verifies() != shown {
		t.Errorf("%d signatures, %d PINs", first.Signatures()-signed, first.Verifies()-shown)
	}
	_, _, err := cards.Attest(t.Context(), vacant())
	wants(t, err, "no key in slot", "chancery devices enroll")
	if !errors.Is(err, yubikey.ErrNotFound) {
		t.Error(err)
	}
	_, _, err = cards.Attest(t.Context(), "yubikey:serial=99;slot=9a")
	if !errors.Is(err, yubikey.ErrAbsent) {
		t.Error(err)
	}
	_, _, err = cards.Attest(t.Context(), "yubikey:slot=99")
	wants(t, err, "slot")
}

// A person may spend the last try, which a service never does.
func TestPersonsLastTry(t *testing.T) {
	name := uri(second, yubikey.Authentication)
	generate(t, name, yubikey.GenerateOptions{Overwrite: true})
	t.Cleanup(func() {
		if err := second.SetPIN(softcard.DefaultPIN); err != nil {
			t.Error(err)
		}
	})
	for i, want := range []string{"2 tries left before it blocks", "1 try left before it blocks"} {
		_, err := (&yubikey.Cards{Person: true}).Open(t.Context(), name, pin("111111").ask)
		wants(t, err, want)
		if second.Tries() != 2-i {
			t.Errorf("%d tries", second.Tries())
		}
	}
	k, err := (&yubikey.Cards{Person: true}).Open(t.Context(), name, pin(softcard.DefaultPIN).ask)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err = (&yubikey.Cards{Person: true}).Open(t.Context(), name, pin("111111").ask)
		wants(t, err, "left before it blocks")
	}
	_, err = new(yubikey.Cards).Open(t.Context(), name, pin(softcard.DefaultPIN).ask)
	wants(t, err, "isn't risked")
	_, err = (&yubikey.Cards{Person: true}).Open(t.Context(), name, pin("111111").ask)
	wants(t, err, "has blocked it", "unblock-pin")
}
