package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
)

func octets(b []byte) []byte {
	out, err := asn1.Marshal(b)
	if err != nil {
		panic(err)
	}
	return out
}

func oid(t *testing.T, ids ...int) []byte {
	t.Helper()
	out, err := asn1.Marshal(asn1.ObjectIdentifier(ids))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// CKA_EC_POINT is an OCTET STRING by the book and bare in some tokens
// (PKCS#11 2.40 mechanisms, section 2.3.3).
func TestPointForms(t *testing.T) {
	for _, c := range []struct {
		curve elliptic.Curve
		oid   []byte
	}{
		// RFC 5480 section 2.1.1.1.
		{elliptic.P256(), oid(t, 1, 2, 840, 10045, 3, 1, 7)},
		{elliptic.P384(), oid(t, 1, 3, 132, 0, 34)},
		{elliptic.P521(), oid(t, 1, 3, 132, 0, 35)},
	} {
		key, err := ecdsa.GenerateKey(c.curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range [][]byte{point, octets(point)} {
			got, err := parseECDSA(c.oid, form)
			if err != nil || !got.Equal(&key.PublicKey) {
				t.Errorf("%s, %d bytes: %v", c.curve.Params().Name, len(form), err)
			}
		}
		off := bytes.Clone(point)
		off[len(off)-1] ^= 1
		for name, bad := range map[string][]byte{
			"empty": {}, "off the curve": off, "short": point[:len(point)-1], "long": append(bytes.Clone(point), 0),
			"trailing": append(octets(point), 0), "wrapped twice": octets(octets(point)),
			"compressed": elliptic.MarshalCompressed(c.curve, key.X, key.Y), "infinity": {0}, "bit string": append([]byte{3, byte(len(point) + 1), 0}, point...),
		} {
			if got, err := parseECDSA(c.oid, bad); err == nil {
				t.Errorf("%s %s: accepted as %v", c.curve.Params().Name, name, got)
			}
		}
	}
	for name, params := range map[string][]byte{
		"secp256k1": oid(t, 1, 3, 132, 0, 10), "P-224": oid(t, 1, 3, 132, 0, 33), "explicit": {0x30, 0}, "none": nil, "implicit": {5, 0},
	} {
		if _, err := parseECDSA(params, make([]byte, 65)); err == nil || !strings.Contains(err.Error(), "P-256") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEd25519Forms(t *testing.T) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// RFC 8410 section 3, and PKCS#11 3.0's curveName.
	name, err := asn1.MarshalWithParams("edwards25519", "printable")
	if err != nil {
		t.Fatal(err)
	}
	for _, params := range [][]byte{oid(t, 1, 3, 101, 112), name} {
		for _, point := range [][]byte{public, octets(public)} {
			if got, err := parseEd25519(params, point); err != nil || !got.Equal(public) {
				t.Errorf("% x: %v", params, err)
			}
		}
	}
	if _, err := parseEd25519(oid(t, 1, 3, 101, 113), public); err == nil {
		t.Error("Ed448 was taken for Ed25519")
	}
	if _, err := parseEd25519(oid(t, 1, 3, 101, 112), public[:31]); err == nil {
		t.Error("a short key was accepted")
	}
}

func TestRSABounds(t *testing.T) {
	number := func(bits uint) []byte {
		return new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), bits-1), big.NewInt(1)).Bytes()
	}
	for _, c := range []struct {
		bits uint
		e    []byte
		good bool
	}{
		{2048, []byte{1, 0, 1}, true},
		{2048, []byte{0, 0, 0, 0, 0, 1, 0, 1}, true}, // some tokens pad
		{4096, []byte{3}, true},
		{8192, []byte{1, 0, 1}, true},
		{1024, []byte{1, 0, 1}, false},
		{8193, []byte{1, 0, 1}, false},
		{2048, []byte{1}, false},
		{2048, []byte{4}, false},
		{2048, nil, false},
		{2048, []byte{0x80, 0, 0, 1}, false},
		{2048, []byte{1, 0, 0, 0, 0, 0, 0, 0, 1}, false},
	} {
		if _, err := parseRSA(number(c.bits), c.e); (err == nil) != c.good {
			t.Errorf("%d bits, exponent % x: %v", c.bits, c.e, err)
		}
	}
}

