package revocation

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes below
	_ "crypto/sha512"
	"crypto/x509"
	"fmt"
)

// algorithm is how a key signs lists and responses.
type algorithm struct {
	id   x509.SignatureAlgorithm
	hash crypto.Hash // 0: the key hashes by itself
	der  []byte      // AlgorithmIdentifier, in the TBSCertList and beside the signature
}

// The AlgorithmIdentifiers, complete: RFC 5758 section 3.2 (ECDSA: no
// parameters), RFC 4055 section 5 (RSA PKCS#1 v1.5: NULL), RFC 8410 section 3
// (Ed25519: none).
var (
	ecdsaSHA256 = algorithm{x509.ECDSAWithSHA256, crypto.SHA256, []byte{0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02}}
	ecdsaSHA384 = algorithm{x509.ECDSAWithSHA384, crypto.SHA384, []byte{0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03}}
	ecdsaSHA512 = algorithm{x509.ECDSAWithSHA512, crypto.SHA512, []byte{0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04}}
	rsaSHA256   = algorithm{x509.SHA256WithRSA, crypto.SHA256, []byte{0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00}}
	pureEd25519 = algorithm{x509.PureEd25519, 0, []byte{0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70}}
)

// algorithmFor picks the signature algorithm of a key, the one with which an
// issuing key signs certificates too.
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
		return rsaSHA256, nil
	case ed25519.PublicKey:
		return pureEd25519, nil
	}
	return algorithm{}, fmt.Errorf("CRLs and OCSP responses can't be signed with a key of type %T here; use ECDSA (P-256, P-384, P-521), RSA or Ed25519", pub)
}

// sign has tbs signed by the key of a certificate: sign is called once, with
// the arguments of crypto.Signer. A faulty signature must not leave: relying
// parties would refuse all our certificates, and it may give the key away.
func (a algorithm) sign(by *x509.Certificate, tbs []byte, sign func(digest []byte, opts crypto.SignerOpts) ([]byte, error)) ([]byte, error) {
	digest := tbs
	if a.hash != 0 {
		h := a.hash.New()
		h.Write(tbs)
		digest = h.Sum(nil)
	}
	signature, err := sign(digest, a.hash)
	if err != nil {
		return nil, err
	}
	if err := by.CheckSignature(a.id, tbs, signature); err != nil {
		return nil, fmt.Errorf("the key's signature doesn't fit certificate %q: %w", by.Subject, err)
	}
	return signature, nil
}
