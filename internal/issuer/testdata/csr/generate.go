//go:build ignore

// Generate writes the CSR vectors beside it, with fresh keys: one fault per
// file, the reason inside. Run it in this folder: go run generate.go
package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"strings"
)

type (
	oid = asn1.ObjectIdentifier
	raw = asn1.RawValue
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func der(v any) []byte { return must(asn1.Marshal(v)) }

// tlv is any tag, class and content.
func tlv(class, tag int, constructed bool, content ...[]byte) []byte {
	return der(raw{Class: class, Tag: tag, IsCompound: constructed, Bytes: bytes.Join(content, nil)})
}

func sequence(content ...[]byte) []byte { return tlv(0, 16, true, content...) }
func set(content ...[]byte) []byte      { return tlv(0, 17, true, content...) }
func hexed(s string) []byte             { return must(hex.DecodeString(s)) }

func name(tag int, value string) []byte { return tlv(2, tag, false, []byte(value)) }
func dns(value string) []byte           { return name(2, value) }
func ip(value string) []byte            { return name(7, string(netip.MustParseAddr(value).AsSlice())) }

func extension(id oid, critical bool, value []byte) []byte {
	if critical {
		return sequence(der(id), der(true), der(value))
	}
	return sequence(der(id), der(value))
}

func san(names ...[]byte) []byte { return extension(oid{2, 5, 29, 17}, false, sequence(names...)) }
func eku(purposes ...int) []byte {
	var list [][]byte
	for _, p := range purposes {
		list = append(list, der(oid{1, 3, 6, 1, 5, 5, 7, 3, p}))
	}
	return extension(oid{2, 5, 29, 37}, false, sequence(list...))
}

// cn is a subject of CommonNames.
func cn(values ...string) []byte {
	var list [][]byte
	for _, v := range values {
		list = append(list, set(sequence(der(oid{2, 5, 4, 3}), tlv(0, 12, false, []byte(v)))))
	}
	return sequence(list...)
}

var empty = sequence()

// request is a CSR to be; zero fields mean the good thing.
type request struct {
	version    int
	subject    []byte
	extensions [][]byte
	spki       []byte
	key        crypto.Signer
	algorithm  []byte
	hash       crypto.Hash
	pss        bool
	spoil      bool // the signature
}

var (
	p256     = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	p384     = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	rsa2048  = must(rsa.GenerateKey(rand.Reader, 2048))
	_, ed, _ = ed25519.GenerateKey(rand.Reader)

	ecdsaSHA1   = hexed("300906072a8648ce3d0401")
	ecdsaSHA256 = hexed("300a06082a8648ce3d040302")
	ecdsaSHA384 = hexed("300a06082a8648ce3d040303")
	rsaMD5      = hexed("300d06092a864886f70d0101040500")
	rsaSHA1     = hexed("300d06092a864886f70d0101050500")
	rsaSHA256   = hexed("300d06092a864886f70d01010b0500")
	rsaPSS256   = hexed("304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120")
	pureEd25519 = hexed("300506032b6570")
)

func (r request) build() []byte {
	if r.key == nil {
		r.key, r.algorithm, r.hash = p256, ecdsaSHA256, crypto.SHA256
	}
	if r.spki == nil {
		r.spki = must(x509.MarshalPKIXPublicKey(r.key.Public()))
	}
	if r.subject == nil {
		r.subject = empty
	}
	var attributes []byte
	if len(r.extensions) > 0 {
		attributes = sequence(der(oid{1, 2, 840, 113549, 1, 9, 14}), set(sequence(r.extensions...)))
	}
	info := sequence(der(r.version), r.subject, r.spki, tlv(2, 0, true, attributes))
	digest := info
	if r.hash != 0 {
		h := r.hash.New()
		h.Write(info)
		digest = h.Sum(nil)
	}
	var opts crypto.SignerOpts = r.hash
	if r.pss {
		opts = &rsa.PSSOptions{SaltLength: 32, Hash: r.hash}
	}
	signature := must(r.key.Sign(rand.Reader, digest, opts))
	if r.spoil {
		signature[len(signature)-1] ^= 1
	}
	return sequence(info, r.algorithm, der(asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}))
}

// rsaSPKI is an RSA key that nobody has the private half of.
func rsaSPKI(bits int) []byte {
	n := must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits-2))))
	n.SetBit(n.SetBit(n, bits-1, 1), 0, 1)
	return sequence(hexed("300d06092a864886f70d0101010500"), bitString(sequence(der(n), der(65537))))
}

