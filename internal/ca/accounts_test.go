package ca

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/jws"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// RFC 8555 sections 7.3 and 7.3.1: the key finds its account again.
func TestRegister(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		k := newKey(t)
		r := Registration{Directory: "main", Key: jwk(t, k), Peer: peer, OnlyExisting: true}
		_, _, err := w.Register(t.Context(), r)
		wants(t, err, protocol.AccountDoesNotExist, "onlyReturnExisting")

		r.OnlyExisting, r.Contact, r.TermsAgreed = false, []string{"mailto:a@example"}, true
		first, created, err := w.Register(t.Context(), r)
		if err != nil || !created || first.Status != protocol.AccountValid || first.TermsAt.IsZero() || len(first.Contact) != 1 {
			t.Fatalf("%+v, created %v, %v", first, created, err)
		}
		r.Contact, r.OnlyExisting = []string{"mailto:other@example"}, true
		again, created, err := w.Register(t.Context(), r)
		if err != nil || created || again.ID != first.ID || again.Contact[0] != first.Contact[0] {
			t.Errorf("again: %+v, created %v, %v", again, created, err)
		}
		// Another directory knows nothing of it.
		r.Directory = "other"
		_, _, err = w.Register(t.Context(), r)
		wants(t, err, protocol.AccountDoesNotExist, "")
		_, _, err = w.Account(t.Context(), "other", first.ID)
		missing := wants(t, err, protocol.AccountDoesNotExist, "")
		_, _, err = w.Account(t.Context(), "other", protocol.NewID[protocol.AccountID](w.Now()))
		if p := wants(t, err, protocol.AccountDoesNotExist, ""); p.Detail != missing.Detail {
			t.Errorf("another directory's account (%s) can be told from a missing one (%s)", missing, p)
		}
		_, _, err = w.Register(t.Context(), Registration{Directory: "none", Key: r.Key})
		if wants(t, err, protocol.Malformed, "no such directory").HTTPStatus() != 404 {
			t.Error(err)
		}
	})
}

// Of many registrations with one key, one makes the account and all get it.
func TestRegisterAtOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		var mu sync.Mutex
		created, found := 0, map[protocol.AccountID]bool{}
		r := Registration{Directory: "main", Key: jwk(t, newKey(t)), Peer: peer}
		parallel(20, func(int) {
			a, made, err := w.Register(t.Context(), r)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if found[a.ID] = true; made {
				created++
			}
		})
		if created != 1 || len(found) != 1 {
			t.Errorf("%d created, %d different accounts", created, len(found))
		}
	})
}

