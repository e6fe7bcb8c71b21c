package responder

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/revocation"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/store"
)

// Authority is one issuing certificate and what it says about those it issued.
type Authority struct {
	Certificate *x509.Certificate
	// Queue is that of its key; nil: another replica holds the key, or nobody
	// does any more.
	Queue *signer.Queue
	OCSP  *OCSP // nil: no OCSP
	CRL   *CRL  // nil: no CRL
}

// OCSP says how an authority answers.
type OCSP struct {
	// Validity is the time from an answer's signing to its nextUpdate; 0
	// means DefaultOCSPValidity.
	Validity time.Duration
	// Delegate signs in the authority's place. Only with one, nonces are
	// answered and unknown serials get a signed answer: its key is not the
	// issuing one, so that strangers may spend it. nil: none.
	Delegate *Delegate
}

// Delegate is a delegated responder (RFC 6960 section 4.2.2.2).
type Delegate struct {
	Certificate *x509.Certificate
	Queue       *signer.Queue // nil: another replica holds its key
}

// CRL says which lists an authority has.
type CRL struct {
	Validity time.Duration // from a list's making to its nextUpdate; 0 means DefaultCRLValidity
	// Shards is into how many lists new certificates are parted, 1 to Shards;
	// beside them there is always the full list, 0. Lists of all shards ever
	// configured keep being made.
	Shards int
	// PointURL is where a shard's list can be had, as certificates of the
	// shard say, byte for byte (RFC 5280 section 5.2.5). Not called for the
	// full list; required with Shards.
	PointURL func(shard int) string
}

// The validities where none is set: a key may be away for most of that time
// before relying parties refuse anyone.
const (
	DefaultOCSPValidity = 8 * time.Hour
	DefaultCRLValidity  = 24 * time.Hour
)

// Bounds of validities. Below a few minutes nothing would live long enough to
// be served; with an answer of more than ten days a revocation would be worth
// little (ten days are the most that the CA/Browser Forum allows).
const (
	leastValidity = time.Minute
	mostValidity  = 10 * 24 * time.Hour
)

// MaxShards is the most that Shards may be: each list is signed three times in
// its validity, however little it says.
const MaxShards = 256

// backdate is for relying parties whose clocks are late: to them a new list or
// answer would not be valid yet, and they would refuse.
const backdate = time.Minute

// Options is what a Responder needs.
type Options struct {
	DB          *store.DB
	Authorities []Authority
	Replica     string           // names this process in leases
	Logger      *slog.Logger     // nil: silent
	Clock       func() time.Time // nil: time.Now
	Observe     Observe
	Previous    *Responder // its lists are served until this one has loaded them; nil: none
}

// Observe sees what happens, for metrics. Its functions must not block; nil
// ones aren't called.
type Observe struct {
	Signed func(issuerKeyID string, took time.Duration, err error) // an OCSP answer; took includes the wait in the queue
	Wanted func(issuerKeyID string)                                // an OCSP answer must be signed
	Made   func(Making)
}

// Making is one try to make a list.
type Making struct {
	IssuerKeyID string
	Shard       int // 0: the full list
	Took        time.Duration
	Err         error // nil: the list is being served, and the rest is set
	Number      int64
	Entries     int
	Bytes       int
	NextUpdate  time.Time
}

// Responder answers for its authorities. It is safe for concurrent use.
type Responder struct {
	db          *store.DB
	replica     string
	log         *slog.Logger
	clock       func() time.Time
	observe     Observe
	authorities []*authority // fixed
	byKeyID     map[string]*authority
	requests    *requests
	lists       lists

	intact   atomic.Bool // notices are heard
	mu       sync.Mutex  // guards watchers, and orders what they are told
	watchers []watcher
}

type watcher struct {
	revoked func(keyID string, serial cert.Serial)
	intact  func(bool)
}

// authority is an Authority that was found to be in order.
type authority struct {
	Authority
	keyID  string // hex of the SubjectKeyId
	hashes revocation.IssuerHashes
	worker *worker // signs answers; nil: another replica does, or nobody
	lists  shards
	// slowUntil is when askers wait for this key again, in unix nanoseconds.
	slowUntil atomic.Int64
}

