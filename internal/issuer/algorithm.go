package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes below
	_ "crypto/sha512"
	"fmt"
)

// algorithm is how an issuing key signs.
type algorithm struct {
	hash crypto.Hash // 0: the key hashes by itself
	der  []byte      // AlgorithmIdentifier, in the TBSCertificate and beside the signature
}

// The AlgorithmIdentifiers, complete: RFC 5758 section 3.2 (ECDSA: no
// parameters), RFC 4055 section 5 (RSA PKCS#1 v1.5: NULL), RFC 8410 section 3
// (Ed25519: none). RSA signs by PKCS#1 v1.5 because all relying parties know it.
var (
	ecdsaSHA256 = algorithm{crypto.SHA256, []byte{0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02}}
	ecdsaSHA384 = algorithm{crypto.SHA384, []byte{0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03}}
	ecdsaSHA512 = algorithm{crypto.SHA512, []byte{0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04}}
	rsaSHA256   = algorithm{crypto.SHA256, []byte{0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00}}
	pureEd25519 = algorithm{0, []byte{0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70}}
)

// algorithmFor picks the signature algorithm of an issuing key.
func algorithmFor(pub crypto.PublicKey) (algorithm, error) {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256():
			return ecdsaSHA256, nil
		case elliptic.P384():
			return ecdsaSHA384, nil
		case elliptic.P521():
			return ecdsaSHA512, nil
		}
	case *rsa.PublicKey:
		if pub.N.BitLen() >= 2048 {
			return rsaSHA256, nil
		}
		return algorithm{}, fmt.Errorf("an RSA key of %d bits is too weak for a CA", pub.N.BitLen())
	case ed25519.PublicKey:
		return pureEd25519, nil
	}
	return algorithm{}, fmt.Errorf("a CA can't sign with a key of type %T here; use ECDSA P-256 or P-384, RSA or Ed25519", pub)
}

// digest is what the key signs: the hash, or the message itself.
func (a algorithm) digest(tbs []byte) []byte {
	if a.hash == 0 {
		return tbs
	}
	h := a.hash.New()
	h.Write(tbs)
	return h.Sum(nil)
}

// verify checks a signature over what digest returned.
func (a algorithm) verify(pub crypto.PublicKey, digest, signature []byte) bool {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, digest, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, a.hash, digest, signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(pub, digest, signature)
	}
	return false
}

// equalKeys compares public keys; all of the standard library's have Equal.
func equalKeys(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}
