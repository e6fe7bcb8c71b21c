package ca

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/ca/job"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// audited returns the entries of an action, as text too.
func (w *world) audited(t testing.TB, action string) (all []store.Record, text string) {
	t.Helper()
	all = w.entries(t, store.AuditFilter{Action: action})
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return all, string(b)
}

// keeps reports whether a backup made now would hold the token, or the bytes of
// any payload with one.
func (w *world) keeps(t testing.TB, token string) bool {
	t.Helper()
	var b bytes.Buffer
	if err := w.db.Dump(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	payload := base64.StdEncoding.EncodeToString([]byte(`{"serviceAccountToken":"`)) // 24 bytes, so that it begins all of them
	return strings.Contains(b.String(), token) || strings.Contains(b.String(), payload)
}

// DESIGN section 6: a privately proven authorization serves one order and lives
// ten minutes; what it rests on is known, and audited; tokens are not kept.
func TestPodGetsCertificates(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.platform(t)
		a := w.account(t, "pods")
		o := a.podReady("token-1", "a.example", "10.1.0.1")
		z := a.authorization(o)
		if left := z.ExpiresAt.Sub(w.Now()); left > 10*time.Minute || left < 9*time.Minute || z.Subject != "web-1" || z.BoundTo != "" {
			t.Errorf("it is good for %v and rests on %q", left, z.Subject)
		}
		_, serial := a.fetch(a.finalize(o))
		if p.rechecked != 2 {
			t.Errorf("%d looks before the key was used, want one for each name", p.rechecked)
		}
		client := a.orderAs(OrderRequest{Identifiers: ids("a.example"), Profile: "client"})
		if client.Authorizations[0] == o.Authorizations[0] || client.Status != protocol.OrderPending {
			t.Errorf("a second order rests on the first one's proof: %+v", client)
		}
		if _, err := a.pod(client, 0, "token-1"); err != nil {
			t.Fatal(err)
		}
		a.fetch(a.finalize(a.look(client)))

		if _, text := w.audited(t, "authorization.valid"); strings.Count(text, `"subject":"web-1"`) != 3 {
			t.Errorf("the audit log: %s", text)
		}
		if all, text := w.audited(t, "certificate.issue"); len(all) != 2 || strings.Count(text, `"subject":"web-1"`) != 2 || all[0].Entry.Object != string(serial) {
			t.Errorf("the audit log: %s", text)
		}
		if w.keeps(t, "token-1") {
			t.Error("the database keeps the token")
		}
	})
}

// The ten minutes are for finalizing.
func TestPodIsTooLate(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.platform(t)
		a := w.account(t, "pods")
		o := a.podReady("token-1", "a.example")
		w.Add(10*time.Minute + time.Second)
		if o = a.look(o); o.Status != protocol.OrderInvalid {
			t.Errorf("the order is %s", o.Status)
		}
		_, err := a.tryFinalize(o)
		wants(t, err, protocol.OrderNotReady, "")
	})
}

// A private proof is never made ahead of an order.
func TestNoPreAuthorization(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.platform(t)
		_, err := w.account(t, "pods").PreAuthorize(t.Context(), w.account(t, "pods").Requester, ids("a.example")[0])
		wants(t, err, protocol.Unauthorized, "make the order")
		a := w.account(t, "both")
		z, err := a.PreAuthorize(t.Context(), a.Requester, ids("a.example")[0])
		if err != nil || len(z.Offered) != 1 || z.Offered[0] != protocol.HTTP01 {
			t.Fatalf("%+v, %v", z, err)
		}
		_, err = a.Respond(t.Context(), a.Requester, z.ID, protocol.Kubernetes01, []byte(`{"serviceAccountToken":"token-1"}`))
		wants(t, err, protocol.Malformed, "no such challenge")
	})
}

// Two pods that hold a name each get no certificate for both. The order ends, so
// that asking again records nothing more.
func TestTwoPodsInOneOrder(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.platform(t)
		a := w.account(t, "pods")
		o := a.order("a.example", "b.example")
		for n, token := range []string{"token-1", "token-2"} {
			if z, err := a.pod(o, n, token); err != nil || z.Status != protocol.AuthorizationValid {
				t.Fatalf("%+v, %v", z, err)
			}
		}
		_, err := a.tryFinalize(o)
		wants(t, err, protocol.Unauthorized, "another pod or device")
		for range 3 {
			_, err = a.tryFinalize(o)
			wants(t, err, protocol.OrderNotReady, "")
		}
		if o = a.look(o); o.Status != protocol.OrderInvalid || o.Error.Type != protocol.Unauthorized || len(w.key.signatures()) != 0 {
			t.Errorf("%s, %v, %d signatures", o.Status, o.Error, len(w.key.signatures()))
		}
		all, text := w.audited(t, "order.finalize")
		if len(all) != 1 || all[0].Entry.Denied == "" || !strings.Contains(text, "web-1") || !strings.Contains(text, "web-2") {
			t.Errorf("the audit log: %s", text)
		}
	})
}

