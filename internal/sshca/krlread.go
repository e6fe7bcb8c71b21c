package sshca

import (
	"bytes"
	"cmp"
	"crypto/sha1" // revokes too: KRLs of others name keys by it
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/ssh"
)

// KRL is a key revocation list that was read. It is immutable, and keeps the
// bytes that it was read from.
type KRL struct {
	Version   uint64
	Generated time.Time
	Comment   string
	SignedBy  ssh.PublicKey // nil if ParseKRL read it, and nobody looked

	raw     []byte
	body    []byte // of raw, the sections
	issued  []*issued
	keys    map[string]bool
	sha1s   map[string]bool
	sha256s map[string]bool
}

// issued is what is revoked of one CA's certificates.
type issued struct {
	ca      []byte // empty: of any CA's
	serials []run  // of lists and ranges; in order, apart from one another
	bitmaps []bitmap
	keyIDs  map[string]bool
}

// bitmap revokes serial lo + N for each bit N.
type bitmap struct {
	lo   uint64
	bits []byte // the highest first
}

// errKRL is for KRLs that end too early or go on too long.
var errKRL = errors.New("KRL: cut short or damaged")

// ParseKRL reads a KRL. It refuses what any version of OpenSSH would refuse,
// since sshd then lets nobody in: signatures inside, extensions, bitmaps of more
// than 16,384 bits, serial 0; and what no one has a meaning for.
func ParseKRL(data []byte) (*KRL, error) {
	if len(data) > MaxKRL {
		return nil, fmt.Errorf("KRL: %d bytes; at most %d", len(data), MaxKRL)
	}
	k := &KRL{raw: bytes.Clone(data), keys: map[string]bool{}, sha1s: map[string]bool{}, sha256s: map[string]bool{}}
	s, ok := bytes.CutPrefix(k.raw, []byte(krlMagic))
	if !ok {
		return nil, errors.New("KRL: this is no KRL (ssh-keygen -k makes some)")
	}
	rest := cryptobyte.String(s)
	if err := k.readHeader(&rest); err != nil {
		return nil, err
	}
	k.body = rest
	for !rest.Empty() {
		var kind uint8
		var body []byte
		if !rest.ReadUint8(&kind) || !readString(&rest, &body) {
			return nil, errKRL
		}
		if err := k.readSection(kind, body); err != nil {
			return nil, err
		}
	}
	for _, c := range k.issued {
		c.sort()
	}
	return k, nil
}

// readHeader is PROTOCOL.krl section 1.
func (k *KRL) readHeader(s *cryptobyte.String) error {
	var format uint32
	var generated, flags uint64
	var reserved, comment []byte
	if !s.ReadUint32(&format) || !s.ReadUint64(&k.Version) || !s.ReadUint64(&generated) ||
		!s.ReadUint64(&flags) || !readString(s, &reserved) || !readString(s, &comment) {
		return errKRL
	}
	const year10000 = 253402300800
	switch {
	case format != krlFormat:
		return fmt.Errorf("KRL: format %d; want %d", format, krlFormat)
	case generated >= year10000:
		return errors.New("KRL: made after the year 9999")
	case flags != 0 || len(reserved) > 0:
		return errors.New("KRL: flags or reserved bytes, which have no meaning")
	case bytes.IndexByte(comment, 0) >= 0:
		return errors.New("KRL: a comment with NUL")
	}
	k.Generated, k.Comment = time.Unix(int64(generated), 0).UTC(), string(comment)
	return nil
}

func (k *KRL) readSection(kind uint8, body []byte) error {
	switch kind {
	case krlCerts:
		return k.readCertificates(body)
	case krlKeys:
		return readStrings(body, k.keys, 0, false)
	case krlSHA1:
		return readStrings(body, k.sha1s, sha1.Size, true)
	case krlSHA256:
		return readStrings(body, k.sha256s, sha256.Size, true)
	case krlSigned:
		return errors.New("KRL: it holds a signature, for which sshd since 9.4 refuses it; sign it beside (ssh-keygen -Y sign)")
	}
	return fmt.Errorf("KRL: section of unknown type %d", kind)
}

