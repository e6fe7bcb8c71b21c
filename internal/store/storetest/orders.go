package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

func dns(name string) protocol.Identifier {
	return protocol.Identifier{Type: protocol.DNS, Value: name}
}

// authorization is a pending one for a day.
func (f *fixture) authorization(account protocol.AccountID, id protocol.Identifier) protocol.Authorization {
	f.Add(time.Millisecond)
	return protocol.Authorization{
		ID: protocol.NewID[protocol.AuthorizationID](f.Now()), Account: account, Directory: "servers", Identifier: id.Base(), Wildcard: id.IsWildcard(),
		Status: protocol.AuthorizationPending, ExpiresAt: f.Now().Add(24 * time.Hour), Token: "token",
		Offered: []protocol.ChallengeType{protocol.HTTP01, protocol.DNS01}, CreatedAt: f.Now(),
	}
}

func (f *fixture) insertAuthorization(a protocol.Authorization) protocol.Authorization {
	f.t.Helper()
	f.update(func(tx *store.Tx) error { return tx.InsertAuthorization(a) })
	return a
}

// order is a pending one with a new authorization for each name.
func (f *fixture) order(account protocol.AccountID, ids ...protocol.Identifier) (protocol.Order, []protocol.Authorization) {
	f.t.Helper()
	o := protocol.Order{
		ID: protocol.NewID[protocol.OrderID](f.Now()), Account: account, Directory: "servers", Status: protocol.OrderPending,
		Identifiers: ids, CreatedAt: f.Now(), ExpiresAt: f.Now().Add(24 * time.Hour),
	}
	var list []protocol.Authorization
	for _, id := range ids {
		a := f.insertAuthorization(f.authorization(account, id))
		list = append(list, a)
		o.Authorizations = append(o.Authorizations, a.ID)
	}
	return o, list
}

func (f *fixture) insertOrder(o protocol.Order) {
	f.t.Helper()
	f.update(func(tx *store.Tx) error { return tx.InsertOrder(o) })
}

func testOrders(t *testing.T, f *fixture) {
	ctx := t.Context()
	var names []protocol.Identifier
	for n := range 100 {
		names = append(names, dns(fmt.Sprintf("n%d.example", n)))
	}
	for _, ids := range [][]protocol.Identifier{
		{dns("a.example")},
		{dns("*.a.example"), dns("a.example"), {Type: protocol.IP, Value: "2001:db8::1"}},
		names,
	} {
		o, list := f.order("someaccount", ids...)
		o.NotBefore, o.NotAfter, o.Replaces, o.Profile, o.Error = f.Now(), f.Now().Add(time.Hour), "00ff", "server", problem()
		f.insertOrder(o)
		equal(t, must(f.db.Order(ctx, o.ID)).or(t), o)
		got, authorizations, err := f.db.OrderWithAuthorizations(ctx, o.ID)
		wantError(t, err, nil)
		equal(t, got, o)
		equal(t, authorizations, list)
	}
	_, _, err := f.db.OrderWithAuthorizations(ctx, "nothing")
	wantError(t, err, store.ErrNotFound)

	o, list := f.order("someaccount", dns("a.example"), dns("b.example"))
	f.insertOrder(o)
	f.update(func(tx *store.Tx) error {
		wantError(t, tx.InsertOrder(o), store.ErrConflict)
		return nil
	})
	// One authorization was swept away.
	f.update(func(tx *store.Tx) error {
		_, err := tx.SweepAuthorizations(list[0].ExpiresAt.Add(time.Microsecond), 1000)
		return err
	})
	_, left, err := f.db.OrderWithAuthorizations(ctx, o.ID)
	wantError(t, err, nil)
	equal(t, left, list[1:])

	o.ID, o.Authorizations = "another", []protocol.AuthorizationID{"short"}
	err = f.db.Update(ctx, func(tx *store.Tx) error { return tx.InsertOrder(o) })
	wantError(t, err, protocol.ErrNotAnID)
}

