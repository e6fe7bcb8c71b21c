package operator

import (
	"context"
	"errors"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// Certificates searches certificates.
func (o *Console) Certificates(ctx context.Context, who Caller, f store.CertificateFilter) ([]cert.Certificate, error) {
	if err := o.operate(ctx, who, "certificate.list", f.Name, nil); err != nil {
		return nil, err
	}
	return o.db.Certificates(ctx, f)
}

// ShowCertificate returns the record of one certificate and its chain.
func (o *Console) ShowCertificate(ctx context.Context, who Caller, serial cert.Serial) (cert.Certificate, ca.ChainView, error) {
	if err := o.operate(ctx, who, "certificate.show", string(serial), nil); err != nil {
		return cert.Certificate{}, ca.ChainView{}, err
	}
	c, err := o.db.Certificate(ctx, serial)
	if errors.Is(err, store.ErrNotFound) {
		return c, ca.ChainView{}, noSuch("certificate")
	}
	if err != nil || c.State != cert.Issued {
		return c, ca.ChainView{}, err
	}
	v, err := o.authority.Chain(c, 0)
	return c, v, err
}

// RevokeCertificate withdraws any certificate.
func (o *Console) RevokeCertificate(ctx context.Context, who Caller, serial cert.Serial, reason cert.Reason) error {
	return o.operate(ctx, who, "certificate.revoke", string(serial), func(tx *store.Tx, e *audit.Entry) error {
		if !reason.Valid() {
			return protocol.NewProblem(protocol.BadRevocationReason, "reason %d may not be given; use 0, 1, 3, 4, 5 or 9", int(reason))
		}
		c, err := tx.Certificate(ctx, serial)
		if errors.Is(err, store.ErrNotFound) || err == nil && c.State != cert.Issued {
			return noSuch("certificate")
		}
		if err != nil {
			return err
		}
		e.Directory, e.Detail = c.Directory, map[string]any{"reason": int(reason), "names": protocol.Values(c.Names)}
		return o.authority.Withdraw(tx, c, reason)
	})
}

// Live counts the certificates alive by issuing key ID (hex of the
// SubjectKeyId). With a million it takes some tenths of a second.
func (o *Console) Live(ctx context.Context, who Caller) (map[string]store.Live, error) {
	if err := o.operate(ctx, who, "signing.show", "", nil); err != nil {
		return nil, err
	}
	return o.authority.Live(ctx)
}