func bitString(b []byte) []byte { return der(asn1.BitString{Bytes: b, BitLength: 8 * len(b)}) }

// ecSPKI is an EC key by curve and point.
func ecSPKI(curve oid, point []byte) []byte {
	return sequence(sequence(der(oid{1, 2, 840, 10045, 2, 1}), der(curve)), bitString(point))
}

var prime256v1 = oid{1, 2, 840, 10045, 3, 1, 7}

func write(file, expect, reason, names, usage, says string, csr []byte) {
	var b strings.Builder
	fmt.Fprintf(&b, "expect: %s\nreason: %s\n", expect, reason)
	for _, line := range [][2]string{{"names", names}, {"usage", usage}, {"says", says}} {
		if line[1] != "" {
			fmt.Fprintf(&b, "%s: %s\n", line[0], line[1])
		}
	}
	b.WriteByte('\n')
	b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))
	if err := os.WriteFile(file+".txt", []byte(b.String()), 0o644); err != nil {
		panic(err)
	}
}

func good(file, reason, names, usage string, r request) {
	write(file, "ok", reason, names, usage, "", r.build())
}

func bad(file, reason, says string, r request) {
	write(file, "badCSR", reason, "", "", says, r.build())
}

func badDER(file, reason, says string, csr []byte) {
	write(file, "badCSR", reason, "", "", says, csr)
}

func exts(e ...[]byte) [][]byte { return e }

var a = san(dns("a.example"))

func main() {
	goodOnes()
	badNames()
	badKeys()
	badFrames()
}

func goodOnes() {
	good("ok-san", "the common form: empty subject, one dns name in subjectAltName", "dns:a.example", "", request{extensions: exts(a)})
	good("ok-cn-only", "RFC 8555 section 7.4: names may stand in the CommonName alone", "dns:a.example", "", request{subject: cn("a.example")})
	good("ok-cn-in-san", "the CommonName repeats a name of subjectAltName", "dns:a.example dns:b.example", "", request{subject: cn("b.example"), extensions: exts(san(dns("a.example"), dns("b.example")))})
	good("ok-cn-beside-san", "RFC 8555 section 7.4: the CommonName and subjectAltName count together", "dns:a.example dns:b.example", "", request{subject: cn("b.example"), extensions: exts(a)})
	good("ok-cn-ip", "a CommonName that is an address counts as one", "ip:192.0.2.1", "", request{subject: cn("192.0.2.1")})
	good("ok-mixed-case", "dns names are compared without case (RFC 4343)", "dns:a.example", "", request{subject: cn("A.Example"), extensions: exts(san(dns("a.EXAMPLE")))})
	good("ok-twice", "a name twice is a name", "dns:a.example", "", request{extensions: exts(san(dns("a.example"), dns("a.example")))})
	good("ok-sorted", "names come out sorted, whatever their order", "dns:a.example dns:b.example ip:192.0.2.1 ip:2001:db8::1", "", request{extensions: exts(san(ip("2001:db8::1"), dns("b.example"), ip("192.0.2.1"), dns("a.example")))})
	good("ok-wildcard", "a wildcard is a name", "dns:*.a.example", "", request{extensions: exts(san(dns("*.a.example")))})
	good("ok-eku-server", "exactly serverAuth is recognised", "dns:a.example", "server", request{extensions: exts(a, eku(1))})
	good("ok-eku-client", "exactly clientAuth is recognised", "dns:a.example", "client", request{extensions: exts(eku(2), a)})
	good("ok-eku-both", "two purposes are neither", "dns:a.example", "other", request{extensions: exts(a, eku(1, 2))})
	good("ok-eku-code", "codeSigning is another", "dns:a.example", "other", request{extensions: exts(a, eku(3))})
	good("ok-eku-damaged", "an extended key usage that can't be read is another", "dns:a.example", "other", request{extensions: exts(a, extension(oid{2, 5, 29, 37}, false, []byte{0x30, 0x05}))})
	good("ok-asks-ca", "CA:TRUE and keyCertSign are asked for, and ignored", "dns:a.example", "", request{extensions: exts(a, extension(oid{2, 5, 29, 19}, true, hexed("30030101ff")), extension(oid{2, 5, 29, 15}, true, hexed("03020106")))})
	good("ok-odd-extension", "an unknown critical extension is ignored", "dns:a.example", "", request{extensions: exts(a, extension(oid{1, 3, 6, 1, 4, 1, 55555, 1}, true, hexed("0500")))})
	good("ok-rsa", "RSA-2048 with SHA-256", "dns:a.example", "", request{extensions: exts(a), key: rsa2048, algorithm: rsaSHA256, hash: crypto.SHA256})
	good("ok-rsa-pss", "RSA-2048 with PSS", "dns:a.example", "", request{extensions: exts(a), key: rsa2048, algorithm: rsaPSS256, hash: crypto.SHA256, pss: true})
	good("ok-p384", "P-384 with SHA-384", "dns:a.example", "", request{extensions: exts(a), key: p384, algorithm: ecdsaSHA384, hash: crypto.SHA384})
	good("ok-ed25519", "Ed25519", "dns:a.example", "", request{extensions: exts(a), key: ed, algorithm: pureEd25519})
}

