package ca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/store"
)

// A key that fails for a while: the plan stays, and the same bytes are signed
// when it is back.
func TestKeyFails(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		o := a.ready("a.example")
		w.key.wait(func(context.Context) error { return errors.New("the card was pulled") })
		o = a.finalize(o)
		if o.Status != protocol.OrderProcessing || o.Error != nil {
			t.Fatalf("%+v", o)
		}
		plan := w.plans(t)[0]
		w.key.wait(nil)
		if err := w.claimPlans(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if len(w.key.signatures()) != 0 {
			t.Fatal("taken over while the lease lasts")
		}
		w.Add(planLease + time.Second)
		parallel(4, func(int) {
			if err := w.replica().claimPlans(t.Context(), false); err != nil {
				t.Error(err)
			}
		})
		until(t, "the order is valid", func() bool { return a.look(o).Status == protocol.OrderValid })
		c, serial := a.fetch(a.look(o))
		if signed := w.key.signatures(); len(signed) != 1 || !bytes.Equal(signed[0], plan.DER) || !bytes.Equal(c.RawTBSCertificate, plan.DER) || serial != plan.Serial {
			t.Errorf("%d signatures; other bytes than were planned", len(signed))
		}
	})
}

// dying plans an order's certificate as a process does that then dies.
func (a *account) dying(o OrderView, names ...string) cert.Certificate {
	a.t.Helper()
	d, err := a.directory(a.Requester.Directory)
	if err != nil {
		a.t.Fatal(err)
	}
	parsed, err := issuer.ParseCSR(csr(a.t, newKey(a.t), names...))
	if err != nil {
		a.t.Fatal(err)
	}
	c, prepared, err := a.prepare(a.t.Context(), d, o.Order, parsed, "", signer.Request{})
	if err == nil {
		err = a.plan(a.t.Context(), c, prepared)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// After a crash between plan and record the same bytes are signed, however
// old they are: one serial, one certificate (DESIGN section 4).
func TestResumeIssuance(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		old, _ := a.issue("a.example")
		o := a.orderAs(OrderRequest{Identifiers: ids("a.example"), Replaces: certID(old)})
		plan := a.dying(o, "a.example")
		if o = a.look(o); o.Status != protocol.OrderProcessing {
			t.Fatal(o.Status)
		}
		w.Add(2 * leastPlanAge)
		b, c := w.replica(), w.replica()
		parallel(2, func(i int) {
			if err := []*Authority{b, c}[i].claimPlans(t.Context(), false); err != nil {
				t.Error(err)
			}
		})
		until(t, "the order is valid", func() bool { return a.look(o).Status == protocol.OrderValid })
		got, _ := a.fetch(a.look(o))
		if signed := w.key.signatures(); len(signed) != 2 || !bytes.Equal(got.RawTBSCertificate, plan.DER) {
			t.Errorf("%d signatures; other bytes than were planned", len(signed))
		}
		row, err := w.db.Certificate(t.Context(), cert.SerialOf(old.SerialNumber))
		if err != nil || row.ReplacedBy != o.ID {
			t.Errorf("replaced by %q, %v", row.ReplacedBy, err)
		}
	})
}

// What a dead process had planned on SQLite goes on at the next start, with
// no lease to wait for.
func TestResumeIssuanceAtStart(t *testing.T) {
	w := newWorld(t, "sqlite")
	a := w.account(t, "main")
	var orders []OrderView
	for i := range claimBatch + 3 {
		name := fmt.Sprintf("n%d.example", i)
		o := a.ready(name)
		a.dying(o, name)
		orders = append(orders, o)
	}
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan bool)
	go func() { w.replica().Run(ctx, time.Second); close(stopped) }()
	for _, o := range orders {
		until(t, "the order is valid", func() bool { return a.look(o).Status == protocol.OrderValid })
	}
	stop()
	<-stopped
	if n := len(w.key.signatures()); n != len(orders) {
		t.Errorf("%d signatures for %d orders", n, len(orders))
	}
}