// readStrings reads a section that lists strings of some length (0: any but
// none), where sorted is true in rising order (PROTOCOL.krl section 4).
func readStrings(body []byte, into map[string]bool, length int, sorted bool) error {
	s := cryptobyte.String(body)
	if s.Empty() {
		return errors.New("KRL: a section that lists nothing")
	}
	var item, before []byte
	for !s.Empty() {
		if !readString(&s, &item) || len(item) == 0 || length != 0 && len(item) != length {
			return errKRL
		}
		if sorted && bytes.Compare(before, item) >= 0 {
			return errors.New("KRL: hashes out of order")
		}
		into[string(item)] = true
		before = item
	}
	return nil
}

// readCertificates is PROTOCOL.krl section 2.
func (k *KRL) readCertificates(body []byte) error {
	s := cryptobyte.String(body)
	var ca, reserved []byte
	if !readString(&s, &ca) || !readString(&s, &reserved) {
		return errKRL
	}
	if len(reserved) > 0 {
		return errors.New("KRL: reserved bytes, which have no meaning")
	}
	if len(ca) > 0 {
		key, err := ssh.ParsePublicKey(ca)
		if err != nil || plainKey(key) != nil || !bytes.Equal(key.Marshal(), ca) {
			return errors.New("KRL: a CA key that can't be read")
		}
	}
	c := &issued{ca: ca, keyIDs: map[string]bool{}}
	k.issued = append(k.issued, c)
	for !s.Empty() {
		var kind uint8
		var part []byte
		if !s.ReadUint8(&kind) || !readString(&s, &part) {
			return errKRL
		}
		if err := c.readSection(kind, part); err != nil {
			return err
		}
	}
	return nil
}

func (c *issued) readSection(kind uint8, body []byte) error {
	s := cryptobyte.String(body)
	switch kind {
	case krlSerials:
		for !s.Empty() {
			var n uint64
			if !s.ReadUint64(&n) || n == 0 {
				return errKRL
			}
			c.serials = append(c.serials, run{n, n})
		}
		return nil
	case krlRange:
		var r run
		if !s.ReadUint64(&r.lo) || !s.ReadUint64(&r.hi) || !s.Empty() || r.lo == 0 || r.hi < r.lo {
			return errKRL
		}
		c.serials = append(c.serials, r)
		return nil
	case krlBitmap:
		return c.readBitmap(s)
	case krlKeyIDs:
		if err := readStrings(body, c.keyIDs, 0, false); err != nil {
			return err
		}
		for id := range c.keyIDs {
			if strings.IndexByte(id, 0) >= 0 { // where a C program's string ends
				return errors.New("KRL: a key ID with NUL")
			}
		}
		return nil
	}
	return fmt.Errorf("KRL: section of certificates of unknown type %#x", kind)
}

func (c *issued) readBitmap(s cryptobyte.String) error {
	var b bitmap
	if !s.ReadUint64(&b.lo) || !readString(&s, &b.bits) || !s.Empty() || len(b.bits) == 0 {
		return errKRL
	}
	if b.bits[0]&0x80 != 0 || b.bits[0] == 0 && (len(b.bits) == 1 || b.bits[1]&0x80 == 0) {
		return errors.New("KRL: a bitmap that is negative, empty or longer than it need be")
	}
	if b.bits[0] == 0 {
		b.bits = b.bits[1:]
	}
	length := 8*(len(b.bits)-1) + bits.Len8(b.bits[0])
	if length > maxBitmap {
		return fmt.Errorf("KRL: a bitmap of %d bits; OpenSSH writes but doesn't read more than %d", length, maxBitmap)
	}
	if b.lo+uint64(length-1) < b.lo || b.lo == 0 && b.has(0) {
		return errors.New("KRL: a bitmap with serials that there aren't")
	}
	c.bitmaps = append(c.bitmaps, b)
	return nil
}

