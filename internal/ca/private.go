package ca

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/chancery-pki/chancery/internal/ca/proof"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// unanswered is proof.Unanswered as an error, nil for a no. Operators are told.
func (a *Authority) unanswered(t protocol.ChallengeType, err error) error {
	p := proof.Unanswered(err)
	if p == nil {
		return nil
	}
	a.log.Warn("what a proof rests on can't be asked", "type", t, "error", err)
	return p
}

// bind binds new authorizations to whoever the order came from, where that
// may be their proof. One from elsewhere must be proven otherwise. To ask costs
// others something, so that the order counts before: counted says so.
func (a *Authority) bind(ctx context.Context, who Requester, d *Directory, fresh []protocol.Authorization) (counted bool, err error) {
	t, l := proof.Locating(d.Validators)
	offers := func(z protocol.Authorization) bool { return slices.Contains(z.Offered, t) }
	if l == nil || !slices.ContainsFunc(fresh, offers) {
		return false, nil
	}
	if err := a.db.Update(ctx, func(tx *store.Tx) error { return takeOrder(ctx, tx, who, d.Limits) }); err != nil {
		return false, err
	}
	subject, err := proof.Whois(ctx, t, l, who.Peer)
	if err != nil {
		return true, a.unanswered(t, err)
	}
	for i := range fresh {
		if offers(fresh[i]) {
			fresh[i].BoundTo = subject
		}
	}
	return true, nil
}

// oneSubject refuses to finalize an order whose private proofs rest on several
// pods or devices, or that is bound to another than finalizes it. It gets no
// better, so that the order ends.
func (a *Authority) oneSubject(ctx context.Context, who Requester, d *Directory, o protocol.Order, authorizations []protocol.Authorization) error {
	err := policy.OneSubject(authorizations)
	if err == nil {
		err = a.boundToCaller(ctx, who, d, authorizations)
	}
	p, ok := errors.AsType[*protocol.Problem](err)
	if !ok || p.Type != protocol.Unauthorized {
		return err
	}
	e := a.entry(who, "order.finalize", string(o.ID))
	e.Denied, e.Detail = p.Error(), map[string]any{"names": protocol.Values(o.Identifiers), "subjects": policy.Subjects(authorizations)}
	err = a.db.Update(ctx, func(tx *store.Tx) error {
		if ok, err := tx.FailOrder(o.ID, p); err != nil || !ok {
			return err
		}
		return tx.Audit(e)
	})
	return cmp.Or[error](err, p)
}

// refused audits why a device that has proven gets no certificate all the same,
// such as for another's key. An order that rests on none isn't worth an entry for
// each bad CSR; without authorizations it is in any case.
func (a *Authority) refused(ctx context.Context, who Requester, o protocol.Order, authorizations []protocol.Authorization, err error) error {
	subjects := policy.Subjects(authorizations)
	device := func(s string) bool { _, is := protocol.DeviceOf(s); return is }
	p, ok := errors.AsType[*protocol.Problem](err)
	if !ok || authorizations != nil && !slices.ContainsFunc(subjects, device) {
		return err
	}
	e := a.entry(who, "order.finalize", string(o.ID))
	e.Detail = map[string]any{"names": protocol.Values(o.Identifiers), "subjects": subjects}
	return a.deny(ctx, e, p)
}

func (a *Authority) boundToCaller(ctx context.Context, who Requester, d *Directory, authorizations []protocol.Authorization) error {
	i := slices.IndexFunc(authorizations, func(z protocol.Authorization) bool { return z.BoundTo != "" })
	if i < 0 { // all that are have one subject
		return nil
	}
	z := authorizations[i]
	l, ok := d.Validators[z.Attempt.Type].(proof.Locator)
	if !ok { // by a change of the configuration
		return protocol.NewProblem(protocol.Unauthorized, "the client's address is no proof here any more; make a new order")
	}
	subject, err := proof.Whois(ctx, z.Attempt.Type, l, who.Peer)
	switch {
	case err != nil:
		return cmp.Or[error](a.unanswered(z.Attempt.Type, err), protocol.AsProblem(err))
	case subject != z.BoundTo:
		return protocol.NewProblem(protocol.Unauthorized,
			"another pod than the one that made and proved the order finalizes it; do all of it from one")
	}
	return nil
}

// recheck asks again about the pods and devices that an order rests on: today's
// validators, since a reload closes those of the reading before.
func (a *Authority) recheck(ctx context.Context, o protocol.Order, authorizations []protocol.Authorization) error {
	if len(policy.Subjects(authorizations)) == 0 {
		return nil
	}
	d, err := a.directory(o.Directory)
	if err != nil {
		return fmt.Errorf("order %s: directory %q isn't there any more", o.ID, o.Directory)
	}
	return proof.Recheck(ctx, d.Validators, o, authorizations, a.clock)
}

// countSubject counts the accounts of one pod or device, each when it first
// proves by it.
func countSubject(ctx context.Context, tx *store.Tx, l store.Limit, z protocol.Authorization) error {
	if l.Count <= 0 || z.Subject == "" {
		return nil
	}
	if known, err := tx.ProvenBy(ctx, z.Account, z.Subject); err != nil || known {
		return err
	}
	return take(tx, l, "accounts of this pod or device", "subjects", z.Directory, z.Subject)
}
