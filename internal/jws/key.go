package jws

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"math"
	"math/big"
	"slices"
)

// RSA keys below 2048 bits are too weak, and above 4096 each verification
// costs more than an honest client can want.
const minRSABits, maxRSABits = 2048, 4096

// JWK is a public key that may sign requests. It is never changed after it was made.
type JWK struct {
	// Key is an *ecdsa.PublicKey (P-256, P-384, P-521), an ed25519.PublicKey
	// or an *rsa.PublicKey (2048 to 4096 bits).
	Key crypto.PublicKey
	// Canonical is the key as RFC 7638 section 3 writes it, which is what
	// ParseKey takes. Two keys are equal if and only if these are.
	Canonical string
	// Thumbprint is base64url(SHA-256(Canonical)), 43 characters.
	Thumbprint string
}

// Equal reports whether both are the same key. A nil JWK equals none.
func (k *JWK) Equal(other *JWK) bool {
	return k != nil && other != nil && k.Canonical == other.Canonical
}

// ParseKey reads a stored key, JWK.Canonical byte for byte. Its errors are
// *Error of kind Malformed or BadPublicKey.
func ParseKey(canonical []byte) (*JWK, error) {
	if len(canonical) > maxHeader {
		return nil, malformed("the key is longer than %d bytes", maxHeader)
	}
	k, err := readKey(canonical, "key")
	if err != nil {
		return nil, err
	}
	if k.Canonical != string(canonical) {
		return nil, malformed("the key is not in the canonical form of RFC 7638")
	}
	return k, nil
}

// KeyFromPublic gives the JWK of a key, say of a certificate's. Its error is an
// *Error of kind BadPublicKey for a key that may not sign requests.
func KeyFromPublic(pub crypto.PublicKey) (*JWK, error) {
	if _, err := algorithmOf(pub); err != nil {
		return nil, err
	}
	canonical, err := canonicalKey(pub)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(canonical))
	return &JWK{Key: pub, Canonical: canonical, Thumbprint: base64.RawURLEncoding.EncodeToString(sum[:])}, nil
}

// algorithmOf finds the one algorithm that goes with a key and refuses keys
// that we don't take. It leaves the check that a point is on its curve to those
// who parse or use the key.
func algorithmOf(pub crypto.PublicKey) (*algorithm, error) {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		for _, a := range algorithms {
			if pub != nil && a.curve != nil && a.curve == pub.Curve {
				return a, nil
			}
		}
	case ed25519.PublicKey:
		if len(pub) == ed25519.PublicKeySize {
			return &eddsa, nil
		}
	case *rsa.PublicKey:
		if pub != nil && pub.N != nil {
			return &rs256, checkRSA(pub)
		}
	}
	return nil, badKey("this kind of key may not sign requests; use ECDSA on P-256, P-384 or P-521, Ed25519, or RSA")
}

func checkRSA(pub *rsa.PublicKey) error {
	if bits := pub.N.BitLen(); bits < minRSABits || bits > maxRSABits {
		return badKey("an RSA key must have %d to %d bits, not %d", minRSABits, maxRSABits, bits)
	}
	if pub.N.Bit(0) == 0 {
		return badKey("the RSA modulus is even, so it is no product of two large primes")
	}
	// crypto/rsa takes no exponent over 2^31-1; all real keys have 65537 or 3.
	if pub.E < 3 || pub.E%2 == 0 || pub.E > math.MaxInt32 {
		return badKey("the RSA exponent must be odd, at least 3 and less than 2^31; use 65537")
	}
	return nil
}