// A raw ECDSA signature is r and s, each padded to the order (mechanisms 2.40,
// section 2.3.1); the INTEGERs of X.509 are minimal and positive.
func TestSignatureForms(t *testing.T) {
	public := &ecdsa.PublicKey{Curve: elliptic.P256()}
	raw := make([]byte, 64)
	raw[31], raw[32] = 1, 0x80 // r = 1, s = 2^255
	got, err := signature(public, raw)
	want := append([]byte{0x30, 38, 2, 1, 1, 2, 33, 0, 0x80}, make([]byte, 31)...)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("% x, %v; want % x", got, err, want)
	}
	for _, n := range []int{0, 1, 63, 65, 66, 128} {
		if _, err := signature(public, make([]byte, n)); err == nil {
			t.Errorf("%d bytes were taken for a P-256 signature", n)
		}
	}
	if _, err := signature(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 3}, make([]byte, 255)); err == nil {
		t.Error("255 bytes were taken for an RSA-2048 signature")
	}
	if _, err := signature(make(ed25519.PublicKey, 32), make([]byte, 63)); err == nil {
		t.Error("63 bytes were taken for an Ed25519 signature")
	}
}

func TestMessage(t *testing.T) {
	p256 := &ecdsa.PublicKey{Curve: elliptic.P256()}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	edwards := make(ed25519.PublicKey, 32)
	d256, d512 := sha256.Sum256(nil), sha512.Sum512(nil)

	// FIPS 186-5 section 6.4.1: the leftmost bits.
	if got, err := message(p256, d512[:], crypto.SHA512); err != nil || !bytes.Equal(got, d512[:32]) {
		t.Errorf("SHA-512 with P-256: % x, %v", got, err)
	}
	if got, err := message(edwards, []byte("text"), crypto.Hash(0)); err != nil || string(got) != "text" {
		t.Errorf("Ed25519: %q, %v", got, err)
	}
	// RFC 8017 section 9.2: crypto/rsa's own encoding is the second opinion.
	for hash, digest := range map[crypto.Hash][]byte{crypto.SHA256: d256[:], crypto.SHA384: d512[:48], crypto.SHA512: d512[:]} {
		got, err := message(&private.PublicKey, digest, hash)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := rsa.SignPKCS1v15(nil, private, 0, got) // hash 0: what is given is signed as it is
		if err != nil {
			t.Fatal(err)
		}
		if err := rsa.VerifyPKCS1v15(&private.PublicKey, hash, digest, sig); err != nil {
			t.Errorf("%v: %v", hash, err)
		}
	}
	for name, c := range map[string]struct {
		key    crypto.PublicKey
		digest []byte
		opts   crypto.SignerOpts
	}{
		"SHA-1":                {p256, make([]byte, 20), crypto.SHA1},
		"no hash":              {p256, d256[:], crypto.Hash(0)},
		"short digest":         {p256, d256[:31], crypto.SHA256},
		"long digest":          {&private.PublicKey, d512[:], crypto.SHA256},
		"PSS":                  {&private.PublicKey, d256[:], &rsa.PSSOptions{Hash: crypto.SHA256}},
		"Ed25519 of a digest":  {edwards, d512[:], crypto.SHA512},
		"Ed25519 with context": {edwards, nil, &ed25519.Options{Context: "x"}},
	} {
		if _, err := message(c.key, c.digest, c.opts); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// Whatever a token shows as a public key, reading it neither panics nor gives
// a key that isn't usable.
func FuzzPublic(f *testing.F) {
	f.Add(curves()[0].params, make([]byte, 65), []byte{1, 0, 1})
	f.Add(edParams, make([]byte, 34), []byte{3})
	f.Add([]byte{}, []byte{4, 0x82, 0xff, 0xff}, []byte{})
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		if key, err := parseECDSA(a, b); err == nil {
			if _, err := x509.MarshalPKIXPublicKey(key); err != nil {
				t.Error(err)
			}
		}
		if key, err := parseEd25519(a, b); err == nil && len(key) != ed25519.PublicKeySize {
			t.Errorf("%d bytes", len(key))
		}
		if key, err := parseRSA(b, c); err == nil {
			if _, err := x509.MarshalPKIXPublicKey(key); err != nil {
				t.Error(err)
			}
		}
		for _, key := range []crypto.PublicKey{&ecdsa.PublicKey{Curve: elliptic.P384()}, make(ed25519.PublicKey, 32)} {
			if sig, err := signature(key, b); err == nil && len(sig) == 0 {
				t.Error("an empty signature")
			}
		}
		if key, err := parseSPKI(b); (key == nil) != (err != nil) {
			t.Errorf("%v, %v", key, err)
		}
	})
}
