package ca

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// RFC 8555 section 7.4: what is refused is refused whole, and nothing of it
// is recorded.
func TestOrderRefusals(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		before := w.rows(t)
		now := w.Now()
		for _, c := range []struct {
			name string
			r    OrderRequest
			typ  protocol.ProblemType
			says string
		}{
			{"no names", OrderRequest{}, protocol.Malformed, "no identifiers"},
			{"a name twice", OrderRequest{Identifiers: ids("a.example", "b.example", "a.example")}, protocol.Malformed, "twice"},
			{"not ours", OrderRequest{Identifiers: ids("a.example", "www.example.org")}, protocol.RejectedIdentifier, ""},
			{"denied", OrderRequest{Identifiers: ids("denied.example")}, protocol.RejectedIdentifier, ""},
			{"no such profile", OrderRequest{Identifiers: ids("a.example"), Profile: "nope"}, protocol.InvalidProfile, "meta.profiles"},
			{"unprovable", OrderRequest{Identifiers: ids("10.0.0.1"), Profile: "dns"}, protocol.RejectedIdentifier, "proven"},
			{"too long", OrderRequest{Identifiers: ids("a.example"), NotAfter: now.Add(8 * day)}, protocol.Malformed, "too late"},
			{"over already", OrderRequest{Identifiers: ids("a.example"), NotAfter: now.Add(-time.Second)}, protocol.Malformed, "ended"},
			{"end before start", OrderRequest{Identifiers: ids("a.example"), NotBefore: now.Add(2 * time.Hour), NotAfter: now.Add(time.Hour)}, protocol.Malformed, "later"},
			{"replaces nonsense", OrderRequest{Identifiers: ids("a.example"), Replaces: "nonsense"}, protocol.Malformed, "RFC 9773"},
		} {
			_, err := a.NewOrder(t.Context(), a.Requester, c.r)
			if wants(t, err, c.typ, c.says); t.Failed() {
				t.Fatal(c.name)
			}
		}
		after := w.rows(t)
		if after["orders"] != 0 || after["authorizations"] != 0 || after["audit"] != before["audit"] {
			t.Errorf("something was recorded: %v", after)
		}
	})
}

// RFC 8555 sections 7.1.3, 7.1.4: one authorization per identifier, in order;
// a wildcard's names the domain.
func TestOrder(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		o := a.order("*.a.example", "a.example", "10.1.2.3")
		if o.Status != protocol.OrderPending || o.Profile != "server" || len(o.Authorizations) != 3 || o.ExpiresAt.Sub(o.CreatedAt) != day {
			t.Fatalf("%+v", o)
		}
		tokens := map[string]bool{}
		for i, want := range []struct {
			id       string
			wildcard bool
			offered  string
		}{
			{"dns:a.example", true, "[dns-01 dns-persist-01]"},
			{"dns:a.example", false, "[http-01 dns-01 dns-persist-01]"},
			{"ip:10.1.2.3", false, "[http-01]"},
		} {
			z, err := a.Authorization(t.Context(), a.Requester, o.Authorizations[i])
			if err != nil || z.Identifier.String() != want.id || z.Wildcard != want.wildcard || fmt.Sprint(z.Offered) != want.offered {
				t.Errorf("%d: %+v, %v", i, z, err)
			}
			if tokens[z.Token] = true; len(z.Token) != 43 {
				t.Errorf("token %q: want 256 bits in base64url", z.Token)
			}
		}
		if len(tokens) != 3 {
			t.Error("authorizations share a token")
		}
	})
}

