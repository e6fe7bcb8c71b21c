package ca

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// IssueOwn issues a certificate to this server itself, for its own HTTPS
// listener: no account and no order, but planned, recorded and audited like
// any other. It returns the chain, leaf first.
func (a *Authority) IssueOwn(ctx context.Context, p cert.Profile, names []protocol.Identifier, key crypto.PublicKey) ([][]byte, error) {
	if !slices.Contains(p.Usages, cert.Server) {
		return nil, fmt.Errorf("profile %q is not for servers", p.Name)
	}
	signer, err := a.issuer(p.Issuer)
	if err != nil {
		return nil, err
	}
	now := a.clock()
	from, to, err := policy.Dates(p, protocol.Order{CreatedAt: now}, now)
	if err != nil {
		return nil, err
	}
	prepared, err := signer.Prepare(ctx, issuer.Request{Profile: p, Names: names, PublicKey: key, NotBefore: from, NotAfter: to, Now: now})
	if err != nil {
		return nil, err
	}
	c := cert.Certificate{
		Serial: prepared.Serial, State: cert.Planned, Profile: p.Name, Issuer: p.Issuer, IssuerKeyID: prepared.IssuerKeyID,
		Names: names, DER: prepared.TBS, KeyHash: prepared.KeyHash, NotBefore: prepared.NotBefore, NotAfter: prepared.NotAfter, PlannedAt: now,
	}
	err = a.db.Update(ctx, func(tx *store.Tx) error { return tx.InsertCertificate(c, prepared.NotAfter) })
	if err != nil {
		return nil, err
	}
	if c.DER, err = signer.Issue(ctx, prepared); err != nil {
		return nil, err
	}
	err = a.db.Update(ctx, func(tx *store.Tx) error {
		if ok, err := tx.IssueCertificate(c.Serial, c.DER); err != nil {
			return err
		} else if !ok {
			return errors.New("the plan of the server's own certificate is gone")
		}
		return tx.Audit(audit.Entry{
			Action: "certificate.issue", Actor: "server:" + a.replica, Object: string(c.Serial),
			Detail: map[string]any{"names": namesOf(names), "profile": p.Name, "until": c.NotAfter.Unix(), "key": c.KeyHash},
		})
	})
	if err != nil {
		return nil, err
	}
	v, err := a.chain(c, 0)
	return v.Certificates, err
}

// NextCRLNumber takes the next number for an issuing certificate's CRL. Numbers
// rise, also after a backup was restored: they are never below the time.
func (a *Authority) NextCRLNumber(ctx context.Context, issuerKeyID string) (number int64, err error) {
	err = a.db.Update(ctx, func(tx *store.Tx) error {
		if number, err = tx.NextNumber("crl/"+issuerKeyID, tx.Now().UnixMilli()); err != nil {
			return err
		}
		return tx.Audit(audit.Entry{
			Action: "crl.number", Actor: "server:" + a.replica, Object: issuerKeyID, Detail: map[string]any{"number": number},
		})
	})
	return number, err
}
