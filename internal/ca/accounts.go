package ca

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/ca/known"
	"github.com/chancery-pki/chancery/internal/jws"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// Account finds the account that a request's kid names, and its key (RFC 8555
// section 6.2). It answers accountDoesNotExist for one that isn't there or
// belongs to another directory, and unauthorized with status 401 for one that
// has ended (section 7.3.6).
func (a *Authority) Account(ctx context.Context, directory string, id protocol.AccountID) (protocol.Account, *jws.JWK, error) {
	account, ok, changes := a.known.Find(id)
	if !ok {
		var err error
		account.Account, err = a.db.Account(ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			return protocol.Account{}, nil, noAccount()
		}
		if err != nil {
			return protocol.Account{}, nil, err
		}
		if account.JWK, err = jws.ParseKey(account.Key); err != nil { // ours, not the client's: it was checked when it came in
			return protocol.Account{}, nil, fmt.Errorf("stored key of account %s: %v", id, err)
		}
		a.known.Add(account, changes)
	}
	if account.Directory != directory {
		return protocol.Account{}, nil, noAccount()
	}
	return account.Account, account.JWK, ended(account.Account)
}

func noAccount() *protocol.Problem {
	return protocol.NewProblem(protocol.AccountDoesNotExist,
		"there is no such account in this directory; register with newAccount first")
}

func ended(account protocol.Account) error {
	if account.Status == protocol.AccountValid {
		return nil
	}
	return protocol.NewProblem(protocol.Unauthorized,
		"the account is %s; register a new one with a new key", account.Status).WithStatus(401)
}

// Registration is a newAccount request whose signature by Key was verified.
type Registration struct {
	Directory    string
	Peer         netip.AddrPort
	Key          *jws.JWK
	Contact      []string
	TermsAgreed  bool
	EAB          *jws.EAB // nil: none given; its MAC is not verified yet
	OnlyExisting bool
}

// Register finds the account of the key or makes one (RFC 8555 section 7.3).
// An account that exists is returned as it is, whatever else was asked.
func (a *Authority) Register(ctx context.Context, r Registration) (account protocol.Account, created bool, err error) {
	d, err := a.directory(r.Directory)
	if err != nil {
		return account, false, err
	}
	account, err = a.db.AccountByKey(ctx, r.Directory, r.Key.Thumbprint)
	if err == nil {
		return account, false, ended(account)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return account, false, err
	}
	if r.OnlyExisting {
		return account, false, protocol.NewProblem(protocol.AccountDoesNotExist,
			"no account has this key, and onlyReturnExisting forbids to make one")
	}
	key, err := a.binding(ctx, d, r)
	if err != nil {
		return account, false, err
	}
	now := a.clock()
	account = protocol.Account{
		ID: protocol.NewID[protocol.AccountID](now), Directory: r.Directory, Status: protocol.AccountValid,
		Thumbprint: r.Key.Thumbprint, Key: []byte(r.Key.Canonical), Contact: r.Contact, EABKey: key.ID,
		CreatedAt: now, KeepUntil: now.Add(d.Lifetimes.IdleAccount),
	}
	if r.TermsAgreed {
		account.TermsAt = now
	}
	_, _, changes := a.known.Find(account.ID)
	err = a.db.Update(ctx, func(tx *store.Tx) error { return a.insertAccount(ctx, tx, d, r, account) })
	if err == nil {
		a.known.Add(known.Account{Account: account, JWK: r.Key}, changes)
	}
	if errors.Is(err, store.ErrConflict) { // another request with this key was quicker
		account, err = a.db.AccountByKey(ctx, r.Directory, r.Key.Thumbprint)
		if err == nil {
			err = ended(account)
		}
		return account, false, err
	}
	return account, err == nil, err
}