// has reports whether bit n is set.
func (b bitmap) has(n uint64) bool {
	at := n / 8
	return at < uint64(len(b.bits)) && b.bits[uint64(len(b.bits))-1-at]>>(n%8)&1 != 0
}

// sort brings runs in order, so that one is found quickly.
func (c *issued) sort() {
	slices.SortFunc(c.serials, func(a, b run) int { return cmp.Compare(a.lo, b.lo) })
	sorted := c.serials[:0]
	for _, r := range c.serials {
		sorted = addRun(sorted, r)
	}
	c.serials = sorted
}

func (c *issued) revoked(cert *ssh.Certificate) bool {
	if len(c.ca) > 0 && !bytes.Equal(c.ca, cert.SignatureKey.Marshal()) {
		return false
	}
	if c.keyIDs[cert.KeyId] {
		return true
	}
	at, found := slices.BinarySearchFunc(c.serials, cert.Serial, func(r run, n uint64) int { return cmp.Compare(r.lo, n) })
	if found || at > 0 && c.serials[at-1].hi >= cert.Serial {
		return true
	}
	return slices.ContainsFunc(c.bitmaps, func(b bitmap) bool { return cert.Serial >= b.lo && b.has(cert.Serial-b.lo) })
}

// Revoked reports whether a plain key or a certificate is revoked, as sshd would
// say: by the key itself; by serial, key ID or CA key of a certificate.
func (k *KRL) Revoked(key ssh.PublicKey) bool {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return k.keyRevoked(key)
	}
	return k.keyRevoked(cert.Key) || k.keyRevoked(cert.SignatureKey) ||
		slices.ContainsFunc(k.issued, func(c *issued) bool { return c.revoked(cert) })
}

// Concerns reports whether the KRL revokes a CA's key, or may revoke certificates
// that it signed by their serials or key IDs.
func (k *KRL) Concerns(ca ssh.PublicKey) bool {
	wire := ca.Marshal()
	return k.keyRevoked(ca) || slices.ContainsFunc(k.issued, func(c *issued) bool { return len(c.ca) == 0 || bytes.Equal(c.ca, wire) })
}

func (k *KRL) keyRevoked(key ssh.PublicKey) bool {
	if len(k.keys)+len(k.sha256s)+len(k.sha1s) == 0 {
		return false
	}
	wire := key.Marshal()
	long, short := sha256.Sum256(wire), sha1.Sum(wire)
	return k.keys[string(wire)] || k.sha256s[string(long[:])] || k.sha1s[string(short[:])]
}

// maxAhead is how far a publisher's clock may be ahead of a host's.
const maxAhead = 5 * time.Minute

// Replaces says why a host must not put this KRL in the place of the one it has
// (nil: it has none), or returns nil: versions rise, one version is one list, a
// list older than maxAge may have been held back by someone in between, and one
// who stole a CA key must not take back its revocation.
func (k *KRL) Replaces(old *KRL, now time.Time, maxAge time.Duration) error {
	switch age := now.Sub(k.Generated); {
	case age < -maxAhead:
		return fmt.Errorf("KRL %d was made at %s, which is still to come: check the clocks", k.Version, stamp(k.Generated))
	case age > maxAge:
		return fmt.Errorf("KRL %d was made at %s, more than %v ago: ask the CA's operator, or whoever is in between, for a fresh one", k.Version, stamp(k.Generated), maxAge)
	case old == nil:
		return nil
	case k.Version < old.Version:
		return fmt.Errorf("KRL %d is older than KRL %d, which is here already", k.Version, old.Version)
	case k.SignedBy != nil && old.Revoked(k.SignedBy):
		return fmt.Errorf("KRL %d is signed by a CA key that KRL %d revokes", k.Version, old.Version)
	case k.Version == old.Version && !bytes.Equal(k.raw, old.raw):
		return fmt.Errorf("there are two different KRLs with version %d; tell the CA's operator", k.Version)
	}
	return nil
}

func stamp(t time.Time) string { return strings.Replace(t.UTC().Format(time.RFC3339), "T", " ", 1) }
