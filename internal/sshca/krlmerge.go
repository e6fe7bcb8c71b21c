package sshca

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// MergeKRLs makes one KRL that revokes what any of them revokes, for sshd's
// RevokedKeys, which takes one file, where several independent CAs are trusted.
// It has the highest version and the latest date of them; the same KRLs, in
// whatever order, make the same bytes. None make one that revokes nothing.
//
// OpenSSH and [ParseKRL] take sections in any order and of any number, also
// several for one CA.
func MergeKRLs(krls ...*KRL) ([]byte, error) {
	version, generated := uint64(1), int64(1)
	bodies := make([]string, len(krls))
	for i, k := range krls {
		version, generated = max(version, k.Version), max(generated, k.Generated.Unix())
		bodies[i] = string(k.body)
	}
	slices.Sort(bodies)
	bodies = slices.Compact(bodies)
	b := []byte(krlMagic)
	b = binary.BigEndian.AppendUint32(b, krlFormat)
	b = binary.BigEndian.AppendUint64(b, version)
	b = binary.BigEndian.AppendUint64(b, uint64(generated))
	b = binary.BigEndian.AppendUint64(b, 0) // flags
	b = appendString(b, "")                 // reserved
	b = appendString(b, "merged")
	for _, body := range bodies {
		b = append(b, body...)
	}
	if len(b) > MaxKRL {
		return nil, fmt.Errorf("KRLs of %d bytes together: at most %d", len(b), MaxKRL)
	}
	return b, nil
}
