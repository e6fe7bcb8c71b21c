//go:build pcsc && (cgo || windows)

package yubikey

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-piv/piv-go/v2/piv"
)

// card is one YubiKey that this process has a key on, there or away.
type card struct {
	serial uint32
	person bool         // Cards.Person
	users  atomic.Int32 // open keys, and those being opened; at 0 the session ends
	reader string       // where it was seen last; guarded by Cards.mu
	lost   atomic.Int64 // when it stopped answering, in Unix nanoseconds

	mu       sync.Mutex   // one command at a time; guards all below
	yk       *piv.YubiKey // the session; nil: away
	firmware Firmware
	away     error // why there is no session
	verified bool  // the PIN, in this session
	pin      string
	refused  map[[32]byte]bool // SHA-256 of the PINs that the card didn't take
}

func (c *card) String() string { return fmt.Sprintf("YubiKey %d", c.serial) }

// adopt takes a session that was just opened.
func (c *card) adopt(yk *piv.YubiKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(nil)
	v := yk.Version()
	c.yk, c.firmware = yk, Firmware{byte(v.Major), byte(v.Minor), byte(v.Patch)}
}

// drop ends the session; c.mu is held.
func (c *card) drop(why error) {
	if c.yk != nil {
		c.yk.Close() // fails where the card is gone, which is why we are here
	}
	c.yk, c.verified, c.pin, c.away = nil, false, "", why
}

// answers reports whether the card has a session here that works. One that is
// busy works.
func (c *card) answers() bool {
	if !c.mu.TryLock() {
		return true
	}
	defer c.mu.Unlock()
	return c.alive()
}

// alive asks the card for something; c.mu is held.
func (c *card) alive() bool {
	if c.yk == nil {
		return false
	}
	if _, err := c.yk.AttestationCertificate(); transport(err) {
		c.gone(err)
		return false
	}
	return true
}

// release ends one use, and the session with the last. It waits for a command
// under way, but not for ever: a card may hang.
func (c *card) release() error {
	if c.users.Add(-1) > 0 {
		return nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.users.Load() == 0 { // nobody came meanwhile
			c.drop(errors.New("closed"))
		}
	}()
	select {
	case <-done:
		return nil
	case <-time.After(releaseTime):
		return fmt.Errorf("%s: still busy after %v; its session ends when it answers", c, releaseTime)
	}
}

// releaseTime is above what a YubiKey takes for all signatures but those of the
// longest RSA keys.
const releaseTime = time.Second

// status is the card's status word in an error of go-piv, 0 if there is none:
// then the command or its answer got lost.
func status(err error) uint16 {
	var s interface{ Status() uint16 }
	if errors.As(err, &s) {
		return s.Status()
	}
	return 0
}

// transport reports whether the error says that the card doesn't answer, or
// answers nonsense.
func transport(err error) bool {
	if err == nil || status(err) != 0 || errors.Is(err, piv.ErrNotFound) {
		return false
	}
	// What go-piv says of a certificate it can't parse is the card's content.
	return !strings.Contains(err.Error(), "parsing certificate") && !strings.Contains(err.Error(), "unmarshaling")
}

// gone drops the session and says so; c.mu is held.
func (c *card) gone(why error) error {
	c.lost.Store(time.Now().UnixNano())
	c.drop(why)
	return fmt.Errorf("%s: %w: %w", c, ErrGone, why)
}

// failed turns an error of a command into one for people; c.mu is held.
func (c *card) failed(doing string, err error) error {
	if transport(err) {
		return c.gone(err)
	}
	return fmt.Errorf("%s: %s: %w", c, doing, err)
}

// held is what a slot holds.
type held struct {
	public crypto.PublicKey
	pin    PINPolicy
	touch  TouchPolicy
}

// inspect reads a slot; c.mu is held and a session there.
func (c *card) inspect(slot Slot) (held, error) {
	var h held
	var err error
	if c.firmware.AtLeast(5, 3, 0) {
		var info piv.KeyInfo
		info, err = c.yk.KeyInfo(slot.piv())
		h = held{info.PublicKey, PINPolicy(info.PINPolicy), TouchPolicy(info.TouchPolicy)}
	} else {
		h, err = c.inspectOld(slot)
	}
	switch {
	case errors.Is(err, piv.ErrNotFound):
		return held{}, fmt.Errorf("%w: %s holds no key in slot %s: make one with chanceryd key generate 'yubikey:serial=%d;slot=%s', or for a person with chancery devices enroll", ErrNotFound, c, slot, c.serial, slot)
	case err != nil:
		return held{}, c.failed("reading slot "+slot.String(), err)
	}
	return h, nil
}