// A classic proof and a pod's may stand in one order, where the profile takes
// both.
func TestPodBesideClassic(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.platform(t)
		a := w.account(t, "both")
		o := a.order("a.example", "b.example")
		if _, err := a.Respond(t.Context(), a.Requester, o.Authorizations[0], protocol.HTTP01, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := a.pod(o, 1, "token-2"); err != nil {
			t.Fatal(err)
		}
		a.fetch(a.finalize(a.look(o)))
		// The classic one serves again, the pod's doesn't.
		next := a.order("a.example", "b.example")
		if next.Authorizations[0] != o.Authorizations[0] || next.Authorizations[1] == o.Authorizations[1] {
			t.Errorf("%v, then %v", o.Authorizations, next.Authorizations)
		}
	})
}

// A refusal is final and audited; the token stands nowhere.
func TestRefusedToken(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.platform(t)
		a := w.account(t, "pods")
		for name, token := range map[string]string{"a.example": "stolen-elsewhere", "theirs.example": "token-1"} {
			o := a.order(name)
			z, err := a.pod(o, 0, token)
			if err != nil || z.Status != protocol.AuthorizationInvalid || z.Attempt.Error.Type != protocol.Unauthorized {
				t.Fatalf("%+v, %v", z, err)
			}
			if o = a.look(o); o.Status != protocol.OrderInvalid {
				t.Errorf("the order is %s", o.Status)
			}
		}
		all, text := w.audited(t, "authorization.invalid")
		if len(all) != 2 || all[0].Entry.Denied == "" || all[1].Entry.Denied == "" || !strings.Contains(text, `"subject":"web-1"`) {
			t.Errorf("the audit log: %s", text)
		}
		if w.keeps(t, "stolen") || w.keeps(t, "token-1") {
			t.Error("the database has a token")
		}
	})
}

// A pod's proof is its account's: another can't answer its challenge, and the
// pod's token in its own order counts as one more account of the pod.
func TestAnotherAccount(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.platform(t)
		mine, other := w.account(t, "pods"), w.account(t, "pods")
		o := mine.order("a.example")
		_, err := other.pod(o, 0, "token-1")
		wants(t, err, protocol.Malformed, "no such authorization")
		if z := mine.authorization(o); z.Attempt.Type != "" {
			t.Errorf("another account tried: %+v", z)
		}
		o = mine.podReady("token-1", "a.example")
		_, err = other.tryFinalize(o)
		wants(t, err, protocol.Malformed, "no such order")
		// A restarted container makes a new account and uses its pod's token.
		other.fetch(other.finalize(other.podReady("token-1", "a.example")))
	})
}

// Accounts per pod are bounded.
func TestAccountsPerPod(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.platform(t)
		w.options.Directories["pods"].Limits.AccountsPerSubject = store.Limit{Count: 2, Per: time.Hour}
		w.Reload(w.options.Directories, w.options.Issuers, nil)
		first, second, third := w.account(t, "pods"), w.account(t, "pods"), w.account(t, "pods")
		for range 3 { // each account counts once
			first.podReady("token-1", "a.example", "b.example")
			second.podReady("token-1", "a.example")
		}
		o := third.order("a.example")
		z, err := third.pod(o, 0, "token-1")
		if err != nil || z.Status != protocol.AuthorizationInvalid || z.Attempt.Error.Type != protocol.RateLimited || z.Attempt.Error.RetryAfter == 0 || !z.Attempt.ValidatedAt.IsZero() {
			t.Errorf("a third account: %+v, %v", z, err)
		}
		if z = third.authorization(o); z.Status != protocol.AuthorizationInvalid || z.Attempt.Error.Type != protocol.RateLimited {
			t.Errorf("as recorded: %+v", z)
		}
		if all, text := w.audited(t, "authorization.invalid"); len(all) != 1 || !strings.Contains(all[0].Entry.Denied, "rateLimited") || !strings.Contains(text, "web-1") {
			t.Errorf("the audit log: %s", text)
		}
		third.podReady("token-2", "a.example") // another pod
		w.Add(time.Hour)
		third.podReady("token-1", "a.example")
	})
}