func testOrderStatus(t *testing.T, f *fixture) {
	ctx := t.Context()
	o, _ := f.order("someaccount", dns("a.example"))
	f.insertOrder(o)
	plan := func(tx *store.Tx) (bool, error) { return tx.PlanOrder(o.ID, "00aa", "server") }
	complete := func(tx *store.Tx) (bool, error) { return tx.CompleteOrder(o.ID) }
	fail := func(tx *store.Tx) (bool, error) { return tx.FailOrder(o.ID, problem()) }
	f.changed(false, complete)
	f.changed(true, plan)
	f.changed(false, plan) // finalized twice, one certificate
	got := must(f.db.Order(ctx, o.ID)).or(t)
	if got.Status != protocol.OrderProcessing || got.Certificate != "00aa" || got.Profile != "server" {
		t.Fatalf("planned: %+v", got)
	}
	f.changed(true, complete)
	f.changed(false, complete)
	f.changed(false, fail) // RFC 8555 section 7.1.6: valid is final
	f.changed(false, plan)

	for _, planned := range []bool{false, true} {
		o, _ = f.order("someaccount", dns("b.example"))
		f.insertOrder(o)
		if planned {
			f.changed(true, plan)
		}
		f.changed(true, fail)
		f.changed(false, fail)
		f.changed(false, plan)
		f.changed(false, complete)
		got = must(f.db.Order(ctx, o.ID)).or(t)
		equal(t, got.Error, problem())
		equal(t, got.Certificate, "")
		equal(t, got.Status, protocol.OrderInvalid)
	}
}

func testOrdersOf(t *testing.T, f *fixture) {
	ctx := t.Context()
	var ids []protocol.OrderID
	for range 5 {
		o, _ := f.order("someaccount", dns("a.example"))
		f.insertOrder(o)
		ids = append(ids, o.ID)
	}
	o, _ := f.order("otheraccount", dns("a.example"))
	f.insertOrder(o)
	equal(t, must(f.db.OrdersOf(ctx, "someaccount", "", 0)).or(t), ids)
	equal(t, must(f.db.OrdersOf(ctx, "someaccount", ids[1], 2)).or(t), ids[2:4])
	equal(t, must(f.db.OrdersOf(ctx, "someaccount", ids[4], 2)).or(t), nil)
}

func testAuthorizations(t *testing.T, f *fixture) {
	ctx := t.Context()
	a := f.authorization("someaccount", dns("*.a.example"))
	a.Attempt = protocol.Attempt{Type: protocol.DNS01, Processing: true, Tries: 3, NextAt: f.Now(), Error: problem(), ValidatedAt: f.Now(), Response: []byte{0, 255}}
	a.BoundTo, a.Subject = "the pod", awkward
	f.insertAuthorization(a)
	b := f.insertAuthorization(f.authorization("someaccount", protocol.Identifier{Type: protocol.IP, Value: "192.0.2.1"}))
	equal(t, must(f.db.Authorization(ctx, a.ID)).or(t), a)
	_, err := f.db.Authorization(ctx, "nothing")
	wantError(t, err, store.ErrNotFound)
	equal(t, must(f.db.Authorizations(ctx, []protocol.AuthorizationID{b.ID, "nothing", a.ID})).or(t), []protocol.Authorization{b, a})
	equal(t, must(f.db.Authorizations(ctx, nil)).or(t), nil)
	equal(t, must(f.db.Authorizations(ctx, []protocol.AuthorizationID{"nothing"})).or(t), nil)
	f.update(func(tx *store.Tx) error {
		wantError(t, tx.InsertAuthorization(a), store.ErrConflict)
		return nil
	})
	end := func(from, to protocol.AuthorizationStatus) func(*store.Tx) (bool, error) {
		return func(tx *store.Tx) (bool, error) { return tx.EndAuthorization(a.ID, from, to) }
	}
	f.changed(false, end(protocol.AuthorizationValid, protocol.AuthorizationDeactivated))
	f.changed(true, end(protocol.AuthorizationPending, protocol.AuthorizationDeactivated))
	f.changed(false, end(protocol.AuthorizationPending, protocol.AuthorizationDeactivated))
	got := must(f.db.Authorization(ctx, a.ID)).or(t)
	if got.Status != protocol.AuthorizationDeactivated || got.Attempt.Processing || got.Attempt.Response != nil {
		t.Fatalf("deactivated while it was validated: %+v", got)
	}
}

