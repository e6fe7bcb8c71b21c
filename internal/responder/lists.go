package responder

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-pki/chancery/internal/store"
)

const (
	// listsEvery is how often lists of other replicas are looked for, and
	// revocations; notices come sooner, and hearsEvery is enough while they
	// are heard.
	listsEvery = 2 * time.Second
	hearsEvery = 30 * time.Second
	// loadTime bounds the loading of one list, 50 MB for a million entries.
	loadTime = 5 * time.Minute
)

// List is a CRL. It doesn't change.
type List struct {
	DER        []byte
	Number     int64 // RFC 5280 section 5.2.3; tells lists of one shard apart
	ThisUpdate time.Time
	NextUpdate time.Time

	revision int64 // of the revocations that it shows; see store.RevisionName
	entries  int
}

// list is one of an authority's lists, now and in future.
type list struct {
	keyID   string
	shard   int // 0: the full one
	current atomic.Pointer[List]
	loading sync.Mutex // held while another List is put into its place
}

// offer puts a list into its place, unless a newer one is there.
func (l *list) offer(newer *List) {
	if old := l.current.Load(); old == nil || old.Number < newer.Number {
		l.current.Store(newer)
	}
}

// shards are an authority's lists: the full one and those of all shards that
// were ever used.
type shards struct {
	all   atomic.Pointer[[]*list] // by shard; nil: no lists. It is replaced, never changed
	mu    sync.Mutex              // held while it is replaced
	woken chan struct{}           // for makeLists: has a value when something was revoked
}

// grow makes room for shards up to that one.
func (s *shards) grow(a *authority, highest int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.woken == nil {
		s.woken = make(chan struct{}, 1)
	}
	old := s.lists()
	more := append([]*list(nil), old...)
	for shard := len(more); shard <= highest; shard++ {
		more = append(more, &list{keyID: a.keyID, shard: shard})
	}
	if len(more) > len(old) {
		s.all.Store(&more)
	}
}

func (s *shards) lists() []*list {
	if all := s.all.Load(); all != nil {
		return *all
	}
	return nil
}

// wake has makeLists look for work.
func (s *shards) wake() {
	select {
	case s.woken <- struct{}{}: // never where there are no lists: it is nil
	default:
	}
}

// wasWoken reports whether there is something to do, and forgets it.
func (s *shards) wasWoken() bool {
	select {
	case <-s.woken:
		return true
	default:
		return false
	}
}

// adopt takes over what another Responder has of the same authority.
func (a *authority) adopt(previous *authority) {
	if previous == nil || a.CRL == nil {
		return
	}
	old := previous.lists.lists()
	a.lists.grow(a, len(old)-1)
	for shard, l := range a.lists.lists() {
		if shard < len(old) && old[shard].current.Load() != nil {
			l.current.Store(old[shard].current.Load())
		}
	}
}

// List returns a list of an issuing certificate: the full one (shard 0) or that
// of a shard. known says that there is one by that name, list is nil until the
// first was made or loaded.
func (r *Responder) List(issuerKeyID string, shard int) (list *List, known bool) {
	a := r.byKeyID[issuerKeyID]
	if a == nil || shard < 0 {
		return nil, false
	}
	all := a.lists.lists()
	if shard >= len(all) {
		return nil, false
	}
	return all[shard].current.Load(), true
}

// lists is what loads them.
type lists struct{ woken chan struct{} }

func newLists() lists { return lists{make(chan struct{}, 1)} }

func (l *lists) wake() {
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// Load loads the lists that are in the database, so that they are served from
// the first request on. Run goes on with it.
func (r *Responder) Load(ctx context.Context) error {
	var faults []error
	for _, a := range r.authorities {
		faults = append(faults, r.countShards(ctx, a))
	}
	return errors.Join(append(faults, r.loadLists(ctx))...)
}

// keepLists counts shards and loads what other replicas made, until ctx ends.
func (r *Responder) keepLists(ctx context.Context) {
	for {
		r.attempt(ctx, "load CRLs", r.Load)
		if !pause(ctx, r.lists.woken, r.listening()) {
			return
		}
	}
}

// listening is how long to wait for notices before looking without.
func (r *Responder) listening() time.Duration {
	if r.intact.Load() {
		return hearsEvery
	}
	return listsEvery
}

// pause waits until it is woken or the time is over. False: ctx has ended.
func pause(ctx context.Context, woken <-chan struct{}, atMost time.Duration) bool {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-woken:
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// countShards finds out how many shards of an authority were ever used, and
// writes down those of this configuration, before there are certificates in
// them: whoever makes lists must know.
func (r *Responder) countShards(ctx context.Context, a *authority) error {
	if a.CRL == nil {
		return nil
	}
	name := "crl-shards/" + a.keyID
	highest, err := r.db.Number(ctx, name)
	if err == nil && highest > MaxShards {
		err = fmt.Errorf("number %q is %d; there are at most %d shards", name, highest, MaxShards)
	}
	if ours := int64(a.CRL.Shards); err == nil && highest < ours {
		highest = ours
		err = r.db.Update(ctx, func(tx *store.Tx) error { return tx.RaiseNumber(name, ours) })
	}
	if err == nil {
		a.lists.grow(a, int(highest))
	}
	return err
}

// loadLists loads those lists that are newer than ours.
func (r *Responder) loadLists(ctx context.Context) error {
	heads, err := r.db.CRLs(ctx)
	if err != nil {
		return err
	}
	var faults []error
	for _, head := range heads {
		if a := r.byKeyID[head.IssuerKeyID]; a != nil && head.Shard < len(a.lists.lists()) {
			faults = append(faults, r.load(ctx, a.lists.lists()[head.Shard], head))
		}
	}
	return errors.Join(faults...)
}

// load gets a list's bytes, if it is newer than ours.
func (r *Responder) load(ctx context.Context, l *list, head store.CRL) error {
	l.loading.Lock()
	defer l.loading.Unlock()
	if old := l.current.Load(); old != nil && old.Number >= head.Number {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	der, err := r.db.CRLBody(ctx, head)
	if errors.Is(err, store.ErrNotFound) {
		return nil // a newer one has taken its place, and will be loaded
	}
	if err != nil {
		return err
	}
	l.offer(&List{
		DER: der, Number: head.Number, ThisUpdate: head.ThisUpdate, NextUpdate: head.NextUpdate,
		revision: head.Revision, entries: int(head.Entries),
	})
	return nil
}