// A stranger can't tell what is another's from what isn't there.
func TestStrangers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a, b := w.account(t, "main"), w.account(t, "main")
		o := a.finalize(a.ready("a.example"))
		ctx, now := t.Context(), w.Now()
		same := func(what string, ask func(order protocol.OrderID, z protocol.AuthorizationID, serial cert.Serial) error) {
			t.Helper()
			theirs := wants(t, ask(o.ID, o.Authorizations[0], cert.Serial(o.Certificate)), protocol.Malformed, "no such")
			missing := wants(t, ask(protocol.NewID[protocol.OrderID](now), protocol.NewID[protocol.AuthorizationID](now), cert.NewSerial()), protocol.Malformed, "no such")
			if theirs.Error() != missing.Error() || theirs.HTTPStatus() != 404 || missing.HTTPStatus() != 404 {
				t.Errorf("%s: %d %q against %d %q", what, theirs.HTTPStatus(), theirs, missing.HTTPStatus(), missing)
			}
		}
		same("order", func(id protocol.OrderID, _ protocol.AuthorizationID, _ cert.Serial) error {
			_, err := b.Order(ctx, b.Requester, id)
			return err
		})
		same("finalize", func(id protocol.OrderID, _ protocol.AuthorizationID, _ cert.Serial) error {
			_, err := b.Finalize(ctx, b.Requester, id, FinalizeRequest{})
			return err
		})
		same("authorization", func(_ protocol.OrderID, id protocol.AuthorizationID, _ cert.Serial) error {
			_, err := b.Authorization(ctx, b.Requester, id)
			return err
		})
		same("deactivation", func(_ protocol.OrderID, id protocol.AuthorizationID, _ cert.Serial) error {
			_, err := b.DeactivateAuthorization(ctx, b.Requester, id)
			return err
		})
		same("challenge", func(_ protocol.OrderID, id protocol.AuthorizationID, _ cert.Serial) error {
			_, err := b.Respond(ctx, b.Requester, id, protocol.DNS01, nil)
			return err
		})
		same("certificate", func(_ protocol.OrderID, _ protocol.AuthorizationID, serial cert.Serial) error {
			_, err := b.Certificate(ctx, b.Requester, serial, 0)
			return err
		})
		if ids, _, err := b.Orders(ctx, b.Requester, "", 10); err != nil || len(ids) != 0 {
			t.Errorf("orders of another: %v, %v", ids, err)
		}
	})
}

// An authorization proven by a classic challenge serves the account's next
// orders, while enough of its life is left.
func TestReuse(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		first := a.prove(a.order("a.example"), protocol.HTTP01)
		again := a.order("a.example", "b.example")
		if again.Authorizations[0] != first.Authorizations[0] || again.Status != protocol.OrderPending {
			t.Errorf("%+v", again)
		}
		if o := a.order("a.example"); o.Status != protocol.OrderReady {
			t.Errorf("an order whose names are proven is %s", o.Status)
		}
		fresh := func(what string, o OrderView) {
			t.Helper()
			if o.Authorizations[0] == first.Authorizations[0] || o.Status != protocol.OrderPending {
				t.Errorf("%s: used again", what)
			}
		}
		fresh("a wildcard", a.order("*.a.example"))
		fresh("a profile that http-01 doesn't prove for", a.orderAs(OrderRequest{Identifiers: ids("a.example"), Profile: "dns"}))
		fresh("another account", w.account(t, "main").order("a.example"))
		w.Add(56 * time.Minute)
		fresh("four minutes left", a.order("a.example"))
		first = a.prove(a.order("a.example"), protocol.HTTP01)
		if _, err := a.DeactivateAuthorization(t.Context(), a.Requester, first.Authorizations[0]); err != nil {
			t.Fatal(err)
		}
		fresh("given up", a.order("a.example"))
	})
}