func (a *Authority) insertAccount(ctx context.Context, tx *store.Tx, d *Directory, r Registration, account protocol.Account) error {
	if retired, err := tx.KeyRetired(ctx, r.Directory, account.Thumbprint); err != nil {
		return err
	} else if retired {
		return protocol.NewProblem(protocol.Unauthorized,
			"this key belonged to an account that was deactivated; use a new key").WithStatus(401)
	}
	if err := takeAccount(tx, d, r); err != nil {
		return err
	}
	if account.EABKey != "" {
		if ok, err := tx.TakeEABAccount(account.EABKey); err != nil {
			return err
		} else if !ok {
			return protocol.NewProblem(protocol.Unauthorized,
				"the external account key %s has opened all the accounts it may, or was withdrawn; ask the operator for another", account.EABKey)
		}
	}
	if err := tx.InsertAccount(account); err != nil {
		return err
	}
	e := audit.Entry{
		Action: "account.create", Actor: "account:" + string(account.ID), Peer: protocol.Address(r.Peer),
		Directory: r.Directory, Object: string(account.ID), Detail: map[string]any{"key": account.Thumbprint},
	}
	if account.EABKey != "" {
		e.Detail["eab"] = string(account.EABKey)
	}
	return tx.Audit(e)
}

func takeAccount(tx *store.Tx, d *Directory, r Registration) error {
	return take(tx, d.Limits.AccountsPerAddress, "new accounts from this address", "accounts", r.Directory, protocol.Network(r.Peer))
}

// binding verifies the external account binding, where there is or must be
// one (RFC 8555 section 7.3.4). It answers the zero key where none is given.
func (a *Authority) binding(ctx context.Context, d *Directory, r Registration) (protocol.EABKey, error) {
	if r.EAB == nil {
		if d.Policy.EABRequired {
			return protocol.EABKey{}, protocol.NewProblem(protocol.ExternalAccountRequired,
				"this directory takes only accounts bound to an external account key; ask the operator for one")
		}
		return protocol.EABKey{}, nil
	}
	refused := func(why string) (protocol.EABKey, error) {
		e := audit.Entry{
			At: a.clock(), Action: "account.create", Actor: "key:" + r.Key.Thumbprint,
			Peer: protocol.Address(r.Peer), Directory: r.Directory, Detail: map[string]any{"why": why},
		}
		// One text for every reason: a stranger can't find out which key
		// identifiers exist.
		p := protocol.NewProblem(protocol.Unauthorized,
			"the external account binding was not accepted: check the key identifier and the MAC key, and that the key is still valid for this directory")
		e.Denied = p.Error()
		return protocol.EABKey{}, cmp.Or[error](a.db.Update(ctx, func(tx *store.Tx) error {
			// Counted as if it had opened one: nobody fills the log at will.
			if err := takeAccount(tx, d, r); err != nil {
				return err
			}
			return tx.Audit(e)
		}), p)
	}
	if !r.EAB.JWK.Equal(r.Key) {
		return protocol.EABKey{}, protocol.NewProblem(protocol.Malformed,
			"the external account binding's payload is not the account key that signed the request (RFC 8555 section 7.3.4)")
	}
	id, err := protocol.ParseID[protocol.EABKeyID](r.EAB.KID)
	if err != nil {
		return refused("no such form of key identifier")
	}
	key, err := a.db.EABKey(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return refused("no such key")
	}
	if err != nil {
		return key, err
	}
	if err := r.EAB.Verify(key.MACKey); err != nil {
		return refused("wrong MAC by key " + string(id))
	}
	if key.Directory != r.Directory || !key.Usable(a.clock()) {
		return refused(fmt.Sprintf("key %s is for directory %s, usable: %v", id, key.Directory, key.Usable(a.clock())))
	}
	return key, nil
}

