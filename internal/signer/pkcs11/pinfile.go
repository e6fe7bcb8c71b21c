package pkcs11

import (
	"context"

	"github.com/chancery-pki/chancery/internal/signer/secret"
)

// maxPIN bounds a PIN: CK_TOKEN_INFO of the tokens known allows up to 255.
const maxPIN = 1 << 10

// pinFile reads the PIN that a URI's pin-source names.
func pinFile(path string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return secret.Line(path, maxPIN) }
}
