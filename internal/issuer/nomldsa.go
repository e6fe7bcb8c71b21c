//go:build !go1.27

package issuer

import (
	"crypto"
	"crypto/x509"

	"github.com/chancery-pki/chancery/internal/cert"
)

// mldsaBuilt reports whether this build certifies ML-DSA keys (FIPS 204),
// which came to the standard library with Go 1.27.
const mldsaBuilt = false

func mldsaType(crypto.PublicKey) (cert.KeyType, bool) { return "", false }

func mldsaSignature(x509.SignatureAlgorithm) bool { return false }