// New checks that answers and lists can be made; the error says what a
// certificate lacks. It reads and writes nothing before [Responder.Run].
func New(o Options) (*Responder, error) {
	r := &Responder{
		db: o.DB, replica: o.Replica, log: o.Logger, clock: o.Clock, observe: o.Observe,
		byKeyID: make(map[string]*authority), requests: newRequests(), lists: newLists(),
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.clock == nil {
		r.clock = time.Now
	}
	for _, in := range o.Authorities {
		a, err := newAuthority(in)
		if err != nil {
			return nil, err
		}
		if r.byKeyID[a.keyID] != nil {
			return nil, fmt.Errorf("two issuing certificates have the key identifier %s; list each once", a.keyID)
		}
		if o.Previous != nil {
			a.adopt(o.Previous.byKeyID[a.keyID])
		}
		r.authorities = append(r.authorities, a)
		r.byKeyID[a.keyID] = a
	}
	return r, nil
}

func newAuthority(in Authority) (*authority, error) {
	c := in.Certificate
	if len(c.SubjectKeyId) == 0 {
		return nil, fmt.Errorf("CA certificate %q has no subject key identifier", c.Subject)
	}
	a := &authority{Authority: in, keyID: hex.EncodeToString(c.SubjectKeyId), hashes: revocation.HashIssuer(c)}
	if err := fits(in.Queue, c); err != nil {
		return nil, err
	}
	if in.OCSP != nil {
		if err := a.addOCSP(*in.OCSP); err != nil {
			return nil, err
		}
	}
	if in.CRL != nil {
		if err := a.addCRL(*in.CRL); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// fits finds out whether the queue's key, if any, is the certificate's.
func fits(q *signer.Queue, c *x509.Certificate) error {
	if q == nil {
		return nil
	}
	key, ok := q.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !key.Equal(c.PublicKey) {
		return fmt.Errorf("the key is not that of certificate %q", c.Subject)
	}
	return nil
}

func (a *authority) addOCSP(o OCSP) error {
	if o.Validity == 0 {
		o.Validity = DefaultOCSPValidity
	}
	if err := checkValidity("an OCSP answer", o.Validity); err != nil {
		return err
	}
	a.OCSP = &o
	queue := a.Queue
	if d := o.Delegate; d != nil {
		if err := errors.Join(revocation.CheckResponder(d.Certificate, a.Certificate), fits(d.Queue, d.Certificate)); err != nil {
			return err
		}
		queue = d.Queue
	} else if err := revocation.CheckOCSP(a.Certificate); err != nil {
		return err
	}
	if queue != nil {
		a.worker = newWorker(queue)
	}
	return nil
}

func (a *authority) addCRL(c CRL) error {
	if c.Validity == 0 {
		c.Validity = DefaultCRLValidity
	}
	if err := checkValidity("a CRL", c.Validity); err != nil {
		return err
	}
	switch {
	case c.Shards < 0 || c.Shards > MaxShards:
		return fmt.Errorf("a CRL can't be parted into %d shards; 0 to %d", c.Shards, MaxShards)
	case c.Shards > 0 && c.PointURL == nil:
		return errors.New("responder: PointURL is required with Shards")
	}
	a.CRL = &c
	a.lists.grow(a, c.Shards)
	return revocation.Check(a.Certificate)
}

func checkValidity(what string, v time.Duration) error {
	if v < leastValidity || v > mostValidity {
		return fmt.Errorf("%s can't be valid for %v; from %v to %v", what, v, leastValidity, mostValidity)
	}
	return nil
}

// Run signs what is wanted, makes and loads lists, hears the store's notices
// and sweeps old answers, until ctx ends; it blocks so long, and until what
// runs has ended. Trouble with a key or the database is logged and tried
// again, and one key's trouble is no other's.
func (r *Responder) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { r.listen(ctx) })
	all.Go(func() { r.recordWants(ctx) })
	all.Go(func() {
		every(ctx, wantsEvery, func() { r.attempt(ctx, "look for wanted OCSP answers", r.wakeWanted) })
	})
	all.Go(func() { every(ctx, sweepEvery, func() { r.attempt(ctx, "sweep OCSP answers", r.sweep) }) })
	all.Go(func() { r.keepLists(ctx) })
	for _, a := range r.authorities {
		if a.worker != nil {
			all.Go(func() { r.work(ctx, a) })
		}
		if a.CRL != nil && a.Queue != nil {
			all.Go(func() { r.makeLists(ctx, a) })
		}
	}
	all.Wait()
}

// every does something regularly until ctx ends.
func every(ctx context.Context, d time.Duration, do func()) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			do()
		case <-ctx.Done():
			return
		}
	}
}

