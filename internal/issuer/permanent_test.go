package issuer

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

func person(name string) protocol.Identifier {
	return protocol.Identifier{Type: protocol.PermanentIdentifier, Value: name}
}

// RFC 4043 section 2, by hand: otherName, id-on-permanentIdentifier, [0],
// SEQUENCE, UTF8String.
const aliceName = "301a" + "a018" + "06082b06010505070803" + "a00c" + "300a" + "0c08" + "616c6963652d7831"

// permanentCSR is a CSR with a CommonName and a subjectAltName as they are.
func permanentCSR(t *testing.T, key crypto.Signer, commonName, san string) (*CSR, error) {
	t.Helper()
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: commonName}}
	if san != "" {
		value, err := hex.DecodeString(san)
		if err != nil {
			t.Fatal(err)
		}
		template.ExtraExtensions = []pkix.Extension{{Id: oidSubjectAltName, Value: value}}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return ParseCSR(der)
}

// A CSR may name a person or a device as an otherName, or as the step CLI does,
// in its CommonName alone.
func TestPermanentCSR(t *testing.T) {
	key := newKey(t, cert.P256)
	for _, tt := range []struct {
		commonName, san string
		order           []protocol.Identifier
		good            bool
	}{
		{"", aliceName, []protocol.Identifier{person("alice-x1")}, true},
		{"alice-x1", aliceName, []protocol.Identifier{person("alice-x1")}, true},
		{"alice", "", []protocol.Identifier{person("alice")}, true},
		{"Alice", "", []protocol.Identifier{person("alice")}, true},
		{"alice@example.com", "", []protocol.Identifier{person("alice@example.com")}, true},
		{"12345678", "", []protocol.Identifier{person("12345678")}, true},
		{"alice.example", "", append(ids("alice.example"), person("alice")), false},
		{"alice.example", aliceName, append(ids("alice.example"), person("alice-x1")), true},
		{"alice", "", ids("alice"), true},
		{"alice", "", append(ids("alice"), person("alice")), false}, // it is one of them
		{"alice", "", []protocol.Identifier{person("bob")}, false},
		{"", aliceName, ids("alice-x1"), false}, // no dns name
		{"", aliceName, []protocol.Identifier{person("alice")}, false},
		{"12345678", "", []protocol.Identifier{person("12345679")}, false},
	} {
		c, err := permanentCSR(t, key, tt.commonName, tt.san)
		if err != nil {
			t.Errorf("%q %s: %v", tt.commonName, tt.san, err)
			continue
		}
		if err := c.Match(tt.order); (err == nil) != tt.good {
			t.Errorf("%q %s for %v: %v", tt.commonName, tt.san, tt.order, err)
		}
	}
	for why, san := range map[string]string{
		"another type":        strings.Replace(aliceName, "0803", "0809", 1),
		"an assigner":         "301e" + "a01c" + "06082b06010505070803" + "a010" + "300e" + "0c08616c6963652d7831" + "06022a03",
		"no value":            "3010" + "a00e" + "06082b06010505070803" + "a002" + "3000",
		"an IA5String":        strings.Replace(aliceName, "0c08", "1608", 1),
		"no person":           strings.Replace(aliceName, "616c", "2a20", 1),
		"not UTF-8":           strings.Replace(aliceName, "616c", "ffff", 1),
		"cut":                 "3009" + "a007" + "06052b06010505",
		"a primitive tag":     strings.Replace(aliceName, "a018", "8018", 1),
		"something behind it": "301c" + "a01a" + "06082b06010505070803" + "a00e" + "300a" + "0c08616c6963652d7831" + "0500",
	} {
		if c, err := permanentCSR(t, key, "", san); err == nil || protocol.AsProblem(err).Type != protocol.BadCSR {
			t.Errorf("%s: %+v, %v", why, c, err)
		}
	}
}

// What names people only verifies everywhere: Go's verifier, which knows no
// otherNames, and OpenSSL's, which prints them.
func TestPermanentCertificate(t *testing.T) {
	p := newPKI(t, cert.P256, CA{})
	l := p.local(t)
	for _, tt := range []struct {
		names    []protocol.Identifier
		subject  string
		critical bool
	}{
		{[]protocol.Identifier{person("alice")}, "CN=alice", false},
		{[]protocol.Identifier{person("12345678")}, "CN=12345678", false},
		{[]protocol.Identifier{person(strings.Repeat("a", 64))}, "CN=" + strings.Repeat("a", 64), false},
		{append(ids("a.example", "192.0.2.1"), person("alice")), "", true},
	} {
		r := request(t)
		r.Names = tt.names
		r.Profile.Usages = []cert.Usage{cert.Client}
		c := issue(t, l, r)
		san, critical := []byte(nil), false
		for _, e := range c.Extensions {
			if e.Id.Equal(oidSubjectAltName) {
				san, critical = e.Value, e.Critical
			}
		}
		if got, ok := permanentNames(san); !ok || len(got) != 1 || got[0] != tt.names[len(tt.names)-1] || c.Subject.String() != tt.subject || critical != tt.critical {
			t.Errorf("%v: %v, subject %q, critical %v", tt.names, got, c.Subject, critical)
		}
		if err := verify(c, x509.ExtKeyUsageClientAuth, p.chain()...); err != nil {
			t.Errorf("%v: %v", tt.names, err)
		}
		out, err := openssl(t, "x509", "-noout", "-ext", "subjectAltName", "-in", writePEM(t, c))
		if err != nil || !strings.Contains(out, "othername") {
			t.Errorf("%v: %s, %v", tt.names, out, err)
		}
		if out, err := openssl(t, "verify", "-no_check_time", "-purpose", "sslclient", "-CAfile", writePEM(t, p.root), "-untrusted", writePEM(t, p.ca), writePEM(t, c)); err != nil {
			t.Errorf("%v: %s", tt.names, out)
		}
	}
}

// The encoding is RFC 4043's, byte by byte.
func TestPermanentEncoding(t *testing.T) {
	var b cryptobyte.Builder
	addNames(&b, []protocol.Identifier{person("alice-x1")})
	if got := hex.EncodeToString(b.BytesOrPanic()); got != aliceName {
		t.Errorf("%s, want %s", got, aliceName)
	}
}

// A planned certificate with a name that nobody asked for gets no token.
func TestLintNames(t *testing.T) {
	for why, names := range map[string]func(b *cryptobyte.Builder){
		"an email address": func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.Tag(1).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte("a@b")) })
		},
		"a URI": func(b *cryptobyte.Builder) {
			b.AddASN1(tagURI, func(b *cryptobyte.Builder) { b.AddBytes([]byte("spiffe://a/b")) })
		},
		"an otherName of another type": func(b *cryptobyte.Builder) {
			b.AddASN1(tagOther, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 2, 3}) })
		},
	} {
		var b cryptobyte.Builder
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addPermanent(b, "alice")
			names(b)
		})
		if got, ok := permanentNames(b.BytesOrPanic()); ok {
			t.Errorf("%s: %v", why, got)
		}
	}
}