func badNames() {
	bad("no-names", "neither CommonName nor subjectAltName", "names nothing", request{})
	bad("san-empty", "an empty subjectAltName", "names nothing", request{extensions: exts(san())})
	bad("san-email", "an rfc822Name", "an email address", request{extensions: exts(san(dns("a.example"), name(1, "me@a.example")))})
	bad("san-uri", "a uniformResourceIdentifier", "a URI", request{extensions: exts(san(dns("a.example"), name(6, "spiffe://a.example/x")))})
	bad("san-other-name", "an otherName, which crypto/x509 passes over", "an otherName", request{extensions: exts(san(dns("a.example"), tlv(2, 0, true, der(oid{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}), tlv(2, 0, true, tlv(0, 12, false, []byte("root"))))))})
	bad("san-directory-name", "a directoryName, which crypto/x509 passes over", "a directory name", request{extensions: exts(san(dns("a.example"), tlv(2, 4, true, cn("root"))))})
	bad("san-registered-id", "a registeredID, which crypto/x509 passes over", "a name of kind 8", request{extensions: exts(san(dns("a.example"), tlv(2, 8, false, []byte{0x2a})))})
	bad("san-ip-5-bytes", "an iPAddress of five bytes", "", request{extensions: exts(san(name(7, "abcde")))})
	bad("san-ip-mapped", "an IPv4-mapped IPv6 address", "IPv4-mapped", request{extensions: exts(san(ip("::ffff:192.0.2.1")))})
	bad("san-dns-empty", "an empty dnsName", "is empty", request{extensions: exts(san(dns("")))})
	bad("san-dns-dot", "a dnsName with a trailing dot", "ends with a dot", request{extensions: exts(san(dns("a.example.")))})
	bad("san-dns-empty-label", "a dnsName with an empty label", "a label is empty", request{extensions: exts(san(dns("a..example")))})
	bad("san-dns-underscore", "a dnsName that is no host name", "other than letters", request{extensions: exts(san(dns("a_b.example")))})
	bad("san-dns-ip", "a dnsName that is an address", "is an IP address", request{extensions: exts(san(dns("192.0.2.1")))})
	bad("san-dns-nul", "a dnsName with a NUL, which C programs take for its end", "other than letters", request{extensions: exts(san(dns("a.example\x00.b.example")))})
	bad("san-dns-utf8", "a dnsName that isn't ASCII", "", request{extensions: exts(san(dns("ä.example")))})
	bad("san-dns-wildcard", "a wildcard in the second label", "wildcard", request{extensions: exts(san(dns("a.*.example")))})
	bad("san-dns-half-wildcard", "a wildcard for a part of a label", "wildcard", request{extensions: exts(san(dns("a*.example")))})
	bad("san-dns-long", "a dnsName of 254 characters", "longer than 253", request{extensions: exts(san(dns(strings.Repeat("abcdefg.", 31) + "abcdef")))})
	bad("san-trailing", "bytes after the subjectAltName", "", request{extensions: exts(extension(oid{2, 5, 29, 17}, false, append(sequence(dns("a.example")), 5, 0)))})
	bad("san-not-a-sequence", "a subjectAltName that is a SET", "", request{extensions: exts(extension(oid{2, 5, 29, 17}, false, set(dns("a.example"))))})
	bad("san-cut", "a subjectAltName that ends too soon", "", request{extensions: exts(extension(oid{2, 5, 29, 17}, false, sequence(dns("a.example"))[:8]))})
	bad("san-twice", "two subjectAltNames", "duplicate", request{extensions: exts(a, san(dns("b.example")))})
	bad("cn-not-a-name", "a CommonName that is no host name", "leave it out", request{subject: cn("My Server"), extensions: exts(a)})
	bad("cn-empty", "an empty CommonName", "leave it out", request{subject: cn(""), extensions: exts(a)})
	bad("cn-twice", "two CommonNames: which one counts differs between programs", "more than one CommonName", request{subject: cn("a.example", "b.example")})
}

