//go:build linux && pcsc && cgo

package login_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/login"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// said has a person type a PIN.
func said(pin string) func(context.Context, string) ([]byte, error) {
	return func(context.Context, string) ([]byte, error) { return []byte(pin), nil }
}

// A wrong PIN is tried once, and says how many tries are left; the last try is
// the person's to spend, and a card that is blocked isn't asked at all.
func TestPIN(t *testing.T) {
	t.Cleanup(func() { check(t, card.SetPIN(softcard.DefaultPIN)) })
	h := newHouse(t, "first")
	for _, want := range []string{"2 tries left", "1 try left", "blocked it, 0 tries left: unblock it with the PUK"} {
		d := newDesk(t, protocol.YubiKey01, h)
		prompt := ""
		d.PIN = func(_ context.Context, p string) ([]byte, error) { prompt = p; return []byte("654321"), nil }
		before := card.Verifies()
		_, err := d.Run(t.Context())
		wants(t, err, want, "YubiKey 1001")
		if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "654321") || card.Verifies() != before+1 {
			t.Errorf("%q after %d tries", err, card.Verifies()-before)
		}
		if last := strings.HasPrefix(want, "blocked"); strings.Contains(prompt, "1 try left before it blocks") != last {
			t.Errorf("prompt %q before %q", prompt, want)
		}
	}
	d := newDesk(t, protocol.YubiKey01, h)
	before := card.Verifies()
	_, err := d.Run(t.Context())
	wants(t, err, "blocked", "ykman piv access unblock-pin")
	if d.pins != 0 || card.Verifies() != before {
		t.Errorf("%d PINs asked for, %d tried", d.pins, card.Verifies()-before)
	}
	check(t, card.SetPIN(softcard.DefaultPIN))
	for pin, want := range map[string]string{"": "0", "123456789": "9"} {
		d.PIN = said(pin)
		_, err := d.Run(t.Context())
		wants(t, err, "up to 8 bytes, not "+want)
	}
	d.PIN = func(context.Context, string) ([]byte, error) { return nil, errors.New("the person went away") }
	_, err = d.Run(t.Context())
	wants(t, err, "the person went away")
	if card.Tries() != 3 {
		t.Errorf("%d tries are left", card.Tries())
	}
	// The card is free for others, whatever happened.
	if _, err := new(yubikey.Cards).List(t.Context()); err != nil {
		t.Error(err)
	}
}

// Without a card, with the wrong one, with two, with an empty slot, and when
// nobody touches it: what to do, in one line, and no PIN asked for where it
// would be for nothing.
func TestCard(t *testing.T) {
	h := newHouse(t, "first")
	d := newDesk(t, protocol.YubiKey01, h)
	d.Device.Serial = 7
	_, err := d.Run(t.Context())
	wants(t, err, "no YubiKey 7", "YubiKey 1001")
	d.Device.Serial, d.Device.Slot = 0, "9c"
	_, err = d.Run(t.Context())
	wants(t, err, "no key in slot 9c", "chancery devices enroll")
	d.Device.Slot = ""

	second, err := softcard.New(softcard.Options{Serial: 2002, Maker: maker})
	check(t, err)
	check(t, readers.Insert(1, second))
	_, err = d.Run(t.Context())
	wants(t, err, "1001, 2002", "--serial")
	d.Device.Serial = 1001
	held, err := d.Run(t.Context())
	if err != nil || len(held) != 2 {
		t.Errorf("%d, %v", len(held), err)
	}
	check(t, readers.Remove(1))
	d.Device.Serial = 0

	card.SetTouched(false)
	_, err = d.Run(t.Context())
	card.SetTouched(true)
	wants(t, err, "nobody touched it")

	check(t, readers.Remove(0))
	pins := d.pins
	_, err = d.Run(t.Context())
	wants(t, err, "no YubiKey in the readers", "plug it in")
	if d.pins != pins {
		t.Error("a PIN was asked for")
	}
	check(t, readers.Insert(0, card))
}

// A key that is pulled while it signs ends the login, in one line. That leaves
// go-piv with a hold on the reader until the process ends, so it gets one.
func TestPulled(t *testing.T) {
	if os.Getenv(pulledAlone) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestPulled$", "-test.v")
		cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "PCSCLITE_") }), pulledAlone+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestPulled") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	d := newDesk(t, protocol.YubiKey01, newHouse(t, "first"))
	card.SetDelay(3 * time.Second)
	tell := d.Tell
	d.Tell = func(line string) {
		tell(line)
		if strings.Contains(line, "touch the key now") {
			time.AfterFunc(300*time.Millisecond, func() { readers.Pull(0) })
		}
	}
	_, err := d.Run(t.Context())
	wants(t, err, "pulled out", "plug it in")
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q", err)
	}
}

// pulledAlone is in the environment of the process that TestPulled is run in.
const pulledAlone = "LOGIN_TEST_PULLED"

