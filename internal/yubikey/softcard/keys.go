package softcard

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
)

// The algorithms of keys (SP 800-78-4 table 6-2; Yubico's from E0 on and for
// the longer RSA).
const (
	algRSA1024 = 0x06
	algRSA2048 = 0x07
	algRSA3072 = 0x05
	algRSA4096 = 0x16
	algP256    = 0x11
	algP384    = 0x14
	algEd25519 = 0xe0
)

// rsaBits are the lengths of RSA keys.
var rsaBits = map[byte]int{algRSA1024: 1024, algRSA2048: 2048, algRSA3072: 3072, algRSA4096: 4096}

// curves are those of EC keys.
var curves = map[byte]elliptic.Curve{algP256: elliptic.P256(), algP384: elliptic.P384()}

// The policies, by Yubico's numbers.
const (
	pinNever, pinOnce, pinAlways = 1, 2, 3
	touchNever, touchCached      = 1, 3
)

// slotKey is a key in a slot.
type slotKey struct {
	alg        byte
	private    crypto.Signer // *ecdsa.PrivateKey, *rsa.PrivateKey, ed25519.PrivateKey
	pin, touch byte
	generated  bool // here, not brought in
}

// isSlot reports whether it is a place for keys.
func isSlot(slot byte) bool {
	switch slot {
	case 0x9a, 0x9c, 0x9d, 0x9e:
		return true
	}
	return slot >= 0x82 && slot <= 0x95
}

// supports reports whether this firmware knows the algorithm.
func (c *Card) supports(alg byte) bool {
	switch alg {
	case algRSA1024, algRSA2048, algP256, algP384:
		return true
	case algRSA3072, algRSA4096, algEd25519:
		return c.since(5, 7, 0)
	}
	return false
}

// policies reads the AA and AB of a new key; 0 or none is the slot's default.
func policies(slot byte, f map[byte][]byte) (pin, touch byte, ok bool) {
	pin, touch = pinOnce, touchNever
	switch slot {
	case 0x9c:
		pin = pinAlways
	case 0x9e:
		pin = pinNever
	}
	for tag, p := range map[byte]*byte{0xaa: &pin, 0xab: &touch} {
		v, given := f[tag]
		if given && len(v) != 1 {
			return 0, 0, false
		}
		if given && v[0] != 0 {
			*p = v[0]
		}
	}
	return pin, touch, pin <= pinAlways && touch <= touchCached
}

// generate is GENERATE ASYMMETRIC KEY PAIR (SP 800-73-4 part 2 section 3.3.1).
func (c *Card) generate(cmd command) ([]byte, uint16) {
	if !c.now.managed {
		return nil, swSecurity
	}
	f, ok := template(0xac, cmd.data)
	if !ok || len(f[0x80]) != 1 || !c.supports(f[0x80][0]) {
		return nil, swData
	}
	if cmd.p1 != 0 || !isSlot(cmd.p2) {
		return nil, swParameters
	}
	pin, touch, ok := policies(cmd.p2, f)
	if !ok {
		return nil, swData
	}
	private, err := newKey(f[0x80][0])
	if err != nil {
		return nil, swConditions
	}
	c.keys[cmd.p2] = &slotKey{alg: f[0x80][0], private: private, pin: pin, touch: touch, generated: true}
	return tlv(0x7f49, publicFields(private.Public())...), swOK
}

func newKey(alg byte) (crypto.Signer, error) {
	if curve := curves[alg]; curve != nil {
		return ecdsa.GenerateKey(curve, rand.Reader)
	}
	if bits := rsaBits[alg]; bits != 0 {
		return rsa.GenerateKey(rand.Reader, bits)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	return private, err
}

// publicFields encodes a public key: 86 point, or 81 modulus and 82 exponent.
func publicFields(public crypto.PublicKey) []byte {
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		point, err := public.Bytes()
		if err != nil {
			panic(err) // made here, on a known curve
		}
		return tlv(0x86, point...)
	case *rsa.PublicKey:
		return append(tlv(0x81, public.N.Bytes()...), tlv(0x82, big.NewInt(int64(public.E)).Bytes()...)...)
	}
	return tlv(0x86, public.(ed25519.PublicKey)...)
}

// importKey is Yubico's: the private key's numbers, then the policies.
func (c *Card) importKey(cmd command) uint16 {
	if !c.now.managed {
		return swSecurity
	}
	f, ok := fields(cmd.data)
	if !ok || !c.supports(cmd.p1) {
		return swData
	}
	if !isSlot(cmd.p2) {
		return swParameters
	}
	pin, touch, ok := policies(cmd.p2, f)
	if !ok {
		return swData
	}
	private, err := bringIn(cmd.p1, f)
	if err != nil || private == nil {
		return swData
	}
	c.keys[cmd.p2] = &slotKey{alg: cmd.p1, private: private, pin: pin, touch: touch}
	return swOK
}

