//go:build !pcsc || (!cgo && !windows)

package yubikey

import (
	"context"
	"crypto/x509"
)

// Certificate says that this build has no smart cards.
func (c *Cards) Certificate(context.Context, string) (*x509.Certificate, error) { return nil, errBuild }

// SetCertificate says that this build has no smart cards.
func (c *Cards) SetCertificate(context.Context, string, *x509.Certificate, SetOptions) error {
	return errBuild
}