func testReusable(t *testing.T, f *fixture) {
	ctx := t.Context()
	now := f.Now()
	add := func(account protocol.AccountID, name string, status protocol.AuthorizationStatus, ends time.Duration) protocol.AuthorizationID {
		a := f.authorization(account, dns(name))
		a.Status, a.ExpiresAt = status, now.Add(ends)
		return f.insertAuthorization(a).ID
	}
	short := add("me", "a.example", protocol.AuthorizationValid, time.Hour)
	long := add("me", "a.example", protocol.AuthorizationValid, 2*time.Hour)
	wild := add("me", "*.a.example", protocol.AuthorizationValid, time.Hour)
	add("me", "a.example", protocol.AuthorizationValid, 0) // ends this moment
	add("me", "a.example", protocol.AuthorizationPending, time.Hour)
	add("me", "a.example", protocol.AuthorizationDeactivated, time.Hour)
	add("you", "a.example", protocol.AuthorizationValid, time.Hour)
	add("me", "aa.example", protocol.AuthorizationValid, time.Hour)
	find := func(names ...string) (ids []protocol.AuthorizationID) {
		var wanted []protocol.Identifier
		for _, n := range names {
			wanted = append(wanted, dns(n))
		}
		for _, a := range must(f.db.ReusableAuthorizations(ctx, "me", wanted, now)).or(t) {
			ids = append(ids, a.ID)
		}
		return ids
	}
	equal(t, find("a.example"), []protocol.AuthorizationID{long, short})
	equal(t, find("*.a.example", "a.example"), []protocol.AuthorizationID{wild, long, short})
	equal(t, find("b.example"), nil)
	equal(t, find(), nil)
}

func testValidation(t *testing.T, f *fixture) {
	ctx := t.Context()
	a := f.insertAuthorization(f.authorization("someaccount", dns("a.example")))
	record := func(at protocol.Attempt) func(*store.Tx) (bool, error) {
		return func(tx *store.Tx) (bool, error) { return tx.RecordAttempt(a.ID, at, tx.Now().Add(time.Minute)) }
	}
	attempt := protocol.Attempt{Type: protocol.HTTP01, Processing: true, NextAt: f.Now(), Response: []byte("{}")}
	f.changed(true, record(attempt))
	f.changed(false, record(protocol.Attempt{Type: protocol.DNS01, Processing: true})) // only one is ever tried
	attempt.Tries, attempt.Error = 1, problem()
	f.changed(true, record(attempt))
	equal(t, must(f.db.Authorization(ctx, a.ID)).or(t).Attempt, attempt)

	finish := func(status protocol.AuthorizationStatus, ends time.Time) func(*store.Tx) (bool, error) {
		z := a
		z.Status, z.ExpiresAt, z.Subject = status, ends, "pod 1"
		z.Attempt = protocol.Attempt{Type: protocol.HTTP01, Tries: 2, ValidatedAt: attempt.NextAt}
		return func(tx *store.Tx) (bool, error) { return tx.FinishValidation(z) }
	}
	ends := f.Now().Add(30 * 24 * time.Hour)
	f.changed(true, finish(protocol.AuthorizationValid, ends))
	f.changed(false, finish(protocol.AuthorizationInvalid, a.ExpiresAt)) // the slower of two
	f.changed(false, record(attempt))
	got := must(f.db.Authorization(ctx, a.ID)).or(t)
	if got.Status != protocol.AuthorizationValid || got.Attempt.Processing || !got.ExpiresAt.Equal(ends) || got.Attempt.Tries != 2 || got.Attempt.Error != nil ||
		got.Attempt.Response != nil || got.Subject != "pod 1" {
		t.Fatalf("valid: %+v", got)
	}
}

