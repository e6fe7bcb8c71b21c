package sshca

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// PROTOCOL.krl sections 1 to 4.
const (
	krlMagic   = "SSHKRL\n\x00"
	krlFormat  = 1
	krlCerts   = 1 // KRL_SECTION_CERTIFICATES
	krlKeys    = 2 // KRL_SECTION_EXPLICIT_KEY
	krlSHA1    = 3 // KRL_SECTION_FINGERPRINT_SHA1
	krlSigned  = 4 // KRL_SECTION_SIGNATURE
	krlSHA256  = 5 // KRL_SECTION_FINGERPRINT_SHA256
	krlSerials = 0x20
	krlRange   = 0x21
	krlBitmap  = 0x22
	krlKeyIDs  = 0x23
)

// MaxKRL bounds a KRL in bytes: room for eight million revocations, half of what
// OpenSSH loads (SSHBUF_SIZE_MAX).
const MaxKRL = 64 << 20

// Revocations are what a KRL shall say. Order and repetition don't matter: the
// same revocations make the same bytes.
type Revocations struct {
	Version      uint64    // larger than that of any KRL before
	Generated    time.Time // to the second
	Comment      string
	Certificates []RevokedCertificates // each CA once
	Keys         []ssh.PublicKey       // plain keys, in full
	KeyHashes    [][sha256.Size]byte   // plain keys by [KRLHash], smaller than in full
}

// RevokedCertificates are certificates of one CA.
type RevokedCertificates struct {
	CA      ssh.PublicKey // nil: whichever CA signed them
	Serials []uint64
	KeyIDs  []string // all certificates with that key ID
}

// KRLHash is the hash by which a KRL revokes a key, and every certificate for it
// (PROTOCOL.krl section 4).
func KRLHash(key ssh.PublicKey) [sha256.Size]byte { return sha256.Sum256(key.Marshal()) }

// BuildKRL encodes a KRL for sshd's RevokedKeys, in the fewest bytes that
// OpenSSH reads. It fails on a CA that comes twice or isn't a plain key, on
// serial 0 (which means that there is none), on text that sshd wouldn't read, and on
// lists beyond MaxKRL.
func BuildKRL(r Revocations) ([]byte, error) {
	if r.Version == 0 || r.Generated.Unix() <= 0 {
		return nil, errors.New("a KRL needs a version above 0 and a date")
	}
	if !oneLine(r.Comment, maxValue) {
		return nil, fmt.Errorf("a KRL's comment must be one line of at most %d bytes", maxValue)
	}
	b := []byte(krlMagic)
	b = binary.BigEndian.AppendUint32(b, krlFormat)
	b = binary.BigEndian.AppendUint64(b, r.Version)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Generated.Unix()))
	b = binary.BigEndian.AppendUint64(b, 0) // flags
	b = appendString(b, "")                 // reserved
	b = appendString(b, r.Comment)
	for i, c := range r.Certificates {
		for _, other := range r.Certificates[:i] {
			if bytes.Equal(other.scope(), c.scope()) {
				return nil, errors.New("a CA comes twice in a KRL; put its revocations together")
			}
		}
		var err error
		if b, err = c.append(b); err != nil {
			return nil, err
		}
	}
	keys := make([]string, len(r.Keys))
	for i, key := range r.Keys {
		if err := plainKey(key); err != nil {
			return nil, err
		}
		keys[i] = string(key.Marshal())
	}
	b = appendSection(b, krlKeys, keys)
	hashes := make([]string, len(r.KeyHashes))
	for i := range r.KeyHashes {
		hashes[i] = string(r.KeyHashes[i][:])
	}
	b = appendSection(b, krlSHA256, hashes)
	if len(b) > MaxKRL {
		return nil, fmt.Errorf("a KRL of %d bytes: at most %d", len(b), MaxKRL)
	}
	return b, nil
}

