package signer

import (
	"container/list"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Class is what a signature is for.
type Class int

// The classes, the most urgent first.
const (
	Issuance Class = iota
	OCSP
	CRL
	classes
)

// String returns the class's name in metrics.
func (c Class) String() string {
	if c < 0 || c >= classes {
		return fmt.Sprintf("Class(%d)", int(c))
	}
	return [classes]string{"issuance", "ocsp", "crl"}[c]
}

// share is each class's part of the key while all want more than there is, so
// that none starves (DESIGN principle 4). What one doesn't use, the others get.
var share = [classes]float64{Issuance: 0.95, OCSP: 0.04, CRL: 0.01}

// DefaultDepth is how many callers may wait for a key: a card of five
// signatures a second works it off in a quarter of an hour, and a waiting
// caller costs a few kilobytes.
const DefaultDepth = 4096

// What stands for the time of one signature until one was measured: next to
// nothing while the key is idle, so that the pool tries it, and a card's usual
// time while it is at its first, so that one try is all it gets.
const (
	guessIdle = 10 * time.Microsecond
	guessBusy = 200 * time.Millisecond
)

// smoothing is the weight of the newest signature in the measured mean.
const smoothing = 0.125

// ErrFull is Sign's answer when Depth callers wait already. Wait says when to
// try again.
var ErrFull = errors.New("the signing key's queue is full")

// Queue lets many callers use one key in turn, first come first served within
// a class. It starts no goroutine and needs no closing.
type Queue struct {
	key      crypto.Signer
	random   io.Reader // what key.Sign is given
	parallel int
	depth    int

	mu      sync.Mutex // guards all below; never held during a signature
	running int
	waiting [classes]list.List // of *turn
	virtual float64            // start-time fair queueing: the clock,
	finish  [classes]float64   // and when each class's last turn ended on it
	mean    time.Duration      // of one signature; 0: none measured yet
	signed  [classes]uint64
	failed  uint64
}

// turn is one waiting caller. ready is closed, under Queue.mu, when a slot was
// handed to it.
type turn struct {
	ready   chan struct{}
	granted bool
}

// NewQueue makes the queue of a key. There must be one per key in a process. A
// depth of 0 means DefaultDepth.
func NewQueue(s *Signer, depth int) *Queue {
	if depth <= 0 {
		depth = DefaultDepth
	}
	q := &Queue{key: s.Signer, random: rand.Reader, parallel: max(s.Parallel, 1), depth: depth}
	if _, ok := s.Signer.(*ecdsa.PrivateKey); ok {
		// No randomness means RFC 6979: the same bytes signed again after
		// a crash give the same certificate. Whoever releases a signature
		// verifies it first, which answers the fault attacks that
		// determinism invites.
		q.random = nil
	}
	return q
}

// Public returns the key's public half.
func (q *Queue) Public() crypto.PublicKey { return q.key.Public() }

// Sign waits for the key and signs on the caller's goroutine: an idle key adds
// no handoff. Arguments and result are those of crypto.Signer. A context that
// ends leaves the queue at once with its error; a signature under way can't be
// interrupted, and is returned. ErrFull when too many wait; other errors are
// the key's.
func (q *Queue) Sign(ctx context.Context, c Class, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if c < 0 || c >= classes {
		return nil, fmt.Errorf("sign: no such class: %v", c)
	}
	if err := q.enter(ctx, c); err != nil {
		return nil, err
	}
	start, ok := time.Now(), false
	defer func() { q.leave(c, time.Since(start), ok) }() // a panicking key gives its slot back too
	sig, err := q.key.Sign(q.random, digest, opts)
	ok = err == nil
	return sig, err
}

// As returns the queue as a crypto.Signer that asks in one class, for code that
// wants one (x509.CreateRevocationList). Its Sign ignores the randomness it is
// given, and waits no longer than the context lives.
func (q *Queue) As(ctx context.Context, c Class) crypto.Signer { return &classSigner{ctx, q, c} }

type classSigner struct {
	ctx   context.Context // of the one operation that the signer is made for
	queue *Queue
	class Class
}

func (s *classSigner) Public() crypto.PublicKey { return s.queue.Public() }

func (s *classSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.queue.Sign(s.ctx, s.class, digest, opts)
}

// enter takes a slot, at once or in turn.
func (q *Queue) enter(ctx context.Context, c Class) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q.mu.Lock()
	if q.running < q.parallel { // then nobody waits: leave hands slots on
		q.running++
		q.mu.Unlock()
		return nil
	}
	if q.waiting[c].Len() >= q.depth { // per class, so that one can't shut out the others
		q.mu.Unlock()
		return ErrFull
	}
	if q.waiting[c].Len() == 0 { // the class comes back: idle time earned it no credit
		q.finish[c] = max(q.finish[c], q.virtual)
	}
	t := &turn{ready: make(chan struct{})}
	place := q.waiting[c].PushBack(t)
	q.mu.Unlock()

	select {
	case <-t.ready:
		return nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.granted { // both at once: pass the slot on
		q.release()
		return ctx.Err()
	}
	q.waiting[c].Remove(place)
	return ctx.Err()
}

// leave gives the slot back and learns from the signature.
func (q *Queue) leave(c Class, took time.Duration, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case !ok:
		q.failed++
	case q.mean == 0:
		q.mean = max(took, 1)
	default:
		q.mean += time.Duration(smoothing * float64(took-q.mean))
	}
	if ok {
		q.signed[c]++
	}
	q.release()
}

