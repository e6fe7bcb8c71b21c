package ca

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// DESIGN section 6: where the address is the proof, newOrder, challenge and
// finalize come from one pod.
func TestPodByAddress(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.platform(t)
		a := w.account(t, "homes").from(web1)
		o := a.podReady("", "a.example", "b.example")
		if z := a.authorization(o); z.BoundTo != "web-1" || z.Subject != "web-1" {
			t.Errorf("bound to %q, proven by %q", z.BoundTo, z.Subject)
		}
		a.fetch(a.finalize(o))
		if p.located != 2 {
			t.Errorf("%d looks at the address, want one for newOrder and one for finalize", p.located)
		}
		if _, text := w.audited(t, "order.create"); !strings.Contains(text, `"bound_to":"web-1"`) {
			t.Errorf("the audit log: %s", text)
		}
	})
}

// Each step from somewhere else is refused.
func TestAddressChanges(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.platform(t)
		a := w.account(t, "homes")

		// The order comes from outside: what a pod can be made to send later
		// proves nothing.
		o := a.from(elsewhere).order("a.example")
		if z, err := a.from(web1).pod(o, 0, ""); err != nil || z.Status != protocol.AuthorizationInvalid || z.Attempt.Error.Type != protocol.Unauthorized {
			t.Errorf("ordered from outside: %+v, %v", z, err)
		}
		// The challenge comes from another pod, by its address or its token.
		for _, token := range []string{"", "token-2"} {
			o = a.from(web1).order("a.example")
			z, err := a.from(web2).pod(o, 0, token)
			if err != nil || z.Status != protocol.AuthorizationInvalid || !strings.Contains(z.Attempt.Error.Detail, "another pod") {
				t.Errorf("token %q of another pod: %+v, %v", token, z, err)
			}
		}
		// finalize comes from another pod, or from outside: the order ends.
		for who, says := range map[*account]string{a.from(web2): "another pod", a.from(elsewhere): "no pod is at"} {
			o = a.from(web1).podReady("", "a.example")
			_, err := who.tryFinalize(o)
			wants(t, err, protocol.Unauthorized, says)
			_, err = a.from(web1).tryFinalize(o)
			wants(t, err, protocol.OrderNotReady, "")
		}
		if n := len(w.key.signatures()); n != 0 {
			t.Errorf("%d signatures", n)
		}
		if all, _ := w.audited(t, "order.finalize"); len(all) != 2 || all[0].Entry.Denied == "" || all[0].Entry.Peer == "" {
			t.Errorf("the audit log: %+v", all)
		}
		if all, _ := w.audited(t, "authorization.invalid"); len(all) != 3 || all[0].Entry.Peer != web1.Addr().String() {
			t.Errorf("the audit log: %+v", all)
		}
	})
}

// A token is a proof from wherever it comes, as long as the order isn't bound to
// another pod.
func TestTokenFromElsewhere(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.platform(t)
		a := w.account(t, "homes").from(elsewhere)
		a.fetch(a.finalize(a.podReady("token-1", "a.example")))
	})
}

// A bound order may be proven by another type that has nothing to do with
// addresses, and goes on from anywhere.
func TestBoundOrderProvenOtherwise(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.platform(t)
		a := w.account(t, "both")
		o := a.from(web1).order("a.example")
		if z := a.authorization(o); z.BoundTo != "web-1" {
			t.Fatalf("bound to %q", z.BoundTo)
		}
		o = a.from(elsewhere).prove(o, protocol.HTTP01)
		a.fetch(a.from(elsewhere).finalize(o))
	})
}

// While the platform is away it isn't known who orders or finalizes: the client
// comes back, and nothing is lost.
func TestWhoisAway(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.platform(t)
		a := w.account(t, "homes").from(web1)
		away := func(err error) {
			t.Helper()
			if p := wants(t, err, protocol.ServerInternal, ""); p.HTTPStatus() != 503 || p.RetryAfter == 0 {
				t.Errorf("status %d, Retry-After %v", p.HTTPStatus(), p.RetryAfter)
			}
		}
		p.set(func(p *platform) { p.down = true })
		_, err := a.NewOrder(t.Context(), a.Requester, OrderRequest{Identifiers: ids("a.example")})
		away(err)
		if n := w.rows(t)["orders"]; n != 0 {
			t.Errorf("%d orders", n)
		}
		p.set(func(p *platform) { p.down = false })
		o := a.podReady("", "a.example")
		p.set(func(p *platform) { p.down = true })
		_, err = a.tryFinalize(o)
		away(err)
		if o = a.look(o); o.Status != protocol.OrderReady {
			t.Errorf("the order is %s", o.Status)
		}
		p.set(func(p *platform) { p.down, p.before = false, func(context.Context) { panic("secret") } })
		_, err = a.tryFinalize(o)
		away(err)
		p.set(func(p *platform) { p.before = nil })
		a.fetch(a.finalize(o))
	})
}

// The platform is asked no oftener than orders are allowed.
func TestWhoisIsCounted(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.platform(t)
		w.options.Directories["homes"].Limits.OrdersPerAccount = store.Limit{Count: 2, Per: time.Hour}
		w.Reload(w.options.Directories, w.options.Issuers, nil)
		a := w.account(t, "homes").from(elsewhere)
		for n := range 5 {
			_, err := a.NewOrder(t.Context(), a.Requester, OrderRequest{Identifiers: ids("a.example")})
			if n < 2 && err != nil {
				t.Fatal(err)
			} else if n >= 2 {
				wants(t, err, protocol.RateLimited, "orders")
			}
		}
		if p.located != 2 {
			t.Errorf("asked %d times", p.located)
		}
	})
}

// A reload makes tokens the only proof: what was proven by an address counts no
// more.
func TestAddressTakenAway(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.platform(t)
		a := w.account(t, "homes").from(web1)
		o := a.podReady("", "a.example")
		without := *w.options.Directories["homes"]
		without.Validators = w.options.Directories["pods"].Validators
		w.options.Directories["homes"] = &without
		w.Reload(w.options.Directories, w.options.Issuers, nil)
		_, err := a.tryFinalize(o)
		wants(t, err, protocol.Unauthorized, "no proof here any more")
	})
}
