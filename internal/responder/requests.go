package responder

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/store"
)

// Bounds on what strangers can have at once.
const (
	// maxLookups reads run at a time: each takes some 100 µs, so that
	// thousands are answered a second.
	maxLookups = 4
	// maxWaiting askers wait for signatures, each with a connection of some
	// 10 KB; the next are told to try later at once.
	maxWaiting = 1024
	// maxWanted wants are on their way to the database; there, they wait as
	// rows. More are forgotten, and asked for again.
	maxWanted = 4096
	// wantsBatch of them share a transaction, so that nobody waits long
	// behind it.
	wantsBatch = 256
	// delegateWait is how long an asker with a nonce waits for those before
	// him, who go one at a time: strangers get one processor at most.
	delegateWait = 200 * time.Millisecond
)

// subject is what an answer is about: a certificate, and the hash by which its
// issuer is named.
type subject struct {
	serial cert.Serial
	hash   string
}

// want is an answer that must be signed.
type want struct {
	*authority
	subject
}

// requests are those who ask now.
type requests struct {
	lookups   chan struct{} // holds one element for each read that runs
	delegates chan struct{} // holds one while an answer for one asker is signed
	wants     chan want     // to recordWants

	mu      sync.Mutex // guards what follows
	waiting map[subject]*waiting
	askers  int // in all of waiting
}

// waiting are those who wait for one answer.
type waiting struct {
	signed chan struct{} // closed when it may be there
	askers int
}

func newRequests() *requests {
	return &requests{
		lookups: make(chan struct{}, maxLookups), delegates: make(chan struct{}, 1), wants: make(chan want, maxWanted),
		waiting: make(map[subject]*waiting),
	}
}

// join waits for an answer: the channel is closed when one may be there. leave
// must be called. False: too many wait.
func (q *requests) join(s subject) (signed <-chan struct{}, leave func(), ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.askers >= maxWaiting {
		return nil, func() {}, false
	}
	w := q.waiting[s]
	if w == nil {
		w = &waiting{signed: make(chan struct{})}
		q.waiting[s] = w
	}
	w.askers++
	q.askers++
	return w.signed, func() { q.leave(s, w) }, true
}

func (q *requests) leave(s subject, w *waiting) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w.askers--
	q.askers--
	if w.askers == 0 && q.waiting[s] == w {
		delete(q.waiting, s)
	}
}

// done wakes those who wait for the answer.
func (q *requests) done(s subject) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w := q.waiting[s]; w != nil {
		close(w.signed)
		delete(q.waiting, s)
	}
}

// want has it recorded that an answer must be signed. It doesn't block; false:
// there is no room.
func (q *requests) want(a *authority, s subject) bool {
	select {
	case q.wants <- want{a, s}:
		return true
	default:
		return false
	}
}

var errDelegateBusy = errors.New("the delegated responder's key is busy")

// delegate takes the turn of one asker at the delegate's key. free gives it
// back.
func (q *requests) delegate(ctx context.Context, a *authority) (free func(), err error) {
	if !a.personal() || a.worker.busy() {
		return nil, errDelegateBusy
	}
	ctx, cancel := context.WithTimeout(ctx, delegateWait)
	defer cancel()
	select {
	case q.delegates <- struct{}{}:
		return func() { <-q.delegates }, nil
	case <-ctx.Done():
		return nil, errDelegateBusy
	}
}

// recordWants writes wants to the database, many in a transaction, and wakes
// those who sign them, until ctx ends.
func (r *Responder) recordWants(ctx context.Context) {
	for {
		select {
		case w := <-r.requests.wants:
			batch := r.requests.more([]want{w})
			r.attempt(ctx, "record wanted OCSP answers", func(ctx context.Context) error { return r.record(ctx, batch) })
		case <-ctx.Done():
			return
		}
	}
}

// more adds the wants that are there to the batch.
func (q *requests) more(batch []want) []want {
	for len(batch) < wantsBatch {
		select {
		case w := <-q.wants:
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

func (r *Responder) record(ctx context.Context, batch []want) error {
	var fresh []want // those that nobody wanted before
	var owners map[string]*authority
	err := r.db.Update(ctx, func(tx *store.Tx) error {
		fresh, owners = nil, make(map[string]*authority)
		for _, w := range batch {
			ok, err := tx.WantOCSP(w.serial, w.hash, w.keyID, tx.Now())
			if err != nil {
				return err
			}
			owners[w.keyID] = w.authority // also if it was wanted before: by someone who then stopped, perhaps
			if ok {
				fresh = append(fresh, w)
			}
		}
		for _, keyID := range slices.Sorted(maps.Keys(owners)) {
			if owners[keyID].worker != nil {
				continue
			}
			if err := tx.Notify(topicWanted, keyID); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, a := range owners {
		a.worker.wake()
	}
	if r.observe.Wanted != nil {
		for _, w := range fresh {
			r.observe.Wanted(w.keyID)
		}
	}
	return nil
}
