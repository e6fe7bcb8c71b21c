package softcard

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Options say what card New makes. The zero value is a YubiKey 5 of firmware
// 5.7.1 with a random serial number, of a maker of its own.
type Options struct {
	Serial     uint32  // 0: random
	Firmware   [3]byte // major, minor, patch; from 4.3.0 on. Zero: 5.7.1
	FormFactor byte    // 0: 3, USB-C Keychain
	Maker      *Maker  // who signs its attestation certificate; nil: a new one
}

// What a card has when it leaves the factory.
const (
	DefaultPIN = "123456"
	DefaultPUK = "12345678"
)

// defaultManagementKey is 3DES, and AES-192 from firmware 5.7 on.
var defaultManagementKey = bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8}, 3)

// Card is one YubiKey. It is safe for concurrent use, though a card is in one
// reader at a time.
type Card struct {
	options Options
	maker   *Maker
	device  identity // the key of slot f9

	mu         sync.Mutex // guards all below
	now        session
	pin, puk   secret
	management managementKey
	keys       map[byte]*slotKey
	objects    map[uint32][]byte // by tag, with their 53 around
	behaviour  behaviour
}

// behaviour is what tests set and read.
type behaviour struct {
	delay      time.Duration // of a signature
	untouched  bool
	fault      func(command []byte) []byte
	signatures int
	verifies   int
}

// session is what a card forgets without power.
type session struct {
	app        application
	verified   bool // the PIN
	fresh      bool // the PIN, by the very last command
	managed    bool // the management key was shown
	witness    []byte
	challenge  []byte
	chain      []byte // data of chained commands so far
	chainOf    [3]byte
	rest       []byte        // of a response, for GET RESPONSE
	takes      time.Duration // this command
	responseSW uint16        // after the rest
}

// New makes a card in its factory state.
func New(o Options) (*Card, error) {
	if o.Serial == 0 {
		var b [4]byte
		rand.Read(b[:]) // never fails
		o.Serial = binary.BigEndian.Uint32(b[:])>>8 + 1
	}
	if o.Firmware == ([3]byte{}) {
		o.Firmware = [3]byte{5, 7, 1}
	}
	if bytes.Compare(o.Firmware[:], []byte{4, 3, 0}) < 0 {
		return nil, fmt.Errorf("softcard: firmware %d: 4.3.0 or later", o.Firmware)
	}
	if o.FormFactor == 0 {
		o.FormFactor = 3
	}
	maker := o.Maker
	if maker == nil {
		var err error
		if maker, err = NewMaker(); err != nil {
			return nil, err
		}
	}
	device, err := maker.device(o.Firmware)
	if err != nil {
		return nil, err
	}
	c := &Card{options: o, maker: maker, device: device}
	c.factory()
	return c, nil
}

// factory sets everything back; the attestation key stays. c.mu is held, or
// the card is new.
func (c *Card) factory() {
	c.now = session{}
	c.pin, c.puk = newSecret(DefaultPIN, 3), newSecret(DefaultPUK, 3)
	c.management = managementKey{alg: tripleDES, key: defaultManagementKey}
	if c.since(5, 7, 0) {
		c.management.alg = aes192
	}
	attestation := c.objects[objectAttestation]
	if attestation == nil {
		attestation = certificateObject(c.device.certificate.Raw)
	}
	c.keys, c.objects = map[byte]*slotKey{}, map[uint32][]byte{objectAttestation: attestation}
}

// since reports whether the firmware is that or later.
func (c *Card) since(v ...byte) bool { return bytes.Compare(c.options.Firmware[:], v) >= 0 }

// Serial returns the serial number.
func (c *Card) Serial() uint32 { return c.options.Serial }

// Maker returns who made the card.
func (c *Card) Maker() *Maker { return c.maker }

// SetDelay makes every signature (and key agreement) from now on take at least
// d: a YubiKey 5 takes 60 to 500 ms.
func (c *Card) SetDelay(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.behaviour.delay = d
}

// SetTouched says whether somebody touches the card when it wants that; at
// first somebody does. A real card waits 15 seconds before it gives up, this
// one not at all.
func (c *Card) SetTouched(touched bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.behaviour.untouched = !touched
}

// SetFault lets f answer commands in the card's stead, with response and status
// word; for those on which it returns nil the card works. Nil ends it.
func (c *Card) SetFault(f func(command []byte) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.behaviour.fault = f
}

// Signatures returns how many signatures the card has made.
func (c *Card) Signatures() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.behaviour.signatures
}

// Verifies returns how often the card was shown a PIN, right or wrong.
func (c *Card) Verifies() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.behaviour.verifies
}

// Tries returns how many wrong PINs the card still takes.
func (c *Card) Tries() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pin.tries
}

// ATR is the answer to reset of a YubiKey 5 over USB.
func (c *Card) ATR() []byte {
	return []byte("\x3b\xfd\x13\x00\x00\x81\x31\xfe\x15\x80\x73\xc0\x21\xc0\x57YubiKey\x40")
}

// Reset is what losing power or a reset does: the session is forgotten.
func (c *Card) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = session{}
}

