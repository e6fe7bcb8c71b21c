package ca

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// OrderRequest is a newOrder request (RFC 8555 section 7.4) with identifiers
// in canonical form, none of them twice.
type OrderRequest struct {
	Identifiers []protocol.Identifier
	Profile     string // "" leaves the choice to the directory
	Replaces    string // RFC 9773 section 4.1's certificate identifier
	NotBefore   time.Time
	NotAfter    time.Time
}

// OrderView is an order as its client sees it: Status is the derived one.
type OrderView struct {
	protocol.Order
	RetryAfter time.Duration // while processing: when to look again
}

// NewOrder records an order and the authorizations it needs (RFC 8555
// section 7.4). Authorizations that the account holds already are used again.
func (a *Authority) NewOrder(ctx context.Context, who Requester, r OrderRequest) (OrderView, error) {
	d, err := a.directory(who.Directory)
	if err != nil {
		return OrderView{}, err
	}
	profiles, eab, err := a.admit(ctx, who, d, r.Identifiers, r.Profile)
	if err != nil {
		return OrderView{}, err
	}
	order, err := a.newOrder(ctx, who, d, r, profiles)
	if err != nil {
		return OrderView{}, err
	}
	authorizations, fresh, err := a.authorizationsFor(ctx, who, d, profiles, eab, r.Identifiers)
	if err != nil {
		return OrderView{}, err
	}
	counted, err := a.bind(ctx, who, d, fresh)
	if err != nil {
		return OrderView{}, err
	}
	for _, z := range authorizations {
		order.Authorizations = append(order.Authorizations, z.ID)
	}
	err = a.db.Update(ctx, func(tx *store.Tx) error {
		if !counted {
			if err := takeOrder(ctx, tx, who, d.Limits); err != nil {
				return err
			}
		}
		return a.insertOrder(tx, who, d, order, fresh)
	})
	if err != nil {
		return OrderView{}, err
	}
	order.Status = protocol.OrderState(order, authorizations, order.CreatedAt)
	return OrderView{Order: order}, nil
}

// newOrder makes a pending order without its authorizations.
func (a *Authority) newOrder(ctx context.Context, who Requester, d *Directory, r OrderRequest, profiles []cert.Profile) (protocol.Order, error) {
	now := a.clock()
	o := protocol.Order{
		ID: protocol.NewID[protocol.OrderID](now), Account: who.Account.ID, Directory: who.Directory,
		Status: protocol.OrderPending, Identifiers: r.Identifiers, NotBefore: r.NotBefore, NotAfter: r.NotAfter,
		CreatedAt: now, ExpiresAt: now.Add(d.Lifetimes.Order),
	}
	if len(profiles) == 1 {
		o.Profile = profiles[0].Name
	}
	if r.Replaces != "" {
		if err := a.replaceable(ctx, who, r); err != nil {
			return o, err
		}
		o.Replaces = r.Replaces // reflected as it was sent (RFC 9773 section 5)
	}
	return o, policy.CheckDates(profiles, o)
}

// admit asks the policy whether the account may have the names, and by which
// profiles.
func (a *Authority) admit(ctx context.Context, who Requester, d *Directory, ids []protocol.Identifier, profile string) ([]cert.Profile, *protocol.EABKey, error) {
	for i, id := range ids {
		if slices.Contains(ids[:i], id) {
			return nil, nil, protocol.NewProblem(protocol.Malformed, "%q is there twice; name each identifier once", id.Value).For(id)
		}
	}
	eab, err := a.eabKey(ctx, who)
	if err != nil {
		return nil, nil, err
	}
	if err := d.Policy.Check(ids, eab); err != nil {
		return nil, nil, err
	}
	profiles, err := d.Policy.Candidates(profile, eab)
	if err != nil {
		return nil, nil, err
	}
	if len(profiles) == 1 { // else finalize settles it
		if err := policy.CheckSSH(profiles[0], ids); err != nil {
			return nil, nil, err
		}
	}
	return profiles, eab, d.Policy.Provable(profiles, ids, eab)
}

