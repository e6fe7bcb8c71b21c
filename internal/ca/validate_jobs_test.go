package ca

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// crashed records a challenge as a process did that then died.
func (a *account) crashed(o OrderView) {
	a.t.Helper()
	z := a.authorization(o)
	z.Attempt.Type = protocol.HTTP01
	if err := a.recordProcessing(a.t.Context(), a.Requester, z, false); err != nil {
		a.t.Fatal(err)
	}
}

// What a dead process was validating goes on, once, whoever takes it over.
func TestResumeValidation(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		var orders []OrderView
		for i := range 100 { // more than a batch
			o := a.order(fmt.Sprintf("n%d.example", i))
			a.crashed(o)
			orders = append(orders, o)
		}
		b, c := w.replica(), w.replica()
		both := func() {
			parallel(2, func(i int) {
				if err := []*Authority{b, c}[i].claimValidations(t.Context(), false); err != nil {
					t.Error(err)
				}
			})
		}
		both()
		if w.looks.count("n0.example") != 0 {
			t.Fatal("taken over while the lease lasts")
		}
		w.Add(validationLease + time.Second)
		both()
		for i, o := range orders {
			until(t, "it is valid", func() bool { return a.authorization(o).Status == protocol.AuthorizationValid })
			if n := w.looks.count(fmt.Sprintf("n%d.example", i)); n != 1 {
				t.Errorf("%d looks", n)
			}
		}
	})
}

// One process owns a SQLite database: what it left when it died is taken up
// as soon as it is back.
func TestResumeValidationAtStart(t *testing.T) {
	w := newWorld(t, "sqlite")
	a := w.account(t, "main")
	var orders []OrderView
	for i := range 2*claimBatch + 3 {
		o := a.order(fmt.Sprintf("n%d.example", i))
		a.crashed(o)
		orders = append(orders, o)
	}
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan bool)
	go func() { w.replica().Run(ctx, time.Second); close(stopped) }()
	for _, o := range orders {
		until(t, "it is valid", func() bool { return a.authorization(o).Status == protocol.AuthorizationValid })
	}
	stop()
	<-stopped
}

// A validator that panics, or has trouble of its own, is tried again and then
// fails; the client learns nothing of it.
func TestPanic(t *testing.T) {
	for name, trouble := range map[string]func() error{
		"panic": func() error { panic("secret") },
		"error": func() error { return errors.New("secret") },
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, w *world) {
				w.validations.delays = nil
				w.looks.to(func(context.Context, protocol.Validation) (seen, error) { return seen{}, trouble() })
				a := w.account(t, "main")
				z := a.respond(a.order("a.example"), protocol.HTTP01)
				if z.Status != protocol.AuthorizationInvalid || z.Attempt.Error.Error() != protocol.AsProblem(errors.New("x")).Error() {
					t.Errorf("%s: %v", z.Status, z.Attempt.Error)
				}
				w.looks.to(nil)
				if o := a.prove(a.order("b.example"), protocol.HTTP01); o.Status != protocol.OrderReady {
					t.Errorf("the next order is %s", o.Status)
				}
			})
		})
	}
}

// One target is asked by so many at a time; the rest wait in the database.
func TestPerTarget(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		begun, letGo := w.stuck(t)
		w.hold = 5 * time.Millisecond
		var all []*account
		var orders []OrderView
		for range maxPerTarget + 3 {
			a := w.account(t, "main")
			o := a.order("a.example")
			if z := a.respond(o, protocol.HTTP01); !z.Attempt.Processing {
				t.Fatalf("%+v", z)
			}
			all, orders = append(all, a), append(orders, o)
		}
		other := w.account(t, "main")
		other.respond(other.order("b.example"), protocol.HTTP01) // another target isn't hindered
		for range maxPerTarget + 1 {
			<-begun
		}
		if err := w.claimValidations(t.Context(), false); err != nil { // full: they go on waiting
			t.Fatal(err)
		}
		if n := w.looks.count("a.example"); n != maxPerTarget {
			t.Errorf("%d looks at once, want %d", n, maxPerTarget)
		}
		letGo()
		until(t, "they end", func() bool { n, _ := w.Running(); return n == 0 })
		w.Add(busyDelay + time.Second)
		if err := w.claimValidations(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		for i, a := range all {
			until(t, "it is valid", func() bool { return a.authorization(orders[i]).Status == protocol.AuthorizationValid })
		}
	})
}

