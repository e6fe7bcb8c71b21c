package sshca

import (
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"
)

// appendString appends RFC 4251 section 5's string: a length in four bytes,
// then the bytes.
func appendString[T []byte | string](b []byte, s T) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// openString leaves room for the length of a string whose bytes follow;
// closeString writes it there.
func openString(b []byte) (grown []byte, start int) {
	return append(b, 0, 0, 0, 0), len(b) + 4
}

func closeString(b []byte, start int) {
	binary.BigEndian.PutUint32(b[start-4:], uint32(len(b)-start))
}

// readString takes a string off the front of s, without a copy.
func readString(s *cryptobyte.String, out *[]byte) bool {
	var n uint32
	return s.ReadUint32(&n) && uint64(n) <= uint64(len(*s)) && s.ReadBytes(out, int(n))
}
