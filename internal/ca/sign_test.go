package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/ca/job"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
	"github.com/chancery-pki/chancery/internal/store"
)

// token is a key that can be pulled out and plugged in again.
type token struct {
	*ecdsa.PrivateKey
	takes time.Duration
	mu    sync.Mutex
	gone  error
}

func (k *token) pull(why error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone = why
}

func (k *token) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := k.Reopen(context.Background()); err != nil {
		return nil, err
	}
	time.Sleep(k.takes)
	return k.PrivateKey.Sign(random, digest, opts)
}

func (k *token) Reopen(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.gone
}

func (k *token) Close() error { return nil }

var errPulled = errors.New("the card was pulled")

// family is a root with issuing CAs under it, each with a token's key.
type family struct {
	tokens []*token
	chains [][]*x509.Certificate
}

func newFamily(t *testing.T, n int) *family {
	t.Helper()
	rootKey := newKey(t)
	root, err := issuer.NewRoot(rootKey, issuer.CA{CommonName: "Root", Now: time.Now().Add(-day)})
	if err != nil {
		t.Fatal(err)
	}
	f := &family{}
	for i := range n {
		k := &token{PrivateKey: newKey(t)}
		c, err := issuer.NewIntermediate(root, rootKey, k.Public(), issuer.CA{CommonName: fmt.Sprintf("Issuing %d", i), Now: time.Now().Add(-day)})
		if err != nil {
			t.Fatal(err)
		}
		f.tokens, f.chains = append(f.tokens, k), append(f.chains, []*x509.Certificate{c, root})
	}
	return f
}

func (f *family) keyID(i int) string { return hex.EncodeToString(f.chains[i][0].SubjectKeyId) }

// issuer makes an issuer that holds some of the keys, while others are held
// elsewhere.
func (f *family) issuer(t *testing.T, held ...int) (*issuer.Local, []*signer.Remote) {
	t.Helper()
	here := map[int]bool{}
	for _, i := range held {
		here[i] = true
	}
	var remotes []*signer.Remote
	c := issuer.Config{Name: "local"}
	for i, k := range f.tokens {
		a := issuer.Authority{Chains: [][]*x509.Certificate{f.chains[i]}}
		if here[i] {
			queue, err := signer.NewQueue(signer.QueueOptions{}, &signer.Signer{Signer: k, URI: "test:" + f.keyID(i), Parallel: 1})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			var watching sync.WaitGroup
			watching.Go(func() { queue.Watch(ctx) })
			t.Cleanup(func() { cancel(); watching.Wait() })
			a.Queue = queue
		} else {
			a.Remote = signer.NewRemote(k.Public())
			remotes = append(remotes, a.Remote)
		}
		c.Authorities = append(c.Authorities, a)
	}
	local, err := issuer.New(c, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return local, remotes
}

// signsWith gives the world another issuer.
func (w *world) signsWith(by Issuer, held ...string) {
	w.Reload(w.options.Directories, map[string]Issuer{"local": by}, held)
}

// A key that is pulled out while orders are planned for it loses none: they
// are planned anew, for a key that is there, and one certificate leaves.
func TestKeyPulled(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		f := newFamily(t, 2)
		local, _ := f.issuer(t, 0, 1)
		w.signsWith(local)
		f.tokens[0].pull(errPulled)
		a := w.account(t, "main")
		used := map[string]int{}
		for i := range 6 {
			c, _ := a.issue(fmt.Sprintf("n%d.a.example", i))
			used[hex.EncodeToString(c.AuthorityKeyId)]++
		}
		if used[f.keyID(0)] != 0 || used[f.keyID(1)] != 6 {
			t.Errorf("signed by %v", used)
		}
		if n := w.rows(t)["certificates"]; n != 6 {
			t.Errorf("%d certificates and plans for 6 orders", n)
		}
		f.tokens[0].pull(nil)
		until(t, "the key that came back signs", func() bool {
			c, _ := a.issue("back.a.example")
			return hex.EncodeToString(c.AuthorityKeyId) == f.keyID(0)
		})
	})
}

