package ca

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// How often the jobs look. Validation tries are due in seconds, the rest is
// housekeeping that one replica does for all.
const (
	workEvery  = time.Second
	sweepEvery = time.Minute
	sweepLease = 3 * time.Minute
	sweepBatch = 500 // rows a transaction, so that nobody waits long behind it
	claimBatch = 64
)

// Run does the jobs until ctx ends: validations and plans that were recorded
// and left, the sequence of the audit log, and the sweeps. It then waits for
// what runs in this process, at most for grace.
func (a *Authority) Run(ctx context.Context, grace time.Duration) {
	work, sweep := time.NewTicker(workEvery), time.NewTicker(sweepEvery)
	defer work.Stop()
	defer sweep.Stop()
	for {
		a.attempt(ctx, "validations", a.claimValidations)
		a.attempt(ctx, "plans", a.claimPlans)
		a.attempt(ctx, "audit", a.sequenceAudit)
		select {
		case <-work.C:
		case <-sweep.C:
			a.attempt(ctx, "sweep", a.Sweep)
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
			defer cancel()
			a.validations.idle(ctx)
			a.issuances.idle(ctx)
			return
		}
	}
}

// attempt does one round of a job; its trouble is logged and passes.
func (a *Authority) attempt(ctx context.Context, what string, round func(context.Context) error) {
	if err := round(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
		a.log.Warn("job failed; it will be tried again", "job", what, "error", err)
	}
}

// claimValidations takes over recorded validations that are due and nobody
// works on: retries, and what a stopped replica left.
func (a *Authority) claimValidations(ctx context.Context) error {
	due, err := a.db.ValidationsDue(ctx, a.clock())
	if err != nil || !due { // the usual round reads and writes nothing
		return err
	}
	var claimed []protocol.Authorization
	err = a.db.Update(ctx, func(tx *store.Tx) (err error) {
		claimed, err = tx.ClaimValidations(tx.Now(), validationLease, claimBatch)
		return err
	})
	if err != nil {
		return err
	}
	for _, z := range claimed {
		if a.validations.has(string(z.ID)) {
			continue
		}
		d, err := a.directory(z.Directory)
		if err != nil {
			continue // taken out of the configuration; the authorization expires
		}
		account, err := a.db.Account(ctx, z.Account)
		if err != nil || account.Status != protocol.AccountValid {
			continue // likewise
		}
		// A proof that looks at the client's address had it in the first
		// try only; a retry has none, and such a proof refuses.
		who := Requester{Directory: z.Directory, Account: account, Peer: netip.AddrPort{}}
		a.startValidation(ctx, d, z, a.validation(d, who, z))
	}
	return nil
}

// claimPlans takes over planned certificates that a stopped replica left.
func (a *Authority) claimPlans(ctx context.Context) error {
	due, err := a.db.PlansDue(ctx, a.clock())
	if err != nil || !due {
		return err
	}
	var claimed []cert.Certificate
	err = a.db.Update(ctx, func(tx *store.Tx) (err error) {
		claimed, err = tx.ClaimPlans(tx.Now(), planLease, claimBatch)
		return err
	})
	if err != nil {
		return err
	}
	for _, c := range claimed {
		if err := a.resumeIssuance(ctx, c); err != nil {
			a.log.Error("a planned certificate can't be issued", "serial", c.Serial, "error", err)
		}
	}
	return nil
}

// sequenceAudit puts new audit entries into the chain where the store doesn't
// do so in the same transaction.
func (a *Authority) sequenceAudit(ctx context.Context) error {
	if !a.db.AuditNeedsSequencing() {
		return nil
	}
	return a.db.Update(ctx, func(tx *store.Tx) error {
		if ok, err := tx.Lease("audit", a.replica, tx.Now().Add(sweepLease)); err != nil || !ok {
			return err
		}
		_, err := tx.SequenceAudit(tx.Now(), a.replica, sweepBatch)
		return err
	})
}

// Sweep deletes what has ended, in small batches, unless another replica is
// at it: idle accounts, ended orders and authorizations, expired
// certificates, old audit entries (DESIGN section 5).
func (a *Authority) Sweep(ctx context.Context) error {
	mine := false
	err := a.db.Update(ctx, func(tx *store.Tx) (err error) {
		mine, err = tx.Lease("sweep", a.replica, tx.Now().Add(sweepLease))
		return err
	})
	if err != nil || !mine {
		return err
	}
	now := a.clock()
	for _, s := range []struct {
		what  string
		batch func(*store.Tx) (int, error)
	}{
		{"orders", func(tx *store.Tx) (int, error) { return tx.SweepOrders(now.Add(-a.keep.Orders), sweepBatch) }},
		{"authorizations", func(tx *store.Tx) (int, error) { return tx.SweepAuthorizations(now.Add(-a.keep.Orders), sweepBatch) }},
		{"certificates", func(tx *store.Tx) (int, error) {
			return tx.SweepCertificates(now.Add(-a.keep.Certificates), sweepBatch)
		}},
		{"accounts", func(tx *store.Tx) (int, error) { return tx.SweepAccounts(now, sweepBatch) }},
		{"audit", func(tx *store.Tx) (int, error) { return tx.SweepAudit(now.Add(-a.keep.Audit), sweepBatch) }},
		{"limits", func(tx *store.Tx) (int, error) { return tx.SweepLimits(now, sweepBatch) }},
	} {
		if err := a.sweep(ctx, s.what, s.batch); err != nil {
			return err
		}
	}
	return nil
}

func (a *Authority) sweep(ctx context.Context, what string, batch func(*store.Tx) (int, error)) error {
	total := 0
	defer func() {
		if total > 0 {
			a.observe.Swept(what, total)
			a.log.Info("swept", "what", what, "rows", total)
		}
	}()
	for ctx.Err() == nil {
		n := 0
		err := a.db.Update(ctx, func(tx *store.Tx) (err error) {
			if _, err = tx.Lease("sweep", a.replica, tx.Now().Add(sweepLease)); err == nil {
				n, err = batch(tx)
			}
			return err
		})
		if err != nil {
			return err
		}
		if total += n; n < sweepBatch {
			return nil
		}
	}
	return ctx.Err()
}