// The certificate of the device's key goes beside it into its slot, for any
// program that speaks PKCS#11, and logout puts back what lay there.
func TestSlot(t *testing.T) {
	before, err := new(yubikey.Cards).Certificate(t.Context(), "yubikey:slot=9a")
	check(t, err)
	d := newDesk(t, protocol.YubiKey01, newHouse(t, "first"))
	d.Certificates = d.Certificates[:1]
	d.Certificates[0].Into = []string{"slot", "files"}
	for range 2 {
		held, err := d.Run(t.Context())
		check(t, err)
		now, err := new(yubikey.Cards).Certificate(t.Context(), "yubikey:slot=9a")
		check(t, err)
		if !bytes.Equal(now.Raw, held[0].Certificate) || !strings.HasPrefix(held[0].Where(), "slot, /") {
			t.Errorf("in the slot is a certificate of %v; %s", now.DNSNames, held[0].Where())
		}
	}
	_, err = login.Logout{State: d.State, Places: d.Places, Cards: d.Cards}.Run(t.Context())
	check(t, err)
	after, err := new(yubikey.Cards).Certificate(t.Context(), "yubikey:slot=9a")
	check(t, err)
	if !after.Equal(before) {
		t.Errorf("in the slot is a certificate of %v", after.DNSNames)
	}
	// So it is where another name's was put over it, and then this one again.
	other := d.Login
	other.Certificates = slices.Clone(d.Certificates)
	other.Certificates[0].Name = "other"
	for _, l := range []*login.Login{&d.Login, &other, &d.Login, &other} {
		_, err := l.Run(t.Context())
		check(t, err)
	}
	_, err = login.Logout{State: d.State, Places: d.Places, Cards: d.Cards}.Run(t.Context())
	check(t, err)
	if after, err = new(yubikey.Cards).Certificate(t.Context(), "yubikey:slot=9a"); err != nil || !after.Equal(before) {
		t.Errorf("in the slot is %v, %v", after, err)
	}
	// A card that isn't there keeps its certificate, and logout its record.
	_, err = d.Run(t.Context())
	check(t, err)
	check(t, readers.Remove(0))
	_, err = login.Logout{State: d.State, Places: d.Places, Cards: &yubikey.Cards{}}.Run(t.Context())
	wants(t, err, "tls in slot", "plug it in")
	check(t, readers.Insert(0, card))
	gone, err := login.Logout{State: d.State, Places: d.Places, Cards: &yubikey.Cards{}}.Run(t.Context())
	if err != nil || len(gone) != 1 {
		t.Errorf("%d, %v", len(gone), err)
	}
	d.nothing(t)
}

// What can't be noted nobody would take away: it isn't left.
func TestStateFails(t *testing.T) {
	d := newDesk(t, protocol.YubiKey02, newHouse(t, "first"))
	check(t, os.MkdirAll(filepath.Join(d.State.Dir, "held.json"), 0o700))
	held, err := d.Run(t.Context())
	wants(t, err, "TLS for alice.people.internal: it can't be noted, and was taken away again", "SSH for alice")
	if len(held) > 0 {
		t.Errorf("%d are held", len(held))
	}
	d.nothing(t)
}

// Who gives up needn't wait for the touch that nobody makes, and keeps what came
// before it.
func TestGiveUp(t *testing.T) {
	h := newHouse(t, "first")
	d := newDesk(t, protocol.YubiKey01, h)
	ctx, cancel := context.WithCancel(t.Context())
	const delay = 6 * time.Second
	tell := d.Tell
	d.Tell = func(line string) {
		tell(line)
		if strings.Contains(line, "2 of 2") {
			card.SetDelay(delay)
		}
	}
	h.set(bend{answer: func(kind string, _ http.ResponseWriter, _ *http.Request) bool {
		if kind == "certificate" {
			time.AfterFunc(delay/3, cancel) // by then it has what it fetches now
		}
		return false
	}})
	start := time.Now()
	held, err := d.Run(ctx)
	card.SetDelay(0)
	if !errors.Is(err, context.Canceled) || len(held) != 1 || held[0].Name != "tls" {
		t.Errorf("%d are held, %v", len(held), err)
	}
	for deadline := start.Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // the card is still at it
		if _, err := new(yubikey.Cards).List(t.Context()); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// While a person thinks about the PIN, other programs have the card.
func TestHoldsOnlyWhileSigning(t *testing.T) {
	d := newDesk(t, protocol.YubiKey01, newHouse(t, "first"))
	d.PIN = func(context.Context, string) ([]byte, error) {
		k, err := new(yubikey.Cards).Open(t.Context(), "yubikey:slot=9a", source(softcard.DefaultPIN))
		if err != nil {
			t.Error(err)
			return nil, err
		}
		return []byte(softcard.DefaultPIN), k.Close()
	}
	_, err := d.Run(t.Context())
	check(t, err)
	k, err := new(yubikey.Cards).Open(t.Context(), "yubikey:slot=9a", source(softcard.DefaultPIN))
	check(t, err)
	check(t, k.Close())
}

func source(pin string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return []byte(pin), nil }
}

// Two logins at once: one waits for the other. A state that can't be read, or
// is another version's, is left alone.
func TestState(t *testing.T) {
	h := newHouse(t, "first")
	d := newDesk(t, protocol.YubiKey01, h)
	done := make(chan error, 2)
	for range 2 {
		l := d.Login
		l.Cards = &yubikey.Cards{Person: true}
		go func() { _, err := l.Run(context.WithoutCancel(t.Context())); done <- err }()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if len(look(t, d)) != 2 {
		t.Error("not both")
	}
	for text, want := range map[string]string{"{": "can't be read", `{"version":9}`: "another version"} {
		check(t, os.WriteFile(filepath.Join(d.State.Dir, "held.json"), []byte(text), 0o600))
		_, err := d.State.Look()
		wants(t, err, want)
	}
}