// A plan that can't be issued before its end is given up, even where its
// directory is gone; a server's own is dropped.
func TestPlanTooOld(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a, b := w.account(t, "main"), w.account(t, "other")
		o, gone := a.ready("a.example"), b.ready("a.example")
		a.dying(o, "a.example")
		b.dying(gone, "a.example")
		own := a.dying(a.ready("c.example"), "c.example")
		own.Order, own.Serial = "", cert.NewSerial()
		if err := w.db.Update(t.Context(), func(tx *store.Tx) error { return tx.InsertCertificate(own, own.NotAfter) }); err != nil {
			t.Fatal(err)
		}
		next := w.directories(t)
		delete(next, "other")
		w.Reload(next, w.options.Issuers, nil)
		w.Add(25 * time.Hour)
		if err := w.claimPlans(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if o = a.look(o); o.Status != protocol.OrderInvalid || o.Error.Type != protocol.ServerInternal {
			t.Errorf("%+v", o)
		}
		if gone = b.look(gone); gone.Status != protocol.OrderInvalid {
			t.Errorf("%+v", gone)
		}
		if n := w.rows(t)["certificates"]; n != 0 || len(w.key.signatures()) != 0 {
			t.Errorf("%d certificates are left", n)
		}
	})
}

// A plan that waited too long for its key, which never saw it, gets fresh
// dates and a fresh serial.
func TestStalePlan(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		o := a.ready("a.example")
		w.planAge = 50 * time.Millisecond
		waits := 0
		w.key.wait(func(ctx context.Context) error {
			if waits++; waits == 1 { // a long queue, which the plan leaves in time
				<-ctx.Done()
				w.Add(time.Hour / 2)
				return fmt.Errorf("queue: %w", ctx.Err())
			}
			return nil
		})
		before := w.Now()
		o = a.finalize(o)
		c, serial := a.fetch(o)
		if waits != 2 || c.NotBefore.Before(before.Add(20*time.Minute)) || len(w.key.signatures()) != 1 {
			t.Errorf("%d waits, from %v", waits, c.NotBefore)
		}
		if rows := w.rows(t); rows["certificates"] != 1 || rows["certificate_names"] != 1 || serial != cert.SerialOf(c.SerialNumber) {
			t.Errorf("the old plan is left: %v", rows)
		}
		// One that the key may have seen is never planned anew.
		o = a.ready("b.example")
		w.key.wait(func(ctx context.Context) error { <-ctx.Done(); return errors.New("the card stopped in the middle") })
		if o = a.finalize(o); o.Status != protocol.OrderProcessing {
			t.Errorf("%+v", o)
		}
	})
}

// Plans whose signatures take long are held, so that no replica takes them
// over; those of dead processes aren't.
func TestHoldPlans(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		slow, dead := a.ready("a.example"), a.ready("b.example")
		gate := make(chan bool)
		w.key.wait(func(context.Context) error { <-gate; return nil })
		w.hold = time.Millisecond
		a.finalize(slow)
		a.dying(dead, "b.example")
		w.Add(planLease - time.Second)
		if err := w.holdPlans(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		w.Add(2 * time.Second)
		replica := w.replica()
		if err := replica.claimPlans(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if _, n := replica.Running(); n != 1 {
			t.Errorf("the replica took %d plans over, want the dead one's", n)
		}
		close(gate)
		until(t, "both are valid", func() bool {
			return a.look(slow).Status == protocol.OrderValid && a.look(dead).Status == protocol.OrderValid
		})
	})
}

// A clock that is far behind stops issuance, and says so (DESIGN, principle 3).
func TestClockBehind(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		o := a.ready("a.example")
		w.Add(time.Hour / 2)
		w.account(t, "main") // the newest entry
		if err := w.sweeper.SequenceAudit(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.Add(-time.Hour / 2)
		for what, do := range map[string]func() error{
			"order": func() error {
				_, err := a.NewOrder(t.Context(), a.Requester, OrderRequest{Identifiers: ids("b.example")})
				return err
			},
			"register": func() error {
				_, _, err := w.Register(t.Context(), Registration{Directory: "main", Key: jwk(t, newKey(t)), Peer: peer})
				return err
			},
		} {
			if err := do(); !errors.Is(err, store.ErrClockBehind) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if o = a.finalize(o); o.Status != protocol.OrderProcessing || o.Certificate != "" {
			t.Errorf("a certificate left: %+v", o)
		}
		w.Add(time.Hour * 2 / 3)
		if err := w.claimPlans(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		until(t, "the order is valid when the clock is right", func() bool { return a.look(o).Status == protocol.OrderValid })
	})
}
