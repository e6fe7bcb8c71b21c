package softcard

import (
	"bytes"
	"encoding/binary"
)

// application is one of the card's.
type application int

const (
	appNone application = iota
	appPIV
	appManagement
	appOTP
)

// applications by their full identifiers.
var applications = []struct {
	app application
	aid []byte
}{
	{appPIV, []byte{0xa0, 0, 0, 3, 8, 0, 0, 0x10, 0, 1, 0}},
	{appManagement, []byte{0xa0, 0, 0, 5, 0x27, 0x47, 0x11, 0x17}},
	{appOTP, []byte{0xa0, 0, 0, 5, 0x27, 0x20, 1, 1}},
}

// minAID is the shortest part of an identifier that means one application:
// the registered provider's five bytes.
const minAID = 5

// choose is SELECT by name, whole or the beginning of it. It ends what was
// verified.
func (c *Card) choose(cmd command) ([]byte, uint16) {
	if cmd.p1 != 4 {
		return nil, swNotFound // files, which other cards have
	}
	for _, a := range applications {
		if len(cmd.data) < minAID || !bytes.HasPrefix(a.aid, cmd.data) {
			continue
		}
		c.now = session{app: a.app}
		if a.app != appPIV {
			return c.options.Firmware[:], swOK
		}
		// SP 800-73-4 part 2 table 3: identifier, and whose it is.
		return tlv(0x61, append(tlv(0x4f, a.aid[5:]...), tlv(0x79, tlv(0x4f, a.aid[:5]...)...)...)...), swOK
	}
	return nil, swNotFound
}

// other answers for the applications that aren't PIV: what the card is.
func (c *Card) other(cmd command) ([]byte, uint16) {
	serial := binary.BigEndian.AppendUint32(nil, c.options.Serial)
	switch {
	case c.now.app == appOTP && cmd.ins == insOTPSlot && cmd.p1 == otpSlotGetSerial:
		return serial, swOK
	case c.now.app == appManagement && cmd.ins == insReadConfig:
		config := tlv(0x01, 0x02, 0x3f) // what it supports over USB
		config = append(config, tlv(0x02, serial...)...)
		config = append(config, tlv(0x03, 0x02, 0x3f)...)
		config = append(config, tlv(0x04, c.options.FormFactor)...)
		config = append(config, tlv(0x05, c.options.Firmware[:]...)...)
		return append([]byte{byte(len(config))}, config...), swOK
	}
	return nil, swInstruction
}

// The objects that are special (SP 800-73-4 part 1 table 3).
const (
	objectDiscovery   = 0x7e
	objectPrinted     = 0x5fc109 // where ykman keeps a management key under the PIN
	objectFingerprint = 0x5fc103
	objectFace        = 0x5fc108
	objectAttestation = 0x5fff01
)

// discovery says that the PIN alone unlocks the application (part 1 section
// 3.3.2).
var discovery = tlv(0x7e, append(tlv(0x4f, 0xa0, 0, 0, 3, 8, 0, 0, 0x10, 0, 1, 0), tlv(0x5f2f, 0x40, 0)...)...)

// tagList reads the 5C that a data command starts with.
func tagList(data []byte) (object uint32, rest []byte, ok bool) {
	tag, value, rest, ok := next(data)
	if !ok || tag != 0x5c || len(value) < 1 || len(value) > 3 {
		return 0, nil, false
	}
	for _, b := range value {
		object = object<<8 | uint32(b)
	}
	return object, rest, true
}

// getData is GET DATA (part 2 section 3.1.2).
func (c *Card) getData(cmd command) ([]byte, uint16) {
	if cmd.p1 != 0x3f || cmd.p2 != 0xff {
		return nil, swParameters
	}
	object, rest, ok := tagList(cmd.data)
	if !ok || len(rest) != 0 {
		return nil, swData
	}
	switch object {
	case objectDiscovery:
		return discovery, swOK
	case objectPrinted, objectFingerprint, objectFace: // what the PIN protects
		if !c.now.verified {
			return nil, swSecurity
		}
	}
	if b, ok := c.objects[object]; ok {
		return b, swOK
	}
	return nil, swNotFound
}

// putData is PUT DATA (section 3.3.2); an empty object goes away.
func (c *Card) putData(cmd command) uint16 {
	if cmd.p1 != 0x3f || cmd.p2 != 0xff {
		return swParameters
	}
	if !c.now.managed {
		return swSecurity
	}
	object, rest, ok := tagList(cmd.data)
	if !ok {
		return swData
	}
	tag, value, after, ok := next(rest)
	if !ok || tag != 0x53 || len(after) != 0 || object == objectDiscovery {
		return swData
	}
	if len(value) == 0 {
		delete(c.objects, object)
		return swOK
	}
	c.objects[object] = bytes.Clone(rest)
	return swOK
}

// certificates are the objects of the slots' certificates (part 1 table 3).
var certificates = map[byte]uint32{0x9a: 0x5fc105, 0x9c: 0x5fc10a, 0x9d: 0x5fc10b, 0x9e: 0x5fc101}

// Clear empties a slot of its key and its certificate, as somebody with
// another program does.
func (c *Card) Clear(slot byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.keys, slot)
	object := certificates[slot]
	if object == 0 {
		object = 0x5fc10d + uint32(slot-0x82) // the retired ones in a row
	}
	delete(c.objects, object)
}

// certificateObject is how a certificate lies in an object (part 1 section
// 3.2, appendix A table 10): plain, and no error detection code.
func certificateObject(der []byte) []byte {
	content := append(tlv(0x70, der...), tlv(0x71, 0)...)
	return tlv(0x53, append(content, tlv(0xfe)...)...)
}