// UpdateAccount changes the contacts (nil: unchanged) and records the
// agreement to the terms (RFC 8555 section 7.3.2). Asking for nothing is
// allowed and answers the account.
func (a *Authority) UpdateAccount(ctx context.Context, who Requester, contact *[]string, termsAgreed bool) (protocol.Account, error) {
	if contact == nil && (!termsAgreed || !who.Account.TermsAt.IsZero()) {
		return who.Account, nil
	}
	defer a.known.Forget(who.Account.ID)
	var account protocol.Account
	err := a.db.Update(ctx, func(tx *store.Tx) (err error) {
		// Read again: another update may have come between.
		if account, err = tx.Account(ctx, who.Account.ID); err != nil {
			return err
		}
		if err := ended(account); err != nil {
			return err
		}
		if contact != nil {
			account.Contact = *contact
		}
		if termsAgreed && account.TermsAt.IsZero() {
			account.TermsAt = tx.Now()
		}
		if err := tx.UpdateAccount(account.ID, account.Contact, account.TermsAt); err != nil {
			return err
		}
		return tx.Audit(a.entry(who, "account.update", string(account.ID)))
	})
	return account, err
}

// DeactivateAccount ends the account for good (RFC 8555 section 7.3.6): its
// pending orders and authorizations go with it, its key can't come back.
func (a *Authority) DeactivateAccount(ctx context.Context, who Requester) (protocol.Account, error) {
	account := who.Account
	defer a.known.Forget(account.ID)
	err := a.db.Update(ctx, func(tx *store.Tx) error {
		if ok, err := tx.EndAccount(account.ID, protocol.AccountDeactivated); err != nil || !ok {
			return err // it has ended already: nothing to do or to record
		}
		return tx.Audit(a.entry(who, "account.deactivate", string(account.ID)))
	})
	account.Status = protocol.AccountDeactivated
	return account, err
}

// KeyInUseError is the answer to a rollover onto another account's key; the
// edge names that account in the Location header (RFC 8555 section 7.3.5).
type KeyInUseError struct{ Account protocol.AccountID }

// Error says what to do.
func (e *KeyInUseError) Error() string {
	return "the new key is an account's already; choose another key"
}

// RolloverKey replaces the account's key (RFC 8555 section 7.3.5). The edge
// has verified that both keys signed.
func (a *Authority) RolloverKey(ctx context.Context, who Requester, newKey *jws.JWK) error {
	other, err := a.db.AccountByKey(ctx, who.Directory, newKey.Thumbprint)
	if err == nil {
		return &KeyInUseError{other.ID}
	}
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	defer a.known.Forget(who.Account.ID)
	err = a.db.Update(ctx, func(tx *store.Tx) error {
		if retired, err := tx.KeyRetired(ctx, who.Directory, newKey.Thumbprint); err != nil {
			return err
		} else if retired {
			return protocol.NewProblem(protocol.BadPublicKey, "the new key belonged to a deactivated account; choose another key")
		}
		ok, err := tx.ReplaceKey(who.Account.ID, who.Account.Thumbprint, newKey.Thumbprint, []byte(newKey.Canonical))
		if err != nil {
			return err
		}
		if !ok {
			return protocol.NewProblem(protocol.Unauthorized, "the account's key was changed by another request meanwhile").WithStatus(401)
		}
		e := a.entry(who, "account.rollover", string(who.Account.ID))
		e.Detail = map[string]any{"old": who.Account.Thumbprint, "new": newKey.Thumbprint}
		return tx.Audit(e)
	})
	if errors.Is(err, store.ErrConflict) {
		if other, err := a.db.AccountByKey(ctx, who.Directory, newKey.Thumbprint); err == nil {
			return &KeyInUseError{other.ID}
		}
	}
	return err
}

// take spends one unit of a rate limit, keyed by what it counts.
func take(tx *store.Tx, l store.Limit, what string, key ...string) error {
	if l.Count <= 0 {
		return nil
	}
	name := key[0]
	for _, k := range key[1:] {
		name += "/" + k
	}
	wait, err := tx.Take(name, l)
	if err != nil {
		return err
	}
	if wait > 0 {
		wait = max(wait.Round(time.Second), time.Second)
		return protocol.NewProblem(protocol.RateLimited,
			"too many %s: %d per %v are allowed; try again in %v", what, l.Count, l.Per, wait).After(wait)
	}
	return nil
}