// release hands the caller's slot to the next in turn; q.mu is held.
//
// The order is start-time fair queueing: a turn of class c takes 1/share of
// virtual time, and the class whose next turn would end first is served.
func (q *Queue) release() {
	next, end := Class(-1), 0.0
	for c := range classes {
		if q.waiting[c].Len() == 0 {
			continue
		}
		if e := q.finish[c] + 1/share[c]; next < 0 || e < end {
			next, end = c, e
		}
	}
	if next < 0 {
		q.running--
		return
	}
	q.virtual = max(q.virtual, q.finish[next])
	q.finish[next] = end
	t := q.waiting[next].Remove(q.waiting[next].Front()).(*turn)
	t.granted = true
	close(t.ready)
}

// Wait estimates how long a signature would take that is asked for now, from
// the place it would get and the key's measured rate; for an idle key it is
// the time of one signature.
func (q *Queue) Wait(c Class) time.Duration {
	wait, _ := q.waitAndMean(c)
	return wait
}

func (q *Queue) waitAndMean(c Class) (wait, mean time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	mean = q.meanTime()
	if q.running < q.parallel {
		return mean, mean
	}
	place := q.waiting[c].Len() + 1
	ahead := place
	for o := range classes {
		if o != c { // served before us: at most in proportion to the shares
			ahead += min(q.waiting[o].Len(), int(float64(place)*share[o]/share[c]))
		}
	}
	return mean + mean*time.Duration(ahead)/time.Duration(q.parallel), mean
}

// meanTime is the measured time of a signature, or the guess; q.mu is held.
func (q *Queue) meanTime() time.Duration {
	switch {
	case q.mean > 0:
		return q.mean
	case q.running == 0:
		return guessIdle
	}
	return guessBusy
}

// Stats is a Queue's state for metrics.
type Stats struct {
	Running int
	Waiting [classes]int    // by class
	Signed  [classes]uint64 // by class, since the start
	Failed  uint64          // the key's errors, since the start
	Mean    time.Duration   // of one signature, smoothed; 0: none measured yet
}

// Stats returns the state of this moment.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := Stats{Running: q.running, Signed: q.signed, Failed: q.failed, Mean: q.mean}
	for c := range classes {
		s.Waiting[c] = q.waiting[c].Len()
	}
	return s
}
