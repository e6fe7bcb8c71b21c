package softcard

import (
	"bytes"
	"crypto/subtle"
)

// secret is a PIN or PUK: eight bytes, filled up with FF.
type secret struct {
	value      [8]byte
	tries, max int
}

func newSecret(text string, tries int) secret {
	s := secret{tries: tries, max: tries}
	copy(s.value[:], bytes.Repeat([]byte{0xff}, 8))
	copy(s.value[:], text)
	return s
}

// check compares, and counts what is wrong.
func (s *secret) check(given []byte) uint16 {
	if s.tries == 0 {
		return swBlocked
	}
	if subtle.ConstantTimeCompare(s.value[:], given) == 1 {
		s.tries = s.max
		return swOK
	}
	s.tries--
	return s.wrong()
}

// wrong is the status word that tells the tries left: one digit.
func (s *secret) wrong() uint16 {
	if s.tries == 0 {
		return swBlocked
	}
	return swWrongPIN | uint16(min(s.tries, 15))
}

// verify is VERIFY (SP 800-73-4 part 2 section 3.2.1).
func (c *Card) verify(cmd command) uint16 {
	s := &c.now
	switch {
	case cmd.p2 != referencePIN:
		return swNoReference
	case cmd.p1 == 0xff && len(cmd.data) == 0:
		s.verified = false
		return swOK
	case cmd.p1 != 0:
		return swParameters
	case len(cmd.data) == 0 && s.verified:
		return swOK
	case len(cmd.data) == 0:
		return c.pin.wrong()
	case len(cmd.data) != 8:
		return swData
	}
	c.behaviour.verifies++
	sw := c.pin.check(cmd.data)
	s.verified = sw == swOK
	s.fresh = s.verified
	return sw
}

// change is CHANGE REFERENCE DATA (section 3.2.2): old and new in one.
func (c *Card) change(cmd command) uint16 {
	target := &c.pin
	switch {
	case cmd.p2 == referencePUK:
		target = &c.puk
	case cmd.p2 != referencePIN:
		return swNoReference
	}
	if len(cmd.data) != 16 {
		return swData
	}
	sw := target.check(cmd.data[:8])
	if sw == swOK {
		copy(target.value[:], cmd.data[8:])
	}
	return sw
}

// unblock is RESET RETRY COUNTER (section 3.2.3): PUK and new PIN.
func (c *Card) unblock(cmd command) uint16 {
	if cmd.p2 != referencePIN {
		return swNoReference
	}
	if len(cmd.data) != 16 {
		return swData
	}
	sw := c.puk.check(cmd.data[:8])
	if sw == swOK {
		copy(c.pin.value[:], cmd.data[8:])
		c.pin.tries = c.pin.max
	}
	return sw
}

// setTries is Yubico's: it sets PIN and PUK back to the factory's, too.
func (c *Card) setTries(cmd command) uint16 {
	if !c.now.managed || !c.now.verified {
		return swSecurity
	}
	if cmd.p1 == 0 || cmd.p2 == 0 {
		return swParameters
	}
	c.pin, c.puk = newSecret(DefaultPIN, int(cmd.p1)), newSecret(DefaultPUK, int(cmd.p2))
	return swOK
}

// reset is Yubico's: everything goes, once PIN and PUK are blocked.
func (c *Card) reset() uint16 {
	if c.pin.tries > 0 || c.puk.tries > 0 {
		return swConditions
	}
	c.factory()
	c.now.app = appPIV
	return swOK
}

// SetPIN gives the card a PIN of 1 to 8 bytes, as somebody with another
// program does, and all its tries.
func (c *Card) SetPIN(pin string) error {
	if len(pin) == 0 || len(pin) > 8 {
		return errShort
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pin = newSecret(pin, c.pin.max)
	return nil
}