// The pod is asked about again before the key is used: deleted meanwhile, it
// gets nothing.
func TestPodGoneBeforeSigning(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.platform(t)
		a := w.account(t, "pods")
		o := a.podReady("token-1", "a.example")
		p.set(func(p *platform) { p.gone["web-1"] = true })
		if o = a.finalize(o); o.Status != protocol.OrderInvalid || o.Error.Type != protocol.Unauthorized || !strings.Contains(o.Error.Detail, "gone") {
			t.Errorf("%s, %v", o.Status, o.Error)
		}
		if n := len(w.key.signatures()); n != 0 {
			t.Errorf("%d signatures", n)
		}
		if all, _ := w.audited(t, "certificate.issue"); len(all) != 1 || all[0].Entry.Denied == "" {
			t.Errorf("the audit log: %+v", all)
		}
	})
}

// It is asked about once more where the key took its time, which may be longer
// than the proof's ten minutes.
func TestPodInLongQueue(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.platform(t)
		a := w.account(t, "pods")
		stays, goes := a.podReady("token-1", "a.example"), a.podReady("token-2", "b.example")
		w.key.wait(func(context.Context) error {
			w.Add(20 * time.Minute)
			p.set(func(p *platform) { p.gone["web-2"] = true })
			return nil
		})
		a.fetch(a.finalize(stays))
		if p.rechecked != 2 {
			t.Errorf("%d looks, want one more after the signature", p.rechecked)
		}
		p.set(func(p *platform) { p.gone["web-2"] = false })
		w.Add(-20 * time.Minute) // else its proof would have ended
		if goes = a.finalize(goes); goes.Status != protocol.OrderInvalid || goes.Certificate != "" || len(w.key.signatures()) != 2 {
			t.Errorf("%s after %d signatures", goes.Status, len(w.key.signatures()))
		}
	})
}

// What can't be looked at again must be fresh when the key is used.
func TestDeviceInLongQueue(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.platform(t)
		a := w.account(t, "devices")
		o := a.order("a.example")
		if _, err := a.Respond(t.Context(), a.Requester, o.Authorizations[0], device01, []byte("key 7")); err != nil {
			t.Fatal(err)
		}
		w.key.wait(func(context.Context) error { w.Add(11 * time.Minute); return nil })
		if o = a.finalize(a.look(o)); o.Status != protocol.OrderInvalid || !strings.Contains(o.Error.Detail, "expired") {
			t.Errorf("%s, %v", o.Status, o.Error)
		}
	})
}

// While the platform doesn't answer nothing is signed, and the order waits: for
// its answer, or for the order's own end.
func TestRecheckWaits(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.platform(t)
		a := w.account(t, "pods")
		waits, ends := a.podReady("token-1", "a.example"), a.podReady("token-1", "b.example")
		p.set(func(p *platform) { p.down = true })
		waits, ends = a.finalize(waits), a.finalize(ends)
		if waits.Status != protocol.OrderProcessing || ends.Status != protocol.OrderProcessing || len(w.key.signatures()) != 0 {
			t.Fatalf("%s and %s, %d signatures", waits.Status, ends.Status, len(w.key.signatures()))
		}
		round := func() {
			t.Helper()
			w.Add(planLease + time.Second)
			if err := w.claimPlans(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			until(t, "the jobs end", func() bool { _, n := w.Running(); return n == 0 })
		}
		round()
		if waits = a.look(waits); waits.Status != protocol.OrderProcessing || len(w.key.signatures()) != 0 {
			t.Fatalf("%s, %d signatures", waits.Status, len(w.key.signatures()))
		}
		p.set(func(p *platform) { p.down, p.gone["web-1"] = false, false })
		round()
		a.fetch(a.look(waits))
		a.fetch(a.look(ends))

		late := a.orderAs(OrderRequest{Identifiers: ids("c.example"), NotAfter: w.Now().Add(3 * day)})
		if _, err := a.pod(late, 0, "token-1"); err != nil {
			t.Fatal(err)
		}
		p.set(func(p *platform) { p.down = true })
		late = a.finalize(late)
		w.Add(late.ExpiresAt.Sub(w.Now()))
		round()
		if late = a.look(late); late.Status != protocol.OrderInvalid || late.Error.Type != protocol.ServerInternal || !strings.Contains(late.Error.Detail, "order's end") {
			t.Errorf("past its end: %s, %v", late.Status, late.Error)
		}
	})
}

