package revocation

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/chancery-pki/chancery/internal/cert"
)

// Entry is one withdrawn certificate.
type Entry struct {
	Serial cert.Serial
	At     time.Time
	Reason cert.Reason
}

// List is what a CRL shall say: a full one, of all that its issuer withdrew.
type List struct {
	Issuer     *x509.Certificate // who issued the certificates and signs the list
	Number     int64             // positive, larger than that of any list before
	ThisUpdate time.Time         // to the second, like all times in a CRL
	NextUpdate time.Time         // after ThisUpdate
	// Expect is about how many entries will come, so that memory for them is
	// taken once; too small a number costs copying.
	Expect int
	// Entries hands every entry to yield, in the rising order of their
	// serials' text, and passes on an error of yield. It is called once. nil:
	// there are none.
	Entries func(yield func(Entry) error) error
}

// entrySize is the most that an entry with one of our own serials takes:
// SEQUENCE (2), INTEGER (2+17), UTCTime (15), the reason's extension (14).
const entrySize = 50

// trailer is room for what follows the entries: extensions of some 50 bytes,
// an AlgorithmIdentifier and the signature, 512 bytes with RSA-4096.
const trailer = 1 << 10

// maxHeader is the longest identifier and length that we write.
const maxHeader = 6

// Unsigned is a CRL that lacks its signature.
type Unsigned struct {
	Entries int // how many there are

	issuer    *x509.Certificate
	algorithm algorithm
	// buf[start:] is the TBSCertList. Before it is room for the header of
	// the whole list, so that signing copies nothing.
	buf   []byte
	start int
}

// Build encodes the to-be-signed part of the list, the same bytes for the same
// list. It fails when the issuer may not or cannot sign CRLs, with the errors
// of Entries, and on entries that are out of order, doubled or can't be
// encoded.
func Build(l List) (*Unsigned, error) {
	a, err := algorithmOf(l.Issuer)
	if err != nil {
		return nil, err
	}
	switch {
	case l.Number <= 0:
		return nil, fmt.Errorf("a CRL's number must be positive, not %d", l.Number)
	case !encodable(l.ThisUpdate) || !encodable(l.NextUpdate) || !l.NextUpdate.After(l.ThisUpdate):
		return nil, fmt.Errorf("a CRL can't be valid from %v to %v", l.ThisUpdate, l.NextUpdate)
	}
	head, err := l.head(a)
	if err != nil {
		return nil, err
	}
	// The headers depend on the length of what follows, so they are written
	// backwards into this room once that is there.
	room := len(head) + 3*maxHeader
	u := &Unsigned{issuer: l.Issuer, algorithm: a, start: room}
	u.buf = make([]byte, room, room+max(l.Expect, 0)*entrySize+trailer)
	if err := u.addEntries(l.Entries); err != nil {
		return nil, err
	}
	if u.Entries > 0 { // else the field is left out (RFC 5280 section 5.1.2.6)
		u.wrap()
	}
	if u.buf, err = l.appendExtensions(u.buf); err != nil {
		return nil, err
	}
	u.prepend(head)
	u.wrap()
	return u, nil
}

// Check finds out, before there is anything to revoke, whether lists of the
// issuer can be built; the error says what its certificate lacks.
func Check(issuer *x509.Certificate) error {
	_, err := algorithmOf(issuer)
	return err
}

func algorithmOf(issuer *x509.Certificate) (algorithm, error) {
	switch {
	case issuer.KeyUsage&x509.KeyUsageCRLSign == 0:
		return algorithm{}, fmt.Errorf("CA certificate %q lacks the key usage cRLSign, so nobody would believe its CRLs", issuer.Subject)
	case len(issuer.SubjectKeyId) == 0:
		return algorithm{}, fmt.Errorf("CA certificate %q has no subject key identifier", issuer.Subject)
	}
	return algorithmFor(issuer.PublicKey)
}

// head is what stands before the entries (RFC 5280 section 5.1.2).
func (l *List) head(a algorithm) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1Int64(1) // v2
	b.AddBytes(a.der)
	b.AddBytes(l.Issuer.RawSubject)
	b.AddBytes(appendTime(nil, l.ThisUpdate))
	b.AddBytes(appendTime(nil, l.NextUpdate))
	return b.Bytes()
}

// appendExtensions adds the key identifier and the number (RFC 5280 sections
// 5.2.1 and 5.2.3). A partitioned list would name its part here.
func (l *List) appendExtensions(dst []byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(dst)
	b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addExtension(b, []byte{0x55, 0x1d, 35}, func(b *cryptobyte.Builder) { // authorityKeyIdentifier
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(l.Issuer.SubjectKeyId) })
				})
			})
			addExtension(b, []byte{0x55, 0x1d, 20}, func(b *cryptobyte.Builder) { b.AddASN1Int64(l.Number) }) // cRLNumber
		})
	})
	return b.Bytes()
}

func addExtension(b *cryptobyte.Builder, oid []byte, value cryptobyte.BuilderContinuation) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(oid) })
		b.AddASN1(cbasn1.OCTET_STRING, value)
	})
}

