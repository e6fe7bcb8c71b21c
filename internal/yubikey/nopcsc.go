//go:build !pcsc || (!cgo && !windows)

package yubikey

import (
	"context"
	"crypto"
	"errors"
	"io"
)

// errBuild is what everything that talks to cards answers in this build.
var errBuild = errors.New("this build can't talk to YubiKeys: build with -tags pcsc (and cgo with libpcsclite-dev, but on Windows)")

// Cards is the process's view of its cards, of which this build has none.
type Cards struct {
	Person bool // says nothing here
}

// Open says that this build has no smart cards.
func (c *Cards) Open(context.Context, string, func(context.Context) ([]byte, error)) (*Key, error) {
	return nil, errBuild
}

// Generate says that this build has no smart cards.
func (c *Cards) Generate(context.Context, string, GenerateOptions) (*Key, *Attestation, error) {
	return nil, nil, errBuild
}

// List says that this build has no smart cards.
func (c *Cards) List(context.Context) ([]Info, error) { return nil, errBuild }

// Attest says that this build has no smart cards.
func (c *Cards) Attest(context.Context, string) (*Attestation, crypto.PublicKey, error) {
	return nil, nil, errBuild
}

// Key is a key in a card, of which this build opens none.
type Key struct{}

// Public returns nil.
func (k *Key) Public() crypto.PublicKey { return nil }

// Sign says that this build has no smart cards.
func (k *Key) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, errBuild }

// Reopen says that this build has no smart cards.
func (k *Key) Reopen(context.Context) error { return errBuild }

// Probe says that this build has no smart cards.
func (k *Key) Probe() error { return errBuild }

// Close does nothing.
func (k *Key) Close() error { return nil }

// Parallel returns 1.
func (k *Key) Parallel() int { return 1 }

// Token returns "".
func (k *Key) Token() string { return "" }