// takeOrder counts an order, or an authorization ahead of one, against the
// limits; an account whose validations keep failing gets neither.
func takeOrder(ctx context.Context, tx *store.Tx, who Requester, l Limits) error {
	if err := take(tx, l.OrdersPerAccount, "orders by this account", "orders", string(who.Account.ID)); err != nil {
		return err
	}
	if err := take(tx, l.OrdersPerClient, "orders by this EAB key or from this address", "orders", who.Directory, who.client()); err != nil {
		return err
	}
	if l.FailuresPerAccount.Count <= 0 {
		return nil
	}
	wait, err := tx.LimitWait(ctx, failuresKey(who.Account.ID), l.FailuresPerAccount)
	if err == nil && wait > 0 {
		wait = max(wait.Round(time.Second), time.Second)
		err = protocol.NewProblem(protocol.RateLimited, "too many of this account's validations failed; find out why, and try again in %v", wait).After(wait)
	}
	return err
}

func (a *Authority) insertOrder(tx *store.Tx, who Requester, d *Directory, o protocol.Order, fresh []protocol.Authorization) error {
	domains := map[string]bool{} // one certificate counts once for each
	for _, id := range o.Identifiers {
		name := d.Policy.Names.Allow.Registered(id)
		if domains[name] {
			continue
		}
		domains[name] = true
		if err := take(tx, d.Limits.CertificatesPerName, "certificates for "+name, "names", o.Directory, name); err != nil {
			return err
		}
	}
	for _, z := range fresh {
		if err := tx.InsertAuthorization(z); err != nil {
			return err
		}
	}
	if err := tx.InsertOrder(o); err != nil {
		return err
	}
	// An idle account that orders again isn't idle until the order ends.
	if err := tx.KeepAccount(o.Account, o.ExpiresAt); err != nil {
		return err
	}
	e := a.entry(who, "order.create", string(o.ID))
	e.Detail = map[string]any{"names": protocol.Values(o.Identifiers)}
	if o.Replaces != "" {
		e.Detail["replaces"] = o.Replaces
	}
	if i := slices.IndexFunc(fresh, func(z protocol.Authorization) bool { return z.BoundTo != "" }); i >= 0 {
		e.Detail["bound_to"] = fresh[i].BoundTo
	}
	return tx.Audit(e)
}

func failuresKey(id protocol.AccountID) string { return "failures/" + string(id) }

// eabKey returns the key the account is bound to, nil for none, and refuses
// where that key was withdrawn or has expired.
func (a *Authority) eabKey(ctx context.Context, who Requester) (*protocol.EABKey, error) {
	if who.Account.EABKey == "" {
		return nil, nil
	}
	key, err := a.db.EABKey(ctx, who.Account.EABKey)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err != nil || !key.Usable(a.clock()) {
		return nil, protocol.NewProblem(protocol.Unauthorized,
			"the external account key this account is bound to was withdrawn or has expired; ask the operator for another")
	}
	return &key, nil
}

// authorizationsFor returns one authorization per identifier, in their
// order, and those among them that are new and must be recorded.
func (a *Authority) authorizationsFor(ctx context.Context, who Requester, d *Directory, profiles []cert.Profile,
	eab *protocol.EABKey, ids []protocol.Identifier) (all, fresh []protocol.Authorization, err error) {
	now := a.clock()
	held, err := a.db.ReusableAuthorizations(ctx, who.Account.ID, ids, now)
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		z, ok := policy.Reusable(held, id, profiles, now)
		if !ok {
			z = a.newAuthorization(who, d, profiles, eab, id, now)
			fresh = append(fresh, z)
		}
		all = append(all, z)
	}
	return all, fresh, nil
}

