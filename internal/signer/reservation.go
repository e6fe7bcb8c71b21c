package signer

import (
	"sync/atomic"
	"time"
)

// Reservation is a place at a key that was chosen for a signature still to
// come, so that others who choose meanwhile count with it. It holds no turn: a
// key that is free signs for whoever comes first. At a key on another replica
// it lasts until Cancel, when that one has signed or the request went elsewhere.
type Reservation struct {
	request Request
	at      holder
	done    atomic.Bool
	waiter  *waiter // of the Sign that used it up, if it waits; the queue's mutex guards it

	since    time.Time     // at a Remote: when it was made,
	expected time.Duration // and how long it was thought to take then
}

// holder is a key that reservations are at: a *Queue or a *Remote.
type holder interface {
	release(*Reservation)               // it won't be used
	remains(*Reservation) time.Duration // until its signature is there
}

// Cancel gives the place back, if Sign hasn't used it up. It may be called
// often, and on nil.
func (r *Reservation) Cancel() {
	if r != nil && !r.done.Swap(true) {
		r.at.release(r)
	}
}

// Wait estimates how long it takes until the signature is there that the place
// is for: as if it were asked for now, or what is left once Sign has begun; 0
// when its turn has come or it was cancelled, and on nil.
func (r *Reservation) Wait() time.Duration {
	if r == nil {
		return 0
	}
	return r.at.remains(r)
}

// Reserve counts one more signature that will be asked for.
func (q *Queue) Reserve(r Request) *Reservation {
	r.Reservation = nil
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reserved[r.Class]++
	return &Reservation{request: r, at: q}
}

func (q *Queue) release(r *Reservation) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reserved[r.request.Class]--
}

func (q *Queue) remains(r *Reservation) time.Duration {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if !r.done.Load() {
		asked := r.request
		asked.Reservation = r
		return q.expect(&asked, now).Wait
	}
	if r.waiter == nil || r.waiter.done {
		return 0
	}
	slots, _ := q.slots(now)
	return slots.Wait(len(q.again) + q.line.Ahead(&r.waiter.turn))
}
