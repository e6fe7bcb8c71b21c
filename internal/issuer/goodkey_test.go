package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

var allTypes = []cert.KeyType{cert.P256, cert.P384, cert.P521, cert.Ed25519, cert.RSA2048, cert.RSA3072, cert.RSA4096}

func random(t testing.TB, bits int) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits-1)))
	if err != nil {
		t.Fatal(err)
	}
	return n.SetBit(n.SetBit(n, bits-1, 1), 0, 1)
}

func prime(t testing.TB, bits int) *big.Int {
	t.Helper()
	p, err := rand.Prime(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// nextPrime is the first prime from n on.
func nextPrime(n *big.Int) *big.Int {
	p := new(big.Int).SetBit(n, 0, 1)
	for !p.ProbablyPrime(8) {
		p.Add(p, big.NewInt(2))
	}
	return p
}

// rocaPrime makes a prime as the faulty chips did for RSA-2048: k·M + (65537^a
// mod M), M the product of the first 126 primes (Nemec et al., section 2.2).
func rocaPrime(t testing.TB) *big.Int {
	t.Helper()
	m := big.NewInt(1)
	for n, count := int64(2), 0; count < 126; n++ {
		if p := big.NewInt(n); p.ProbablyPrime(0) {
			m.Mul(m, p)
			count++
		}
	}
	for {
		p := new(big.Int).Exp(big.NewInt(65537), random(t, 256), m)
		k := random(t, 1024-m.BitLen()+1)
		if p.Add(p, k.Mul(k, m)); p.BitLen() == 1024 && p.ProbablyPrime(8) {
			return p
		}
	}
}

func modulus(p, q *big.Int) *rsa.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537}
}

// product makes a modulus of exactly 2048 bits.
func product(t testing.TB, p func() *big.Int) *rsa.PublicKey {
	for {
		if k := modulus(p(), p()); k.N.BitLen() == 2048 {
			return k
		}
	}
}

func TestRSAFaults(t *testing.T) {
	sound := modulus(prime(t, 1024), prime(t, 1024))
	for sound.N.BitLen() != 2048 {
		sound = modulus(prime(t, 1024), prime(t, 1024))
	}
	exponent := func(e int) *rsa.PublicKey { return &rsa.PublicKey{N: sound.N, E: e} }
	p := prime(t, 1024)
	p.SetBit(p, 1022, 1)
	p = nextPrime(p)
	near := new(big.Int).Lsh(big.NewInt(1), 514) // found in 2^1028 / (8·2^1024) = 2 rounds
	far := new(big.Int).Lsh(big.NewInt(1), 700)
	smallFactor := func(f int64) *rsa.PublicKey {
		n := random(t, 2048)
		n.Sub(n, new(big.Int).Mod(n, big.NewInt(2*f)))
		n.Add(n, big.NewInt(f)) // odd, a multiple of f
		return &rsa.PublicKey{N: n, E: 65537}
	}
	even := &rsa.PublicKey{N: new(big.Int).Lsh(random(t, 2047), 1), E: 65537}
	for name, tt := range map[string]struct {
		key  *rsa.PublicKey
		says string
	}{
		"sound":                {sound, ""},
		"512 bits":             {&rsa.PublicKey{N: random(t, 512), E: 65537}, "512 bits"},
		"2047 bits":            {&rsa.PublicKey{N: random(t, 2047), E: 65537}, "2047 bits"},
		"2052 bits":            {&rsa.PublicKey{N: random(t, 2052), E: 65537}, "2052 bits"},
		"4104 bits":            {&rsa.PublicKey{N: random(t, 4104), E: 65537}, "4104 bits"},
		"exponent 1":           {exponent(1), "exponent 1"},
		"exponent 3":           {exponent(3), "exponent 3"},
		"exponent 17":          {exponent(17), "exponent 17"},
		"exponent 65535":       {exponent(65535), "exponent 65535"},
		"exponent 65538":       {exponent(65538), "exponent 65538"},
		"exponent 65539":       {exponent(65539), ""},
		"exponent 2^31-1":      {exponent(1<<31 - 1), ""},
		"even":                 {even, "even"},
		"factor 3":             {smallFactor(3), "small factor"},
		"factor 751":           {smallFactor(751), "small factor"},
		"roca":                 {product(t, func() *big.Int { return rocaPrime(t) }), "ROCA"},
		"equal primes":         {modulus(p, p), "too close"},
		"neighbours (Fermat)":  {modulus(p, nextPrime(new(big.Int).Add(p, big.NewInt(2)))), "too close"},
		"2^514 apart (Fermat)": {modulus(p, nextPrime(new(big.Int).Sub(p, near))), "too close"},
		"2^700 apart":          {modulus(p, nextPrime(new(big.Int).Sub(p, far))), ""},
	} {
		got := keyFault(tt.key)
		if tt.says == "" && got != "" || tt.says != "" && !strings.Contains(got, tt.says) {
			t.Errorf("%s: %q, want %q", name, got, tt.says)
		}
	}
}