// Forget takes the session's rights back and leaves all else, as a reset by
// somebody else does that no program is told of.
func (c *Card) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.verified, c.now.fresh, c.now.managed = false, false, false
}

// Transmit answers one APDU, with the status word at the end, and says how
// long the card takes for it: the caller waits.
func (c *Card) Transmit(apdu []byte) (response []byte, takes time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.behaviour.fault; f != nil {
		if r := f(apdu); r != nil {
			return r, 0
		}
	}
	cmd := parse(apdu)
	if !cmd.wellFormed {
		return word(nil, swLength), 0
	}
	c.now.takes = 0
	if cmd.ins == insGetResponse {
		return c.page(cmd.expect), 0
	}
	data, sw := c.assemble(cmd)
	c.now.rest, c.now.responseSW = data, sw
	return c.page(cmd.expect), c.now.takes
}

// word appends a status word.
func word(data []byte, sw uint16) []byte { return binary.BigEndian.AppendUint16(bytes.Clone(data), sw) }

// page sends what fits of the response, and keeps the rest (ISO/IEC 7816-4
// section 5.3.4).
func (c *Card) page(size int) []byte {
	if n := len(c.now.rest); n > size {
		out := c.now.rest[:size]
		c.now.rest = c.now.rest[size:]
		return word(out, swMore|uint16(min(n-size, 256)&0xff))
	}
	out, sw := c.now.rest, c.now.responseSW
	c.now.rest, c.now.responseSW = nil, swConditions // nothing left to get
	return word(out, sw)
}

// maxData bounds a chained command, as a YubiKey's buffer does.
const maxData = 3072

// assemble joins chained commands (ISO/IEC 7816-4 section 5.3.3) and runs
// what is complete.
func (c *Card) assemble(cmd command) ([]byte, uint16) {
	s := &c.now
	head := [3]byte{cmd.ins, cmd.p1, cmd.p2}
	if len(s.chain) > 0 && head != s.chainOf {
		s.chain = nil
		return nil, swLastOfChainMiss
	}
	if len(s.chain)+len(cmd.data) > maxData {
		s.chain = nil
		return nil, swMemory
	}
	s.chain, s.chainOf = append(s.chain, cmd.data...), head
	if cmd.chained {
		return nil, swOK
	}
	cmd.data, s.chain = s.chain, nil
	fresh := s.fresh
	s.fresh = false // "always" means: by the command before
	return c.run(cmd, fresh)
}

// The instructions (SP 800-73-4 part 2 section 3, and Yubico's).
const (
	insVerify         = 0x20
	insChange         = 0x24
	insUnblock        = 0x2c
	insGenerate       = 0x47
	insAuthenticate   = 0x87
	insSelect         = 0xa4
	insGetResponse    = 0xc0
	insGetData        = 0xcb
	insPutData        = 0xdb
	insGetMetadata    = 0xf7
	insGetSerial      = 0xf8
	insAttest         = 0xf9
	insSetTries       = 0xfa
	insReset          = 0xfb
	insGetVersion     = 0xfd
	insImport         = 0xfe
	insSetManagement  = 0xff
	insReadConfig     = 0x1d // management application
	insOTPSlot        = 0x01 // OTP application
	otpSlotGetSerial  = 0x10
	keyManagementAuth = 0x9b
	referencePIN      = 0x80
	referencePUK      = 0x81
)

// run executes one command.
func (c *Card) run(cmd command, fresh bool) ([]byte, uint16) {
	if cmd.ins == insSelect {
		return c.choose(cmd)
	}
	if c.now.app != appPIV {
		return c.other(cmd)
	}
	switch cmd.ins {
	case insVerify:
		return nil, c.verify(cmd)
	case insChange:
		return nil, c.change(cmd)
	case insUnblock:
		return nil, c.unblock(cmd)
	case insSetTries:
		return nil, c.setTries(cmd)
	case insReset:
		return nil, c.reset()
	case insAuthenticate:
		if cmd.p2 == keyManagementAuth {
			return c.authenticate(cmd)
		}
		return c.use(cmd, fresh)
	case insSetManagement:
		return nil, c.setManagement(cmd)
	case insGenerate:
		return c.generate(cmd)
	case insImport:
		return nil, c.importKey(cmd)
	case insGetData:
		return c.getData(cmd)
	case insPutData:
		return nil, c.putData(cmd)
	}
	return c.yubico(cmd)
}

// yubico answers what later firmwares brought.
func (c *Card) yubico(cmd command) ([]byte, uint16) {
	switch {
	case cmd.ins == insGetVersion:
		return c.options.Firmware[:], swOK
	case cmd.ins == insGetSerial && c.since(5, 0, 0):
		return binary.BigEndian.AppendUint32(nil, c.options.Serial), swOK
	case cmd.ins == insGetMetadata && c.since(5, 3, 0):
		return c.metadata(cmd.p2)
	case cmd.ins == insAttest:
		return c.attest(cmd.p1)
	}
	return nil, swInstruction
}

// errShort is a key or PIN of a wrong length.
var errShort = errors.New("softcard: a PIN has 1 to 8 bytes")