// RFC 8555 section 7.3.4.
func TestExternalAccountBinding(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		good := w.eab(t, protocol.EABKey{Directory: "eab", MaxAccounts: 1})
		other := w.eab(t, protocol.EABKey{Directory: "main", MaxAccounts: 1})
		expired := w.eab(t, protocol.EABKey{Directory: "eab", MaxAccounts: 1, ExpiresAt: w.Now().Add(time.Minute)})
		revoked := w.eab(t, protocol.EABKey{Directory: "eab", MaxAccounts: 1})
		if err := w.revokeEABKey(t.Context(), revoked.ID); err != nil {
			t.Fatal(err)
		}
		w.Add(2 * time.Minute)
		k := newKey(t)
		try := func(b *jws.EAB) error {
			_, _, err := w.Register(t.Context(), Registration{Directory: "eab", Key: jwk(t, k), Peer: peer, EAB: b})
			return err
		}
		wants(t, try(nil), protocol.ExternalAccountRequired, "ask the operator")
		wants(t, try(bind(t, newKey(t), string(good.ID), good.MACKey)), protocol.Malformed, "payload")
		text := ""
		for name, b := range map[string]*jws.EAB{
			"wrong MAC":             bind(t, k, string(good.ID), other.MACKey),
			"no such key":           bind(t, k, string(protocol.NewID[protocol.EABKeyID](w.Now())), good.MACKey),
			"no such form":          bind(t, k, "../../etc", good.MACKey),
			"another directory's":   bind(t, k, string(other.ID), other.MACKey),
			"expired":               bind(t, k, string(expired.ID), expired.MACKey),
			"revoked":               bind(t, k, string(revoked.ID), revoked.MACKey),
			"another key's, MAC ok": bind(t, k, string(good.ID), revoked.MACKey),
		} {
			p := wants(t, try(b), protocol.Unauthorized, "was not accepted")
			if text == "" {
				text = p.Error()
			}
			if p.Error() != text {
				t.Errorf("%s: %q tells more than %q", name, p, text)
			}
		}
		denied := w.entries(t, store.AuditFilter{Action: "account.create"})
		if len(denied) != 7 || denied[0].Entry.Denied == "" {
			t.Errorf("%d refusals in the audit log, want 7", len(denied))
		}
		if err := try(bind(t, k, string(good.ID), good.MACKey)); err != nil {
			t.Error(err)
		}
		k = newKey(t) // the one account is taken
		wants(t, try(bind(t, k, string(good.ID), good.MACKey)), protocol.Unauthorized, "all the accounts")

		// Guessing is limited like registering, and doesn't fill the log.
		w.options.Directories["eab"].Limits.AccountsPerAddress = store.Limit{Count: 1, Per: time.Hour}
		w.Reload(w.options.Directories, w.options.Issuers, nil)
		wants(t, try(bind(t, k, string(good.ID), other.MACKey)), protocol.Unauthorized, "was not accepted")
		wants(t, try(bind(t, k, string(good.ID), other.MACKey)), protocol.RateLimited, "new accounts")
		if n := len(w.entries(t, store.AuditFilter{Action: "account.create"})); n != 9 { // seven, the good one, one more
			t.Errorf("%d entries in the audit log, want 9", n)
		}
	})
}

// A key for three accounts opens three, however many come at once.
func TestExternalAccountBindingAtOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		eab := w.eab(t, protocol.EABKey{Directory: "eab", MaxAccounts: 3})
		var mu sync.Mutex
		created := 0
		parallel(32, func(int) {
			k := newKey(t)
			_, made, err := w.Register(t.Context(), Registration{
				Directory: "eab", Key: jwk(t, k), Peer: peer, EAB: bind(t, k, string(eab.ID), eab.MACKey)})
			mu.Lock()
			defer mu.Unlock()
			if made {
				created++
			} else if p, ok := errors.AsType[*protocol.Problem](err); !ok || p.Type != protocol.Unauthorized {
				t.Error(err)
			}
		})
		if created != 3 || w.rows(t)["accounts"] != 3 {
			t.Errorf("%d accounts created, %d in the database, want 3", created, w.rows(t)["accounts"])
		}
	})
}

// Revoking an EAB key stops what its accounts began, too (DESIGN section 5).
func TestRevokedBinding(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		eab := w.eab(t, protocol.EABKey{Directory: "eab", MaxAccounts: 0})
		k := newKey(t)
		a := w.register(t, k, Registration{Directory: "eab", EAB: bind(t, k, string(eab.ID), eab.MACKey)})
		o, slow := a.ready("a.example"), a.ready("b.example")
		pending := a.order("c.example")

		waiting, goOn := make(chan bool), make(chan bool)
		w.key.wait(func(context.Context) error { waiting <- true; <-goOn; return nil })
		w.hold = 10 * time.Millisecond
		if slow = a.finalize(slow); slow.Status != protocol.OrderProcessing {
			t.Fatalf("the slow order is %s", slow.Status)
		}
		<-waiting
		if err := w.revokeEABKey(t.Context(), eab.ID); err != nil {
			t.Fatal(err)
		}
		_, err := a.NewOrder(t.Context(), a.Requester, OrderRequest{Identifiers: ids("d.example")})
		wants(t, err, protocol.Unauthorized, "withdrawn")
		_, err = a.PreAuthorize(t.Context(), a.Requester, ids("d.example")[0])
		wants(t, err, protocol.Unauthorized, "withdrawn")
		_, err = a.Finalize(t.Context(), a.Requester, o.ID, FinalizeRequest{CSR: csr(t, newKey(t), "a.example")})
		wants(t, err, protocol.Unauthorized, "withdrawn")
		close(goOn)
		until(t, "the slow order ends", func() bool { return a.look(slow).Status == protocol.OrderInvalid })
		if slow = a.look(slow); slow.Error == nil || slow.Error.Type != protocol.Unauthorized || slow.Certificate != "" {
			t.Errorf("%+v", slow)
		}
		if n := w.rows(t)["certificates"]; n != 0 {
			t.Errorf("%d certificates", n)
		}
		if a.look(pending).Status != protocol.OrderPending {
			t.Error("a pending order waits for its own end")
		}
	})
}

