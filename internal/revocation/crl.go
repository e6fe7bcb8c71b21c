package revocation

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net/url"
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

// List is what a CRL shall say: a full one, of all that its issuer withdrew,
// or one part.
type List struct {
	Issuer     *x509.Certificate // who issued the certificates and signs the list
	Number     int64             // positive, larger than that of any list before
	ThisUpdate time.Time         // to the second, like all times in a CRL
	NextUpdate time.Time         // after ThisUpdate
	// Point is the URL of this part, byte for byte the one in the CRL
	// distribution point of the certificates that belong to it (RFC 5280
	// section 5.2.5: else relying parties must not use the part). "": a full
	// list.
	Point string
	// Expect is about how many entries will come, so that memory for them is
	// taken once; one in 64 more may come, beyond that the list is copied.
	Expect int
	// Entries hands every entry to yield, in the rising order of their
	// serials' text, and passes on an error of yield. It is called once. nil:
	// there are none.
	Entries func(yield func(Entry) error) error
}

// Shard draws the part of a partitioned list that speaks for a certificate: 1
// to shards, evenly, from the serial; 0, the full list, without parts. The
// caller records it with the certificate, so that another number of parts
// changes nothing for those that are out.
func Shard(serial cert.Serial, shards int) int {
	if shards <= 0 {
		return 0
	}
	h := fnv.New32a()
	h.Write([]byte(serial)) // never fails
	return 1 + int(h.Sum32()%uint32(shards))
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
	case l.Point != "" && !validPoint(l.Point):
		return nil, fmt.Errorf("a CRL's distribution point must be an absolute http:// URL of at most %d ASCII characters, not %.100q", maxPoint, l.Point)
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
	expect := max(l.Expect, 0)
	u.buf = make([]byte, room, room+(expect+expect/64)*entrySize+trailer+len(l.Point))
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

// maxPoint bounds a part's URL; a distribution point's is far shorter.
const maxPoint = 1 << 10

// validPoint reports whether relying parties could fetch a list from there;
// over plain HTTP, since the check of a TLS server's certificate could need
// this very list (RFC 5280 section 8).
func validPoint(point string) bool {
	for _, c := range []byte(point) {
		if c <= ' ' || c >= 0x7f { // IA5String, and a URL
			return false
		}
	}
	u, err := url.Parse(point)
	return err == nil && len(point) <= maxPoint && u.Scheme == "http" && u.Host != ""
}

// appendExtensions adds the key identifier, the number and the part (RFC 5280
// sections 5.2.1, 5.2.3 and 5.2.5).
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
			if l.Point != "" {
				b.AddASN1(cbasn1.SEQUENCE, l.addDistributionPoint)
			}
		})
	})
	return b.Bytes()
}

// addDistributionPoint adds the content of the issuingDistributionPoint, which
// is critical: the part's name and, since CA certificates are never in a part,
// onlyContainsUserCerts.
func (l *List) addDistributionPoint(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte{0x55, 0x1d, 28}) })
	b.AddASN1Boolean(true)
	b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { // distributionPoint
				b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { // fullName
					b.AddASN1(cbasn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(l.Point)) })
				})
			})
			b.AddASN1(cbasn1.Tag(1).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddUint8(0xff) })
		})
	})
}

// addExtension adds one that isn't critical.
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
	switch {
	case !encodable(e.At):
		return dst, fmt.Errorf("CRL: serial %s: no such revocation date: %v", e.Serial, e.At)
	case !e.Reason.Valid():
		return dst, fmt.Errorf("CRL: serial %s: no such reason: %d", e.Serial, e.Reason)
	}
	start := len(dst)
	dst, err := appendSerial(append(dst, 0x30, 0), e.Serial)
	if err != nil {
		return dst[:start], fmt.Errorf("CRL: %w", err)
	}
	dst = appendTime(dst, e.At)
	if e.Reason != cert.Unspecified { // which should be left out
		dst = append(dst, reasonExtension...)
		dst = append(dst, byte(e.Reason))
	}
	dst[start+1] = byte(len(dst) - start - 2)
	return dst, nil
}

// appendSerial encodes a serial as INTEGER.
func appendSerial(dst []byte, s cert.Serial) ([]byte, error) {
	if _, err := cert.ParseSerial(string(s)); err != nil {
		return dst, fmt.Errorf("%.50q: %w", s, err)
	}
	var room [20]byte
	n, err := hex.Decode(room[:], []byte(s))
	serial := bytes.TrimLeft(room[:n], "\x00")
	if err != nil || len(serial) == 0 {
		return dst, fmt.Errorf("%q is not a positive serial", s)
	}
	if serial[0]&0x80 == 0 {
		dst = append(dst, 0x02, byte(len(serial)))
	} else { // else it would be negative
		dst = append(dst, 0x02, byte(len(serial)+1), 0)
	}
	return append(dst, serial...), nil
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
	signature, err := u.algorithm.sign(u.issuer, u.TBS(), sign)
	if err != nil {
		return nil, fmt.Errorf("sign a CRL: %w", err)
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
