package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// curve is one elliptic curve as CKA_EC_PARAMS names it (RFC 5480 section
// 2.1.1.1), with the length of its uncompressed point.
type curve struct {
	elliptic elliptic.Curve
	params   []byte
	point    int
}

// edParams and edName are the two spellings of Ed25519 in CKA_EC_PARAMS: the
// OID of RFC 8410 section 3 (PKCS#11 3.0 errata), and PKCS#11 3.0's
// PrintableString.
var (
	edParams = []byte{0x06, 0x03, 0x2b, 0x65, 0x70}
	edName   = append([]byte{0x13, 12}, "edwards25519"...)
)

// curves returns the curves a CA key may be on here; weaker and rarer ones are
// refused.
func curves() []curve {
	return []curve{
		{elliptic.P256(), []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}, 65},
		{elliptic.P384(), []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22}, 97},
		{elliptic.P521(), []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23}, 133},
	}
}

// parseECDSA reads CKA_EC_PARAMS and CKA_EC_POINT. The point is an OCTET
// STRING (PKCS#11 2.40 mechanisms, section 2.3.3), or bare as older and some
// newer tokens give it.
func parseECDSA(params, point []byte) (*ecdsa.PublicKey, error) {
	for _, c := range curves() {
		if !bytes.Equal(params, c.params) {
			continue
		}
		raw, err := unwrap(point, c.point)
		if err != nil {
			return nil, err
		}
		key, err := ecdsa.ParseUncompressedPublicKey(c.elliptic, raw)
		if err != nil {
			return nil, fmt.Errorf("the token's public key is no point on %s", c.elliptic.Params().Name)
		}
		return key, nil
	}
	return nil, errors.New("an elliptic curve that a CA key can't be on here; use P-256, P-384 or P-521")
}

// parseEd25519 reads a key of type CKK_EC_EDWARDS.
func parseEd25519(params, point []byte) (ed25519.PublicKey, error) {
	if !bytes.Equal(params, edParams) && !bytes.Equal(params, edName) {
		return nil, errors.New("an Edwards curve that a CA key can't be on here; use Ed25519")
	}
	raw, err := unwrap(point, ed25519.PublicKeySize)
	return ed25519.PublicKey(raw), err
}

// unwrap returns the point of the given length, bare or in an OCTET STRING.
// The length tells the two apart: a bare P-256 point also starts with 04.
func unwrap(point []byte, length int) ([]byte, error) {
	if len(point) == length {
		return point, nil
	}
	var raw []byte
	rest, err := asn1.Unmarshal(point, &raw)
	if err != nil || len(rest) > 0 || len(raw) != length {
		return nil, fmt.Errorf("the token's public key is %d bytes in an unknown form; %d are expected, bare or as OCTET STRING", len(point), length)
	}
	return raw, nil
}

// parseRSA reads CKA_MODULUS and CKA_PUBLIC_EXPONENT, big-endian numbers. The
// bounds are those of key files.
func parseRSA(modulus, exponent []byte) (*rsa.PublicKey, error) {
	n, e := new(big.Int).SetBytes(modulus), new(big.Int).SetBytes(exponent)
	if bits := n.BitLen(); bits < 2048 || bits > 8192 {
		return nil, fmt.Errorf("an RSA key of %d bits; use 2048 to 8192", bits)
	}
	if e.BitLen() > 31 || e.Int64() < 3 || e.Bit(0) == 0 {
		return nil, errors.New("an RSA key with an exponent that isn't odd and of 2 to 31 bits; use 65537")
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// parseSPKI reads CKA_PUBLIC_KEY_INFO, or what a certificate certifies.
func parseSPKI(der []byte) (crypto.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errors.New("the token's public key is damaged or of an unknown kind")
	}
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P224() {
			return key, nil
		}
	case *rsa.PublicKey:
		return parseRSA(key.N.Bytes(), big.NewInt(int64(key.E)).Bytes())
	case ed25519.PublicKey:
		return key, nil
	}
	return nil, fmt.Errorf("a key of type %T can't sign certificates here; use P-256, P-384, P-521, RSA or Ed25519", key)
}

// keyName says what kind of key it is, for messages.
func keyName(public crypto.PublicKey) string {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return key.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA-%d", key.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return fmt.Sprintf("%T", public)
}