func (a *Authority) newAuthorization(who Requester, d *Directory, profiles []cert.Profile, eab *protocol.EABKey,
	id protocol.Identifier, now time.Time) protocol.Authorization {
	z := protocol.Authorization{
		ID: protocol.NewID[protocol.AuthorizationID](now), Account: who.Account.ID, Directory: who.Directory,
		Identifier: id.Base(), Wildcard: id.IsWildcard(), Status: protocol.AuthorizationPending,
		Token: protocol.NewToken(), CreatedAt: now,
	}
	if d.Policy.PreApproved(eab, id) {
		z.Status = protocol.AuthorizationValid
		z.ExpiresAt = now.Add(d.Lifetimes.Authorization)
		z.Attempt = protocol.Attempt{Type: protocol.PreApproved, ValidatedAt: now}
		return z
	}
	z.Offered = d.Policy.Offered(profiles, id)
	z.ExpiresAt = now.Add(policy.PendingLife(z.Offered, d.Lifetimes.Pending))
	return z
}

// Order returns the account's own order.
func (a *Authority) Order(ctx context.Context, who Requester, id protocol.OrderID) (OrderView, error) {
	o, authorizations, err := a.db.OrderWithAuthorizations(ctx, id)
	if err := owned(err, o.Account, who, "order"); err != nil {
		return OrderView{}, err
	}
	return a.view(ctx, o, authorizations), nil
}

// owned turns "not there" and "somebody else's" into the same answer.
func owned(err error, owner protocol.AccountID, who Requester, noun string) error {
	if errors.Is(err, store.ErrNotFound) || err == nil && owner != who.Account.ID {
		return errNoSuch(noun)
	}
	return err
}

func (a *Authority) view(ctx context.Context, o protocol.Order, authorizations []protocol.Authorization) OrderView {
	v := OrderView{Order: o}
	v.Status = protocol.OrderState(o, authorizations, a.clock())
	switch v.Status {
	case protocol.OrderProcessing:
		v.RetryAfter = a.processing(ctx, o)
		v.Certificate = ""
	case protocol.OrderInvalid:
		v.Certificate = ""
		if v.Error == nil {
			v.Error = protocol.LostAuthorization(authorizations, a.clock())
		}
	}
	return v
}

// Orders returns a page of the account's order IDs, oldest first (RFC 8555
// section 7.1.2.1): next is the ID to go on after, "" at the end.
func (a *Authority) Orders(ctx context.Context, who Requester, after protocol.OrderID, limit int) (ids []protocol.OrderID, next protocol.OrderID, err error) {
	ids, err = a.db.OrdersOf(ctx, who.Account.ID, after, limit+1)
	if err == nil && len(ids) > limit {
		ids = ids[:limit]
		next = ids[limit-1]
	}
	return ids, next, err
}

// PreAuthorize makes an authorization ahead of any order (RFC 8555 section
// 7.4.1). Wildcards can't be pre-authorized there, and private proofs aren't.
func (a *Authority) PreAuthorize(ctx context.Context, who Requester, id protocol.Identifier) (protocol.Authorization, error) {
	var none protocol.Authorization
	d, err := a.directory(who.Directory)
	if err != nil {
		return none, err
	}
	if id.IsWildcard() {
		return none, protocol.NewProblem(protocol.Malformed, "a wildcard can't be pre-authorized; order it instead (RFC 8555 section 7.4.1)")
	}
	profiles, eab, err := a.admit(ctx, who, d, []protocol.Identifier{id}, "")
	if err != nil {
		return none, err
	}
	all, fresh, err := a.authorizationsFor(ctx, who, d, profiles, eab, []protocol.Identifier{id})
	if err != nil {
		return none, err
	}
	if len(fresh) == 0 {
		return all[0], nil
	}
	z := fresh[0]
	if z.Offered, err = policy.OfferedAhead(z); err != nil {
		return none, err
	}
	return z, a.db.Update(ctx, func(tx *store.Tx) error {
		if err := takeOrder(ctx, tx, who, d.Limits); err != nil {
			return err
		}
		if err := tx.InsertAuthorization(z); err != nil {
			return err
		}
		e := a.entry(who, "authorization.create", string(z.ID))
		e.Detail = map[string]any{"name": id.Value}
		return tx.Audit(e)
	})
}
