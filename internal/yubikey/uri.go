package yubikey

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Slot is a place for a key in the PIV application, by its key reference (NIST
// SP 800-73-4 part 1 table 4b).
type Slot byte

// The slots with a name. 0x82 to 0x95 are those for retired key management
// keys, which sign as well as the others.
const (
	Authentication     Slot = 0x9a
	Signature          Slot = 0x9c
	KeyManagement      Slot = 0x9d
	CardAuthentication Slot = 0x9e
	firstRetired       Slot = 0x82
	lastRetired        Slot = 0x95
)

// ParseSlot reads a slot as two hex digits: 9a, 9c, 9d, 9e, 82 to 95.
func ParseSlot(text string) (Slot, error) {
	n, err := strconv.ParseUint(text, 16, 8)
	if s := Slot(n); err == nil && len(text) == 2 && s.valid() {
		return s, nil
	}
	return 0, fmt.Errorf("slot %q: one of 9a, 9c, 9d, 9e, 82 to 95", text)
}

func (s Slot) valid() bool {
	switch s {
	case Authentication, Signature, KeyManagement, CardAuthentication:
		return true
	}
	return s >= firstRetired && s <= lastRetired
}

// String returns the two hex digits, as in 9c.
func (s Slot) String() string { return fmt.Sprintf("%02x", byte(s)) }

// URI names a key in a card: "yubikey:serial=12345678;slot=9c".
type URI struct {
	Serial uint32 // 0: the only card there
	Slot   Slot
}

// maxURI bounds what ParseURI reads: the longest sensible one has 35 bytes.
const maxURI = 128

// ParseURI reads a key's URI: "yubikey:", then slot and, if more than one card
// may be there, serial, in any order, separated by ";". The form follows RFC
// 7512. Its errors name what is wrong and quote no value of an attribute that
// may be a secret.
func ParseURI(text string) (URI, error) {
	rest, ok := strings.CutPrefix(text, "yubikey:")
	if !ok || len(text) > maxURI {
		return URI{}, errors.New("not a key in a YubiKey: write yubikey:serial=12345678;slot=9c")
	}
	var u URI
	for attr := range strings.SplitSeq(rest, ";") {
		name, value, _ := strings.Cut(attr, "=")
		if err := u.set(name, value); err != nil {
			return URI{}, fmt.Errorf("YubiKey URI: %w", err)
		}
	}
	if u.Slot == 0 {
		return URI{}, errors.New("YubiKey URI: no slot: add slot=9c (9a, 9c, 9d, 9e, 82 to 95)")
	}
	return u, nil
}

// set takes one attribute; none may come twice.
func (u *URI) set(name, value string) error {
	switch {
	case name == "serial" && u.Serial == 0:
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n == 0 || value[0] == '+' {
			return fmt.Errorf("serial %q: the decimal number printed on the card", value)
		}
		u.Serial = uint32(n)
	case name == "slot" && u.Slot == 0:
		s, err := ParseSlot(value)
		if err != nil {
			return err
		}
		u.Slot = s
	case name == "serial", name == "slot":
		return fmt.Errorf("%s comes twice", name)
	case strings.HasPrefix(name, "pin"):
		return fmt.Errorf("%s: a PIN doesn't belong into a URI: put it into a file and name that as pin_file", name)
	default:
		return fmt.Errorf("attribute %q: only serial and slot are known", name)
	}
	return nil
}

// String returns the URI that ParseURI reads back.
func (u URI) String() string {
	if u.Serial == 0 {
		return "yubikey:slot=" + u.Slot.String()
	}
	return fmt.Sprintf("yubikey:serial=%d;slot=%s", u.Serial, u.Slot)
}
