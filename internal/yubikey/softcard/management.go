package softcard

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"crypto/subtle"
)

// The algorithms of the management key (SP 800-78-4 table 6-2).
const (
	tripleDES = 0x03
	aes128    = 0x08
	aes192    = 0x0a
	aes256    = 0x0c
)

// managementKey is who may make keys and write objects.
type managementKey struct {
	alg byte
	key []byte
}

// block returns the cipher. The key has the right length since setManagement
// checked it.
func (m managementKey) block() cipher.Block {
	var b cipher.Block
	var err error
	if m.alg == tripleDES {
		b, err = des.NewTripleDESCipher(m.key)
	} else {
		b, err = aes.NewCipher(m.key)
	}
	if err != nil {
		panic(err)
	}
	return b
}

func (m managementKey) encrypt(in []byte) []byte {
	out := make([]byte, len(in))
	m.block().Encrypt(out, in)
	return out
}

// authenticate is GENERAL AUTHENTICATE with the management key (SP 800-73-4
// part 2 section 3.2.4), mutual or of the host alone.
func (c *Card) authenticate(cmd command) ([]byte, uint16) {
	s, m := &c.now, c.management
	alg := cmd.p1
	if alg == 0 {
		alg = tripleDES
	}
	f, ok := template(0x7c, cmd.data)
	if !ok || alg != m.alg {
		return nil, swData
	}
	size := m.block().BlockSize()
	witness, challenge := s.witness, s.challenge
	s.witness, s.challenge = nil, nil // each is good once
	w, hasWitness := f[0x80]
	given, hasChallenge := f[0x81]
	response, hasResponse := f[0x82]
	switch {
	case hasWitness && len(w) == 0:
		s.witness = random(size)
		return tlv(0x7c, tlv(0x80, m.encrypt(s.witness)...)...), swOK
	case hasWitness && len(given) == size && witness != nil:
		s.managed = subtle.ConstantTimeCompare(witness, w) == 1
		if !s.managed {
			return nil, swSecurity
		}
		return tlv(0x7c, tlv(0x82, m.encrypt(given)...)...), swOK
	case hasChallenge && len(given) == 0:
		s.challenge = random(size)
		return tlv(0x7c, tlv(0x81, s.challenge...)...), swOK
	case hasResponse && challenge != nil:
		s.managed = subtle.ConstantTimeCompare(m.encrypt(challenge), response) == 1
		if !s.managed {
			return nil, swSecurity
		}
		return nil, swOK
	}
	return nil, swData
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

// setManagement is Yubico's: algorithm, 9B, length, key.
func (c *Card) setManagement(cmd command) uint16 {
	if !c.now.managed {
		return swSecurity
	}
	length := map[byte]int{tripleDES: 24, aes128: 16, aes192: 24, aes256: 32}
	d := cmd.data
	switch {
	case cmd.p1 != 0xff || cmd.p2 != 0xff && cmd.p2 != 0xfe:
		return swParameters
	case len(d) < 3 || d[1] != keyManagementAuth || length[d[0]] == 0 || len(d) != 3+length[d[0]] || int(d[2]) != length[d[0]]:
		return swData
	case d[0] != tripleDES && !c.since(5, 4, 0):
		return swData
	}
	c.management = managementKey{alg: d[0], key: bytes.Clone(d[3:])}
	return swOK
}