// bringIn makes a key of its numbers: 01 and 02 the primes, 06 the scalar, 07
// the seed. What follows of an RSA key can be computed.
func bringIn(alg byte, f map[byte][]byte) (crypto.Signer, error) {
	if curve := curves[alg]; curve != nil {
		return ecdsa.ParseRawPrivateKey(curve, f[0x06])
	}
	if alg == algEd25519 {
		if len(f[0x07]) != ed25519.SeedSize {
			return nil, errKey
		}
		return ed25519.NewKeyFromSeed(f[0x07]), nil
	}
	p, q, e := new(big.Int).SetBytes(f[0x01]), new(big.Int).SetBytes(f[0x02]), big.NewInt(65537)
	n, one := new(big.Int).Mul(p, q), big.NewInt(1)
	if n.BitLen() != rsaBits[alg] {
		return nil, errKey
	}
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	d := new(big.Int).ModInverse(e, phi)
	if d == nil {
		return nil, errKey
	}
	key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: 65537}, D: d, Primes: []*big.Int{p, q}}
	return key, key.Validate()
}

// use is GENERAL AUTHENTICATE with a key (section 3.2.4): 81 is to be signed,
// 85 is the other side's point of a key agreement.
func (c *Card) use(cmd command, fresh bool) ([]byte, uint16) {
	f, ok := template(0x7c, cmd.data)
	key := c.keys[cmd.p2]
	if !ok || key == nil || key.alg != cmd.p1 {
		return nil, swData
	}
	if key.pin == pinOnce && !c.now.verified || key.pin == pinAlways && !fresh {
		return nil, swSecurity
	}
	if key.touch != touchNever && c.behaviour.untouched {
		return nil, swSecurity
	}
	var out []byte
	var err error
	if point, agree := f[0x85]; agree {
		out, err = key.agree(point)
	} else {
		out, err = key.sign(f[0x81])
	}
	if err != nil {
		return nil, swData
	}
	c.behaviour.signatures++
	c.now.takes = c.behaviour.delay
	return tlv(0x7c, tlv(0x82, out...)...), swOK
}

// sign is the private operation: hashing and padding are the host's.
func (k *slotKey) sign(in []byte) ([]byte, error) {
	switch private := k.private.(type) {
	case *ecdsa.PrivateKey:
		if size := (private.Params().BitSize + 7) / 8; len(in) == 0 || len(in) > size {
			return nil, errKey
		}
		return ecdsa.SignASN1(rand.Reader, private, in)
	case *rsa.PrivateKey:
		m := new(big.Int).SetBytes(in)
		if len(in) != private.Size() || m.Cmp(private.N) >= 0 {
			return nil, errKey
		}
		return m.Exp(m, private.D, private.N).FillBytes(make([]byte, private.Size())), nil
	}
	return ed25519.Sign(k.private.(ed25519.PrivateKey), in), nil
}

// agree is ECDH.
func (k *slotKey) agree(point []byte) ([]byte, error) {
	private, ok := k.private.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errKey
	}
	ours, err := private.ECDH()
	if err != nil {
		return nil, err
	}
	var curve ecdh.Curve = ecdh.P256()
	if k.alg == algP384 {
		curve = ecdh.P384()
	}
	theirs, err := curve.NewPublicKey(point)
	if err != nil {
		return nil, err
	}
	return ours.ECDH(theirs)
}

// metadata is Yubico's GET METADATA.
func (c *Card) metadata(reference byte) ([]byte, uint16) {
	isDefault := func(yes bool) byte {
		if yes {
			return 1
		}
		return 0
	}
	switch reference {
	case keyManagementAuth:
		m := c.management
		out := append(tlv(0x01, m.alg), tlv(0x02, pinNever, touchNever)...)
		return append(out, tlv(0x05, isDefault(string(m.key) == string(defaultManagementKey)))...), swOK
	case referencePIN, referencePUK:
		s, factory := c.pin, newSecret(DefaultPIN, 0)
		if reference == referencePUK {
			s, factory = c.puk, newSecret(DefaultPUK, 0)
		}
		out := append(tlv(0x01, 0xff), tlv(0x05, isDefault(s.value == factory.value))...)
		return append(out, tlv(0x06, byte(s.max), byte(s.tries))...), swOK
	}
	key := c.keys[reference]
	if key == nil {
		return nil, swNoReference
	}
	origin := byte(2)
	if key.generated {
		origin = 1
	}
	out := append(tlv(0x01, key.alg), tlv(0x02, key.pin, key.touch)...)
	out = append(out, tlv(0x03, origin)...)
	return append(out, tlv(0x04, publicFields(key.private.Public())...)...), swOK
}
