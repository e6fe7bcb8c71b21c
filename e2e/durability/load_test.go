package durability

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// load is clients that get certificates as fast as they can and remember all
// that they are told. Where the server goes away they wait until it is back
// and go on where they were, as clients in the field do.
type load struct {
	w         *harness.World
	s         *server
	responder *harness.Responder
	// Set before start: whether a problem document may be met (a full disk),
	// and the HTTP client of each client.
	tolerate func(*acme.Problem) bool
	http     func() *http.Client

	wg sync.WaitGroup

	mu       sync.Mutex
	cond     *sync.Cond
	running  bool      // else clients wait before their next request
	leaving  bool      // each ends after the order it is at
	down     bool      // the server may be gone: lost connections are no fault
	since    time.Time // the server's last start
	parked   int
	workers  int
	sent     string        // the kind of request that is waited for
	sentSeen chan struct{} // closed when it is about to be sent
	accounts []*account
	orders   []*order
	names    int
}

func newLoad(w *harness.World, s *server) *load {
	l := &load{w: w, s: s, responder: w.Responder()}
	l.http = func() *http.Client { return s.client("") }
	l.cond = sync.NewCond(&l.mu)
	return l
}

// account is one that was made, as its client knows it.
type account struct {
	key *ecdsa.PrivateKey
	url string
}

// order is what a client was told about an order.
type order struct {
	*account
	mu       sync.Mutex
	told     acme.Order           // the last
	proofs   map[string]string    // authorization URL to the furthest status told
	asked    []*ecdsa.PrivateKey  // of every finalize request that was sent
	granted  *ecdsa.PrivateKey    // of the one that was answered 200
	chain    []byte               // the certificate as downloaded
	since    time.Time            // of the last step forward
	checked  bool                 // verified after its end
	problems func(string, ...any) // where contradictions are reported
}

// rank orders the states that an order or authorization passes through here.
func rank(status string) int {
	return slices.Index([]string{acme.StatusPending, acme.StatusReady, acme.StatusProcessing, acme.StatusValid}, status)
}

// tell takes in what the server says about the order now, and compares it
// with what it said before.
func (o *order) tell(now acme.Order) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.told
	switch {
	case rank(now.Status) < rank(before.Status):
		o.problems("order %s was %s and is %s now (%v)", before.URL, before.Status, now.Status, now.Error)
	case !slices.Equal(now.Identifiers, before.Identifiers) || !slices.Equal(now.Authorizations, before.Authorizations):
		o.problems("order %s changed: %+v, was %+v", before.URL, now, before)
	case before.Certificate != "" && now.Certificate != before.Certificate:
		o.problems("order %s has another certificate: %s, was %s", before.URL, now.Certificate, before.Certificate)
	}
	if rank(now.Status) > rank(before.Status) {
		o.since = time.Now()
	}
	o.told = now
}

// proven takes in the state of an authorization.
func (o *order) proven(url, status string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if before := o.proofs[url]; rank(status) < rank(before) {
		o.problems("authorization %s of order %s was %s and is %s now", url, o.told.URL, before, status)
	}
	o.proofs[url] = status
}

// got takes in a downloaded certificate.
func (o *order) got(chain acme.Chain) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.chain != nil && !bytes.Equal(o.chain, chain.PEM) {
		o.problems("order %s: its certificate is another one now", o.told.URL)
	}
	o.chain = chain.PEM
	leaf, err := x509.ParseCertificate(chain.DER[0])
	if err != nil {
		o.problems("order %s: %v", o.told.URL, err)
		return
	}
	asked := func(k *ecdsa.PrivateKey) bool { return k.PublicKey.Equal(leaf.PublicKey) }
	if !slices.ContainsFunc(o.asked, asked) {
		o.problems("order %s: its certificate is for a key that was never asked for", o.told.URL)
	}
	if o.granted != nil && !asked(o.granted) {
		o.problems("order %s: its certificate is for another key than that of the request that was answered 200", o.told.URL)
	}
}