// plainKey refuses certificates, by which a KRL can't name a key. Weak keys may
// be revoked, of course.
func plainKey(key ssh.PublicKey) error {
	if _, isCert := key.(*ssh.Certificate); isCert || key == nil {
		return errors.New("a KRL revokes plain keys; of a certificate give its Key")
	}
	return nil
}

// scope is the CA's key, empty for any.
func (c RevokedCertificates) scope() []byte {
	if c.CA == nil {
		return nil
	}
	return c.CA.Marshal()
}

// append appends a CA's section (PROTOCOL.krl section 2), none without entries.
func (c RevokedCertificates) append(b []byte) ([]byte, error) {
	if len(c.Serials)+len(c.KeyIDs) == 0 {
		return b, nil
	}
	if c.CA != nil {
		if err := plainKey(c.CA); err != nil {
			return nil, err
		}
	}
	if slices.Contains(c.Serials, 0) {
		return nil, errors.New("serial 0 can't be revoked: it means that a certificate has none")
	}
	for _, id := range c.KeyIDs {
		if id == "" || len(id) > maxValue || strings.IndexByte(id, 0) >= 0 {
			return nil, fmt.Errorf("key ID %.60q can't be revoked: want 1 to %d bytes without NUL", id, maxValue)
		}
	}
	b = append(b, krlCerts)
	b, start := openString(b)
	b = appendString(b, c.scope())
	b = appendString(b, "") // reserved
	b = appendSerials(b, c.Serials)
	b = appendSection(b, krlKeyIDs, c.KeyIDs)
	closeString(b, start)
	return b, nil
}

// appendSection appends a section that lists strings, in their order and each
// once (PROTOCOL.krl section 4 asks for the order of hashes), none without any.
func appendSection(b []byte, kind byte, list []string) []byte {
	if len(list) == 0 {
		return b
	}
	list = slices.Clone(list)
	slices.Sort(list)
	b = append(b, kind)
	b, start := openString(b)
	for _, s := range slices.Compact(list) {
		b = appendString(b, s)
	}
	closeString(b, start)
	return b
}

// SignKRL makes a KRL's detached signature by the CA's key, an armored SSHSIG in
// KRLNamespace. sshd looks at none, and since 9.4 refuses KRLs with one inside
// (PROTOCOL.krl section 6): who fetches a KRL checks it, with [OpenKRL] or
// ssh-keygen -Y verify.
func (a *Authority) SignKRL(krl []byte, sign SignFunc) ([]byte, error) {
	if _, err := ParseKRL(krl); err != nil {
		return nil, err
	}
	signature, err := a.sign(signedData(KRLNamespace, sigHash, krl), sign)
	if err != nil {
		return nil, fmt.Errorf("sign a KRL: %w", err)
	}
	return armor(a.key, KRLNamespace, signature), nil
}

// OpenKRL verifies a KRL's signature by one of the trusted CA keys, and reads it.
// A KRL that revokes the very key that signed it is refused: a CA key that was
// stolen is revoked by another.
func OpenKRL(krl, signature []byte, trusted []ssh.PublicKey) (*KRL, error) {
	s, err := ParseSignature(signature)
	if err != nil {
		return nil, fmt.Errorf("KRL: %w", err)
	}
	if !slices.ContainsFunc(trusted, func(ca ssh.PublicKey) bool { return sameKey(ca, s.Key) }) {
		return nil, fmt.Errorf("KRL: signed with %s, which is not a CA key that is trusted here", ssh.FingerprintSHA256(s.Key))
	}
	if err := s.Verify(s.Key, KRLNamespace, krl); err != nil {
		return nil, fmt.Errorf("KRL: %w", err)
	}
	k, err := ParseKRL(krl)
	if err != nil {
		return nil, err
	}
	if k.Revoked(s.Key) {
		return nil, fmt.Errorf("KRL %d revokes the CA key that signed it", k.Version)
	}
	k.SignedBy = s.Key
	return k, nil
}
