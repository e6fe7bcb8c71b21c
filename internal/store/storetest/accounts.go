package storetest

import (
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

func (f *fixture) account(directory, thumbprint string) protocol.Account {
	return protocol.Account{
		ID: protocol.NewID[protocol.AccountID](f.Now()), Directory: directory, Status: protocol.AccountValid, Thumbprint: thumbprint,
		Key: []byte(`{"kty":"EC"}`), CreatedAt: f.Now(), KeepUntil: f.Now(),
	}
}

func (f *fixture) insertAccount(a protocol.Account) protocol.Account {
	f.t.Helper()
	f.update(func(tx *store.Tx) error { return tx.InsertAccount(a) })
	return a
}

func testAccounts(t *testing.T, f *fixture) {
	ctx := t.Context()
	a := f.account("servers", "thumb")
	a.Contact, a.TermsAt, a.EABKey = []string{"mailto:a@example.org", awkward}, f.Now(), "someeabkey"
	f.insertAccount(a)
	equal(t, must(f.db.Account(ctx, a.ID)).or(t), a)
	equal(t, must(f.db.AccountByKey(ctx, "servers", "thumb")).or(t), a)
	for _, miss := range [][2]string{{"clients", "thumb"}, {"servers", "Thumb"}, {"servers", ""}} {
		_, err := f.db.AccountByKey(ctx, miss[0], miss[1])
		wantError(t, err, store.ErrNotFound)
	}
	_, err := f.db.Account(ctx, "nobody")
	wantError(t, err, store.ErrNotFound)

	// One key, one account per directory; and the transaction may go on.
	f.update(func(tx *store.Tx) error {
		wantError(t, tx.InsertAccount(f.account("servers", "thumb")), store.ErrConflict)
		again, err := tx.AccountByKey(ctx, "servers", "thumb")
		equal(t, again.ID, a.ID)
		return err
	})
	f.insertAccount(f.account("clients", "thumb"))

	f.update(func(tx *store.Tx) error {
		wantError(t, tx.UpdateAccount("nobody", nil, time.Time{}), store.ErrNotFound)
		return tx.UpdateAccount(a.ID, nil, time.Time{})
	})
	a.Contact, a.TermsAt = nil, time.Time{}
	equal(t, must(f.db.Account(ctx, a.ID)).or(t), a)
}

func testAccountPages(t *testing.T, f *fixture) {
	var all, limited []protocol.AccountID
	for n := range 5 {
		a := f.account("servers", string(rune('a'+n)))
		if n%2 == 0 {
			a.EABKey = "k"
			limited = append(limited, a.ID)
		}
		all = append(all, f.insertAccount(a).ID)
		f.Add(time.Millisecond) // ids sort by their milliseconds
	}
	f.insertAccount(f.account("clients", "x"))
	page := func(filter store.AccountFilter) (ids []protocol.AccountID) {
		for _, a := range must(f.db.Accounts(t.Context(), filter)).or(t) {
			ids = append(ids, a.ID)
		}
		return ids
	}
	equal(t, page(store.AccountFilter{Directory: "servers"}), all)
	equal(t, page(store.AccountFilter{Directory: "servers", Limit: 2}), all[:2])
	equal(t, page(store.AccountFilter{Directory: "servers", After: all[1], Limit: 2}), all[2:4])
	equal(t, page(store.AccountFilter{EABKey: "k"}), limited)
	equal(t, page(store.AccountFilter{Status: protocol.AccountRevoked}), nil)
	equal(t, len(page(store.AccountFilter{})), 6)
}

func testEndAccount(t *testing.T, f *fixture) {
	ctx := t.Context()
	a := f.insertAccount(f.account("servers", "thumb"))
	equal(t, must(f.db.KeyRetired(ctx, "servers", "thumb")).or(t), false)
	end := func(tx *store.Tx) (bool, error) { return tx.EndAccount(a.ID, protocol.AccountDeactivated) }
	f.changed(true, end)
	f.changed(false, end) // RFC 8555 section 7.3.6: there is no way back
	f.changed(false, func(tx *store.Tx) (bool, error) { return tx.EndAccount("nobody", protocol.AccountRevoked) })
	equal(t, must(f.db.Account(ctx, a.ID)).or(t).Status, protocol.AccountDeactivated)
	equal(t, must(f.db.KeyRetired(ctx, "servers", "thumb")).or(t), true)
	equal(t, must(f.db.KeyRetired(ctx, "clients", "thumb")).or(t), false)

	f.Add(time.Hour)
	f.update(func(tx *store.Tx) error { _, err := tx.SweepAccounts(tx.Now(), 10); return err })
	_, err := f.db.Account(ctx, a.ID)
	wantError(t, err, store.ErrNotFound)
	equal(t, must(f.db.KeyRetired(ctx, "servers", "thumb")).or(t), true) // for good
}

func testReplaceKey(t *testing.T, f *fixture) {
	ctx := t.Context()
	a := f.insertAccount(f.account("servers", "old"))
	f.insertAccount(f.account("servers", "taken"))
	f.insertAccount(f.account("clients", "elsewhere"))
	replace := func(id protocol.AccountID, old, to string) func(*store.Tx) (bool, error) {
		return func(tx *store.Tx) (bool, error) { return tx.ReplaceKey(id, old, to, []byte("jwk")) }
	}
	f.changed(false, replace(a.ID, "not the old one", "new"))
	f.changed(false, replace("nobody", "old", "new"))
	err := f.db.Update(ctx, func(tx *store.Tx) error { _, err := replace(a.ID, "old", "taken")(tx); return err })
	wantError(t, err, store.ErrConflict) // RFC 8555 section 7.3.5: 409
	f.changed(true, replace(a.ID, "old", "elsewhere"))
	f.changed(false, replace(a.ID, "old", "other")) // the slower of two
	a.Thumbprint, a.Key = "elsewhere", []byte("jwk")
	equal(t, must(f.db.Account(ctx, a.ID)).or(t), a)
	_, err = f.db.AccountByKey(ctx, "servers", "old")
	wantError(t, err, store.ErrNotFound)

	f.changed(true, func(tx *store.Tx) (bool, error) { return tx.EndAccount(a.ID, protocol.AccountRevoked) })
	f.changed(false, replace(a.ID, "elsewhere", "back")) // not of a dead account
}

func testKeepAccount(t *testing.T, f *fixture) {
	a := f.account("servers", "thumb")
	a.KeepUntil = f.Now().Add(24 * time.Hour)
	f.insertAccount(a)
	keep := func(until time.Time) time.Time {
		f.update(func(tx *store.Tx) error { return tx.KeepAccount(a.ID, until) })
		return must(f.db.Account(t.Context(), a.ID)).or(t).KeepUntil
	}
	equal(t, keep(a.KeepUntil.Add(-time.Hour)), a.KeepUntil) // never earlier
	until := a.KeepUntil.Add(48 * time.Hour)
	got := keep(until)
	if got.Before(until) || got.After(until.Add(time.Hour)) {
		t.Fatalf("kept until %v, want %v to an hour later", got, until)
	}
	equal(t, keep(until.Add(time.Second)), got) // within the hour: no write
}

func testEABKeys(t *testing.T, f *fixture) {
	ctx := t.Context()
	key := func(max int, expires time.Time) protocol.EABKey {
		f.Add(time.Millisecond)
		k := protocol.EABKey{
			ID: protocol.NewID[protocol.EABKeyID](f.Now()), Directory: "servers", Label: awkward, MACKey: []byte{0, 1, 2, 255},
			Profiles: []string{"server"}, Names: []string{"*.apps.example", "a b"}, PreApproved: true, MaxAccounts: max, CreatedAt: f.Now(), ExpiresAt: expires,
		}
		f.update(func(tx *store.Tx) error { return tx.InsertEABKey(k) })
		return k
	}
	one, any, old := key(1, time.Time{}), key(0, time.Time{}), key(0, f.Now().Add(time.Minute))
	equal(t, must(f.db.EABKey(ctx, one.ID)).or(t), one)
	_, err := f.db.EABKey(ctx, "none")
	wantError(t, err, store.ErrNotFound)
	equal(t, must(f.db.EABKeys(ctx, "servers", "", 0)).or(t), []protocol.EABKey{one, any, old})
	equal(t, must(f.db.EABKeys(ctx, "", one.ID, 1)).or(t), []protocol.EABKey{any})
	equal(t, len(must(f.db.EABKeys(ctx, "clients", "", 0)).or(t)), 0)
	f.update(func(tx *store.Tx) error {
		wantError(t, tx.InsertEABKey(one), store.ErrConflict)
		return nil
	})

	take := func(id protocol.EABKeyID) func(*store.Tx) (bool, error) {
		return func(tx *store.Tx) (bool, error) { return tx.TakeEABAccount(id) }
	}
	f.changed(true, take(one.ID))
	f.changed(false, take(one.ID))
	f.changed(true, take(any.ID))
	f.changed(true, take(any.ID))
	f.changed(true, take(old.ID))
	f.changed(false, take("none"))
	f.Add(time.Hour)
	f.changed(false, take(old.ID)) // expired
	revoke := func(tx *store.Tx) (bool, error) { return tx.RevokeEABKey(any.ID) }
	f.changed(true, revoke)
	f.changed(false, revoke)
	f.changed(false, take(any.ID))
	got := must(f.db.EABKey(ctx, any.ID)).or(t)
	if got.Accounts != 2 || got.Usable(f.Now()) {
		t.Fatalf("after two accounts and a revocation: %+v", got)
	}
}
