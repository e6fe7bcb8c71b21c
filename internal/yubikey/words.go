package yubikey

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/chancery-pki/chancery/internal/cert"
)

// What callers tell apart. The errors that wrap them name the card and say
// what to do.
var (
	// ErrPIN is a PIN that is missing, was refused now or before, or is
	// blocked.
	ErrPIN = errors.New("YubiKey PIN")
	// ErrGone is a card that was pulled or stopped answering: Reopen brings
	// the key back.
	ErrGone = errors.New("YubiKey gone")
	// ErrInput blames what was to be signed, which this kind of token can't:
	// the token is as good as before.
	ErrInput = errors.New("can't be signed")
	// ErrAmbiguous is a URI without serial where several cards are.
	ErrAmbiguous = errors.New("several YubiKeys")
	// ErrNotFound is a card that isn't there, or a slot without a key.
	ErrNotFound = errors.New("no such YubiKey key")
	// ErrAbsent is an ErrNotFound for a card: it may be plugged in later,
	// while a key that isn't in a card that is there won't come by itself.
	ErrAbsent = fmt.Errorf("%w: no such card", ErrNotFound)
)

// Firmware is a version of a YubiKey.
type Firmware struct{ Major, Minor, Patch byte }

// String returns it as in 5.7.1.
func (f Firmware) String() string { return fmt.Sprintf("%d.%d.%d", f.Major, f.Minor, f.Patch) }

// AtLeast reports whether it is that version or a later one.
func (f Firmware) AtLeast(major, minor, patch byte) bool {
	if f.Major != major {
		return f.Major > major
	}
	if f.Minor != minor {
		return f.Minor > minor
	}
	return f.Patch >= patch
}

// PINPolicy says when a key wants the PIN; the values are Yubico's.
type PINPolicy byte

// The PIN policies. The Match ones are a fingerprint's (YubiKey Bio).
const (
	PINNever       PINPolicy = 1
	PINOnce        PINPolicy = 2 // once per session
	PINAlways      PINPolicy = 3 // before every signature
	PINMatchOnce   PINPolicy = 4
	PINMatchAlways PINPolicy = 5
)

// String returns the policy's name: never, once, always, match-once,
// match-always.
func (p PINPolicy) String() string {
	if p < PINNever || p > PINMatchAlways {
		return fmt.Sprintf("PINPolicy(%d)", byte(p))
	}
	return [...]string{"never", "once", "always", "match-once", "match-always"}[p-1]
}

// ParsePINPolicy reads what String returns.
func ParsePINPolicy(name string) (PINPolicy, error) {
	for p := PINNever; p <= PINMatchAlways; p++ {
		if p.String() == name {
			return p, nil
		}
	}
	return 0, fmt.Errorf("PIN policy %q: one of never, once, always, match-once, match-always", name)
}

// TouchPolicy says when a key wants to be touched; the values are Yubico's.
type TouchPolicy byte

// The touch policies.
const (
	TouchNever  TouchPolicy = 1
	TouchAlways TouchPolicy = 2 // for every signature
	TouchCached TouchPolicy = 3 // unless touched within 15 seconds
)

// String returns the policy's name: never, always, cached.
func (p TouchPolicy) String() string {
	if p < TouchNever || p > TouchCached {
		return fmt.Sprintf("TouchPolicy(%d)", byte(p))
	}
	return [...]string{"never", "always", "cached"}[p-1]
}

// ParseTouchPolicy reads what String returns.
func ParseTouchPolicy(name string) (TouchPolicy, error) {
	for p := TouchNever; p <= TouchCached; p++ {
		if p.String() == name {
			return p, nil
		}
	}
	return 0, fmt.Errorf("touch policy %q: one of never, always, cached", name)
}

// Info is a card that is plugged in.
type Info struct {
	Serial   uint32
	Firmware Firmware
	Tries    int // how many wrong PINs it still takes; 0: its PIN is blocked
}

// FormFactor is the shape of a YubiKey, with 0x80 for a FIPS and 0x40 for a
// CSPN model.
type FormFactor byte

// String returns the shape as Yubico calls it, as in "USB-C Nano FIPS".
func (f FormFactor) String() string {
	names := [...]string{"unknown", "USB-A Keychain", "USB-A Nano", "USB-C Keychain", "USB-C Nano", "USB-C/Lightning Keychain", "USB-A Bio", "USB-C Bio"}
	shape := int(f &^ 0xc0)
	if shape >= len(names) {
		return fmt.Sprintf("FormFactor(0x%02x)", byte(f))
	}
	name := names[shape]
	if f&0x80 != 0 {
		name += " FIPS"
	}
	if f&0x40 != 0 {
		name += " CSPN"
	}
	return name
}

// GenerateOptions say what key Cards.Generate makes.
type GenerateOptions struct {
	// KeyType is P-256, P-384 or RSA-2048; from firmware 5.7 also RSA-3072,
	// RSA-4096 and Ed25519.
	KeyType cert.KeyType
	// PIN is asked once, before anything changes on the card; it may be nil
	// for PINNever, unless the card keeps its management key under the PIN.
	// It may block on a person.
	PIN func(context.Context) ([]byte, error)
	// ManagementKey has 16, 24 or 32 bytes. Nil means the one that the card
	// keeps under its PIN, if there is one, else the factory's.
	ManagementKey []byte
	// PINPolicy is PINOnce if zero, TouchPolicy TouchNever: a server has no
	// finger.
	PINPolicy   PINPolicy
	TouchPolicy TouchPolicy
	// Overwrite destroys the key that the slot holds.
	Overwrite bool
}

// SetOptions say with what right Cards.SetCertificate writes.
type SetOptions struct {
	// ManagementKey has 16, 24 or 32 bytes. Nil means the one that the card
	// keeps under its PIN, if there is one, else the factory's.
	ManagementKey []byte
	// PIN is asked only where the management key is under it and it wasn't
	// shown before; nil where there is nobody to ask. It may block on a person.
	PIN func(context.Context) ([]byte, error)
}

// ParseFirmware reads what Firmware.String returns.
func ParseFirmware(text string) (Firmware, error) {
	parts := strings.Split(text, ".")
	var version [3]byte
	if len(parts) != len(version) {
		return Firmware{}, fmt.Errorf("firmware %q: want three numbers as in 5.7.4", text)
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil || strconv.FormatUint(n, 10) != part {
			return Firmware{}, fmt.Errorf("firmware %q: want three numbers of 0 to 255, as in 5.7.4", text)
		}
		version[i] = byte(n)
	}
	return Firmware{version[0], version[1], version[2]}, nil
}

// Within reports whether it lies between two versions, both included.
func (f Firmware) Within(first, last Firmware) bool {
	return f.AtLeast(first.Major, first.Minor, first.Patch) && last.AtLeast(f.Major, f.Minor, f.Patch)
}
