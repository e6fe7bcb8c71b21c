//go:build go1.27

package issuer

import (
	"crypto"
	"crypto/mldsa"
	"crypto/x509"

	"github.com/chancery-pki/chancery/internal/cert"
)

// mldsaBuilt reports whether this build certifies ML-DSA keys (FIPS 204).
const mldsaBuilt = true

// mldsaType is KeyTypeOf for ML-DSA keys.
func mldsaType(pub crypto.PublicKey) (cert.KeyType, bool) {
	key, ok := pub.(*mldsa.PublicKey)
	if !ok {
		return "", false
	}
	switch key.Parameters() {
	case mldsa.MLDSA44():
		return cert.MLDSA44, true
	case mldsa.MLDSA65():
		return cert.MLDSA65, true
	case mldsa.MLDSA87():
		return cert.MLDSA87, true
	}
	return "", false
}

// mldsaSignature reports whether a CSR's signature is ML-DSA (RFC 9881).
func mldsaSignature(a x509.SignatureAlgorithm) bool {
	return a == x509.MLDSA44 || a == x509.MLDSA65 || a == x509.MLDSA87
}