func badKeys() {
	use := func(spki []byte) request { return request{extensions: exts(a), spki: spki} }
	bad("key-rsa-1024", "RSA-1024", "1024 bits", use(rsaSPKI(1024)))
	bad("key-rsa-4104", "RSA over 4096 bits: its signature isn't even looked at", "4104 bits", use(rsaSPKI(4104)))
	bad("key-rsa-65536", "RSA of 65536 bits, whose verification would take long", "65536 bits", use(rsaSPKI(65536)))
	bad("key-dsa", "a DSA key", "not supported", use(sequence(sequence(der(oid{1, 2, 840, 10040, 4, 1}), sequence(der(23), der(11), der(2))), bitString(der(3)))))
	bad("key-x25519", "a key that can't sign", "1.3.101.110", use(sequence(sequence(der(oid{1, 3, 101, 110})), bitString(make([]byte, 32)))))
	bad("key-secp256k1", "a curve that crypto/x509 doesn't know", "", use(ecSPKI(oid{1, 3, 132, 0, 10}, append([]byte{4}, make([]byte, 64)...))))
	point := must(p256.PublicKey.Bytes())
	off := bytes.Clone(point)
	off[64] ^= 1
	bad("key-off-curve", "a P-256 point that isn't on the curve", "", use(ecSPKI(prime256v1, off)))
	bad("key-infinity", "the point at infinity", "", use(ecSPKI(prime256v1, []byte{0})))
	bad("key-short-point", "a P-256 point cut short", "", use(ecSPKI(prime256v1, point[:64])))
	bad("key-unknown", "a key of an unknown kind", "not supported", use(sequence(sequence(der(oid{1, 3, 6, 1, 4, 1, 55555, 2})), bitString([]byte{1}))))
	bad("key-other", "another key than the one that signed: no proof of possession", "signature", use(must(x509.MarshalPKIXPublicKey(&must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).PublicKey))))
}

func badFrames() {
	whole := request{extensions: exts(a)}.build()
	badDER("der-empty", "no bytes at all", "not a PKCS#10 request", nil)
	badDER("der-cut", "the last byte is missing", "not a PKCS#10 request", whole[:len(whole)-1])
	badDER("der-trailing", "a byte too many", "not a PKCS#10 request", append(bytes.Clone(whole), 0))
	badDER("der-pem", "PEM inside, as some clients send", "is PEM", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: whole}))
	indefinite := append(append([]byte{0x30, 0x80}, whole[header(whole):]...), 0, 0)
	badDER("der-indefinite", "BER's indefinite length", "not a PKCS#10 request", indefinite)
	padded := append([]byte{0x30, 0x83, 0, byte((len(whole) - header(whole)) >> 8), byte(len(whole) - header(whole))}, whole[header(whole):]...)
	badDER("der-long-length", "a length in more bytes than it needs", "not a PKCS#10 request", padded)
	bad("version-3", "RFC 2986 section 4.1 knows version 0 only, and clients in use send up to 2", "version", request{version: 3, extensions: exts(a)})
	good("ok-version-2", "ruby-acme-client says so, and the version decides nothing", "dns:a.example", "", request{version: 2, extensions: exts(a)})
	bad("signature-spoilt", "one bit of the signature is wrong", "signature", request{extensions: exts(a), spoil: true})
	bad("signature-sha1", "signed with RSA and SHA-1", "SHA-256 or better", request{extensions: exts(a), key: rsa2048, algorithm: rsaSHA1, hash: crypto.SHA1})
	bad("signature-ecdsa-sha1", "signed with ECDSA and SHA-1", "SHA-256 or better", request{extensions: exts(a), key: p256, algorithm: ecdsaSHA1, hash: crypto.SHA1})
	bad("signature-md5", "said to be signed with RSA and MD5", "SHA-256 or better", request{extensions: exts(a), key: rsa2048, algorithm: rsaMD5, hash: crypto.SHA256})
	bad("signature-other-kind", "an RSA algorithm over an ECDSA key", "signature", request{extensions: exts(a), key: p256, algorithm: rsaSHA256, hash: crypto.SHA256})
	var many [][]byte
	for i := range 1500 {
		many = append(many, dns(fmt.Sprintf("host-%06d.a.example", i)))
	}
	bad("too-long", "over 32 KiB", "longer than", request{extensions: exts(san(many...))})
}

// header is the length of the outermost tag and length.
func header(b []byte) int {
	if b[1] < 0x80 {
		return 2
	}
	return 2 + int(b[1]&0x7f)
}
