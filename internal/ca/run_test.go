package ca

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/ca/sweep"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// Throwaway accounts leave no trace once their time is over; those with an
// EAB key or a certificate that lives stay (DESIGN section 5).
func TestSweep(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		empty := w.rows(t)
		w.limit(func(l *Limits) { l.OrdersPerAccount = store.Limit{Count: 100, Per: time.Hour} })
		eab := w.eab(t, protocol.EABKey{Directory: "eab"})
		k := newKey(t)
		w.register(t, k, Registration{Directory: "eab", EAB: bind(t, k, string(eab.ID), eab.MACKey)})
		monthly := w.account(t, "main")
		o := monthly.prove(monthly.orderAs(OrderRequest{Identifiers: ids("month.example"), Profile: "month"}), protocol.DNS01)
		monthly.finalize(o)
		for i := range 20 {
			a := w.account(t, "main")
			a.issue(fmt.Sprintf("n%d.example", i), "common.example")
			a.order("pending.example")
		}
		var bulk []protocol.Account
		now := w.Now()
		for i := range 2000 {
			bulk = append(bulk, protocol.Account{
				ID: protocol.NewID[protocol.AccountID](now), Directory: "main", Status: protocol.AccountValid, Thumbprint: fmt.Sprint(i), Key: []byte("{}"),
				CreatedAt: now, KeepUntil: now.Add(7 * day)})
		}
		err := w.db.Update(t.Context(), func(tx *store.Tx) error {
			for _, a := range bulk {
				if err := tx.InsertAccount(a); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		sweep := func() map[string]int {
			t.Helper()
			if err := w.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			return w.rows(t)
		}
		if n := sweep(); n["accounts"] != 2022 || n["certificates"] != 21 || n["orders"] != 41 {
			t.Errorf("swept too soon: %v", n)
		}
		w.Add(8*day + time.Hour)
		if n := sweep(); n["accounts"] != 2 || n["certificates"] != 1 || n["certificate_names"] != 1 || n["orders"]+n["authorizations"]+n["limits"] != 0 {
			t.Errorf("after eight days: %v", n)
		}
		w.Add(25 * day)
		n := sweep()
		for _, table := range []string{"audit", "audit_unsequenced", "secrets"} {
			delete(n, table)
			delete(empty, table)
		}
		if n["accounts"] != 1 || n["eab_keys"] != 1 {
			t.Errorf("the bound account is gone: %v", n)
		}
		delete(n, "accounts")
		delete(n, "eab_keys")
		if fmt.Sprint(n) != fmt.Sprint(empty) {
			t.Errorf("left behind: %v", n)
		}
		w.Add(400 * day)
		if err := w.sweeper.SequenceAudit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := sweep(); n["audit"]+n["audit_unsequenced"] != 0 {
			t.Errorf("%d audit entries older than 400 days", n["audit"])
		}
		if _, err := w.db.VerifyAudit(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// An account that is about to be swept orders again: it lives until the order
// has ended.
func TestIdleAccountOrders(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		w.Add(7*day - time.Minute)
		o := a.order("a.example")
		w.Add(2 * time.Hour)
		if err := w.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if o = a.finalize(a.prove(o, protocol.DNS01)); o.Status != protocol.OrderValid {
			t.Errorf("%+v", o)
		}
	})
}

// Two replicas don't sweep at once.
func TestSweepLease(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.account(t, "main")
		w.Add(8 * day)
		other := w.replica()
		if mine := lease(t, other); !mine {
			t.Fatal("no lease")
		}
		if err := w.Sweep(t.Context()); err != nil || w.rows(t)["accounts"] != 1 {
			t.Errorf("swept while another does: %v", err)
		}
		w.Add(sweep.Lease + time.Second)
		if err := w.Sweep(t.Context()); err != nil || w.rows(t)["accounts"] != 0 {
			t.Errorf("not swept: %v", err)
		}
	})
}

// One account, many clients at once, as cert-manager has it: every order ends
// in its certificate, and the jobs that run beside make no second one.
func TestSharedAccount(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		ctx, stop := context.WithCancel(t.Context())
		stopped := make(chan bool)
		go func() { w.Run(ctx, time.Second); close(stopped) }()
		parallel(32, func(i int) {
			for n := range 2 {
				name := fmt.Sprintf("n%d.example", (i+n)%8)
				o, err := a.NewOrder(ctx, a.Requester, OrderRequest{Identifiers: ids(name)})
				if err == nil && o.Status != protocol.OrderReady {
					_, err = a.Respond(ctx, a.Requester, o.Authorizations[0], protocol.HTTP01, nil)
				}
				if err == nil {
					o, err = a.Finalize(ctx, a.Requester, o.ID, FinalizeRequest{CSR: csr(t, newKey(t), name)})
				}
				if err != nil || o.Status != protocol.OrderValid {
					t.Errorf("%s: %s, %v", name, o.Status, err)
				}
			}
		})
		stop()
		<-stopped
		if n, signed := w.rows(t)["certificates"], len(w.key.signatures()); n != 64 || signed != 64 {
			t.Errorf("%d certificates, %d signatures, want 64", n, signed)
		}
		if _, err := w.db.VerifyAudit(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func lease(t testing.TB, a *Authority) (mine bool) {
	t.Helper()
	err := a.db.Update(t.Context(), func(tx *store.Tx) (err error) {
		mine, err = tx.Lease("sweep", a.replica, tx.Now().Add(sweep.Lease))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return mine
}

// Run ends with its context, when what runs has ended, and not later than the
// grace it was given.
func TestRunStops(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		begun, letGo := w.stuck(t)
		w.hold = time.Millisecond
		a := w.account(t, "main")
		a.respond(a.order("a.example"), protocol.HTTP01)
		<-begun
		run := func(grace time.Duration) chan bool {
			ctx, cancel := context.WithCancel(t.Context())
			stopped := make(chan bool)
			go func() { w.Run(ctx, grace); close(stopped) }()
			cancel()
			return stopped
		}
		<-run(10 * time.Millisecond)
		if n, _ := w.Running(); n != 1 {
			t.Fatalf("%d validations run", n)
		}
		stopped := run(time.Minute)
		select {
		case <-stopped:
			t.Fatal("it didn't wait for the validation")
		case <-time.After(20 * time.Millisecond):
		}
		letGo()
		<-stopped
		if n, _ := w.Running(); n != 0 {
			t.Errorf("%d validations run", n)
		}
	})
}