// TestROCAFalseAlarms: random moduli never have the fingerprint.
func TestROCAFalseAlarms(t *testing.T) {
	for range 2000 {
		if rocaWeak(random(t, 2048)) {
			t.Fatal("a random modulus has ROCA's fingerprint")
		}
	}
	if len(rocaPrimes) != 17 || !slices.IsSorted(rocaPrimes[:]) {
		t.Error("the list of primes is wrong")
	}
}

func TestIsSquare(t *testing.T) {
	for range 500 {
		r := random(t, 1+int(random(t, 10).Int64()))
		n := new(big.Int).Mul(r, r)
		if !isSquare(n) {
			t.Fatalf("%v² isn't seen", r)
		}
		if n.Add(n, big.NewInt(1)); isSquare(n) {
			t.Fatalf("%v²+1 passes", r)
		}
	}
	if !isSquare(new(big.Int)) || isSquare(big.NewInt(-4)) {
		t.Error("0 is a square, -4 isn't")
	}
}

func TestCheckKeyTypes(t *testing.T) {
	ec := func(c elliptic.Curve) crypto.PublicKey {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return &key.PublicKey
	}
	ed, _, _ := ed25519.GenerateKey(rand.Reader)
	rsa2048 := product(t, func() *big.Int { return prime(t, 1024) })
	for typ, key := range map[cert.KeyType]crypto.PublicKey{
		cert.P256: ec(elliptic.P256()), cert.P384: ec(elliptic.P384()), cert.P521: ec(elliptic.P521()),
		cert.Ed25519: ed, cert.RSA2048: rsa2048,
	} {
		if got, ok := KeyTypeOf(key); got != typ || !ok {
			t.Errorf("KeyTypeOf(%s) = %s, %v", typ, got, ok)
		}
		if err := checkAny(key, []cert.KeyType{typ}, nil); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
		others := slices.DeleteFunc(slices.Clone(allTypes), func(t cert.KeyType) bool { return t == typ })
		wantBadCSR(t, string(typ)+" where it isn't allowed", checkAny(key, others, nil), string(typ)+" keys are not allowed")
		wantBadCSR(t, string(typ)+" where nothing is allowed", checkAny(key, nil, nil), "not allowed")
	}
	for bits, typ := range map[int]cert.KeyType{2048: cert.RSA2048, 2056: cert.RSA2048, 3072: cert.RSA3072, 4088: cert.RSA3072, 4096: cert.RSA4096} {
		if got, ok := KeyTypeOf(&rsa.PublicKey{N: random(t, bits), E: 65537}); got != typ || !ok {
			t.Errorf("%d bits: %s, %v", bits, got, ok)
		}
	}
	wantBadCSR(t, "P-224", checkAny(ec(elliptic.P224()), allTypes, nil), "P-224")
	wantBadCSR(t, "no key", checkAny(nil, allTypes, nil), "not supported")
	wantBadCSR(t, "a string", checkAny("key", allTypes, nil), "not supported")
}

func wantBadCSR(t *testing.T, what string, err error, says string) {
	t.Helper()
	p, ok := errors.AsType[*protocol.Problem](err)
	if !ok || p.Type != protocol.BadCSR || !strings.Contains(p.Detail, says) {
		t.Errorf("%s: err = %v, want badCSR with %q", what, err, says)
	}
}

// TestBadPoints: keys that no parser of ours lets through, should one of them
// ever come another way.
func TestBadPoints(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]*ecdsa.PublicKey{
		"off the curve": {Curve: elliptic.P256(), X: key.X, Y: new(big.Int).Add(key.Y, big.NewInt(1))},
		"infinity":      {Curve: elliptic.P256(), X: new(big.Int), Y: new(big.Int)},
	} {
		if why := keyFault(key); !strings.Contains(why, "not a point") {
			t.Errorf("%s: %q", name, why)
		}
	}
}

