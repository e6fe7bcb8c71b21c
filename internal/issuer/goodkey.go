package issuer

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// KeyTypeOf says which of a profile's key types a public key is; false for any
// other kind. RSA counts by the size that it at least has: 2056 bits are
// RSA-2048.
func KeyTypeOf(pub crypto.PublicKey) (cert.KeyType, bool) {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256():
			return cert.P256, true
		case elliptic.P384():
			return cert.P384, true
		case elliptic.P521():
			return cert.P521, true
		}
		return "", false
	case ed25519.PublicKey:
		return cert.Ed25519, true
	case *rsa.PublicKey:
		switch bits := pub.N.BitLen(); {
		case bits < 2048 || bits > 4096:
			return "", false
		case bits < 3072:
			return cert.RSA2048, true
		case bits < 4096:
			return cert.RSA3072, true
		}
		return cert.RSA4096, true
	}
	return mldsaType(pub)
}

// checkKey refuses a public key that isn't of an allowed type, or is weak or
// known to others; hash is its SubjectPublicKeyInfo's. Its error is a badCSR
// problem, as RFC 8555 section 6.7 says for a certificate's key, whose detail
// says what to do. A nil blocklist blocks nothing. It takes some microseconds,
// an RSA key about fifty.
func checkKey(pub crypto.PublicKey, hash [sha256.Size]byte, allowed []cert.KeyType, blocked *Blocklist) error {
	if why := keyFault(pub); why != "" {
		return protocol.NewProblem(protocol.BadCSR, "%s; make a new key of type %v", why, allowed)
	}
	typ, ok := KeyTypeOf(pub)
	if !ok {
		return protocol.NewProblem(protocol.BadCSR, "this kind of public key is not supported; use one of %v", allowed)
	}
	if !slices.Contains(allowed, typ) {
		return protocol.NewProblem(protocol.BadCSR, "%s keys are not allowed here; make a key of type %v", typ, allowed)
	}
	if blocked.Contains(hash) {
		return protocol.NewProblem(protocol.BadCSR, "this key is known to be compromised; make a new one of type %v", allowed)
	}
	return nil
}

// keyFault says why a key is bad whatever the profile allows; "" if it isn't.
func keyFault(pub crypto.PublicKey) string {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		if pub.Curve == elliptic.P224() {
			return "P-224 is too weak"
		}
		// The point at infinity and points off the curve (SP 800-56A
		// section 5.6.2.3.3); other curves are refused by type.
		if _, ok := KeyTypeOf(pub); ok {
			if _, err := pub.ECDH(); err != nil {
				return "the ECDSA key is not a point of its curve"
			}
		}
	case ed25519.PublicKey:
		if len(pub) != ed25519.PublicKeySize {
			return "the Ed25519 key is not 32 bytes long"
		}
		if smallOrder(pub) {
			return "the Ed25519 key is a point of small order, for which anyone can sign"
		}
	case *rsa.PublicKey:
		return rsaFault(pub)
	}
	return ""
}

// rsaFault follows the Baseline Requirements' section 6.1.6, which no private
// CA need follow and every one should.
func rsaFault(pub *rsa.PublicKey) string {
	bits := pub.N.BitLen()
	switch {
	case bits < 2048 || bits > 4096 || bits%8 != 0:
		return fmt.Sprintf("an RSA key of %d bits: want 2048 to 4096, a multiple of 8", bits)
	case pub.E < 65537 || pub.E&1 == 0: // crypto/x509 takes none over 2^31
		return fmt.Sprintf("an RSA key with exponent %d: want 65537, or an odd number above it", pub.E)
	case pub.N.Bit(0) == 0:
		return "the RSA modulus is even"
	case new(big.Int).GCD(nil, nil, pub.N, smallPrimes).BitLen() > 1:
		return "the RSA modulus has a small factor"
	case rocaWeak(pub.N):
		return "the RSA key comes from a faulty Infineon chip (ROCA, CVE-2017-15361) and can be factored"
	case fermatWeak(pub.N):
		return "the RSA key's primes are too close together, so that it can be factored (CVE-2022-26320)"
	}
	return ""
}

// smallPrimes is the product of the odd primes up to 751: 132 of them. No RSA
// library makes a modulus that shares one (SP 800-89 section 5.3.3).
var smallPrimes = func() *big.Int {
	product := big.NewInt(1)
	for p := int64(3); p <= 751; p += 2 {
		if n := big.NewInt(p); n.ProbablyPrime(0) {
			product.Mul(product, n)
		}
	}
	return product
}()

// rocaPrimes are those modulo which ROCA's moduli are powers of 65537 and a
// random number mostly isn't (Nemec et al., "The Return of Coppersmith's
// Attack", 2017, section 3.1): a sound key passes for weak once in 2^27.
var rocaPrimes = [...]uint64{11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157}

// rocaWeak finds the fingerprint of CVE-2017-15361.
func rocaWeak(n *big.Int) bool {
	var m, p big.Int
	for _, prime := range rocaPrimes {
		residue := m.Mod(n, p.SetUint64(prime)).Uint64()
		power := uint64(1)
		for power != residue {
			if power = power * 65537 % prime; power == 1 {
				return false // the whole subgroup, and it isn't in it
			}
		}
	}
	return true
}

// fermatRounds is what the Baseline Requirements' section 6.1.1.3 asks for.
const fermatRounds = 100

// fermatWeak reports whether Fermat's method factors n within fermatRounds:
// n = a² − b² with a just above the root of n.
func fermatWeak(n *big.Int) bool {
	a := new(big.Int).Sqrt(n)
	if new(big.Int).Mul(a, a).Cmp(n) == 0 {
		return true
	}
	one := big.NewInt(1)
	a.Add(a, one)
	b2 := new(big.Int).Mul(a, a)
	b2.Sub(b2, n)
	step := new(big.Int).Lsh(a, 1)
	step.Add(step, one) // (a+1)² − a²
	two := big.NewInt(2)
	for range fermatRounds {
		if isSquare(b2) {
			return true
		}
		b2.Add(b2, step)
		step.Add(step, two)
	}
	return false
}

// isSquare takes a root only of the few numbers that could have one: squares
// leave 12 of 64 remainders modulo 64, and about half of those modulo a prime.
func isSquare(n *big.Int) bool {
	const squaresMod64 = 0x0202021202030213
	if n.Sign() < 0 || n.Sign() > 0 && squaresMod64>>(uint64(n.Bits()[0])%64)&1 == 0 {
		return false
	}
	var product, prime big.Int
	rest := new(big.Int).Mod(n, product.SetUint64(3*5*7*11*13*17*19*23))
	for _, p := range [...]uint64{3, 5, 7, 11, 13, 17, 19, 23} {
		if big.Jacobi(rest, prime.SetUint64(p)) < 0 {
			return false
		}
	}
	root := new(big.Int).Sqrt(n)
	return root.Mul(root, root).Cmp(n) == 0
}

// smallOrders are the encodings of the Ed25519 points whose order divides 8,
// the sign bit left out, the non-canonical ones included.
var smallOrders = [...]string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

func smallOrder(pub ed25519.PublicKey) bool {
	y := bytes.Clone(pub)
	y[31] &= 0x7f
	return slices.Contains(smallOrders[:], hex.EncodeToString(y))
}
