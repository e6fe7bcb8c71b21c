package ca

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

type seen = protocol.Evidence

// wrong is a validator's final no, notYet one that makes sense to repeat.
func wrong(context.Context, protocol.Validation) (seen, error) {
	return seen{}, &protocol.ValidationError{Problem: protocol.NewProblem(protocol.IncorrectResponse, "not what it should be")}
}

func notYet(context.Context, protocol.Validation) (seen, error) {
	return seen{}, &protocol.ValidationError{Problem: protocol.NewProblem(protocol.ConnectionFailed, "refused"), Retryable: true}
}

// stuck makes every validation wait until it is let go. It tells of each.
func (w *world) stuck(t testing.TB) (begun chan string, letGo func()) {
	begun, gate := make(chan string, 256), make(chan bool)
	letGo = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(letGo)
	w.looks.to(func(_ context.Context, v protocol.Validation) (seen, error) {
		begun <- v.Identifier.Value
		<-gate
		return seen{Type: v.Type}, nil
	})
	return begun, letGo
}

func (a *account) respond(o OrderView, typ protocol.ChallengeType) protocol.Authorization {
	a.t.Helper()
	z, err := a.Respond(a.t.Context(), a.Requester, o.Authorizations[0], typ, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return z
}

func (a *account) authorization(o OrderView) protocol.Authorization {
	a.t.Helper()
	z, err := a.Authorization(a.t.Context(), a.Requester, o.Authorizations[0])
	if err != nil {
		a.t.Fatal(err)
	}
	return z
}

// RFC 8555 section 7.5.1: the POST that asked is answered with the end, where
// that takes no time; the validator is told all that it needs.
func TestHeldPost(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		var got protocol.Validation
		w.looks.to(func(_ context.Context, v protocol.Validation) (seen, error) {
			got = v
			return seen{Type: v.Type}, nil
		})
		o := a.order("*.a.example")
		z, err := a.Respond(t.Context(), a.Requester, o.Authorizations[0], protocol.DNS01, []byte("{}"))
		if err != nil || z.Status != protocol.AuthorizationValid || protocol.ChallengeState(z, protocol.DNS01) != protocol.ChallengeValid {
			t.Fatalf("%+v, %v", z, err)
		}
		if left := z.ExpiresAt.Sub(w.Now()); left > time.Hour || left < 59*time.Minute {
			t.Errorf("good for %v, want an hour", left)
		}
		if got.Token != z.Token || got.Thumbprint != a.jwk.Thumbprint || got.Identifier != ids("a.example")[0] || !got.Wildcard ||
			got.AccountURL != "https://ca.test/account/"+string(a.Requester.Account.ID) || string(got.Response) != "{}" || got.Peer != peer {
			t.Errorf("the validator was told %+v", got)
		}
		if o = a.look(o); o.Status != protocol.OrderReady {
			t.Errorf("the order is %s", o.Status)
		}
		// Asked again, it stays as it is and nobody looks.
		if z = a.respond(o, protocol.DNS01); z.Status != protocol.AuthorizationValid || w.looks.count("a.example") != 1 {
			t.Errorf("%s after %d looks", z.Status, w.looks.count("a.example"))
		}
	})
}

// A failed challenge makes its authorization and its order invalid at once
// (RFC 8555 section 7.1.6).
func TestFailure(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		w.looks.to(wrong)
		o := a.order("a.example", "b.example")
		z := a.respond(o, protocol.HTTP01)
		if z.Status != protocol.AuthorizationInvalid || z.Attempt.Error.Type != protocol.IncorrectResponse || z.Attempt.Response != nil ||
			protocol.ChallengeState(z, protocol.HTTP01) != protocol.ChallengeInvalid || protocol.ChallengeState(z, protocol.DNS01) != protocol.ChallengePending {
			t.Errorf("%+v", z)
		}
		if o = a.look(o); o.Status != protocol.OrderInvalid || o.Error.Type != protocol.IncorrectResponse || o.Error.Identifier.Value != "a.example" {
			t.Errorf("%s: %+v", o.Status, o.Error)
		}
		_, err := a.Respond(t.Context(), a.Requester, o.Authorizations[0], protocol.DNS01, nil)
		wants(t, err, protocol.Malformed, "make a new order")
		_, err = a.Respond(t.Context(), a.Requester, o.Authorizations[1], protocol.TLSALPN01, nil)
		wants(t, err, protocol.Malformed, "no such challenge")
		_, err = a.Respond(t.Context(), a.Requester, o.Authorizations[1], protocol.DNS01, make([]byte, maxResponse+1))
		wants(t, err, protocol.Malformed, "longer than")
		_, err = a.DeactivateAuthorization(t.Context(), a.Requester, o.Authorizations[0])
		wants(t, err, protocol.Malformed, "invalid")
	})
}