// Whether an account proved with a subject before.
func testProvenBy(t *testing.T, f *fixture) {
	ctx := t.Context()
	valid := func(account protocol.AccountID, subject string, status protocol.AuthorizationStatus) {
		a := f.authorization(account, dns("a.example"))
		a.Status, a.Subject, a.ExpiresAt = status, subject, f.Now() // what has ended counts too
		f.insertAuthorization(a)
	}
	valid("me", "pod 1", protocol.AuthorizationValid)
	valid("me", "pod 2", protocol.AuthorizationPending)
	valid("me", "pod 3", protocol.AuthorizationInvalid)
	valid("you", "pod 4", protocol.AuthorizationValid)
	for subject, want := range map[string]bool{"pod 1": true, "pod 2": false, "pod 3": false, "pod 4": false, "": false} {
		if got := must(f.db.ProvenBy(ctx, "me", subject)).or(t); got != want {
			t.Errorf("%q: %v, want %v", subject, got, want)
		}
	}
}

func testClaimValidations(t *testing.T, f *fixture) {
	var ids []protocol.AuthorizationID
	now := f.Now()
	for n := range 3 {
		a := f.authorization("someaccount", dns("a.example"))
		a.Attempt = protocol.Attempt{Type: protocol.HTTP01, Processing: true, NextAt: now.Add(time.Duration(n) * time.Minute)}
		ids = append(ids, f.insertAuthorization(a).ID)
	}
	f.insertAuthorization(f.authorization("someaccount", dns("not.processing.example")))
	claim := func(now time.Time, limit int) (got []protocol.AuthorizationID) {
		f.update(func(tx *store.Tx) error {
			list, err := tx.ClaimValidations(now, 10*time.Minute, limit)
			for _, a := range list {
				got = append(got, a.ID)
			}
			return err
		})
		equal(t, must(f.db.ValidationsDue(t.Context(), now)).or(t), false)
		return got
	}
	equal(t, must(f.db.ValidationsDue(t.Context(), now)).or(t), true)
	equal(t, claim(now, 10), ids[:1])
	equal(t, claim(now, 10), nil) // claimed
	equal(t, claim(now.Add(time.Minute), 10), ids[1:2])
	equal(t, len(claim(now.Add(20*time.Minute), 10)), 3) // the leases ran out
	f.changed(true, func(tx *store.Tx) (bool, error) {
		return tx.FinishValidation(protocol.Authorization{ID: ids[0], Status: protocol.AuthorizationInvalid, ExpiresAt: now})
	})
	f.changed(true, func(tx *store.Tx) (bool, error) {
		return tx.EndAuthorization(ids[1], protocol.AuthorizationPending, protocol.AuthorizationDeactivated)
	})
	// Handed back with a date: due then, not before.
	f.changed(true, func(tx *store.Tx) (bool, error) {
		return tx.RecordAttempt(ids[2], protocol.Attempt{Type: protocol.HTTP01, Processing: true, Tries: 1, NextAt: now.Add(2 * time.Hour)}, time.Time{})
	})
	equal(t, claim(now.Add(2*time.Hour-time.Second), 10), nil)
	equal(t, claim(now.Add(2*time.Hour), 10), ids[2:])
}

// What a pod or device proved is finalized within minutes, and asked again
// before the key is used: its end no longer matters then, its withdrawal does.
func testPrivateStands(t *testing.T, f *fixture) {
	account := f.insertAccount(f.account("servers", "private"))
	o, list := f.order(account.ID, dns("a.example"), dns("b.example"))
	f.insertOrder(o)
	f.changed(true, func(tx *store.Tx) (bool, error) { return tx.PlanOrder(o.ID, cert.NewSerial(), "server") })
	stands := func(now time.Time) (private, lost int) {
		s := must(f.db.StillStands(t.Context(), o.ID, now)).or(t)
		return s.Private, s.Lost
	}
	later := f.Now().Add(time.Hour)
	for n, a := range list {
		a.Status, a.ExpiresAt, a.Attempt.Type = protocol.AuthorizationValid, later, protocol.HTTP01
		if n == 0 {
			a.Attempt.Type, a.Subject = protocol.Kubernetes01, "pod 1"
		}
		f.changed(true, func(tx *store.Tx) (bool, error) { return tx.FinishValidation(a) })
	}
	for _, test := range []struct {
		now  time.Time
		lost int
	}{{f.Now(), 0}, {later, 1}} { // the classic one is lost
		if private, lost := stands(test.now); private != 1 || lost != test.lost {
			t.Errorf("%d private, %d lost, want 1 and %d", private, lost, test.lost)
		}
	}
	f.changed(true, func(tx *store.Tx) (bool, error) {
		return tx.EndAuthorization(list[0].ID, protocol.AuthorizationValid, protocol.AuthorizationDeactivated)
	})
	if _, lost := stands(f.Now()); lost != 1 {
		t.Errorf("%d lost when the pod's was given up", lost)
	}
}