// attempt does one round of a job; its trouble is logged and passes.
func (r *Responder) attempt(ctx context.Context, what string, round func(context.Context) error) {
	if err := round(ctx); err != nil && ctx.Err() == nil {
		r.log.Warn("job failed; it will be tried again", "job", what, "error", err)
	}
}

// Topics of the store's notices. Bodies are words with a space between.
const (
	topicWanted = "ocsp-wanted" // key ID: its holder has OCSP answers to sign
	topicSigned = "ocsp-signed" // key ID, serial, hash: the answer is in the database
	topicList   = "crl"         // key ID: a list of it was made
)

// listen hears the store's notices until ctx ends.
func (r *Responder) listen(ctx context.Context) {
	r.db.Listen(ctx, r.heard, func(intact bool) {
		r.setIntact(intact)
		if !intact && ctx.Err() == nil {
			r.log.Warn("the database's notices aren't heard; OCSP answers are read from the database each time")
		}
	})
}

// heard takes a notice. On SQLite it runs while whoever caused it waits, so it
// only marks and wakes.
func (r *Responder) heard(n store.Notice) {
	words := strings.Split(n.Body, " ")
	a := r.byKeyID[words[0]]
	if a == nil {
		return
	}
	switch {
	case n.Topic == store.TopicRevoked && len(words) == 2:
		r.dropRevoked(a, cert.Serial(words[1]))
	case n.Topic == topicWanted:
		a.worker.wake()
	case n.Topic == topicSigned && len(words) == 3:
		r.requests.done(subject{cert.Serial(words[1]), words[2]})
	case n.Topic == topicList:
		r.lists.wake()
	}
}

func (r *Responder) dropRevoked(a *authority, serial cert.Serial) {
	r.mu.Lock()
	for _, w := range r.watchers {
		w.revoked(a.keyID, serial)
	}
	r.mu.Unlock()
	a.worker.wake() // the store wants a new answer where there was one
	a.lists.wake()
}

// setIntact tells the watchers whether notices are heard.
func (r *Responder) setIntact(intact bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.intact.Swap(intact) == intact {
		return
	}
	for _, w := range r.watchers {
		w.intact(intact)
	}
	r.lists.wake() // what was missed shows now
	for _, a := range r.authorities {
		a.worker.wake()
		a.lists.wake()
	}
}

// Watch tells a cache of answers what it must know: revoked is called for each
// certificate withdrawn on any replica, before the revocation is confirmed (on
// PostgreSQL within milliseconds after), and intact(false) when that can't be
// promised any more: then, until intact(true), a cache must not be used, and
// what was asked for before counts for nothing. Both must be quick. intact is
// called at once with how things stand: not intact before Run.
func (r *Responder) Watch(revoked func(issuerKeyID string, serial cert.Serial), intact func(bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watchers = append(r.watchers, watcher{revoked, intact})
	intact(r.intact.Load())
}

// Intact reports whether revocations on all replicas are heard of.
func (r *Responder) Intact() bool { return r.intact.Load() }

// Issuer finds the authority that a request is about. nonces says that a nonce
// in a request counts, so that such a request isn't answered from a cache. It
// allocates nothing. False: none of ours, or one without OCSP.
func (r *Responder) Issuer(q *revocation.OCSPRequest) (issuerKeyID string, nonces, ok bool) {
	a := r.match(q)
	if a == nil {
		return "", false, false
	}
	return a.keyID, a.personal(), true
}

func (r *Responder) match(q *revocation.OCSPRequest) *authority {
	i := slices.IndexFunc(r.authorities, func(a *authority) bool { return a.OCSP != nil && a.hashes.Match(q) })
	if i < 0 {
		return nil
	}
	return r.authorities[i]
}

// personal reports whether answers can be signed here for one asker: by a
// delegate, whose key strangers may spend.
func (a *authority) personal() bool { return a.OCSP.Delegate != nil && a.worker != nil }