// canonicalKey writes the required members in the order of RFC 7638 section
// 3.2 (RFC 8037 section 2 for OKP). base64url needs no escaping.
func canonicalKey(pub crypto.PublicKey) (string, error) {
	b64 := base64.RawURLEncoding.EncodeToString
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		point, err := pub.Bytes() // 4, x, y (SEC 1 section 2.3.3)
		if err != nil {
			return "", badKey("the point is not on its curve")
		}
		x, y := point[1:1+len(point)/2], point[1+len(point)/2:]
		return `{"crv":"` + pub.Params().Name + `","kty":"EC","x":"` + b64(x) + `","y":"` + b64(y) + `"}`, nil
	case ed25519.PublicKey:
		if err := checkEdwards(pub); err != nil {
			return "", err
		}
		return `{"crv":"Ed25519","kty":"OKP","x":"` + b64(pub) + `"}`, nil
	case *rsa.PublicKey:
		e := big.NewInt(int64(pub.E))
		return `{"e":"` + b64(e.Bytes()) + `","kty":"RSA","n":"` + b64(pub.N.Bytes()) + `"}`, nil
	}
	return "", badKey("a key of type %T has no JWK here", pub)
}

// keyText is a JWK's members as sent (RFC 7517, RFC 7518 section 6, RFC 8037). Absent is nil.
type keyText struct {
	kty, crv, x, y, n, e, alg, use []byte
}

func readKey(text []byte, what string) (*JWK, error) {
	var k keyText
	s := &scanner{data: text, what: what}
	if err := s.document(func(name []byte) error { return k.member(s, name) }); err != nil {
		return nil, err
	}
	return k.key()
}

// read reads a JWK inside the text of s.
func (k *keyText) read(s *scanner) error {
	if s.peek() != '{' {
		return s.fail("must have a JSON object as jwk")
	}
	return s.object(func(name []byte) error { return k.member(s, name) })
}

var (
	// secretNames are the members of private and symmetric keys (RFC 7518 section 6).
	secretNames = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}
	// keyNames are the members that mean something here, so that no lookalike
	// is taken, and those of certificates, a second place to take a key from.
	keyNames = []string{"kty", "crv", "x", "y", "n", "e", "alg", "use", "kid", "x5u", "x5c", "x5t", "x5t#S256"}
)

func (k *keyText) member(s *scanner, name []byte) (err error) {
	switch string(name) {
	case "kty":
		k.kty, err = s.str()
	case "crv":
		k.crv, err = s.str()
	case "x":
		k.x, err = s.str()
	case "y":
		k.y, err = s.str()
	case "n":
		k.n, err = s.str()
	case "e":
		k.e, err = s.str()
	case "alg":
		k.alg, err = s.str()
	case "use":
		k.use, err = s.str()
	case "kid":
		_, err = s.str() // a name for people; the thumbprint is ours
	default:
		if lookalike(name, secretNames) {
			return badKey("the jwk has the member %.40q: a private or symmetric key must never be sent; make a new key", name)
		}
		if lookalike(name, keyNames) {
			return badKey("the jwk must not have the member %.40q", name)
		}
		err = s.skip() // key_ops, ext
	}
	return err
}

// key builds and checks the key.
func (k *keyText) key() (*JWK, error) {
	pub, err := k.public()
	if err != nil {
		return nil, err
	}
	a, err := algorithmOf(pub)
	if err != nil {
		return nil, err
	}
	if k.alg != nil && string(k.alg) != a.name {
		return nil, badKey("the jwk says alg %.40q, but such a key signs with %s", k.alg, a.name)
	}
	if k.use != nil && string(k.use) != "sig" {
		return nil, badKey("the jwk says use %.40q; a key that signs has sig", k.use)
	}
	return KeyFromPublic(pub)
}

func (k *keyText) public() (crypto.PublicKey, error) {
	switch string(k.kty) {
	case "EC":
		if k.n == nil && k.e == nil {
			return k.ec()
		}
	case "OKP":
		if k.y == nil && k.n == nil && k.e == nil {
			return k.okp()
		}
	case "RSA":
		if k.crv == nil && k.x == nil && k.y == nil {
			return k.rsa()
		}
	default:
		return nil, badKey("the jwk's kty must be EC, OKP or RSA, not %.40q", k.kty)
	}
	return nil, badKey("the jwk has members of another kind of key than its kty %s", k.kty)
}