// Names that an EAB key pre-approves need no challenge; such a proof, as any
// private one, serves one order only.
func TestPreApproved(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		eab := w.eab(t, protocol.EABKey{Directory: "eab", PreApproved: true, Names: []string{"app.example"}})
		k := newKey(t)
		a := w.register(t, k, Registration{Directory: "eab", EAB: bind(t, k, string(eab.ID), eab.MACKey)})
		o := a.orderAs(OrderRequest{Identifiers: ids("app.example"), Profile: "client"})
		if o.Status != protocol.OrderReady {
			t.Fatalf("%+v", o)
		}
		if c, _ := a.fetch(a.finalize(o)); c.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
			t.Error(c.ExtKeyUsage)
		}
		second := a.orderAs(OrderRequest{Identifiers: ids("app.example"), Profile: "client"})
		if second.Status != protocol.OrderReady || second.Authorizations[0] == o.Authorizations[0] {
			t.Errorf("%+v", second)
		}
		_, err := a.NewOrder(t.Context(), a.Requester, OrderRequest{Identifiers: ids("b.example")})
		wants(t, err, protocol.RejectedIdentifier, "EAB key")

		// A private proof in the database isn't used again either.
		now := w.Now()
		z := protocol.Authorization{
			ID: protocol.NewID[protocol.AuthorizationID](now), Account: a.Requester.Account.ID, Directory: "eab", Identifier: ids("app.example")[0],
			Status: protocol.AuthorizationValid, ExpiresAt: now.Add(time.Hour), Attempt: protocol.Attempt{Type: "yubikey-01", ValidatedAt: now},
		}
		if err := w.db.Update(t.Context(), func(tx *store.Tx) error { return tx.InsertAuthorization(z) }); err != nil {
			t.Fatal(err)
		}
		if o := a.order("app.example"); o.Authorizations[0] == z.ID {
			t.Error("a private proof was used again")
		}
	})
}

// RFC 8555 section 7.4.1.
func TestPreAuthorize(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		_, err := a.PreAuthorize(t.Context(), a.Requester, ids("*.a.example")[0])
		wants(t, err, protocol.Malformed, "wildcard")
		_, err = a.PreAuthorize(t.Context(), a.Requester, ids("example.org")[0])
		wants(t, err, protocol.RejectedIdentifier, "")
		z, err := a.PreAuthorize(t.Context(), a.Requester, ids("a.example")[0])
		if err != nil || z.Status != protocol.AuthorizationPending {
			t.Fatal(z, err)
		}
		if _, err := a.Respond(t.Context(), a.Requester, z.ID, protocol.DNS01, nil); err != nil {
			t.Fatal(err)
		}
		if o := a.order("a.example"); o.Status != protocol.OrderReady || o.Authorizations[0] != z.ID {
			t.Errorf("%+v", o)
		}
		if again, err := a.PreAuthorize(t.Context(), a.Requester, ids("a.example")[0]); err != nil || again.ID != z.ID || again.Status != protocol.AuthorizationValid {
			t.Error(again, err)
		}
	})
}

// draft-ietf-acme-profiles and DESIGN section 5: the profile by the order, by
// the CSR's usage where the directory lets it, or the default.
func TestProfiles(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		o := a.prove(a.orderAs(OrderRequest{Identifiers: ids("a.example"), Profile: "month"}), protocol.DNS01)
		if c, _ := a.fetch(a.finalize(o)); c.NotAfter.Sub(c.NotBefore) != 30*day-time.Second {
			t.Errorf("%v long", c.NotAfter.Sub(c.NotBefore))
		}
		o = a.prove(a.orderAs(OrderRequest{Identifiers: ids("b.example"), Profile: "dns"}), protocol.DNS01)
		if o.Status != protocol.OrderReady {
			t.Errorf("%+v", o)
		}

		clientAuth := func() []byte {
			return csrOf(t, newKey(t), &x509.CertificateRequest{ExtraExtensions: usageExtension(t, "2b06010505070302")}, "a.example")
		}
		// Without eku_from_csr the extension says nothing.
		o, err := a.Finalize(t.Context(), a.Requester, a.order("a.example").ID, FinalizeRequest{CSR: clientAuth()})
		if err != nil {
			t.Fatal(err)
		}
		if c, _ := a.fetch(o); len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
			t.Error(c.ExtKeyUsage)
		}
		// With it clientAuth means the client profile, for which a classic
		// challenge proves nothing.
		m := w.account(t, "mixed")
		o = m.ready("a.example")
		if o.Profile != "" {
			t.Errorf("profile %q before the CSR", o.Profile)
		}
		_, err = m.Finalize(t.Context(), m.Requester, o.ID, FinalizeRequest{CSR: clientAuth()})
		wants(t, err, protocol.Unauthorized, "doesn't count")
		if o = m.finalize(o); o.Status != protocol.OrderValid || o.Profile != "server" {
			t.Errorf("%+v", o)
		}
	})
}

