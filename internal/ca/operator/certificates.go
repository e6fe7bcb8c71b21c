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

// Certificate is a certificate as operators see it.
type Certificate struct {
	cert.Certificate
	Owner string       // of the device that it rests on; "" for none
	Chain ca.ChainView // of an issued X.509 certificate, where it was asked for
}

// Certificates searches certificates; full adds their chains, as far as the
// configuration still has them.
func (o *Console) Certificates(ctx context.Context, who Caller, f store.CertificateFilter, full bool) ([]Certificate, error) {
	if err := o.operate(ctx, who, "certificate.list", f.Name, nil); err != nil {
		return nil, err
	}
	rows, err := o.db.Certificates(ctx, f)
	if err != nil {
		return nil, err
	}
	out := make([]Certificate, len(rows))
	owners := map[string]string{} // by subject
	for i, c := range rows {
		out[i].Certificate = c
		if out[i].Owner, err = o.owner(ctx, c.Subject, owners); err != nil {
			return nil, err
		}
		if !full || c.State != cert.Issued {
			continue
		}
		if out[i].Chain, err = o.authority.Chain(c, 0); err != nil { // its issuer is gone from the configuration
			out[i].Chain = ca.ChainView{Certificates: [][]byte{c.DER}}
		}
	}
	return out, nil
}

// owner finds whose device a certificate rests on.
func (o *Console) owner(ctx context.Context, subject string, known map[string]string) (string, error) {
	id, ok := protocol.DeviceOf(subject)
	if !ok {
		return "", nil
	}
	if owner, ok := known[subject]; ok {
		return owner, nil
	}
	d, err := o.db.Device(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	known[subject] = d.Owner
	return d.Owner, err
}

// ShowCertificate returns the record of one certificate and its chain.
func (o *Console) ShowCertificate(ctx context.Context, who Caller, serial cert.Serial) (Certificate, error) {
	if err := o.operate(ctx, who, "certificate.show", string(serial), nil); err != nil {
		return Certificate{}, err
	}
	c, err := o.db.Certificate(ctx, serial)
	if errors.Is(err, store.ErrNotFound) {
		return Certificate{}, noSuch("certificate")
	}
	out := Certificate{Certificate: c}
	if err == nil {
		out.Owner, err = o.owner(ctx, c.Subject, map[string]string{})
	}
	if err == nil && c.State == cert.Issued {
		out.Chain, err = o.authority.Chain(c, 0)
	}
	return out, err
}

// RevokeCertificate withdraws any certificate.
func (o *Console) RevokeCertificate(ctx context.Context, who Caller, serial cert.Serial, reason cert.Reason) error {
	return o.operate(ctx, who, "certificate.revoke", string(serial), func(tx *store.Tx, e *audit.Entry) error {
		if !reason.Valid() {
			return badReason(reason)
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
