package signer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// waiter is one waiting caller. ready is closed, under Queue.mu, once slot or
// err is set.
type waiter struct {
	turn  schedule.Turn
	since time.Time
	ready chan struct{}
	slot  slot
	err   error
	done  bool // slot or err is set
}

// enter takes a slot, at once or in turn.
func (q *Queue) enter(ctx context.Context, r *Request) (slot, error) {
	if r.Reservation != nil && r.Reservation.at != holder(q) {
		r.Reservation.Cancel()
	}
	now := time.Now()
	q.mu.Lock()
	if r.Reservation != nil && !r.Reservation.done.Swap(true) {
		q.reserved[r.Reservation.request.Class]--
	}
	if s, ok := q.take(now); ok { // then nobody waits: dispatch hands slots on
		q.mu.Unlock()
		return s, nil
	}
	if !q.usable() {
		err := q.away()
		q.mu.Unlock()
		return slot{}, err
	}
	if q.line.Len(r.Class) >= q.depth { // per class, so that one can't shut out the others
		q.mu.Unlock()
		return slot{}, ErrFull
	}
	w := &waiter{since: now, ready: make(chan struct{})}
	w.turn = q.turn(r, now)
	w.turn.Value = w
	q.line.Push(&w.turn)
	q.waiting++
	if r.Reservation != nil && r.Reservation.at == holder(q) {
		r.Reservation.waiter = w
	}
	q.mu.Unlock()
	return q.await(ctx, w)
}

// reenter is for a turn whose token failed it: another token signs, before
// those who still wait for their first.
func (q *Queue) reenter(ctx context.Context, c schedule.Class, cause error) (slot, error) {
	now := time.Now()
	q.mu.Lock()
	if !q.usable() {
		q.mu.Unlock()
		return slot{}, fmt.Errorf("%w: %w", ErrAway, cause)
	}
	if s, ok := q.take(now); ok {
		q.mu.Unlock()
		return s, nil
	}
	w := &waiter{since: now, ready: make(chan struct{})}
	w.turn.Class = c
	q.again = append(q.again, w)
	q.waiting++
	q.mu.Unlock()
	return q.await(ctx, w)
}

// await waits for a waiter's slot.
func (q *Queue) await(ctx context.Context, w *waiter) (slot, error) {
	select {
	case <-w.ready:
		w.slot.began = time.Now()
		return w.slot, w.err
	case <-ctx.Done():
	}
	var n news
	q.mu.Lock()
	switch i := slices.Index(q.again, w); {
	case w.done && w.err == nil: // both at once: pass the slot on
		n = q.free(w.slot, time.Now())
	case w.done:
	case i >= 0:
		q.again = slices.Delete(q.again, i, i+1)
		q.waiting--
	default:
		q.line.Remove(&w.turn)
		q.waiting--
	}
	q.mu.Unlock()
	q.tell(n)
	return slot{}, ctx.Err()
}

// take takes a free slot of the fastest token that has one; q.mu is held.
func (q *Queue) take(now time.Time) (slot, bool) {
	var best *token
	for _, t := range q.tokens {
		if len(t.idle) > 0 && t.usable() && (best == nil || t.mean < best.mean) {
			best = t
		}
	}
	if best == nil {
		return slot{}, false
	}
	return best.take(now), true
}

// dispatch gives free slots to those who wait, in turn; if no token is left,
// it tells them. q.mu is held.
func (q *Queue) dispatch(now time.Time) {
	for q.waiting > 0 {
		s, ok := q.take(now)
		if !ok && q.usable() {
			return
		}
		w := q.next()
		q.waiting--
		w.done = true
		if ok {
			w.slot = s
			q.counted.waited[w.turn.Class] += max(0, now.Sub(w.since))
		} else {
			w.err = q.away()
		}
		close(w.ready)
	}
}

// next takes out whose turn it is; q.mu is held, and somebody waits.
func (q *Queue) next() *waiter {
	if len(q.again) > 0 {
		w := q.again[0]
		q.again = slices.Delete(q.again, 0, 1)
		return w
	}
	return q.line.Pop().Value.(*waiter)
}

// usable reports whether any token is there; q.mu is held.
func (q *Queue) usable() bool {
	for _, t := range q.tokens {
		if t.usable() {
			return true
		}
	}
	return false
}

// away is the error that says why no token is there; q.mu is held.
func (q *Queue) away() error {
	var why []string
	for _, t := range q.tokens {
		why = append(why, t.reason())
	}
	return fmt.Errorf("%w: %s", ErrAway, strings.Join(why, "; "))
}