// RFC 9773 section 5.
func TestReplaces(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		c, serial := a.issue("a.example", "b.example")
		id := certID(c)
		replace := func(who *account, names ...string) error {
			_, err := who.NewOrder(t.Context(), who.Requester, OrderRequest{Identifiers: ids(names...), Replaces: id})
			return err
		}
		wants(t, replace(w.account(t, "main"), "a.example"), protocol.Malformed, "no such certificate")
		wants(t, replace(w.account(t, "other"), "a.example"), protocol.Malformed, "no such certificate")
		wants(t, replace(a, "c.example"), protocol.Malformed, "shares no identifier")

		o := a.orderAs(OrderRequest{Identifiers: ids("b.example"), Replaces: id})
		if err := replace(a, "a.example"); err != nil {
			t.Errorf("an order that came to nothing yet stands in nobody's way: %v", err)
		}
		o = a.finalize(o)
		row, err := w.db.Certificate(t.Context(), serial)
		if err != nil || row.ReplacedBy != o.ID {
			t.Errorf("replaced by %q, %v", row.ReplacedBy, err)
		}
		if p := wants(t, replace(a, "a.example"), protocol.AlreadyReplaced, "without"); p.HTTPStatus() != 409 {
			t.Errorf("status %d", p.HTTPStatus())
		}
	})
}

func TestOrderLimits(t *testing.T) {
	for name, limit := range map[string]struct {
		set  func(*Limits, store.Limit)
		says string
		same func(*world, *testing.T, *account) *account // who is limited as well
	}{
		"per account": {func(l *Limits, n store.Limit) { l.OrdersPerAccount = n }, "orders by this account",
			func(_ *world, _ *testing.T, a *account) *account { return a }},
		"per address": {func(l *Limits, n store.Limit) { l.OrdersPerClient = n }, "orders by this EAB key or from this address",
			func(w *world, t *testing.T, _ *account) *account { return w.account(t, "main") }},
		"per name": {func(l *Limits, n store.Limit) { l.CertificatesPerName = n }, "certificates for a.example",
			func(w *world, t *testing.T, _ *account) *account { return w.account(t, "main") }},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, w *world) {
				w.limit(func(l *Limits) { limit.set(l, store.Limit{Count: 2, Per: time.Hour}) })
				a := w.account(t, "main")
				a.order("a.example", "www.a.example") // one certificate for one name
				a.order("a.example")
				b := limit.same(w, t, a)
				_, err := b.NewOrder(t.Context(), b.Requester, OrderRequest{Identifiers: ids("x.a.example")})
				if p := wants(t, err, protocol.RateLimited, limit.says); p.RetryAfter <= 25*time.Minute || p.HTTPStatus() != 429 {
					t.Errorf("retry after %v", p.RetryAfter)
				}
				if n := w.rows(t)["orders"]; n != 2 {
					t.Errorf("%d orders", n)
				}
				w.Add(31 * time.Minute)
				b.order("x.a.example")
			})
		})
	}
}

// An account whose validations keep failing gets no new orders, and no
// authorizations ahead of them.
func TestFailureLimit(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.limit(func(l *Limits) { l.FailuresPerAccount = store.Limit{Count: 2, Per: time.Hour} })
		w.looks.to(func(_ context.Context, v protocol.Validation) (protocol.Evidence, error) {
			return protocol.Evidence{}, &protocol.ValidationError{Problem: protocol.NewProblem(protocol.IncorrectResponse, "wrong")}
		})
		a := w.account(t, "main")
		a.prove(a.order("a.example"), protocol.HTTP01)
		z, err := a.PreAuthorize(t.Context(), a.Requester, ids("b.example")[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Respond(t.Context(), a.Requester, z.ID, protocol.DNS01, nil); err != nil {
			t.Fatal(err)
		}
		_, err = a.NewOrder(t.Context(), a.Requester, OrderRequest{Identifiers: ids("a.example")})
		if p := wants(t, err, protocol.RateLimited, "find out why"); p.RetryAfter <= 0 {
			t.Error("no Retry-After")
		}
		_, err = a.PreAuthorize(t.Context(), a.Requester, ids("c.example")[0])
		wants(t, err, protocol.RateLimited, "find out why")
		w.account(t, "main").order("a.example")
	})
}