// With no key at hand an order waits, and goes on when one is back.
func TestAllKeysAway(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		f := newFamily(t, 1)
		local, _ := f.issuer(t, 0)
		w.signsWith(local)
		a := w.account(t, "main")
		f.tokens[0].pull(errPulled)
		w.hold = 100 * time.Millisecond
		for i := range 2 { // the second finds the key away already
			o := a.finalize(a.ready(fmt.Sprintf("n%d.a.example", i)))
			if o.Status != protocol.OrderProcessing || o.RetryAfter < time.Second {
				t.Fatalf("%+v", o)
			}
			defer until(t, "the order is valid", func() bool { return a.look(o).Status == protocol.OrderValid })
		}
		f.tokens[0].pull(nil)
	})
}

// An order taken here, signed where the key is.
func TestSignedElsewhere(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		f := newFamily(t, 1)
		elsewhere, remotes := f.issuer(t)
		w.signsWith(elsewhere)
		remotes[0].Report(signer.State{At: time.Now(), Mean: time.Millisecond, Parallel: 1})
		holder := w.replica()
		local, _ := f.issuer(t, 0)
		holder.Reload(w.options.Directories, map[string]Issuer{"local": local}, []string{f.keyID(0)})

		ctx, cancel := context.WithCancel(context.Background())
		var listening sync.WaitGroup
		for _, a := range []*Authority{w.Authority, holder} {
			ready := make(chan struct{})
			listening.Go(func() {
				a.db.Listen(ctx, a.heard, func(intact bool) {
					if intact {
						close(ready)
					}
				})
			})
			<-ready
		}
		listening.Go(func() {
			for {
				select {
				case <-holder.planned:
					if err := holder.claimPlans(ctx, false); err != nil && ctx.Err() == nil {
						t.Error(err)
					}
				case <-ctx.Done():
					return
				}
			}
		})
		defer listening.Wait()
		defer cancel()

		a := w.account(t, "main")
		c, serial := a.fetch(a.finalize(a.ready("a.example"))) // Finalize's own answer, within its hold
		if err := c.CheckSignatureFrom(f.chains[0][0]); err != nil {
			t.Error(err)
		}
		entries := w.entries(t, store.AuditFilter{Object: string(serial), Action: "certificate.issue"})
		if len(entries) != 1 {
			t.Errorf("%d audit entries", len(entries))
		}

		// What is withdrawn before the key is used makes the order invalid
		// there, and the replica that asked tells.
		f.tokens[0].pull(errPulled)
		w.hold = 100 * time.Millisecond
		o := a.finalize(a.ready("b.example"))
		if o.Status != protocol.OrderProcessing {
			t.Fatal(o.Status)
		}
		if err := w.endAccount(t.Context(), a.Account.ID); err != nil {
			t.Fatal(err)
		}
		f.tokens[0].pull(nil)
		until(t, "the order is refused", func() bool {
			row, err := w.db.Order(t.Context(), o.ID)
			return err == nil && row.Status == protocol.OrderInvalid
		})
	})
}

// A server whose key is elsewhere gets its own certificate from there.
func TestOwnSignedElsewhere(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		if w.db.Engine() == "sqlite" {
			return // one process
		}
		f := newFamily(t, 1)
		elsewhere, _ := f.issuer(t)
		w.signsWith(elsewhere)
		holder := w.replica()
		local, _ := f.issuer(t, 0)
		holder.Reload(w.options.Directories, map[string]Issuer{"local": local}, []string{f.keyID(0)})
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { holder.Run(ctx, time.Second) })
		defer running.Wait()
		defer cancel()
		key := newKey(t)
		chain, err := w.IssueOwn(t.Context(), w.options.Directories["main"].Policy.Profiles[0], ids("ca.a.example"), key.Public())
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(chain[0])
		if err != nil || c.CheckSignatureFrom(f.chains[0][0]) != nil || !key.PublicKey.Equal(c.PublicKey) {
			t.Errorf("%v, %v", c, err)
		}
	})
}