// start starts n clients, which wait until resume.
func (l *load) start(n int, seed uint64) {
	l.workers = n
	for i := range n {
		l.wg.Go(func() { l.work(rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
}

// resume lets the clients go on; the server was started just now.
func (l *load) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since = time.Now()
	l.proceed()
}

// proceed lets the clients go on; l.mu is held.
func (l *load) proceed() {
	l.running, l.down = true, false
	l.cond.Broadcast()
}

// losing says that the server is about to go away.
func (l *load) losing() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
}

// settle stops the clients before their next requests, and waits until none
// is under way.
func (l *load) settle() {
	l.w.Helper()
	l.mu.Lock()
	l.running = false
	l.mu.Unlock()
	until(l.w, requestLimit+10*time.Second, "the clients rest", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.parked == l.workers
	})
}

// finish lets every client bring its order to the end, and waits until those
// that were set aside have come to theirs without anybody's doing. It then
// verifies everything.
func (l *load) finish() {
	l.w.Helper()
	l.mu.Lock()
	l.leaving = true
	l.proceed()
	l.mu.Unlock()
	done := make(chan struct{})
	go func() {
		l.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(100 * time.Second):
		l.w.Fatal("the clients did not finish their orders within 100 s")
	}
	for unfinished := true; unfinished; time.Sleep(100 * time.Millisecond) {
		l.verify(false)
		unfinished = false
		for _, o := range l.orders {
			if o.told.Status != acme.StatusProcessing {
				continue
			}
			unfinished = true
			if waited := time.Since(l.since); waited > l.processingLimit() {
				l.w.Fatalf("order %s is still processing %v after the server's last start", o.told.URL, waited)
			}
		}
	}
	l.verify(true)
}

// after waits until a client is about to send a request of that kind, at most
// a second.
func (l *load) after(kind string) {
	seen := make(chan struct{})
	l.mu.Lock()
	l.sent, l.sentSeen = kind, seen
	l.mu.Unlock()
	select {
	case <-seen:
	case <-time.After(time.Second):
	}
}

// errLeaving ends a client.
var errLeaving = errors.New("leaving")

// pass is called before each request: it waits while the clients rest.
func (l *load) pass(kind string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.running {
		l.parked++
		l.cond.Wait()
		l.parked--
	}
	if l.sent == kind {
		l.sent = ""
		close(l.sentSeen)
	}
}

// lost is called when a connection broke.
func (l *load) lost(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.down {
		l.w.Errorf("a request failed although the server was there: %v", err)
	}
	for l.down {
		l.parked++
		l.cond.Wait()
		l.parked--
	}
}

// visitor is one client.
type visitor struct {
	*load
	rng  *rand.Rand
	http *http.Client
	acme *acme.Client
	account
	known bool // the server has confirmed the account
	order *order
	stale bool // the order must be looked at again
	back  bool // the server went away during this order
	kept  int  // orders that the account is still to make
}

func (l *load) work(rng *rand.Rand) {
	v := &visitor{load: l, rng: rng, http: l.http()}
	defer v.http.CloseIdleConnections()
	for {
		err := v.advance()
		problem, isProblem := errors.AsType[*acme.Problem](err)
		switch {
		case l.w.Context().Err() != nil: // the test is over
			return
		case err == nil:
		case errors.Is(err, errLeaving):
			l.mu.Lock()
			l.workers--
			l.mu.Unlock()
			return
		case isProblem && l.tolerate != nil && l.tolerate(problem):
			v.stale = v.order != nil
			time.Sleep(20 * time.Millisecond)
		case isProblem:
			l.w.Errorf("a client was refused: %v", err)
			v.order, v.known = nil, false // begin anew
			time.Sleep(100 * time.Millisecond)
		default:
			v.stale, v.back = v.order != nil, v.order != nil
			l.lost(err)
		}
	}
}

// setAside is when a client turns to its next order: the server signs in
// milliseconds, unless it was killed meanwhile.
const setAside = time.Second

// processingLimit is how long an order or authorization may be processing,
// counted from the server's return: "within some seconds" on a busy machine.
// SQLite has one process, which begins with what was left. With PostgreSQL
// nobody can know that a replica was killed before its lease on the work ends,
// and neither is work that failed for want of the database tried again before.
func (l *load) processingLimit() time.Duration {
	if l.s.postgres() || l.tolerate != nil {
		return time.Minute
	}
	return 10 * time.Second
}

// advance does the next steps of this client, up to the end of an order.
func (v *visitor) advance() error {
	ctx := v.w.Context()
	if err := v.ensureAccount(ctx); err != nil {
		return err
	}
	if v.order == nil {
		if err := v.newOrder(ctx); err != nil {
			return err
		}
	}
	o := v.order
	for {
		if v.stale {
			if err := v.look(ctx); err != nil {
				return err
			}
		}
		var err error
		switch o.told.Status {
		case acme.StatusPending:
			err = v.prove(ctx)
		case acme.StatusReady:
			err = v.finalize(ctx)
		case acme.StatusProcessing:
			// One that a killed process left is come back to at the end.
			if v.back || time.Since(o.since) > setAside {
				v.order, v.stale, v.back = nil, false, false
				return nil
			}
			time.Sleep(20 * time.Millisecond)
			v.stale = true
		case acme.StatusValid:
			if err = v.download(ctx); err == nil {
				v.order, v.back = nil, false
				return nil
			}
		default:
			v.w.Errorf("order %s is %s: %v", o.told.URL, o.told.Status, o.told.Error)
			v.order = nil
			return nil
		}
		if err != nil {
			return err
		}
		if v.rng.IntN(4) == 0 {
			time.Sleep(time.Duration(v.rng.IntN(3000)) * time.Microsecond)
		}
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// ensureAccount makes an account where this client has none, or is done with
// the one it had: half of them make one certificate, as workloads do.
func (v *visitor) ensureAccount(ctx context.Context) error {
	if v.order == nil {
		v.mu.Lock()
		leaving := v.leaving
		v.mu.Unlock()
		if leaving {
			return errLeaving
		}
	}
	if v.known && (v.order != nil || v.kept > 0) {
		return nil
	}
	if v.known || v.acme == nil { // else a registration whose answer was lost is sent again
		v.known = false
		v.account = account{key: newKey(v.w)}
		v.acme = &acme.Client{DirectoryURL: v.s.directory("servers"), HTTPClient: v.http, Key: v.key}
		if v.kept = 1; v.rng.IntN(2) == 0 {
			v.kept = 4
		}
	}
	v.pass("newAccount")
	a, err := v.acme.Register(ctx, acme.Registration{TermsAgreed: true})
	if err != nil {
		return err
	}
	v.url, v.known = a.URL, true
	mine := v.account
	v.mu.Lock()
	defer v.mu.Unlock()
	v.accounts = append(v.accounts, &mine)
	return nil
}

func (v *visitor) newOrder(ctx context.Context) error {
	v.mu.Lock()
	v.names++
	names := []string{fmt.Sprintf("n%d.load.test", v.names)}
	v.mu.Unlock()
	if v.rng.IntN(2) == 0 { // a name that the account may have proven already
		names = append(names, "shared.load.test")
	}
	v.pass("newOrder")
	told, err := v.acme.NewOrder(ctx, acme.OrderRequest{Identifiers: acme.Identifiers(names...)})
	if err != nil {
		return err
	}
	mine := v.account
	v.kept--
	v.order = &order{account: &mine, told: told, proofs: map[string]string{}, since: time.Now(), problems: v.w.Errorf}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.orders = append(v.orders, v.order)
	return nil
}

// look fetches the order.
func (v *visitor) look(ctx context.Context) error {
	v.pass("order")
	now, err := v.acme.Order(ctx, v.order.told.URL)
	if err != nil {
		return err
	}
	v.order.tell(now)
	v.stale = false
	return nil
}

// prove makes every authorization of the order valid.
func (v *visitor) prove(ctx context.Context) error {
	for _, url := range v.order.told.Authorizations {
		accepted := time.Time{}
		for ; ; time.Sleep(10 * time.Millisecond) {
			v.pass("authorization")
			z, err := v.acme.Authorization(ctx, url)
			if err != nil {
				return err
			}
			v.order.proven(url, z.Status)
			if z.Status == acme.StatusValid {
				break
			}
			if z.Status != acme.StatusPending {
				return fmt.Errorf("authorization %s is %s", url, z.Status)
			}
			// As real clients do, it asks for the validation once, and
			// polls from then on.
			if !accepted.IsZero() {
				if time.Since(v.lastStart(accepted)) > v.processingLimit() {
					v.w.Errorf("authorization %s is still pending %v after the challenge's POST was answered 200", url, time.Since(accepted))
					accepted = time.Time{}
				}
				continue
			}
			if err := v.accept(ctx, url, z); err != nil {
				return err
			}
			accepted = time.Now()
		}
	}
	v.stale = true
	return nil
}

// accept has the server look at http-01.
func (v *visitor) accept(ctx context.Context, url string, z acme.Authorization) error {
	i := slices.IndexFunc(z.Challenges, func(ch acme.Challenge) bool { return ch.Type == acme.HTTP01 })
	if i < 0 {
		return fmt.Errorf("authorization %s offers no http-01", url)
	}
	answer, err := v.acme.KeyAuthorization(z.Challenges[i].Token)
	if err != nil {
		return err
	}
	v.responder.HTTP(z.Challenges[i].Token, answer)
	v.pass("challenge")
	ch, err := v.acme.Accept(ctx, z.Challenges[i], nil)
	if err == nil && ch.Status == acme.StatusValid {
		v.order.proven(url, acme.StatusValid)
	}
	return err
}

// lastStart is when the server was last started, or the later time given.
func (l *load) lastStart(or time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.After(or) {
		return l.since
	}
	return or
}

// finalize asks for the certificate, each time for another key. That the
// order isn't ready any more is what a client hears whose last request was
// done although its answer was lost.
func (v *visitor) finalize(ctx context.Context) error {
	o := v.order
	key := newKey(v.w)
	csr, err := acme.NewCSR(key, o.told.Identifiers...)
	if err != nil {
		return err
	}
	retried := len(o.asked) > 0
	o.asked = append(o.asked, key)
	v.pass("finalize")
	told, err := v.acme.Finalize(ctx, o.told, csr)
	if acme.HasType(err, acme.ErrOrderNotReady) && retried {
		v.stale = true
		return nil
	}
	if err != nil {
		return err
	}
	if o.granted != nil {
		v.w.Errorf("order %s: two finalize requests were answered 200", o.told.URL)
	}
	o.granted = key
	o.tell(told)
	return nil
}

func (v *visitor) download(ctx context.Context) error {
	v.pass("certificate")
	chain, err := v.acme.Certificate(ctx, v.order.told.Certificate)
	if err != nil {
		return err
	}
	v.order.got(chain)
	return nil
}