// RFC 8555 section 7.3.6.
func TestDeactivateAccount(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		a.ready("a.example")
		if ended, err := a.DeactivateAccount(t.Context(), a.Requester); err != nil || ended.Status != protocol.AccountDeactivated {
			t.Fatal(ended.Status, err)
		}
		if _, err := a.DeactivateAccount(t.Context(), a.Requester); err != nil {
			t.Error("twice:", err)
		}
		_, _, err := a.Authority.Account(t.Context(), "main", a.Requester.Account.ID)
		if wants(t, err, protocol.Unauthorized, "deactivated").HTTPStatus() != 401 {
			t.Error(err)
		}
		_, err = a.UpdateAccount(t.Context(), a.Requester, &[]string{"mailto:x@example"}, false) // its request was under way
		wants(t, err, protocol.Unauthorized, "deactivated")
		for _, only := range []bool{true, false} {
			_, _, err = w.Register(t.Context(), Registration{Directory: "main", Key: a.jwk, Peer: peer, OnlyExisting: only})
			wants(t, err, protocol.Unauthorized, "deactivated")
		}
		// Its key doesn't come back either when the account is swept away.
		w.Add(30 * day)
		if err := w.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w.rows(t)["accounts"] != 0 {
			t.Fatal("the account is still there")
		}
		_, _, err = w.Register(t.Context(), Registration{Directory: "main", Key: a.jwk, Peer: peer})
		wants(t, err, protocol.Unauthorized, "use a new key")
		b := w.account(t, "main")
		wants(t, b.RolloverKey(t.Context(), b.Requester, a.jwk), protocol.BadPublicKey, "deactivated")
	})
}

// Deactivating an account while its certificate waits for the key: nothing
// is issued.
func TestDeactivateWhilePending(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		o := a.ready("a.example")
		w.key.mu.Lock()
		w.key.planned = func() { // between the checks and the plan
			if _, err := a.DeactivateAccount(t.Context(), a.Requester); err != nil {
				t.Error(err)
			}
		}
		w.key.mu.Unlock()
		if o = a.finalize(o); o.Status != protocol.OrderInvalid || o.Error.Type != protocol.Unauthorized {
			t.Errorf("the order is %s: %v", o.Status, o.Error)
		}
		if n := len(w.key.signatures()); n != 0 || w.rows(t)["certificates"] != 0 {
			t.Errorf("%d signatures, %d certificates", n, w.rows(t)["certificates"])
		}
	})
}

