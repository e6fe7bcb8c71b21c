package cert

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"math/big"
)

// Serial is a certificate's serial number as 32 lower-case hexadecimal
// digits: 128 random bits, positive and at most 17 octets in DER, within RFC
// 5280 section 4.1.2.2's 20. Serials of certificates that others issued
// (a root brought along) may be shorter or longer.
type Serial string

// NewSerial returns a fresh random serial.
func NewSerial() Serial {
	var b [16]byte
	for b[0] == 0 { // never zero, and always the same length
		rand.Read(b[:]) // never fails (crypto/rand)
	}
	return Serial(hex.EncodeToString(b[:]))
}

// ErrNotASerial is ParseSerial's answer to text that can't be one.
var ErrNotASerial = errors.New("not a serial number: want 2 to 40 lower-case hexadecimal digits")

// ParseSerial checks a serial that comes from outside.
func ParseSerial(s string) (Serial, error) {
	if len(s) < 2 || len(s) > 40 || len(s)%2 != 0 {
		return "", ErrNotASerial
	}
	for i := range len(s) {
		if c := s[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return "", ErrNotASerial
		}
	}
	return Serial(s), nil
}

// SerialOf returns the Serial of a number as x509 gives it; negative numbers,
// which RFC 5280 forbids, give "".
func SerialOf(n *big.Int) Serial {
	if n == nil || n.Sign() <= 0 {
		return ""
	}
	return Serial(hex.EncodeToString(n.Bytes()))
}

// Big returns the serial as x509 wants it.
func (s Serial) Big() *big.Int {
	n, ok := new(big.Int).SetString(string(s), 16)
	if !ok {
		return new(big.Int)
	}
	return n
}