// The platform is away when a pod answers its challenge: it is told when to come
// back, nothing is recorded, and it simply asks again.
func TestPlatformAway(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.platform(t)
		a := w.account(t, "pods")
		o := a.order("a.example")
		p.set(func(p *platform) { p.down = true })
		for range 5 {
			_, err := a.pod(o, 0, "token-1")
			if p := wants(t, err, protocol.ServerInternal, "away"); p.HTTPStatus() != 503 || p.RetryAfter != 7*time.Second {
				t.Errorf("status %d, Retry-After %v", p.HTTPStatus(), p.RetryAfter)
			}
			if z := a.authorization(o); z.Status != protocol.AuthorizationPending || z.Attempt.Type != "" || protocol.ChallengeState(z, protocol.Kubernetes01) != protocol.ChallengePending {
				t.Fatalf("%+v", z)
			}
		}
		p.set(func(p *platform) { p.down = false })
		if z, err := a.pod(o, 0, "token-1"); err != nil || z.Status != protocol.AuthorizationValid {
			t.Errorf("%+v, %v", z, err)
		}
	})
}

// A client that was told "processing" is not left alone: the job goes on with
// the token that it alone has (RFC 8555 section 8.2).
func TestSlowPlatform(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.platform(t)
		a := w.account(t, "pods")
		begun, gate := make(chan bool, 8), make(chan bool)
		open := sync.OnceFunc(func() { close(gate) })
		t.Cleanup(open)
		p.set(func(p *platform) {
			p.down, p.before = true, func(context.Context) { begun <- true; <-gate }
		})
		w.hold = 20 * time.Millisecond
		o := a.order("a.example")
		z, err := a.pod(o, 0, "token-1")
		if err != nil || protocol.ChallengeState(z, protocol.Kubernetes01) != protocol.ChallengeProcessing {
			t.Fatalf("%+v, %v", z, err)
		}
		<-begun
		if w.keeps(t, "token-1") {
			t.Error("the database has the token while it is looked at")
		}
		// Nobody else takes it over while its job lives.
		w.Add(validationLease + time.Second)
		if err := w.claimValidations(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		gate <- true // away
		<-begun      // and asked again
		p.set(func(p *platform) { p.down = false })
		open()
		until(t, "it is proven", func() bool { return a.authorization(o).Status == protocol.AuthorizationValid })
		if z := a.authorization(o); z.Attempt.Tries != 2 || z.Subject != "web-1" {
			t.Errorf("%+v", z)
		}
	})
}

// A platform that hangs is given up within the POST, which waits longer than
// for others: the client is told to come back, and the order goes on.
func TestFrozenPlatform(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.platform(t)
		a := w.account(t, "pods")
		w.hold = 100 * time.Millisecond
		p.set(func(p *platform) { p.down, p.before = true, func(context.Context) { time.Sleep(2 * w.hold) } })
		o := a.order("a.example")
		_, err := a.pod(o, 0, "token-1")
		if p := wants(t, err, protocol.ServerInternal, "away"); p.HTTPStatus() != 503 || p.RetryAfter <= 0 {
			t.Errorf("status %d, Retry-After %v", p.HTTPStatus(), p.RetryAfter)
		}
		if z := a.authorization(o); z.Status != protocol.AuthorizationPending || z.Attempt.Type != "" {
			t.Errorf("%+v", z)
		}
		p.set(func(p *platform) { p.down, p.before = false, nil })
		if z, err := a.pod(o, 0, "token-1"); err != nil || z.Status != protocol.AuthorizationValid {
			t.Errorf("%+v, %v", z, err)
		}
	})
}

// Away for longer than the retries last, the proof has failed.
func TestPlatformStaysAway(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.platform(t)
		a := w.account(t, "pods")
		gate := make(chan bool)
		p.set(func(p *platform) { p.down, p.before = true, func(context.Context) { <-gate } })
		w.hold = 20 * time.Millisecond
		o := a.order("a.example")
		if _, err := a.pod(o, 0, "token-1"); err != nil {
			t.Fatal(err)
		}
		close(gate)
		until(t, "it fails", func() bool { return a.authorization(o).Status == protocol.AuthorizationInvalid })
		if z := a.authorization(o); z.Attempt.Error.Type != protocol.ServerInternal || z.Attempt.Tries != 4 {
			t.Errorf("%+v", z.Attempt)
		}
	})
}

