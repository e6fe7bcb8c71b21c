package ca

import (
	"context"
	"errors"
	"sync"
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
	countEvery = 5 * time.Minute // live certificates, for the renewal windows
	lostPlan   = 2 * time.Minute // after its claim ended, a plan isn't its key's holder's any more
	claimBatch = 64
)

// Run does the jobs until ctx ends: validations and plans that were recorded
// and left, the sequence of the audit log, and the sweeps. It then waits for
// what runs in this process, at most for grace.
func (a *Authority) Run(ctx context.Context, grace time.Duration) {
	var sweeping sync.WaitGroup
	sweeping.Go(func() { a.every(ctx, sweepEvery, func() { a.attempt(ctx, "sweep", a.Sweep) }) })
	sweeping.Go(func() {
		a.every(ctx, holdEvery, func() { a.attempt(ctx, "hold", func(ctx context.Context) error { return a.holdPlans(ctx, holdEvery) }) })
	})
	sweeping.Go(func() {
		a.attempt(ctx, "count", a.countLive)
		a.every(ctx, countEvery, func() { a.attempt(ctx, "count", a.countLive) })
	})
	sweeping.Go(func() { a.signForOthers(ctx) })
	// One process owns a SQLite database: what others had claimed died with
	// them, so that the first round needn't wait for their leases to end.
	a.work(ctx, a.db.Engine() == "sqlite")
	a.every(ctx, workEvery, func() { a.work(ctx, false) })
	sweeping.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	a.validations.Idle(ctx)
	a.issuances.Idle(ctx)
	a.attempt(ctx, "audit", a.sweeper.SequenceAudit) // what these ended with
	a.attempt(ctx, "audit", a.sweeper.LeaveAudit)
}

// every does something regularly until ctx ends.
func (a *Authority) every(ctx context.Context, d time.Duration, do func()) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			do()
		case <-ctx.Done():
			return
		}
	}
}

// work does a round of what is due in seconds; with orphans it takes leased
// work over as well.
func (a *Authority) work(ctx context.Context, orphans bool) {
	a.attempt(ctx, "validations", func(ctx context.Context) error { return a.claimValidations(ctx, orphans) })
	a.attempt(ctx, "plans", func(ctx context.Context) error { return a.claimPlans(ctx, orphans) })
	a.attempt(ctx, "audit", a.sweeper.SequenceAudit)
}

// attempt does one round of a job; its trouble is logged and passes.
func (a *Authority) attempt(ctx context.Context, what string, round func(context.Context) error) {
	if err := round(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
		a.log.Warn("job failed; it will be tried again", "job", what, "error", err)
	}
}

// claims takes over what is due and nobody works on, batch by batch until
// take wants no more or there is none. With orphans, leases don't count:
// claiming as of the end of one that begins now finds every other.
func claims[T any](ctx context.Context, a *Authority, lease time.Duration, orphans bool,
	due func(context.Context, time.Time) (bool, error), claim func(*store.Tx, time.Time, time.Duration, int) ([]T, error),
	take func([]T) (more bool, err error)) error {
	// One time for the whole round, so that it never claims its own again.
	now := a.clock()
	if orphans {
		now, lease = now.Add(lease), 0
	}
	for more := true; more && ctx.Err() == nil; {
		// The usual round reads and writes nothing.
		if found, err := due(ctx, now); err != nil || !found {
			return err
		}
		var claimed []T
		err := a.db.Update(ctx, func(tx *store.Tx) (err error) {
			claimed, err = claim(tx, now, lease, claimBatch)
			return err
		})
		if err != nil {
			return err
		}
		if more, err = take(claimed); err != nil {
			return err
		}
		more = more && len(claimed) == claimBatch
	}
	return ctx.Err()
}

