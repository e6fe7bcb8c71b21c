package signer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/pkcs11"
	"github.com/chancery-pki/chancery/internal/signer/schedule"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// Key is a private key on a token that may go away and come back: pulled out,
// locked, restarted.
type Key interface {
	// Sign returns an error when the token can't sign. The queue then takes
	// the token out of turn, unless the error wraps the ErrInput of the
	// driver's package: what couldn't be signed here can't be elsewhere.
	crypto.Signer
	// Reopen looks for the token again and logs in, as far as that can't
	// lock the PIN. No Sign runs meanwhile. It returns nil if Sign should
	// work again.
	Reopen(context.Context) error
	Close() error
}

// prober is a Key that can say whether its token is there without a signature,
// so that one pulled out while nobody signs is noticed. An error means that it
// is gone.
type prober interface{ Probe() error }

// blamesInput reports whether a driver's error says nothing against its token.
func blamesInput(err error) bool {
	return errors.Is(err, pkcs11.ErrInput) || errors.Is(err, yubikey.ErrInput)
}

// What stands for the time of one signature until one was measured: next to
// nothing while the token is idle, so that it is tried, and a card's usual time
// while it is at its first, so that one try is all it gets.
const (
	guessIdle = 10 * time.Microsecond
	guessBusy = 200 * time.Millisecond
)

// maxParallel bounds what a driver or another replica says of itself: each
// signature at once costs a little memory and time.
const maxParallel = 1024

// The measured means remember about the last memory's worth of signatures, and
// at least some, so that a short stall of a fast token isn't taken for its pace.
const (
	memory      = 5 * time.Second
	mostWeight  = 0.125 // of the newest signature
	leastWeight = 1.0 / 1024
)

// token is one place where the queue's key is: a token, or our memory. Its
// queue's mutex guards it.
type token struct {
	uri    string
	signer crypto.Signer
	key    Key       // nil: in memory, which never goes away
	random io.Reader // what signer.Sign is given

	slots   []work        // one for each signature that it makes at once
	idle    []int         // places in slots that are free
	learned int           // signatures that the means know of
	mean    time.Duration // of a signature; 0: none measured yet
	cost    time.Duration // of a signature's time by those under way at once: what the rate is made of

	gone   error         // why it must be opened again
	hung   int           // signatures given up, still under way
	closed bool          // for good; then gone is set
	since  time.Time     // when it was last taken out of turn
	worked bool          // it has signed since it was opened
	wake   chan struct{} // says that gone is set and nothing is under way
}

// work is what a slot is at.
type work struct {
	since time.Time // zero: nothing
	hung  bool      // nobody waits for it any more
}

// slot is one signature's place at a token.
type slot struct {
	token  *token
	place  int
	beside int       // signatures under way when it began, this one included
	began  time.Time // when Sign was called
}

func newToken(s *Signer) *token {
	n := min(max(s.Parallel, 1), maxParallel)
	t := &token{uri: s.URI, signer: s.Signer, random: rand.Reader, slots: make([]work, n), wake: make(chan struct{}, 1)}
	if t.key, _ = s.Signer.(Key); t.key != nil && s.Away != nil {
		t.gone, t.since = s.Away, time.Now()
	}
	if _, ok := s.Signer.(*ecdsa.PrivateKey); ok {
		// No randomness means RFC 6979: the same bytes signed again after
		// a crash give the same certificate. Whoever releases a signature
		// verifies it first, which answers the fault attacks that
		// determinism invites.
		t.random = nil
	}
	for i := range n {
		t.idle = append(t.idle, n-1-i)
	}
	return t
}

func (t *token) usable() bool { return t.gone == nil && t.hung == 0 }

// running is how many signatures are under way.
func (t *token) running() int { return len(t.slots) - len(t.idle) }

// take takes a slot, of which there must be one.
func (t *token) take(now time.Time) slot {
	place := t.idle[len(t.idle)-1]
	t.idle = t.idle[:len(t.idle)-1]
	t.slots[place].since = now
	return slot{token: t, place: place, beside: t.running(), began: now}
}

// free gives a slot back.
func (t *token) free(s slot) {
	t.slots[s.place] = work{}
	t.idle = append(t.idle, s.place)
}

// learn takes the time of one signature into the means; its slot is not yet
// free.
func (t *token) learn(s slot, took time.Duration) {
	took = max(took, 1)
	t.learned++
	weight := min(mostWeight, max(1/float64(t.learned), took.Seconds()/memory.Seconds(), leastWeight))
	smooth(&t.mean, took, weight)
	if len(t.slots) > 1 {
		smooth(&t.cost, 2*took/time.Duration(s.beside+t.running()), weight)
	}
}

func smooth(mean *time.Duration, newest time.Duration, weight float64) {
	if *mean == 0 {
		*mean = newest
		return
	}
	*mean = max(1, *mean+time.Duration(weight*float64(newest-*mean)))
}

// meanTime is the measured time of a signature, or the guess; expected says
// that some are on their way.
func (t *token) meanTime(expected bool) time.Duration {
	switch {
	case t.mean > 0:
		return t.mean
	case t.running() == 0 && !expected:
		return guessIdle
	}
	return guessBusy
}

// addTo adds the token's slots to those of the queue. A token that takes many
// at once but works on one after another shows in cost.
func (t *token) addTo(s *schedule.Slots, now time.Time, expected bool) {
	mean := t.meanTime(expected)
	each := mean
	if t.cost > 0 {
		each = t.cost * time.Duration(len(t.slots))
	}
	for i := range t.slots {
		s.Add(each, rest(t.slots[i].since, now, mean))
	}
}

// rest is how much longer a signature takes. One that is overdue is expected to
// stay so for as long again.
func rest(start, now time.Time, mean time.Duration) time.Duration {
	if start.IsZero() {
		return 0
	}
	elapsed := now.Sub(start)
	return max(mean-elapsed, elapsed-mean, 1)
}

// reason says why the token can't be used; "" if it can.
func (t *token) reason() string {
	switch {
	case t.gone != nil:
		return fmt.Sprintf("%s: %v", t.uri, t.gone)
	case t.hung > 0:
		return fmt.Sprintf("%s: a signature doesn't end", t.uri)
	}
	return ""
}
