package signer

import (
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

var errPanic = errors.New("the key's driver panicked")

// signHere signs with a key in memory, on the caller's goroutine: an idle key
// adds no handoff.
func (q *Queue) signHere(s slot, c schedule.Class, digest []byte, opts crypto.SignerOpts) (sig []byte, err error) {
	err = errPanic
	defer func() { // a panicking key gives its slot back too
		now := time.Now()
		q.mu.Lock()
		defer q.mu.Unlock()
		q.leave(s, c, err, now) // a key in memory doesn't go away: nothing to log
	}()
	sig, err = s.token.signer.Sign(s.token.random, digest, opts)
	return sig, err
}

// answer is what a token said.
type answer struct {
	sig []byte
	err error
}

// signThere signs on a token, on a goroutine of its own: a driver may hang, and
// then the caller goes on to another token. The goroutine stays until the
// driver answers; a token that hangs is given no more work.
func (q *Queue) signThere(s slot, c schedule.Class, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	done := make(chan answer, 1)
	go func() {
		a := askToken(s.token, digest, opts)
		now := time.Now()
		q.mu.Lock()
		news := q.leave(s, c, a.err, now)
		done <- a // under the lock, so that giving up sees all or nothing
		q.mu.Unlock()
		q.tell(news)
	}()
	timer := time.NewTimer(q.stuck)
	defer timer.Stop()
	select {
	case a := <-done:
		return a.sig, a.err
	case <-timer.C:
	}
	now := time.Now()
	q.mu.Lock()
	select {
	case a := <-done:
		q.mu.Unlock()
		return a.sig, a.err
	default:
	}
	news := q.giveUp(s, now)
	q.mu.Unlock()
	q.tell(news)
	return nil, fmt.Errorf("%s: no signature within %v", s.token.uri, q.stuck)
}

// askToken has a token sign. A driver's panic is its error: the goroutine has
// no caller who could recover it.
func askToken(t *token, digest []byte, opts crypto.SignerOpts) (a answer) {
	defer func() {
		if p := recover(); p != nil {
			a = answer{err: fmt.Errorf("%w: %v", errPanic, p)}
		}
	}()
	a.sig, a.err = t.signer.Sign(t.random, digest, opts)
	return a
}

// news is a token's change of state, to be logged without the lock.
type news struct {
	token  string // "": none
	reason string // why it is out of turn; "": it is back
	away   time.Duration
	unused Key // to be closed; nil: none
}

// leave gives a slot back and learns from the signature; q.mu is held.
func (q *Queue) leave(s slot, c schedule.Class, err error, now time.Time) news {
	t, took := s.token, now.Sub(s.began)
	usable := t.usable()
	switch {
	case t.slots[s.place].hung: // counted when it was given up
		t.hung--
	case err == nil:
		t.learn(s, took)
		t.worked = true
		q.counted.signed[c]++
		q.counted.busy += took
	default:
		q.counted.failed++
		q.counted.busy += took
	}
	if err != nil && t.key != nil && t.gone == nil && !blamesInput(err) {
		t.gone = err
	}
	if n := q.free(s, now); n.unused != nil {
		return n
	}
	if usable == t.usable() {
		return news{}
	}
	return t.changed(now)
}

// free gives a slot to the next in turn. Of a token that is gone, the last one
// lets Watch open it anew, or it is to be closed; q.mu is held.
func (q *Queue) free(s slot, now time.Time) news {
	t := s.token
	t.free(s)
	if t.gone != nil && t.running() == 0 {
		if t.closed {
			return news{unused: t.key}
		}
		select {
		case t.wake <- struct{}{}:
		default: // it knows
		}
	}
	if q.waiting > 0 {
		q.dispatch(now)
	}
	return news{}
}

// giveUp takes a token out of turn that doesn't answer; q.mu is held.
func (q *Queue) giveUp(s slot, now time.Time) news {
	t := s.token
	usable := t.usable()
	t.slots[s.place].hung = true
	t.hung++
	q.counted.failed++
	q.dispatch(now)
	if !usable {
		return news{}
	}
	return t.changed(now)
}

// changed notes that the token went away or came back; q.mu is held.
func (t *token) changed(now time.Time) news {
	if t.usable() {
		return news{token: t.uri, away: now.Sub(t.since)}
	}
	t.since = now
	return news{token: t.uri, reason: t.reason()}
}

// tell logs a token's change of state.
func (q *Queue) tell(n news) {
	switch {
	case n.unused != nil:
		if err := n.unused.Close(); err != nil {
			q.log.Warn("closing a signing token", "error", err)
		}
	case n.token == "":
	case n.reason != "":
		q.log.Warn("signing token is taken out of turn", "token", n.token, "reason", n.reason)
	default:
		q.log.Info("signing token is back", "token", n.token, "away", n.away)
	}
}
