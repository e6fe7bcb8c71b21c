package issuer

import (
	"crypto/sha256"
	"encoding/asn1"
	"net/netip"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// The extensions we write (RFC 5280 section 4.2, RFC 9608).
var (
	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidCRLPoints        = asn1.ObjectIdentifier{2, 5, 29, 31}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidNoRevAvail       = asn1.ObjectIdentifier{2, 5, 29, 56}
	oidAuthorityInfo    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}
	oidOCSP             = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1}
	oidCAIssuers        = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 2}
)

// template is what a certificate shall say; all of it checked before.
type template struct {
	serial     cert.Serial
	notBefore  time.Time
	notAfter   time.Time
	commonName string // "": the subject is empty
	spki       []byte // SubjectPublicKeyInfo
	encipher   bool   // keyEncipherment as well
	usages     []cert.Usage
	names      []protocol.Identifier
	crlURL     string // "": none
	crlShard   int
	ocspURL    string // "": none
	noRevAvail bool
}

// buildTBS encodes a TBSCertificate (RFC 5280 section 4.1.2), its extensions in
// the order in which crypto/x509 writes them: a test compares the two byte by
// byte.
func buildTBS(a *authority, t *template) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, 1024))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1Int64(2) // v3
		})
		b.AddASN1BigInt(t.serial.Big())
		b.AddBytes(a.algorithm.der)
		b.AddBytes(a.cert.RawSubject)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addTime(b, t.notBefore)
			addTime(b, t.notAfter)
		})
		addSubject(b, t.commonName)
		b.AddBytes(t.spki)
		b.AddASN1(cbasn1.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addExtensions(b, a, t) })
		})
	})
	return b.Bytes()
}

// addTime writes UTCTime through 2049 and GeneralizedTime after (RFC 5280
// section 4.1.2.5).
func addTime(b *cryptobyte.Builder, t time.Time) {
	if t.Year() < 2050 {
		b.AddASN1UTCTime(t)
	} else {
		b.AddASN1GeneralizedTime(t)
	}
}

func addSubject(b *cryptobyte.Builder, commonName string) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if commonName == "" {
			return
		}
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidCommonName)
				b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(commonName)) })
			})
		})
	})
}

func addExtensions(b *cryptobyte.Builder, a *authority, t *template) {
	addExtension(b, oidKeyUsage, true, func(b *cryptobyte.Builder) {
		usage, unused := byte(0x80), byte(7) // digitalSignature
		if t.encipher {
			usage, unused = 0xa0, 5 // and keyEncipherment
		}
		b.AddASN1(cbasn1.BIT_STRING, func(b *cryptobyte.Builder) { b.AddBytes([]byte{unused, usage}) })
	})
	addExtension(b, oidExtKeyUsage, false, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, usage := range t.usages {
				b.AddASN1ObjectIdentifier(purpose[usage])
			}
		})
	})
	addExtension(b, oidBasicConstraints, true, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(*cryptobyte.Builder) {}) // CA defaults to FALSE
	})
	addExtension(b, oidSubjectKeyID, false, func(b *cryptobyte.Builder) {
		b.AddASN1OctetString(keyID(t.spki))
	})
	addExtension(b, oidAuthorityKeyID, false, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(a.cert.SubjectKeyId) })
		})
	})
	if a.issuerURL != "" || t.ocspURL != "" {
		addExtension(b, oidAuthorityInfo, false, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				addAccess(b, oidOCSP, t.ocspURL)
				addAccess(b, oidCAIssuers, a.issuerURL)
			})
		})
	}
	// Critical when it alone names the subject (section 4.2.1.6).
	addExtension(b, oidSubjectAltName, t.commonName == "", func(b *cryptobyte.Builder) { addNames(b, t.names) })
	if t.crlURL != "" {
		addExtension(b, oidCRLPoints, false, func(b *cryptobyte.Builder) { addCRLPoint(b, t.crlURL) })
	}
	if t.noRevAvail {
		addExtension(b, oidNoRevAvail, false, func(b *cryptobyte.Builder) { b.AddASN1NULL() })
	}
}

// addAccess writes one AccessDescription (RFC 5280 section 4.2.2.1), none for
// an empty URL.
func addAccess(b *cryptobyte.Builder, method asn1.ObjectIdentifier, url string) {
	if url == "" {
		return
	}
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(method)
		b.AddASN1(tagURI, func(b *cryptobyte.Builder) { b.AddBytes([]byte(url)) })
	})
}

func addNames(b *cryptobyte.Builder, names []protocol.Identifier) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, id := range names {
			switch id.Type {
			case protocol.DNS:
				b.AddASN1(tagDNS, func(b *cryptobyte.Builder) { b.AddBytes([]byte(id.Value)) })
				continue
			case protocol.PermanentIdentifier:
				addPermanent(b, id.Value)
				continue
			}
			addr, err := netip.ParseAddr(id.Value)
			if err != nil {
				b.SetError(err)
				return
			}
			b.AddASN1(tagIP, func(b *cryptobyte.Builder) { b.AddBytes(addr.AsSlice()) })
		}
	})
}

// addCRLPoint writes one DistributionPoint with one fullName, a URI (RFC 5280
// section 4.2.1.13).
func addCRLPoint(b *cryptobyte.Builder, url string) {
	explicit := cbasn1.Tag(0).ContextSpecific().Constructed()
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(explicit, func(b *cryptobyte.Builder) { // distributionPoint
				b.AddASN1(explicit, func(b *cryptobyte.Builder) { // fullName
					b.AddASN1(tagURI, func(b *cryptobyte.Builder) { b.AddBytes([]byte(url)) })
				})
			})
		})
	})
}

func addExtension(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, critical bool, value cryptobyte.BuilderContinuation) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(cbasn1.OCTET_STRING, value)
	})
}

// purpose is the id-kp of each usage (RFC 5280 section 4.2.1.12).
var purpose = map[cert.Usage]asn1.ObjectIdentifier{cert.Server: oidServerAuth, cert.Client: oidClientAuth}

// keyID is a key identifier by RFC 7093 section 2 method 1: the first 160 bits
// of the SHA-256 of the public key's bits.
func keyID(spki []byte) []byte {
	s := cryptobyte.String(spki)
	var outer cryptobyte.String
	var bits asn1.BitString
	if s.ReadASN1(&outer, cbasn1.SEQUENCE) && outer.SkipASN1(cbasn1.SEQUENCE) && outer.ReadASN1BitString(&bits) {
		spki = bits.Bytes
	}
	h := sha256.Sum256(spki)
	return h[:20]
}

// assemble makes the Certificate of its three parts (RFC 5280 section 4.1).
func assemble(tbs, algorithm, signature []byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+len(algorithm)+len(signature)+16))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(algorithm)
		b.AddASN1BitString(signature)
	})
	return b.Bytes()
}
