//go:build !cgo

package pkcs11

import (
	"context"
	"crypto"
	"errors"
	"io"

	"github.com/chancery-pki/chancery/internal/cert"
)

var errNoCgo = errors.New("this build has no PKCS#11: it was made without cgo; build with CGO_ENABLED=1 and a C compiler, or use a file: key")

// Key stands for a key in a token, which this build can't open.
type Key struct{}

// Open fails: this build was made without cgo.
func Open(context.Context, string, func(context.Context) ([]byte, error)) (*Key, error) {
	return nil, errNoCgo
}

// Generate fails: this build was made without cgo.
func Generate(context.Context, string, cert.KeyType, func(context.Context) ([]byte, error)) (*Key, error) {
	return nil, errNoCgo
}

// Public returns nil.
func (*Key) Public() crypto.PublicKey { return nil }

// Sign fails: this build was made without cgo.
func (*Key) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, errNoCgo }

// Parallel returns 1.
func (*Key) Parallel() int { return 1 }

// Token returns "".
func (*Key) Token() string { return "" }

// Probe fails: this build was made without cgo.
func (*Key) Probe() error { return errNoCgo }

// Reopen fails: this build was made without cgo.
func (*Key) Reopen(context.Context) error { return errNoCgo }

// Close does nothing.
func (*Key) Close() error { return nil }