// RFC 8555 section 8.2: a slow validation is processing, which is on disk
// before anybody is told, and the background brings it to its end.
func TestSlowValidation(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		begun, letGo := w.stuck(t)
		w.hold = 10 * time.Millisecond
		o := a.order("a.example")
		z := a.respond(o, protocol.HTTP01)
		<-begun
		if !z.Attempt.Processing || z.Attempt.Type != protocol.HTTP01 || protocol.ChallengeState(z, protocol.HTTP01) != protocol.ChallengeProcessing {
			t.Errorf("%+v", z)
		}
		_, err := a.Respond(t.Context(), a.Requester, o.Authorizations[0], protocol.DNS01, nil)
		wants(t, err, protocol.Malformed, "by http-01 already")
		a.respond(o, protocol.HTTP01)
		// Nobody takes it over while it is worked on.
		other := w.replica()
		if err := other.claimValidations(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		letGo()
		until(t, "the order is ready", func() bool { return a.look(o).Status == protocol.OrderReady })
		if n := w.looks.count("a.example"); n != 1 {
			t.Errorf("%d looks", n)
		}
	})
}

// Another challenge than the one under way is refused from the first moment.
func TestOneChallenge(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		begun, letGo := w.stuck(t)
		o := a.order("a.example")
		var first protocol.Authorization
		var wait sync.WaitGroup
		wait.Go(func() { first = a.respond(o, protocol.HTTP01) })
		<-begun
		_, err := a.Respond(t.Context(), a.Requester, o.Authorizations[0], protocol.DNS01, nil)
		letGo()
		wait.Wait()
		wants(t, err, protocol.Malformed, "by http-01 already")
		if first.Status != protocol.AuthorizationValid || first.Attempt.Type != protocol.HTTP01 {
			t.Errorf("%+v", first)
		}
	})
}

// RFC 8555 section 8.2: retries, then the end with the last problem.
func TestRetries(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		w.looks.to(notYet)
		o := a.order("a.example")
		z := a.respond(o, protocol.HTTP01)
		if !z.Attempt.Processing || z.Attempt.Tries != 1 || z.Attempt.Error == nil || z.Status != protocol.AuthorizationPending {
			t.Fatalf("after the first try: %+v", z)
		}
		// The POST whose patience ended at that very moment changes nothing.
		late := z
		late.Attempt = protocol.Attempt{Type: protocol.HTTP01}
		if err := w.recordProcessing(t.Context(), a.Requester, late, false); err != nil || a.authorization(o).Attempt.Tries != 1 {
			t.Fatalf("%v: %+v", err, a.authorization(o).Attempt)
		}
		round := func(want int) {
			t.Helper()
			if err := w.claimValidations(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			until(t, "the try ends", func() bool { n, _ := w.Running(); return n == 0 })
			if n := w.looks.count("a.example"); n != want {
				t.Fatalf("%d looks, want %d", n, want)
			}
		}
		round(2) // the second is due at once, the third in a minute
		round(2)
		w.Add(61 * time.Second)
		round(3)
		if z = a.authorization(o); z.Status != protocol.AuthorizationInvalid || z.Attempt.Processing || z.Attempt.Error.Type != protocol.ConnectionFailed {
			t.Errorf("%+v", z)
		}
		if o = a.look(o); o.Status != protocol.OrderInvalid {
			t.Errorf("the order is %s", o.Status)
		}
		w.Add(time.Hour)
		round(3)
	})
}

