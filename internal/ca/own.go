package ca

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/ca/job"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
	"github.com/chancery-pki/chancery/internal/store"
)

// ownTurn is a server's turn at the key: without its certificate nobody gets
// anything, so it counts as a renewal of one that ends now.
func ownTurn(replica string, now time.Time) signer.Request {
	return signer.Request{Class: schedule.Renewal, Client: "server:" + replica, Ends: now}
}

// IssueOwn issues a certificate to this server itself, for its own HTTPS
// listener: no account and no order, but planned, recorded and audited like
// any other. It returns the chain, leaf first, and blocks on the key, which
// another replica may hold.
func (a *Authority) IssueOwn(ctx context.Context, p cert.Profile, names []protocol.Identifier, key crypto.PublicKey) ([][]byte, error) {
	if !slices.Contains(p.Usages, cert.Server) {
		return nil, fmt.Errorf("profile %q is not for servers", p.Name)
	}
	by, err := a.issuer(p.Issuer)
	if err != nil {
		return nil, err
	}
	now := a.clock()
	from, to, err := policy.Dates(p, protocol.Order{CreatedAt: now}, now)
	if err != nil {
		return nil, err
	}
	prepared, err := by.Prepare(ctx, issuer.Request{
		Profile: p, Names: names, PublicKey: key, NotBefore: from, NotAfter: to, Now: now, Signature: ownTurn(a.replica, now),
	})
	if err != nil {
		return nil, err
	}
	defer prepared.Discard()
	c := cert.Certificate{
		Serial: prepared.Serial, Format: p.Format(), State: cert.Planned, Profile: p.Name, Issuer: p.Issuer, IssuerKeyID: prepared.IssuerKeyID,
		Names: names, DER: prepared.TBS, KeyHash: prepared.KeyHash, NotBefore: prepared.NotBefore, NotAfter: prepared.NotAfter, PlannedAt: now,
		CRLShard: prepared.CRLShard, Client: a.replica,
	}
	switch {
	case prepared.Remote():
		c.DER, err = a.awaitOwn(ctx, c)
	case !prepared.Usable(): // before anything is recorded that nobody would sign
		err = signer.ErrAway
	default:
		err = a.db.Update(ctx, func(tx *store.Tx) error { return tx.InsertCertificate(c, prepared.NotAfter) })
		if err == nil {
			if c.DER, err = a.signOwn(ctx, by, prepared, c); err != nil { // its key dies with this call
				err = errors.Join(err, a.dropPlan(context.WithoutCancel(ctx), c.Serial))
			}
		}
	}
	if err != nil {
		return nil, err
	}
	v, err := a.Chain(c, 0)
	return v.Certificates, err
}

// signOwn signs and records a server's own certificate.
func (a *Authority) signOwn(ctx context.Context, by Issuer, prepared *issuer.Prepared, c cert.Certificate) ([]byte, error) {
	der, err := by.Issue(ctx, prepared)
	if err != nil {
		return nil, err
	}
	return der, a.db.Update(ctx, func(tx *store.Tx) error {
		if ok, err := tx.IssueCertificate(c.Serial, der); err != nil {
			return err
		} else if !ok {
			return errors.New("the plan of the server's own certificate is gone")
		}
		if c.Client != a.replica { // which waits in awaitOwn
			if err := tx.Notify(topicIssued, string(c.Serial)); err != nil {
				return err
			}
		}
		return tx.Audit(audit.Entry{
			Action: "certificate.issue", Actor: "server:" + c.Client, Object: string(c.Serial),
			Detail: map[string]any{"names": protocol.Values(c.Names), "profile": c.Profile, "until": c.NotAfter.Unix(), "key": c.KeyHash},
		})
	})
}

// awaitOwn leaves the plan to the replica that holds the key, and waits.
func (a *Authority) awaitOwn(ctx context.Context, c cert.Certificate) ([]byte, error) {
	told, forget := a.issued.Wait(string(c.Serial))
	defer forget()
	err := a.db.Update(ctx, func(tx *store.Tx) error {
		if err := tx.InsertCertificate(c, a.clock().Add(-freePlan)); err != nil {
			return err
		}
		return tx.Notify(topicPlanned, c.IssuerKeyID)
	})
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(leastWait) // notices aren't heard before Run
	defer tick.Stop()
	for {
		stored, err := a.db.Certificate(ctx, c.Serial)
		if err != nil {
			return nil, err
		}
		if stored.State == cert.Issued {
			return stored.DER, nil
		}
		select {
		case <-told:
		case <-tick.C:
		case <-ctx.Done():
			// So that it isn't signed for nobody.
			if err := a.dropPlan(context.WithoutCancel(ctx), c.Serial); err != nil {
				a.log.Warn("a plan that nobody waits for any more could not be dropped", "serial", c.Serial, "error", err)
			}
			return nil, fmt.Errorf("the replica that holds the signing key didn't sign this server's certificate: %w", ctx.Err())
		}
	}
}

func (a *Authority) dropPlan(ctx context.Context, serial cert.Serial) error {
	return a.db.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.DropPlan(serial)
		return err
	})
}

// resumeOwn signs another replica's own certificate, or drops a plan whose key
// died with its process.
func (a *Authority) resumeOwn(ctx context.Context, c cert.Certificate) error {
	if a.db.Engine() == "sqlite" || !a.clock().Before(c.NotAfter) {
		return a.dropPlan(ctx, c.Serial)
	}
	by, err := a.issuer(c.Issuer)
	if err != nil {
		return err
	}
	prepared, err := by.Resume(c.DER, ownTurn(c.Client, a.clock()))
	if err != nil || prepared.Remote() { // its holder will
		return err
	}
	t := job.Task{About: string(c.Serial), Left: prepared.Wait}
	a.issuances.Start(ctx, string(c.Serial), "", t, func(ctx context.Context) (cert.Serial, error) {
		ctx, cancel := context.WithTimeout(ctx, signatureTime)
		defer cancel()
		_, err := a.signOwn(ctx, by, prepared, c)
		if err != nil {
			a.log.Error("another server's own certificate not issued; it will be tried again", "serial", c.Serial, "error", err)
		}
		return "", err
	})
	return nil
}