// Where the replica that holds a key is gone, a plan left to it is given to
// another key.
func TestHolderGone(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		f := newFamily(t, 2)
		local, remotes := f.issuer(t, 0)
		w.signsWith(local, f.keyID(0))
		a := w.account(t, "main")
		// The other's key looks better, and nobody is there.
		f.tokens[0].pull(errPulled)
		a.issueSoon("x.example")
		remotes[0].Report(signer.State{At: time.Now(), Mean: time.Millisecond, Parallel: 1})
		w.hold = 100 * time.Millisecond
		o := a.finalize(a.ready("a.example"))
		if o.Status != protocol.OrderProcessing || w.plannedFor(t, o) != f.keyID(1) {
			t.Fatalf("%s, planned for %s", o.Status, w.plannedFor(t, o))
		}
		f.tokens[0].pull(nil)
		remotes[0].Report(signer.State{At: time.Now(), Away: "gone"})
		until(t, "the order is valid", func() bool { return a.look(o).Status == protocol.OrderValid })
		c, _ := a.fetch(a.look(o))
		if err := c.CheckSignatureFrom(f.chains[0][0]); err != nil {
			t.Error(err)
		}
	})
}

// issueSoon finalizes an order and doesn't wait for it.
func (a *account) issueSoon(names ...string) OrderView {
	a.t.Helper()
	before := a.hold
	a.hold = 10 * time.Millisecond
	defer func() { a.hold = before }()
	return a.finalize(a.ready(names...))
}

func (w *world) plannedFor(t *testing.T, o OrderView) string {
	t.Helper()
	row, err := w.db.Order(t.Context(), o.ID)
	if err != nil {
		t.Fatal(err)
	}
	c, err := w.db.Certificate(t.Context(), cert.Serial(row.Certificate))
	if err != nil {
		t.Fatal(err)
	}
	return c.IssuerKeyID
}

// watched is an issuer that remembers in whose turn it was asked to sign.
type watched struct {
	*issuer.Local
	mu    sync.Mutex
	turns []signer.Request
}

func (s *watched) Prepare(ctx context.Context, r issuer.Request) (*issuer.Prepared, error) {
	s.mu.Lock()
	s.turns = append(s.turns, r.Signature)
	s.mu.Unlock()
	return s.Local.Prepare(ctx, r)
}

// Renewals are told from new certificates, and clients from each other by what
// can't be made at will.
func TestTurns(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		f := newFamily(t, 1)
		local, _ := f.issuer(t, 0)
		s := &watched{Local: local}
		w.signsWith(s)
		a := w.account(t, "main")
		c, _ := a.issue("a.example")
		a.finalize(a.orderAs(OrderRequest{Identifiers: ids("a.example"), Replaces: certID(c)}))
		k := w.eab(t, protocol.EABKey{Directory: "eab", MaxAccounts: 2})
		own := newKey(t)
		b := w.register(t, own, Registration{Directory: "eab", EAB: bind(t, own, string(k.ID), k.MACKey)})
		b.issue("b.example")
		want := []signer.Request{
			{Class: schedule.Issuance, Directory: "main", Client: "192.0.2.7"},
			{Class: schedule.Renewal, Directory: "main", Client: "192.0.2.7", Ends: c.NotAfter},
			{Class: schedule.Issuance, Directory: "eab", Client: "eab:" + string(k.ID)},
		}
		for i, turn := range s.turns {
			if turn.Class != want[i].Class || turn.Directory != want[i].Directory || turn.Client != want[i].Client || !turn.Ends.Equal(want[i].Ends) {
				t.Errorf("turn %d: %+v, want %+v", i, turn, want[i])
			}
		}
		if len(s.turns) != len(want) {
			t.Errorf("%d turns", len(s.turns))
		}
	})
}