// TestSmallOrder checks the table by arithmetic: each y belongs to a point that
// three doublings bring to the neutral element (RFC 8032 section 5.1.4).
func TestSmallOrder(t *testing.T) {
	one := big.NewInt(1)
	p := new(big.Int).Sub(new(big.Int).Lsh(one, 255), big.NewInt(19))
	mod := func(n *big.Int) *big.Int { return n.Mod(n, p) }
	mul := func(a, b *big.Int) *big.Int { return mod(new(big.Int).Mul(a, b)) }
	d := mul(big.NewInt(-121665), new(big.Int).ModInverse(big.NewInt(121666), p))
	for _, text := range smallOrders {
		b, err := hex.DecodeString(text)
		if err != nil || len(b) != 32 {
			t.Fatalf("%s: %v", text, err)
		}
		if !smallOrder(b) {
			t.Errorf("%s isn't found", text)
		}
		b[31] |= 0x80
		if !smallOrder(b) {
			t.Errorf("%s with the sign bit isn't found", text)
		}
		b[31] &= 0x7f
		slices.Reverse(b)
		y := mod(new(big.Int).SetBytes(b))
		y2 := mul(y, y)
		x2 := mul(new(big.Int).Sub(y2, one), new(big.Int).ModInverse(mod(new(big.Int).Add(mul(d, y2), one)), p))
		x := new(big.Int).ModSqrt(x2, p)
		if x == nil {
			t.Fatalf("%s is no point", text)
		}
		for range 3 {
			xy, yy, xx := mul(x, y), mul(y, y), mul(x, x)
			k := mul(d, mul(xx, yy))
			x = mul(mul(big.NewInt(2), xy), new(big.Int).ModInverse(mod(new(big.Int).Add(one, k)), p))
			y = mul(mod(new(big.Int).Add(yy, xx)), new(big.Int).ModInverse(mod(new(big.Int).Sub(one, k)), p))
		}
		if x.Sign() != 0 || y.Cmp(one) != 0 {
			t.Errorf("%s isn't of small order", text)
		}
		wantBadCSR(t, text, checkAny(ed25519.PublicKey(mustHex(t, text)), allTypes, nil), "small order")
	}
}

func mustHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBlocklist(t *testing.T) {
	builtIn, err := LoadBlocklist()
	if err != nil {
		t.Fatal(err)
	}
	// RFC 9500 section 2.3's testECCP256: its point, and the hash that others
	// publish for its SubjectPublicKeyInfo.
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), mustHex(t, "04"+
		"422548f88fb782ffb5eca3744452c72a1e558fbd6f73be5e48e93232cc45c5b1"+
		"6c4cd10c4cb8d5b8a17139e94882c8992572993425f41419ab7e90a42a494272"))
	if err != nil {
		t.Fatal(err)
	}
	if h, err := keyHash(pub); err != nil || h != "b2b04340cfaee616ec9c2c62d261b208e54bb197498df52e8cadede23ac0ba5e" {
		t.Errorf("KeyHash = %s, %v", h, err)
	}
	if err := checkAny(pub, allTypes, nil); err != nil {
		t.Errorf("without a list: %v", err)
	}
	wantBadCSR(t, "RFC 9500's key", checkAny(pub, allTypes, builtIn), "compromised")

	other, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	spki, _ := x509.MarshalPKIXPublicKey(&other.PublicKey)
	hash := sha256.Sum256(spki)
	if builtIn.Contains(hash) {
		t.Error("a fresh key is blocked")
	}
	file := filepath.Join(t.TempDir(), "weak")
	if err := os.WriteFile(file, []byte("# ours\n\n"+strings.ToUpper(hex.EncodeToString(hash[:]))+"\tlost on a train\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	more, err := LoadBlocklist("testdata/blocklist.txt", file)
	if err != nil {
		t.Fatal(err)
	}
	wantBadCSR(t, "the operator's entry", checkAny(&other.PublicKey, allTypes, more), "compromised")
	wantBadCSR(t, "the built-in entry", checkAny(pub, allTypes, more), "compromised")
	if !more.Contains(sha256.Sum256([]byte("an example"))) {
		t.Error("testdata/blocklist.txt's entry is missing")
	}

	for text, says := range map[string]string{"\nxyz\n": ":2: want the SHA-256", strings.Repeat("ab", 20): ":1: want", strings.Repeat("ab", 33): ":1: want"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadBlocklist(file); err == nil || !strings.Contains(err.Error(), file+says) {
			t.Errorf("%q: err = %v, want file and line", text, err)
		}
	}
	if _, err := LoadBlocklist(file + "missing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func BenchmarkCheckKey(b *testing.B) {
	blocked, _ := LoadBlocklist()
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	for name, key := range map[string]crypto.PublicKey{"P-256": &ec.PublicKey, "RSA-2048": product(b, func() *big.Int { return prime(b, 1024) })} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				checkAny(key, allTypes, blocked)
			}
		})
	}
}

// keyHash is what cert.Certificate.KeyHash and blocklists hold.
func keyHash(pub crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(spki)
	return hex.EncodeToString(h[:]), nil
}

// checkAny is checkKey as template calls it.
func checkAny(pub crypto.PublicKey, allowed []cert.KeyType, blocked *Blocklist) error {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return protocol.NewProblem(protocol.BadCSR, "this kind of public key is not supported; use one of %v", allowed)
	}
	return checkKey(pub, sha256.Sum256(spki), allowed, blocked)
}