// RFC 8555 section 7.3.5.
func TestRollover(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a, b := w.account(t, "main"), w.account(t, "main")
		err := a.RolloverKey(t.Context(), a.Requester, b.jwk)
		if in, ok := errors.AsType[*KeyInUseError](err); !ok || in.Account != b.Requester.Account.ID || !strings.Contains(err.Error(), "choose another") {
			t.Errorf("onto another's key: %v", err)
		}
		if in, ok := errors.AsType[*KeyInUseError](a.RolloverKey(t.Context(), a.Requester, a.jwk)); !ok || in.Account != a.Requester.Account.ID {
			t.Error("onto its own key: taken")
		}
		next := jwk(t, newKey(t))
		if err := a.RolloverKey(t.Context(), a.Requester, next); err != nil {
			t.Fatal(err)
		}
		found, _, err := w.Register(t.Context(), Registration{Directory: "main", Key: next, OnlyExisting: true})
		if err != nil || found.ID != a.Requester.Account.ID || string(found.Key) != next.Canonical {
			t.Errorf("%+v, %v", found, err)
		}
		_, _, err = w.Register(t.Context(), Registration{Directory: "main", Key: a.jwk, OnlyExisting: true})
		wants(t, err, protocol.AccountDoesNotExist, "")
		// A request that was signed with the old key comes too late.
		wants(t, a.RolloverKey(t.Context(), a.Requester, jwk(t, newKey(t))), protocol.Unauthorized, "meanwhile")
	})
}

// Two accounts that want the same key: one gets it.
func TestRolloverRace(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const n = 12
		next := jwk(t, newKey(t))
		var accounts []*account
		for range n {
			accounts = append(accounts, w.account(t, "main"))
		}
		errs := make([]error, n)
		parallel(n, func(i int) { errs[i] = w.RolloverKey(t.Context(), accounts[i].Requester, next) })
		winners := 0
		for i, err := range errs {
			if err == nil {
				winners++
			} else if _, ok := errors.AsType[*KeyInUseError](err); !ok {
				t.Errorf("%d: %v", i, err)
			}
		}
		if winners != 1 {
			t.Errorf("%d accounts have the key", winners)
		}
	})
}

// RFC 8555 section 7.3.2; an empty update is taken (clients send it).
func TestUpdateAccount(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		if got, err := a.UpdateAccount(t.Context(), a.Requester, nil, false); err != nil || got.ID != a.Requester.Account.ID {
			t.Error(got, err)
		}
		got, err := a.UpdateAccount(t.Context(), a.Requester, nil, true)
		if err != nil || got.TermsAt.IsZero() {
			t.Fatal(got, err)
		}
		// Requests that began before keep what came between.
		got, err = a.UpdateAccount(t.Context(), a.Requester, &[]string{"mailto:a@example"}, false)
		if err != nil || got.TermsAt.IsZero() || len(got.Contact) != 1 {
			t.Fatal(got, err)
		}
		got, err = a.UpdateAccount(t.Context(), a.Requester, &[]string{}, false)
		if err != nil || len(got.Contact) != 0 {
			t.Error(got, err)
		}
	})
}

func TestAccountLimit(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.limit(func(l *Limits) { l.AccountsPerAddress = store.Limit{Count: 2, Per: time.Hour} })
		a := w.account(t, "main")
		w.account(t, "main")
		k := jwk(t, newKey(t))
		_, _, err := w.Register(t.Context(), Registration{Directory: "main", Key: k, Peer: peer})
		if p := wants(t, err, protocol.RateLimited, "new accounts"); p.RetryAfter <= 29*time.Minute || p.RetryAfter > 31*time.Minute || p.HTTPStatus() != 429 {
			t.Errorf("retry after %v, status %d", p.RetryAfter, p.HTTPStatus())
		}
		if _, _, err = w.Register(t.Context(), Registration{Directory: "main", Key: a.jwk, Peer: peer}); err != nil {
			t.Error("an account that exists isn't counted:", err)
		}
		if _, _, err = w.Register(t.Context(), Registration{Directory: "main", Key: k, Peer: netip.MustParseAddrPort("192.0.2.8:1")}); err != nil {
			t.Error("another address:", err)
		}
		w.Add(31 * time.Minute)
		w.account(t, "main")
	})
}