func (k *keyText) ec() (crypto.PublicKey, error) {
	for _, a := range algorithms {
		if a.curve == nil || a.curve.Params().Name != string(k.crv) {
			continue
		}
		x, err := keyBytes("x", k.x, a.width)
		if err != nil {
			return nil, err
		}
		y, err := keyBytes("y", k.y, a.width)
		if err != nil {
			return nil, err
		}
		pub, err := ecdsa.ParseUncompressedPublicKey(a.curve, slices.Concat([]byte{4}, x, y))
		if err != nil {
			return nil, badKey("the point x, y is not on %s", k.crv)
		}
		return pub, nil
	}
	return nil, badKey("an EC key's crv must be P-256, P-384 or P-521, not %.40q", k.crv)
}

func (k *keyText) okp() (crypto.PublicKey, error) {
	if string(k.crv) != "Ed25519" {
		return nil, badKey("an OKP key's crv must be Ed25519, not %.40q", k.crv)
	}
	x, err := keyBytes("x", k.x, ed25519.PublicKeySize)
	return ed25519.PublicKey(x), err
}

// rsa reads n and e, each without leading zeros (RFC 7518 sections 2 and 6.3.1).
func (k *keyText) rsa() (crypto.PublicKey, error) {
	n, err := keyBytes("n", k.n, 0)
	if err != nil {
		return nil, err
	}
	e, err := keyBytes("e", k.e, 0)
	if err != nil {
		return nil, err
	}
	if n[0] == 0 || e[0] == 0 {
		return nil, badKey("the jwk's n and e must have no leading zero bytes (RFC 7518 section 2)")
	}
	exponent := new(big.Int).SetBytes(e[:min(len(e), 5)]) // 5 bytes are too large already
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(min(exponent.Int64(), math.MaxInt32+1))}, nil
}

// keyBytes decodes a member of the given length in bytes, 0 for any but none.
func keyBytes(name string, text []byte, length int) ([]byte, error) {
	if text == nil {
		return nil, badKey("the jwk has no %s", name)
	}
	out, err := decode(name, text)
	if err != nil {
		return nil, badKey("the jwk's %s must be base64url without padding, white space or spare bits", name)
	}
	if len(out) == 0 || length != 0 && len(out) != length {
		return nil, badKey("the jwk's %s has %d bytes, not the full length of its kind", name, len(out))
	}
	return out, nil
}

// Curve25519 in Edwards form (RFC 8032 section 5.1).
const (
	edwardsP = "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed"
	edwardsD = "52036cee2b6ffe738cc740797779e89800700a4d4141d8ab75eb4dca135978a3"
	// y of the four points of order 8 is this or its negative.
	edwardsY8 = "7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7"
)

// checkEdwards refuses what crypto/ed25519 notices late or never: a y that
// isn't reduced (one key would have two thumbprints), a y that belongs to no
// point, and the eight points of small order, for which anyone can sign.
func checkEdwards(pub ed25519.PublicKey) error {
	p, d, y8 := hexInt(edwardsP), hexInt(edwardsD), hexInt(edwardsY8)
	le := bytes.Clone(pub)
	le[31] &= 0x7f // the sign of x
	slices.Reverse(le)
	y := new(big.Int).SetBytes(le)
	if y.Cmp(p) >= 0 {
		return badKey("the Ed25519 key is not in its canonical form")
	}
	one := big.NewInt(1)
	for _, small := range []*big.Int{new(big.Int), one, new(big.Int).Sub(p, one), y8, new(big.Int).Sub(p, y8)} {
		if y.Cmp(small) == 0 {
			return badKey("the Ed25519 key is a point of small order, for which anyone can sign; make a new key")
		}
	}
	// x^2 = (y^2-1)/(d*y^2+1) must have a root: so must the product of the two.
	u := new(big.Int).Mul(y, y)
	v := new(big.Int).Mul(u, d)
	u.Sub(u, one).Mul(u, v.Add(v, one)).Mod(u, p)
	if big.Jacobi(u, p) != 1 {
		return badKey("the Ed25519 key is not a point on its curve")
	}
	return nil
}

func hexInt(s string) *big.Int {
	n, _ := new(big.Int).SetString(s, 16)
	return n
}
