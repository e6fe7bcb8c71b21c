package signer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// How long Watch waits before it tries a token again: at first, and at most;
// at most where it opened and then failed at once, which costs a caller each
// time; and how often it asks one that is idle whether it is there.
const (
	reopenFirst = time.Second
	reopenMost  = 5 * time.Second
	flapMost    = 30 * time.Second
	probeEvery  = 10 * time.Second
)

// Watch brings tokens back that went away: it opens them again, at first after
// a second, then twice as long each time up to 5 s, or to 30 s for one that
// opens and then fails at once. A token that hangs isn't
// touched until its driver answers; one that is idle is asked every 10 s
// whether it is there, if it can say so. Watch blocks until ctx ends; there is one
// at a time for a queue.
func (q *Queue) Watch(ctx context.Context) {
	var all sync.WaitGroup
	for _, t := range q.tokens {
		if t.key != nil {
			all.Go(func() { q.watch(ctx, t) })
		}
	}
	all.Wait()
	<-ctx.Done() // keys in memory need nothing
}

func (q *Queue) watch(ctx context.Context, t *token) {
	pause := reopenFirst
	for ctx.Err() == nil {
		lost, worked := q.lost(t)
		if !lost {
			q.idle(ctx, t)
			continue
		}
		if worked { // else it fails as soon as it is back: try ever less often
			pause = reopenFirst
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		ok, err := reopen(ctx, t.key)
		if ok {
			q.reopened(t, err)
		}
		most := flapMost
		if err != nil {
			most = reopenMost
		}
		pause = min(2*pause, most)
	}
}

// idle waits until there may be something to do for a token, and asks it now
// and then whether it is there.
func (q *Queue) idle(ctx context.Context, t *token) {
	p, ok := t.key.(prober)
	var ask <-chan time.Time
	if ok {
		timer := time.NewTimer(probeEvery)
		defer timer.Stop()
		ask = timer.C
	}
	select {
	case <-t.wake:
	case <-ctx.Done():
	case <-ask:
		if q.unused(t) {
			if ok, err := within(ctx, p.Probe); ok {
				q.probed(t, err)
			}
		}
	}
}

// unused reports whether a token is there and nothing is under way on it.
func (q *Queue) unused(t *token) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return t.usable() && !t.closed && t.running() == 0
}

// probed notes whether an idle token is there.
func (q *Queue) probed(t *token, err error) {
	now := time.Now()
	q.mu.Lock()
	var n news
	switch {
	case t.gone != nil: // a signature was quicker to find out
	case err == nil:
		t.worked = true // it doesn't fail as soon as it is back
	default:
		t.gone = err
		n = t.changed(now)
		q.dispatch(now)
	}
	q.mu.Unlock()
	q.tell(n)
}

// reopen opens a token again, and gives up when the context ends even if the
// driver hangs; ok says that there is an answer.
func reopen(ctx context.Context, k Key) (ok bool, err error) {
	return within(ctx, func() error { return k.Reopen(ctx) })
}

// within asks a driver, and stops waiting when the context ends.
func within(ctx context.Context, driver func() error) (ok bool, err error) {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("%w: %v", errPanic, p)
			}
		}()
		done <- driver()
	}()
	select {
	case err := <-done:
		return ctx.Err() == nil, err
	case <-ctx.Done():
		return false, nil
	}
}

// lost reports whether a token must be opened again, and can be: nothing is
// under way on it. worked says that it signed since it was last opened.
func (q *Queue) lost(t *token) (lost, worked bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	lost, worked = t.gone != nil && !t.closed && t.running() == 0, t.worked
	if lost {
		t.worked = false
	}
	return lost, worked
}

// reopened notes how an attempt to open a token again went.
func (q *Queue) reopened(t *token, err error) {
	if err == nil && !sameKey(t.signer.Public(), q.public) {
		err = errors.New("it came back with another key than this queue's")
	}
	now := time.Now()
	q.mu.Lock()
	var n news
	switch {
	case t.closed:
	case err != nil:
		if err.Error() != t.gone.Error() {
			n = news{token: t.uri, reason: err.Error()}
		}
		t.gone = err
	default:
		t.gone = nil
		n = t.changed(now)
		q.dispatch(now)
	}
	q.mu.Unlock()
	q.tell(n)
}

var errClosed = errors.New("closed")

// Close gives the tokens back, those that are at a signature when it is done.
// Who waits, and who asks from now on, gets ErrAway. End Watch before. It
// blocks on the drivers.
func (q *Queue) Close() {
	var unused []Key
	now := time.Now()
	q.mu.Lock()
	for _, t := range q.tokens {
		if t.closed {
			continue
		}
		if t.usable() {
			t.since = now
		}
		t.gone, t.closed = errClosed, true
		if t.key != nil && t.running() == 0 {
			unused = append(unused, t.key)
		}
	}
	q.dispatch(now)
	q.mu.Unlock()
	for _, k := range unused {
		q.tell(news{unused: k})
	}
}