// A retry that succeeds.
func TestRetrySucceeds(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		w.looks.to(notYet)
		o := a.order("a.example")
		a.respond(o, protocol.HTTP01)
		w.looks.to(nil)
		ctx, stop := context.WithCancel(t.Context())
		stopped := make(chan bool)
		go func() { w.Run(ctx, time.Second); close(stopped) }()
		until(t, "the order is ready", func() bool { return a.look(o).Status == protocol.OrderReady })
		stop()
		<-stopped
		if z := a.authorization(o); z.Attempt.Tries != 2 || z.Attempt.Error != nil {
			t.Errorf("%+v", z)
		}
	})
}

// However often and at once a challenge is asked for, one look is taken.
func TestRespondAtOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		for i := range 20 {
			name := fmt.Sprintf("n%d.example", i)
			o := a.order(name)
			parallel(20, func(int) {
				if z, err := a.Respond(t.Context(), a.Requester, o.Authorizations[0], protocol.HTTP01, nil); err != nil || z.Status != protocol.AuthorizationValid {
					t.Errorf("%s, %v", z.Status, err)
				}
			})
			if n := w.looks.count(name); n != 1 {
				t.Fatalf("%d looks", n)
			}
		}
		if n := w.validations.held.Count(a.peer()); n != 0 {
			t.Errorf("%d POSTs are still counted", n)
		}
		if n := len(w.entries(t, store.AuditFilter{Action: "authorization.valid"})); n != 20 {
			t.Errorf("%d entries in the audit log", n)
		}
	})
}

// RFC 8555 section 7.5.2: giving an authorization up doesn't wait for its
// validation, and wins.
func TestDeactivateWhileValidating(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		begun, letGo := w.stuck(t)
		w.hold = 10 * time.Millisecond
		recorded, held := a.order("a.example"), a.order("b.example")
		a.respond(recorded, protocol.HTTP01)
		var wait sync.WaitGroup
		w.hold = 5 * time.Second
		wait.Go(func() {
			if z := a.respond(held, protocol.HTTP01); z.Status != protocol.AuthorizationDeactivated {
				t.Errorf("the held POST is told %s", z.Status)
			}
		})
		<-begun
		<-begun
		for _, o := range []OrderView{recorded, held} {
			if z, err := a.DeactivateAuthorization(t.Context(), a.Requester, o.Authorizations[0]); err != nil || z.Status != protocol.AuthorizationDeactivated {
				t.Errorf("%s, %v", z.Status, err)
			}
		}
		letGo()
		wait.Wait()
		until(t, "the validations end", func() bool { n, _ := w.Running(); return n == 0 })
		for _, o := range []OrderView{recorded, held} {
			if z := a.authorization(o); z.Status != protocol.AuthorizationDeactivated || z.Attempt.Processing {
				t.Errorf("%+v", z)
			}
			if o = a.look(o); o.Status != protocol.OrderInvalid {
				t.Errorf("the order is %s", o.Status)
			}
		}
		if z, err := a.DeactivateAuthorization(t.Context(), a.Requester, held.Authorizations[0]); err != nil || z.Status != protocol.AuthorizationDeactivated {
			t.Error("twice:", z.Status, err)
		}
	})
}

// draft-ietf-acme-dns-persist: what was seen may say how long it is good.
func TestValidUntil(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		for _, c := range []struct {
			name  string
			lasts time.Duration
			want  time.Duration // 0: invalid
		}{{"soon", 10 * time.Minute, 10 * time.Minute}, {"late", 48 * time.Hour, time.Hour}, {"over", -time.Second, 0}} {
			w.looks.to(func(_ context.Context, v protocol.Validation) (seen, error) {
				return seen{Type: v.Type, ValidUntil: w.Now().Add(c.lasts)}, nil
			})
			z := a.respond(a.order(c.name+".example"), protocol.DNSPersist01)
			left := z.ExpiresAt.Sub(w.Now())
			switch {
			case c.want == 0 && (z.Status != protocol.AuthorizationInvalid || z.Attempt.Error.Type != protocol.Unauthorized):
				t.Errorf("%s: %s, %v", c.name, z.Status, z.Attempt.Error)
			case c.want != 0 && (z.Status != protocol.AuthorizationValid || left > c.want || left < c.want-time.Minute):
				t.Errorf("%s: %s for %v, want %v", c.name, z.Status, left, c.want)
			}
		}
	})
}
