package signer

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
)

// Encrypted PKCS#8 (RFC 5958 section 3) by PBES2 (RFC 8018 section 6.2) with
// PBKDF2 and AES-CBC: what `openssl pkcs8 -topk8` writes by default.

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}  // id-hmacWithSHA256
	oidSHA512 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 11} // id-hmacWithSHA512
	oidAES128 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
	oidAES256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

const (
	// iterations is what OWASP asks of PBKDF2-HMAC-SHA256: 0.1 to 0.3 s, once
	// per start.
	iterations = 600_000
	// maxIterations keeps a damaged file from hanging us for more than some
	// seconds.
	maxIterations = 10_000_000
	saltLength    = 16
)

type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

type pbes2Params struct {
	KDF, Cipher pkix.AlgorithmIdentifier
}

type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

// convert is the advice for files in another scheme.
const convert = "convert it with: openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256"

// decryptPKCS8 returns the PrivateKeyInfo inside. A wrong password is
// ErrPassword; a damaged file mostly looks the same.
func decryptPKCS8(der, password []byte) ([]byte, error) {
	var k encryptedKey
	if rest, err := asn1.Unmarshal(der, &k); err != nil || len(rest) > 0 {
		return nil, errors.New("the encrypted key is damaged")
	}
	if !k.Algorithm.Algorithm.Equal(oidPBES2) {
		return nil, errors.New("the key is not encrypted by PBES2; " + convert)
	}
	var p pbes2Params
	if rest, err := asn1.Unmarshal(k.Algorithm.Parameters.FullBytes, &p); err != nil || len(rest) > 0 {
		return nil, errors.New("the encryption parameters are damaged")
	}
	keyLength, iv, err := cipherOf(p.Cipher)
	if err != nil {
		return nil, err
	}
	key, err := derive(p.KDF, password, keyLength)
	if err != nil {
		return nil, err
	}
	plain, ok := openCBC(key, iv, k.Data)
	if !ok {
		return nil, fmt.Errorf("wrong %w, or the file is damaged", ErrPassword)
	}
	return plain, nil
}

// cipherOf returns the key length and IV of an AES-CBC algorithm.
func cipherOf(a pkix.AlgorithmIdentifier) (keyLength int, iv []byte, err error) {
	switch {
	case a.Algorithm.Equal(oidAES256):
		keyLength = 32
	case a.Algorithm.Equal(oidAES128):
		keyLength = 16
	default:
		return 0, nil, errors.New("the key is not encrypted by AES-256-CBC or AES-128-CBC; " + convert)
	}
	if rest, err := asn1.Unmarshal(a.Parameters.FullBytes, &iv); err != nil || len(rest) > 0 || len(iv) != aes.BlockSize {
		return 0, nil, errors.New("the cipher's parameters are damaged")
	}
	return keyLength, iv, nil
}

// derive runs PBKDF2 as its parameters say (RFC 8018 appendix A.2).
func derive(a pkix.AlgorithmIdentifier, password []byte, keyLength int) ([]byte, error) {
	if !a.Algorithm.Equal(oidPBKDF2) {
		return nil, errors.New("the key's password is not stretched by PBKDF2; " + convert)
	}
	var p pbkdf2Params
	if rest, err := asn1.Unmarshal(a.Parameters.FullBytes, &p); err != nil || len(rest) > 0 ||
		p.Iterations < 1 || p.KeyLength != 0 && p.KeyLength != keyLength {
		return nil, errors.New("the PBKDF2 parameters are damaged")
	}
	if p.Iterations > maxIterations {
		return nil, fmt.Errorf("PBKDF2 with %d iterations would take too long; %s", p.Iterations, convert)
	}
	var prf func() hash.Hash
	switch {
	case p.PRF.Algorithm.Equal(oidSHA256):
		prf = sha256.New
	case p.PRF.Algorithm.Equal(oidSHA512):
		prf = sha512.New
	default: // absent means HMAC-SHA-1
		return nil, errors.New("PBKDF2 with an HMAC other than SHA-256 or SHA-512; " + convert)
	}
	return pbkdf2.Key(prf, string(password), p.Salt, p.Iterations, keyLength)
}

// openCBC decrypts and takes off the padding (RFC 8018 section 6.1.1). The
// result is a DER SEQUENCE, which tells most wrong passwords that the padding
// lets through.
func openCBC(key, iv, data []byte) ([]byte, bool) {
	block, err := aes.NewCipher(key)
	if err != nil || len(data) == 0 || len(data)%aes.BlockSize != 0 {
		return nil, false
	}
	plain := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, data)
	n := int(plain[len(plain)-1])
	if n < 1 || n > aes.BlockSize {
		return nil, false
	}
	for _, b := range plain[len(plain)-n:] {
		if int(b) != n {
			return nil, false
		}
	}
	plain = plain[:len(plain)-n]
	var raw asn1.RawValue
	if rest, err := asn1.Unmarshal(plain, &raw); err != nil || len(rest) > 0 || raw.Tag != asn1.TagSequence {
		return nil, false
	}
	return plain, true
}

// encryptPKCS8 seals a PrivateKeyInfo with PBKDF2-HMAC-SHA256 and AES-256-CBC.
func encryptPKCS8(der, password []byte) ([]byte, error) {
	salt, iv := make([]byte, saltLength), make([]byte, aes.BlockSize)
	rand.Read(salt) // never fails (crypto/rand)
	rand.Read(iv)
	key, err := pbkdf2.Key(sha256.New, string(password), salt, iterations, 32)
	if err != nil {
		return nil, fmt.Errorf("PBKDF2: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	pad := aes.BlockSize - len(der)%aes.BlockSize
	data := make([]byte, len(der), len(der)+pad)
	copy(data, der)
	for range pad {
		data = append(data, byte(pad))
	}
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(data, data)

	kdf, err := algorithm(oidPBKDF2, pbkdf2Params{Salt: salt, Iterations: iterations,
		PRF: pkix.AlgorithmIdentifier{Algorithm: oidSHA256, Parameters: asn1.NullRawValue}})
	if err != nil {
		return nil, err
	}
	enc, err := algorithm(oidAES256, iv)
	if err != nil {
		return nil, err
	}
	scheme, err := algorithm(oidPBES2, pbes2Params{kdf, enc})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(encryptedKey{scheme, data})
}

// algorithm is an AlgorithmIdentifier with the given parameters.
func algorithm(oid asn1.ObjectIdentifier, params any) (pkix.AlgorithmIdentifier, error) {
	der, err := asn1.Marshal(params)
	return pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.RawValue{FullBytes: der}}, err
}