// What a dead process was looking at can't go on, since the token died with it:
// the client is told, once nobody can be at it any more.
func TestAbandonedProof(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.platform(t)
		a := w.account(t, "pods")
		o := a.order("a.example")
		z := a.authorization(o)
		z.Attempt.Type = protocol.Kubernetes01
		if err := a.recordProcessing(t.Context(), a.Requester, z, false); err != nil {
			t.Fatal(err)
		}
		b := w.replica()
		for _, later := range []time.Duration{0, validationLease + time.Second} {
			w.Add(later)
			if err := b.claimValidations(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if z = a.authorization(o); (z.Status == protocol.AuthorizationInvalid) != (later > 0) {
				t.Fatalf("after %v: %s", later, z.Status)
			}
		}
		if z.Attempt.Error.Type != protocol.ServerInternal || !strings.Contains(z.Attempt.Error.Detail, "new order") || p.asked != 0 {
			t.Errorf("%v after %d looks", z.Attempt.Error, p.asked)
		}
	})
}

// Where there is no room for a job a private proof can't wait in the database.
func TestNoRoomForProof(t *testing.T) {
	w := newWorld(t, "sqlite")
	p := w.platform(t)
	a := w.account(t, "pods")
	w.validations.Set = job.NewSet[*protocol.Authorization](1, 1)
	begun, gate := make(chan bool, 1), make(chan bool)
	p.set(func(p *platform) { p.before = func(context.Context) { begun <- true; <-gate } })
	w.hold = time.Millisecond
	if _, err := a.pod(a.order("a.example"), 0, "token-1"); err != nil {
		t.Fatal(err)
	}
	<-begun
	o := a.order("b.example")
	_, err := a.pod(o, 0, "token-1")
	if p := wants(t, err, protocol.ServerInternal, "too many"); p.HTTPStatus() != 503 || p.RetryAfter != busyDelay {
		t.Errorf("status %d, Retry-After %v", p.HTTPStatus(), p.RetryAfter)
	}
	if z := a.authorization(o); z.Status != protocol.AuthorizationPending || z.Attempt.Type != "" {
		t.Errorf("%+v", z)
	}
	close(gate)
}

// Instances of one Service renew at once, and don't stand in each other's way
// as they would at a name that is connected to.
func TestManyPodsOfOneName(t *testing.T) {
	w := newWorld(t, "sqlite")
	p := w.platform(t)
	const pods = 3 * maxPerTarget
	begun, gate := make(chan bool, pods), make(chan bool)
	p.set(func(p *platform) { p.before = func(context.Context) { begun <- true; <-gate } })
	a := w.account(t, "pods")
	var orders []OrderView
	for range pods {
		orders = append(orders, a.order("a.example"))
	}
	var all sync.WaitGroup
	for _, o := range orders {
		all.Go(func() {
			if z, err := a.pod(o, 0, "token-1"); err != nil || z.Status != protocol.AuthorizationValid {
				t.Errorf("%+v, %v", z, err)
			}
		})
	}
	for range pods {
		<-begun
	}
	close(gate)
	all.Wait()
}

// A reload may take the cluster away; what it proved counts no more.
func TestClusterTakenAway(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.platform(t)
		a := w.account(t, "pods")
		o, waits := a.podReady("token-1", "a.example"), a.podReady("token-1", "b.example")
		p.set(func(p *platform) { p.down = true })
		waits = a.finalize(waits)
		without := *w.options.Directories["pods"]
		without.Validators = nil
		w.options.Directories["pods"] = &without
		w.key.mu.Lock() // just before the key would be used
		w.key.planned = func() { w.Reload(w.options.Directories, w.options.Issuers, nil) }
		w.key.mu.Unlock()
		p.set(func(p *platform) { p.down = false }) // as the reading before knows it
		if o = a.finalize(o); o.Status != protocol.OrderInvalid || !strings.Contains(o.Error.Detail, "not offered") {
			t.Errorf("%s, %v", o.Status, o.Error)
		}
		w.Add(planLease + time.Second)
		if err := w.claimPlans(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		until(t, "the one that waits is refused too", func() bool { return a.look(waits).Status == protocol.OrderInvalid })
	})
}

// A validator that panics where it is asked again neither ends the server nor
// lets anything be signed.
func TestRecheckPanics(t *testing.T) {
	w := newWorld(t, "sqlite")
	p := w.platform(t)
	a := w.account(t, "pods")
	o := a.podReady("token-1", "a.example")
	p.set(func(p *platform) { p.before = func(context.Context) { panic("secret") } })
	if o = a.finalize(o); o.Status != protocol.OrderProcessing || len(w.key.signatures()) != 0 {
		t.Errorf("%s, %d signatures", o.Status, len(w.key.signatures()))
	}
}