// A plan made before the configuration was read anew goes on after: with its
// own key, or with another where that was taken out.
func TestPlanOutlivesReload(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, stays := range []bool{true, false} {
			f := newFamily(t, 2)
			old, _ := f.issuer(t, 0)
			planned := make(chan struct{})
			reloaded := make(chan struct{})
			k := &key{Local: old}
			k.wait(func(context.Context) error {
				close(planned)
				<-reloaded
				return nil
			})
			w.signsWith(k)
			a := w.account(t, "main")
			o := a.ready("a.example")
			done := make(chan OrderView)
			go func() { done <- a.finalize(o) }()
			<-planned
			if !stays {
				f.tokens, f.chains = f.tokens[1:], f.chains[1:]
			}
			next, _ := f.issuer(t, 0)
			w.signsWith(next)
			k.Local = next // Issue is asked of what the configuration has now
			close(reloaded)
			if o = <-done; o.Status != protocol.OrderValid {
				t.Fatalf("stays: %v: %s", stays, o.Status)
			}
			c, _ := a.fetch(o)
			if err := c.CheckSignatureFrom(f.chains[0][0]); err != nil {
				t.Errorf("stays: %v: %v", stays, err)
			}
		}
	})
}

// Retry-After is the time that an order's turn still takes.
func TestRetryAfter(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		f := newFamily(t, 1)
		f.tokens[0].takes = 100 * time.Millisecond
		local, _ := f.issuer(t, 0)
		w.signsWith(local)
		w.hold = 10 * time.Millisecond
		a := w.account(t, "main")
		a.finalize(a.ready("first.a.example")) // from which the key's time is learned
		time.Sleep(200 * time.Millisecond)
		const n = 30
		orders := make([]OrderView, n)
		for i := range n {
			orders[i] = a.ready(fmt.Sprintf("n%d.a.example", i))
		}
		for i := range n {
			orders[i] = a.finalize(orders[i])
		}
		last := orders[n-1]
		if last.Status != protocol.OrderProcessing || last.RetryAfter < 2*time.Second || last.RetryAfter > 4*time.Second {
			t.Fatalf("%s, retry after %v; %d signatures of 100 ms are ahead", last.Status, last.RetryAfter, n)
		}
		begun := time.Now()
		until(t, "the last order is valid", func() bool { return a.look(last).Status == protocol.OrderValid })
		if took := time.Since(begun); took > last.RetryAfter+10*time.Second || took < last.RetryAfter-2*time.Second {
			t.Errorf("it took %v, and was told %v", took, last.RetryAfter)
		}
	})
}

// More orders than may wait in memory wait in the database, and one client's
// don't keep another's out.
func TestBacklog(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.issuances = job.NewSet[cert.Serial](4, 2)
		f := newFamily(t, 1)
		f.tokens[0].takes = 50 * time.Millisecond
		local, _ := f.issuer(t, 0)
		w.signsWith(local)
		a := w.account(t, "main")
		var orders []OrderView
		for i := range 12 {
			orders = append(orders, a.issueSoon(fmt.Sprintf("n%d.a.example", i)))
		}
		k := w.eab(t, protocol.EABKey{Directory: "eab", MaxAccounts: 1})
		own := newKey(t)
		b := w.register(t, own, Registration{Directory: "eab", EAB: bind(t, own, string(k.ID), k.MACKey)})
		if o := b.finalize(b.ready("b.example")); o.Status != protocol.OrderValid {
			t.Errorf("another client's order is %s behind %d", o.Status, len(orders))
		}
		last := a.look(orders[len(orders)-1])
		if last.Status == protocol.OrderProcessing && last.RetryAfter < time.Second {
			t.Errorf("retry after %v", last.RetryAfter)
		}
		until(t, "all are valid", func() bool {
			w.Add(planLease + time.Second)
			if err := w.claimPlans(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			for _, o := range orders {
				if a.look(o).Status != protocol.OrderValid {
					return false
				}
			}
			return true
		})
		if n := w.rows(t)["certificates"]; n != 13 {
			t.Errorf("%d certificates for 13 orders", n)
		}
	})
}
