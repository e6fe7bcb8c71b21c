package protocol

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"time"
)

// Each noun has its own ID type, so that an order's ID can't be passed where
// an account's is wanted. All are made by [NewID] and share its form.
type (
	// AccountID names an account within its directory.
	AccountID string
	// OrderID names an order.
	OrderID string
	// AuthorizationID names an authorization.
	AuthorizationID string
	// EABKeyID names an external account binding key; it is the `kid` that
	// an operator hands out (RFC 8555 section 7.3.4).
	EABKeyID string
	// DeviceID names an enrolled device.
	DeviceID string
)

// idEncoding keeps the order of the bytes in the order of the text, so that
// rows sort by the time they were made.
var idEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// idLength is the length of 16 bytes in base32.
const idLength = 26

// NewID returns a fresh ID: 48 bits of milliseconds since 1970 followed by 80
// random bits, as 26 characters of lower-case base32. IDs made later sort
// later; nobody can guess one.
func NewID[T ~string](now time.Time) T {
	var b [16]byte
	rand.Read(b[6:]) // never fails (crypto/rand)
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli()))
	copy(b[:6], ms[2:])
	return T(idEncoding.EncodeToString(b[:]))
}

// ErrNotAnID is what ParseID answers to text that NewID can't have made.
var ErrNotAnID = errors.New("not an id: want 26 characters of 0-9 and a-v")

// ParseID checks that text from outside has the form of an ID.
func ParseID[T ~string](s string) (T, error) {
	if len(s) != idLength {
		return "", ErrNotAnID
	}
	for i := range len(s) {
		if c := s[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'v') {
			return "", ErrNotAnID
		}
	}
	return T(s), nil
}
