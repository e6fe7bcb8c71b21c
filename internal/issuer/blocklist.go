package issuer

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	_ "embed" // compromised.txt
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// compromised holds keys whose private half is printed in RFCs and shipped in
// software: the ones most likely to turn up by mistake.
//
//go:embed compromised.txt
var compromised []byte

// Blocklist is a set of public keys, by the SHA-256 of their
// SubjectPublicKeyInfo, that nobody may have certified. It takes 32 bytes a
// key and doesn't change.
type Blocklist struct {
	hashes [][sha256.Size]byte // sorted
}

// LoadBlocklist reads lists of keys, for instance the weak keys that Debian
// made in 2008, and joins them with the built-in one. A list has one SHA-256
// per line in hexadecimal, the first word of the line; empty lines and lines
// that begin with # don't count. Errors name file and line.
func LoadBlocklist(paths ...string) (*Blocklist, error) {
	b := &Blocklist{}
	if err := b.add(bytes.NewReader(compromised), "the built-in list"); err != nil {
		return nil, err
	}
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("blocklist: %w", err)
		}
		err = b.add(f, path)
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(b.hashes, compareHashes)
	b.hashes = slices.Compact(b.hashes)
	return b, nil
}

func (b *Blocklist) add(r io.Reader, name string) error {
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		h, err := hex.DecodeString(words[0])
		if err != nil || len(h) != sha256.Size {
			return fmt.Errorf("blocklist: %s:%d: want the SHA-256 of a SubjectPublicKeyInfo as 64 hexadecimal digits", name, n)
		}
		b.hashes = append(b.hashes, [sha256.Size]byte(h))
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("blocklist: %s: %w", name, err)
	}
	return nil
}

// Contains reports whether the key with this SPKI hash is blocked. A nil
// Blocklist is empty.
func (b *Blocklist) Contains(spkiHash [sha256.Size]byte) bool {
	if b == nil {
		return false
	}
	_, found := slices.BinarySearchFunc(b.hashes, spkiHash, compareHashes)
	return found
}

func compareHashes(a, b [sha256.Size]byte) int { return bytes.Compare(a[:], b[:]) }