func testStillStands(t *testing.T, f *fixture) {
	ctx := t.Context()
	key := protocol.EABKey{ID: "somekey", ExpiresAt: f.Now().Add(48 * time.Hour)}
	account := f.account("servers", "thumb")
	account.EABKey = key.ID
	f.update(func(tx *store.Tx) error { return tx.InsertEABKey(key) })
	f.insertAccount(account)
	o, list := f.order(account.ID, dns("a.example"), dns("b.example"), dns("*.b.example"))
	f.insertOrder(o)
	stands := func(now time.Time) store.Standing {
		t.Helper()
		return must(f.db.StillStands(ctx, o.ID, now)).or(t)
	}
	want := store.Standing{Order: protocol.OrderPending, Account: protocol.AccountValid, EABKey: key.ID, EABKeyUsable: true, Authorizations: 3, Lost: 3}
	equal(t, stands(f.Now()), want)
	for _, a := range list {
		a.Status, a.Attempt.Type = protocol.AuthorizationValid, protocol.HTTP01
		f.changed(true, func(tx *store.Tx) (bool, error) { return tx.FinishValidation(a) })
	}
	f.changed(true, func(tx *store.Tx) (bool, error) { return tx.PlanOrder(o.ID, cert.NewSerial(), "server") })
	want.Order, want.Lost = protocol.OrderProcessing, 0
	equal(t, stands(f.Now()), want)
	if !want.OK() {
		t.Fatal("all stands, and it isn't OK")
	}
	equal(t, stands(list[0].ExpiresAt).Lost, 1) // expired this moment
	equal(t, stands(key.ExpiresAt).EABKeyUsable, false)

	f.changed(true, func(tx *store.Tx) (bool, error) {
		return tx.EndAuthorization(list[1].ID, protocol.AuthorizationValid, protocol.AuthorizationDeactivated)
	})
	equal(t, stands(f.Now()).Lost, 1)
	f.changed(true, func(tx *store.Tx) (bool, error) { return tx.RevokeEABKey(key.ID) })
	equal(t, stands(f.Now()).EABKeyUsable, false)
	f.changed(true, func(tx *store.Tx) (bool, error) { return tx.EndAccount(account.ID, protocol.AccountRevoked) })
	equal(t, stands(f.Now()).Account, protocol.AccountRevoked)

	testPrivateStands(t, f)

	// Without a key; with a key that is gone; without an account; an order
	// that names nothing; no order.
	plain, ghost := f.insertAccount(f.account("servers", "plain")), f.account("servers", "ghost")
	ghost.EABKey = "gone"
	f.insertAccount(ghost)
	for _, test := range []struct {
		account protocol.AccountID
		want    store.Standing
	}{
		{plain.ID, store.Standing{Order: protocol.OrderPending, Account: protocol.AccountValid, EABKeyUsable: true}},
		{ghost.ID, store.Standing{Order: protocol.OrderPending, Account: protocol.AccountValid, EABKey: "gone"}},
		{"nobody", store.Standing{Order: protocol.OrderPending, EABKeyUsable: true}},
	} {
		o, _ = f.order(test.account)
		f.insertOrder(o)
		equal(t, stands(f.Now()), test.want)
		if test.want.OK() {
			t.Fatalf("%+v is OK", test.want)
		}
	}
	_, err := f.db.StillStands(ctx, "nothing", f.Now())
	wantError(t, err, store.ErrNotFound)
}