func (u *Unsigned) addEntries(entries func(func(Entry) error) error) error {
	if entries == nil {
		return nil
	}
	var last cert.Serial
	return entries(func(e Entry) (err error) {
		if e.Serial <= last {
			return fmt.Errorf("CRL: serial %s comes after %s", e.Serial, last)
		}
		last = e.Serial
		u.Entries++
		u.buf, err = appendEntry(u.buf, e)
		return err
	})
}

// reasonExtension is crlEntryExtensions with a reasonCode (RFC 5280 section
// 5.3.1), all but the code itself.
var reasonExtension = []byte{0x30, 0x0c, 0x30, 0x0a, 0x06, 0x03, 0x55, 0x1d, 0x15, 0x04, 0x03, 0x0a, 0x01}

// appendEntry encodes one element of revokedCertificates. It is written by
// hand, since it runs a million times and every length is below 128.
func appendEntry(dst []byte, e Entry) ([]byte, error) {
	if _, err := cert.ParseSerial(string(e.Serial)); err != nil {
		return dst, fmt.Errorf("CRL: %q: %w", e.Serial, err)
	}
	var room [20]byte
	n, err := hex.Decode(room[:], []byte(e.Serial))
	serial := bytes.TrimLeft(room[:n], "\x00")
	switch {
	case err != nil || len(serial) == 0:
		return dst, fmt.Errorf("CRL: %q is not a positive serial", e.Serial)
	case !encodable(e.At):
		return dst, fmt.Errorf("CRL: serial %s: no such revocation date: %v", e.Serial, e.At)
	case !e.Reason.Valid():
		return dst, fmt.Errorf("CRL: serial %s: no such reason: %d", e.Serial, e.Reason)
	}
	start := len(dst)
	if serial[0]&0x80 == 0 {
		dst = append(dst, 0x30, 0, 0x02, byte(len(serial)))
	} else { // else it would be negative
		dst = append(dst, 0x30, 0, 0x02, byte(len(serial)+1), 0)
	}
	dst = append(dst, serial...)
	dst = appendTime(dst, e.At)
	if e.Reason != cert.Unspecified { // which should be left out
		dst = append(dst, reasonExtension...)
		dst = append(dst, byte(e.Reason))
	}
	dst[start+1] = byte(len(dst) - start - 2)
	return dst, nil
}

// encodable reports whether the time has a form (RFC 5280 section 4.1.2.5).
func encodable(t time.Time) bool { y := t.UTC().Year(); return 1950 <= y && y <= 9999 }

// appendTime encodes UTCTime through 2049 and GeneralizedTime after.
func appendTime(dst []byte, t time.Time) []byte {
	if t = t.UTC(); t.Year() < 2050 {
		return t.AppendFormat(append(dst, 0x17, 13), "060102150405Z")
	}
	return t.AppendFormat(append(dst, 0x18, 15), "20060102150405Z")
}

// prepend writes into the room before the list's beginning.
func (u *Unsigned) prepend(b []byte) {
	u.start -= len(b)
	copy(u.buf[u.start:], b)
}

// wrap makes all that is there one SEQUENCE.
func (u *Unsigned) wrap() { u.prepend(sequenceHeader(len(u.buf) - u.start)) }

func sequenceHeader(length int) []byte {
	if length < 0x80 {
		return []byte{0x30, byte(length)}
	}
	h := make([]byte, 0, maxHeader)
	for shift := 24; shift >= 0; shift -= 8 {
		if b := byte(length >> shift); b != 0 || len(h) > 0 {
			h = append(h, b)
		}
	}
	return append([]byte{0x30, 0x80 | byte(len(h))}, h...)
}

// TBS returns the TBSCertList, which the signature covers; not to be changed.
func (u *Unsigned) TBS() []byte { return u.buf[u.start:] }

// Sign gets a signature over the list and returns the CRL in DER. sign is
// called once, with the arguments of crypto.Signer: a digest, or with Ed25519
// the TBSCertList itself. Its error is returned, and so is a signature that
// doesn't verify; then Sign may be called again. The result uses u's memory:
// after success u is spent.
func (u *Unsigned) Sign(sign func(digest []byte, opts crypto.SignerOpts) ([]byte, error)) ([]byte, error) {
	tbs := u.TBS()
	digest := tbs
	if u.algorithm.hash != 0 {
		h := u.algorithm.hash.New()
		h.Write(tbs)
		digest = h.Sum(nil)
	}
	signature, err := sign(digest, u.algorithm.hash)
	if err != nil {
		return nil, fmt.Errorf("sign a CRL: %w", err)
	}
	// A faulty signature must not leave: relying parties would refuse all
	// our certificates, and it may give the key away.
	if err := u.issuer.CheckSignature(u.algorithm.id, tbs, signature); err != nil {
		return nil, fmt.Errorf("sign a CRL: the key's signature doesn't fit CA certificate %q: %w", u.issuer.Subject, err)
	}
	b := cryptobyte.NewBuilder(u.buf)
	b.AddBytes(u.algorithm.der)
	b.AddASN1BitString(signature)
	if u.buf, err = b.Bytes(); err != nil {
		return nil, fmt.Errorf("sign a CRL: %w", err)
	}
	u.wrap()
	return u.buf[u.start:], nil
}