// claimValidations takes over recorded validations that are due and nobody
// works on: retries, and what a stopped replica left.
func (a *Authority) claimValidations(ctx context.Context, orphans bool) error {
	return claims(ctx, a, validationLease, orphans, a.db.ValidationsDue, (*store.Tx).ClaimValidations, func(claimed []protocol.Authorization) (bool, error) {
		var busy, over []protocol.Authorization
		for _, z := range claimed {
			account, err := a.db.Account(ctx, z.Account)
			switch {
			case errors.Is(err, store.ErrNotFound) || err == nil && account.Status != protocol.AccountValid || !a.clock().Before(z.ExpiresAt):
				over = append(over, z)
				continue
			case err != nil:
				return false, err
			}
			d, err := a.directory(z.Directory)
			if err != nil {
				continue // taken out of the configuration; the authorization expires
			}
			check := a.validation(d, Requester{Directory: z.Directory, Account: account}, z)
			if _, runs := a.validations.Find(string(z.ID)); runs {
				continue
			}
			if z.Attempt.Type.Private() {
				if err := a.abandoned(ctx, d, z, check); err != nil {
					return false, err
				}
			} else if a.startValidation(ctx, d, z, check) == nil {
				busy = append(busy, z)
			}
		}
		return len(busy) == 0, a.putBack(ctx, busy, over)
	})
}

// putBack lets go of claimed validations: those there is no room for, to be
// tried soon, and those that can't matter any more, for good.
func (a *Authority) putBack(ctx context.Context, busy, over []protocol.Authorization) error {
	if len(busy)+len(over) == 0 {
		return nil
	}
	return a.db.Update(ctx, func(tx *store.Tx) error {
		for _, z := range busy {
			at := z.Attempt
			at.NextAt = tx.Now().Add(busyDelay)
			if _, err := tx.RecordAttempt(z.ID, at, time.Time{}); err != nil {
				return err
			}
		}
		for _, z := range over {
			to := protocol.AuthorizationDeactivated
			if !tx.Now().Before(z.ExpiresAt) {
				to = protocol.AuthorizationExpired
			}
			if _, err := tx.EndAuthorization(z.ID, protocol.AuthorizationPending, to); err != nil {
				return err
			}
		}
		return nil
	})
}

// claimPlans takes over planned certificates for the keys that sign here: those
// that a stopped replica left, and those that others leave to us.
func (a *Authority) claimPlans(ctx context.Context, orphans bool) error {
	return a.claimPlansOf(ctx, orphans, a.rules.Load().held, 0)
}

// claimLostPlans takes over plans that nobody has worked on for minutes,
// whosever key they are for: it may be gone from the configuration.
func (a *Authority) claimLostPlans(ctx context.Context) error {
	return a.claimPlansOf(ctx, false, nil, lostPlan)
}

func (a *Authority) claimPlansOf(ctx context.Context, orphans bool, keyIDs []string, age time.Duration) error {
	due := func(ctx context.Context, now time.Time) (bool, error) {
		return a.db.PlansDue(ctx, now.Add(-age), keyIDs)
	}
	claim := func(tx *store.Tx, now time.Time, lease time.Duration, limit int) ([]cert.Certificate, error) {
		return tx.ClaimPlans(now.Add(-age), lease+age, limit, keyIDs)
	}
	return claims(ctx, a, planLease, orphans, due, claim, func(claimed []cert.Certificate) (bool, error) {
		for i, c := range claimed {
			if a.issuances.Full() { // there will be room: soon again
				return false, a.letGo(ctx, claimed[i:])
			}
			if _, runs := a.issuances.Find(string(c.Order)); runs {
				continue
			}
			if err := a.resumeIssuance(ctx, c); err != nil {
				a.log.Error("a planned certificate can't be issued", "serial", c.Serial, "error", err)
			}
		}
		return true, nil
	})
}

// letGo gives claimed plans back, for the next round.
func (a *Authority) letGo(ctx context.Context, plans []cert.Certificate) error {
	return a.db.Update(ctx, func(tx *store.Tx) error {
		for _, c := range plans {
			if _, err := tx.HoldPlan(c.Serial, tx.Now().Add(-freePlan)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Sweep deletes what has ended (DESIGN section 5), unless another replica is
// at it, which also gives lost plans to others.
func (a *Authority) Sweep(ctx context.Context) error { return a.sweeper.Sweep(ctx, a.claimLostPlans) }