// So many POSTs of one address may wait; more are answered at once.
func TestHeldPerAddress(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		_, letGo := w.stuck(t)
		a := w.account(t, "main")
		var held sync.WaitGroup
		var early atomic.Int32
		for i := range maxHeldPerPeer {
			o := a.order(fmt.Sprintf("n%d.example", i))
			held.Go(func() {
				if a.respond(o, protocol.HTTP01).Status != protocol.AuthorizationValid {
					early.Add(1)
				}
			})
		}
		until(t, "all wait", func() bool { return w.validations.held.Count(a.peer()) == maxHeldPerPeer })
		if z := a.respond(a.order("more.example"), protocol.HTTP01); !z.Attempt.Processing {
			t.Errorf("one too many: %+v", z)
		}
		elsewhere := *a
		elsewhere.Peer = netip.MustParseAddrPort("192.0.2.99:1")
		o := a.order("elsewhere.example")
		held.Go(func() {
			if elsewhere.respond(o, protocol.HTTP01).Status != protocol.AuthorizationValid {
				early.Add(1)
			}
		})
		until(t, "another address waits", func() bool { return w.looks.count("elsewhere.example") == 1 })
		letGo()
		held.Wait()
		if n := early.Load(); n != 0 {
			t.Errorf("%d POSTs were answered before the end", n)
		}
	})
}

// A client that hangs up cancels nothing.
func TestHangUp(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		begun, letGo := w.stuck(t)
		a := w.account(t, "main")
		o := a.order("a.example")
		ctx, hangUp := context.WithCancel(t.Context())
		answered := make(chan error)
		go func() {
			_, err := a.Respond(ctx, a.Requester, o.Authorizations[0], protocol.HTTP01, nil)
			answered <- err
		}()
		<-begun
		hangUp()
		if err := <-answered; err != nil {
			t.Error(err)
		}
		if z := a.authorization(o); !z.Attempt.Processing {
			t.Errorf("not recorded: %+v", z)
		}
		letGo()
		until(t, "the order is ready", func() bool { return a.look(o).Status == protocol.OrderReady })
	})
}

// A proof that comes after the authorization's end doesn't bring it back
// (RFC 8555 section 7.1.6), and nobody looks for one any more.
func TestTooLate(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		begun, letGo := w.stuck(t)
		a := w.account(t, "main")
		w.hold = 5 * time.Millisecond
		running, waiting := a.order("a.example"), a.order("b.example")
		a.respond(running, protocol.HTTP01)
		a.crashed(waiting)
		<-begun
		w.Add(25 * time.Hour)
		letGo()
		until(t, "it ends", func() bool { n, _ := w.Running(); return n == 0 })
		if z := a.authorization(running); z.Status != protocol.AuthorizationInvalid {
			t.Errorf("the authorization is %s", z.Status)
		}
		if err := w.claimValidations(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if z := a.authorization(waiting); z.Status != protocol.AuthorizationExpired || z.Attempt.Processing || w.looks.count("b.example") != 0 {
			t.Errorf("%+v", z)
		}
	})
}

// The retries of an account that has ended stop.
func TestEndedAccount(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		o := a.order("a.example")
		a.crashed(o)
		if err := w.endAccount(t.Context(), a.Requester.Account.ID); err != nil {
			t.Fatal(err)
		}
		w.Add(validationLease + time.Second)
		if err := w.claimValidations(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if z := a.authorization(o); z.Attempt.Processing || w.looks.count("a.example") != 0 {
			t.Errorf("%+v after %d looks", z, w.looks.count("a.example"))
		}
	})
}

// The client must ask again when its result could not be recorded.
func TestRecordFails(t *testing.T) {
	w := newWorld(t, "sqlite")
	a := w.account(t, "main")
	o := a.order("a.example")
	w.looks.to(func(_ context.Context, v protocol.Validation) (seen, error) {
		w.Add(-time.Hour) // the clock goes wrong: nothing may be recorded
		return seen{Type: v.Type}, nil
	})
	_, err := a.Respond(t.Context(), a.Requester, o.Authorizations[0], protocol.HTTP01, nil)
	if !errors.Is(err, store.ErrClockBehind) {
		t.Errorf("%v", err)
	}
	w.Add(time.Hour)
	w.looks.to(nil)
	if z := a.respond(o, protocol.HTTP01); z.Status != protocol.AuthorizationValid {
		t.Errorf("asked again: %+v", z)
	}
}