// RFC 8555 section 7.1.2.1.
func TestOrdersList(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		var want, got []protocol.OrderID
		for i := range 5 {
			want = append(want, a.order(fmt.Sprintf("n%d.example", i)).ID)
			time.Sleep(time.Millisecond) // IDs of one millisecond are in no order
		}
		pages := 0
		for after := protocol.OrderID(""); ; {
			page, next, err := a.Orders(t.Context(), a.Requester, after, 2)
			if err != nil || len(page) > 2 {
				t.Fatal(page, err)
			}
			got = append(got, page...)
			if pages++; next == "" {
				break
			}
			after = next
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || pages != 3 {
			t.Errorf("%d pages: %v, want %v", pages, got, want)
		}
		if _, next, _ := a.Orders(t.Context(), a.Requester, "", 5); next != "" {
			t.Error("a full page that is the last names a next one")
		}
	})
}

// An order past its end, or one that lost an authorization, says why.
func TestInvalidOrders(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		lost, late := a.ready("a.example"), a.order("b.example")
		if _, err := a.DeactivateAuthorization(t.Context(), a.Requester, lost.Authorizations[0]); err != nil {
			t.Fatal(err)
		}
		if o := a.look(lost); o.Status != protocol.OrderInvalid || o.Error.Type != protocol.Unauthorized || !strings.Contains(o.Error.Detail, "deactivated") {
			t.Errorf("%s: %v", o.Status, o.Error)
		}
		w.Add(25 * time.Hour)
		if o := a.look(late); o.Status != protocol.OrderInvalid || o.Error == nil {
			t.Errorf("%s: %v", o.Status, o.Error)
		}
		_, err := a.Finalize(t.Context(), a.Requester, late.ID, FinalizeRequest{})
		wants(t, err, protocol.OrderNotReady, "invalid")
		if z, err := a.Authorization(t.Context(), a.Requester, late.Authorizations[0]); err != nil || z.Status != protocol.AuthorizationExpired {
			t.Error(z.Status, err)
		}
	})
}

// What the configuration doesn't offer any more ends in an error, not in a
// certificate by other rules.
func TestReload(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		month := a.prove(a.orderAs(OrderRequest{Identifiers: ids("a.example"), Profile: "month"}), protocol.DNS01)
		pending := a.order("b.example")
		next := w.directories(t)
		next["main"].Policy.Profiles = next["main"].Policy.Profiles[:1]
		delete(next["main"].Validators, protocol.DNS01)
		delete(next, "other")
		w.Reload(next, map[string]Issuer{"local": w.key}, nil)
		_, err := a.Finalize(t.Context(), a.Requester, month.ID, FinalizeRequest{CSR: csr(t, newKey(t), "a.example")})
		wants(t, err, protocol.InvalidProfile, "")
		if o := a.prove(pending, protocol.DNS01); o.Status != protocol.OrderInvalid || !strings.Contains(o.Error.Detail, "any more") {
			t.Errorf("%s: %v", o.Status, o.Error)
		}
		if _, ok := w.Directory("other"); ok || len(w.DirectoryNames()) != len(next) {
			t.Error("a directory that was taken out is still there")
		}
		w.Reload(next, map[string]Issuer{"elsewhere": issuerOnly{w.key.Local}}, nil)
		o := a.order("b.example")
		w.looks.to(nil)
		if _, err = a.Finalize(t.Context(), a.Requester, a.prove(o, protocol.HTTP01).ID, FinalizeRequest{CSR: csr(t, newKey(t), "b.example")}); err == nil {
			t.Error("issued without an issuer")
		}
	})
}

type issuerOnly struct{ *issuer.Local }