// inspectOld learns from the attestation, or for a key that was brought in,
// from the slot's certificate. A policy that can't be learnt is taken for the
// strictest, which is right for the others, too.
func (c *card) inspectOld(slot Slot) (held, error) {
	h := held{pin: PINAlways}
	statement, err := c.yk.Attest(slot.piv())
	if err != nil && !transport(err) {
		statement, err = c.yk.Certificate(slot.piv())
	}
	if err != nil {
		return held{}, err
	}
	h.public = statement.PublicKey
	var a Attestation
	for _, e := range statement.Extensions {
		if e.Id.Equal(append(arc[:len(arc):len(arc)], oidPolicies)) && a.extension(oidPolicies, e) == nil {
			h.pin, h.touch = a.PINPolicy, a.TouchPolicy
		}
	}
	return h, nil
}

// login shows the card the PIN that source gives, unless it has seen one in
// this session; c.mu is held and a session there.
func (c *card) login(ctx context.Context, source func(context.Context) ([]byte, error)) error {
	if c.verified {
		return nil
	}
	if source == nil {
		return fmt.Errorf("%w: %s wants its PIN: put it into a file of mode 0600 and name that as pin_file", ErrPIN, c)
	}
	pin, err := source(ctx)
	if err != nil {
		return fmt.Errorf("%w of %d: %w", ErrPIN, c.serial, err)
	}
	defer clear(pin)
	if len(pin) == 0 || len(pin) > 8 {
		return fmt.Errorf("%w: %s takes a PIN of up to 8 bytes, not %d; it was not tried", ErrPIN, c, len(pin))
	}
	if err := c.mayTry(); err != nil {
		return err
	}
	return c.verify(string(pin))
}

// mayTry refuses to spend the last try before the card blocks, since a service
// that is restarted over and over has no memory; c.mu is held.
func (c *card) mayTry() error {
	left, err := c.yk.Retries()
	switch {
	case err != nil && !c.alive():
		return c.gone(err)
	case err != nil: // verified already, so all tries are there
		return nil
	case left == 0:
		return fmt.Errorf("%w: %s has blocked its PIN, 0 tries left: unblock it with the PUK (ykman piv access unblock-pin, or yubico-piv-tool -a unblock-pin)", ErrPIN, c)
	case left == 1 && !c.person:
		return fmt.Errorf("%w: %s has 1 try left, which isn't risked here: show it the right PIN by hand (yubico-piv-tool -a verify-pin), which brings the tries back", ErrPIN, c)
	}
	return nil
}

// verify shows the card a PIN, once in the life of the process if it is wrong;
// c.mu is held and a session there.
func (c *card) verify(pin string) error {
	if pin == "" { // the session's, after the card refused it
		return fmt.Errorf("%w: %s refused the PIN that it had taken before: put the new one into its place", ErrPIN, c)
	}
	sum := sha256.Sum256([]byte(pin))
	if c.refused[sum] {
		return fmt.Errorf("%w: %s refused this PIN before, and it isn't tried again: put the right one into its place", ErrPIN, c)
	}
	err := c.yk.VerifyPIN(pin)
	if err == nil {
		c.verified, c.pin = true, pin
		return nil
	}
	auth, ok := errors.AsType[piv.AuthErr](err)
	if !ok {
		return c.failed("showing the PIN", err)
	}
	c.verified, c.pin, c.refused[sum] = false, "", true
	switch {
	case c.person && auth.Retries == 0:
		return fmt.Errorf("%w: %s refused it and has blocked it, 0 tries left: unblock it with the PUK (ykman piv access unblock-pin)", ErrPIN, c)
	case c.person:
		return fmt.Errorf("%w: %s refused it, %s left before it blocks: try again with the right one", ErrPIN, c, tries(auth.Retries))
	}
	return fmt.Errorf("%w: %s refused it, %s left: it isn't tried again, put the right one into its place", ErrPIN, c, tries(auth.Retries))
}

func tries(n int) string {
	if n == 1 {
		return "1 try"
	}
	return fmt.Sprintf("%d tries", n)
}

// piv returns go-piv's word for the slot.
func (s Slot) piv() piv.Slot {
	switch s {
	case Authentication:
		return piv.SlotAuthentication
	case Signature:
		return piv.SlotSignature
	case KeyManagement:
		return piv.SlotKeyManagement
	case CardAuthentication:
		return piv.SlotCardAuthentication
	}
	retired, _ := piv.RetiredKeyManagementSlot(uint32(s)) // ParseSlot let nothing else through
	return retired
}
