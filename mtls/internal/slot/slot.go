// Package slot is a place for one certificate and what is to be done about it:
// when it is due for what, how its rounds went, and which of the places for
// names on demand may go. It is pure but for its locks: who does the work is
// told what is due and says how it went.
//
// It imports the standard library, package acme's words and its sibling
// issued.
package slot

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
	"github.com/chancery-pki/chancery/mtls/internal/issued"
)

// Far is when to look again at a slot that has nothing to do: its next change
// comes with a poke.
const Far = 20 * time.Minute

// ErrNotYet is the error of a slot of which nothing is known yet.
var ErrNotYet = errors.New("no CA has answered yet")

// Work is what is due.
type Work int

// The kinds of work. There is one at a time in a slot.
const (
	Nothing Work = iota
	Replace      // get a certificate
	Ask          // for renewal information
	Staple       // get an OCSP response
)

// Slot is the place for one certificate. Fill in what is exported before it is
// used; methods may be called from many goroutines.
type Slot struct {
	Client bool // a client's certificate, else a server's
	Names  []string
	Both   bool // the other usage is welcome too

	Current atomic.Pointer[issued.Credential] // nil: none yet. Only who does the work replaces it

	mu      sync.Mutex // guards what follows, never held during a request
	busy    bool       // there is work under way
	tried   bool       // the first round has ended
	fails   int        // rounds in a row
	err     error      // of the last round
	retryAt time.Time  // not before this
	plan    Plan       // for the certificate that is there

	demand *demand // of one on demand, else nil
}

// Plan is what is to be done about a certificate before its renewal.
type Plan struct {
	AskAt     time.Time   // for renewal information, zero: never
	Window    acme.Window // what was said
	StapleAt  time.Time   // get an OCSP response, zero: never
	StapleEnd time.Time   // of the one that is served, zero: there is none
}

// String names the slot for people.
func (s *Slot) String() string { return s.Usage() + " " + strings.Join(s.Names, ", ") }

// Usage is "server" or "client".
func (s *Slot) Usage() string {
	if s.Client {
		return "client"
	}
	return "server"
}

// OnDemand reports whether it is one of a Names.
func (s *Slot) OnDemand() bool { return s.demand != nil }

// Left is what remains of the certificate, and of how much; zero without one.
func (s *Slot) Left(now time.Time) (left, life time.Duration) {
	if c := s.Current.Load(); c != nil {
		return c.Leaf().NotAfter.Sub(now), c.Leaf().NotAfter.Sub(c.Leaf().NotBefore)
	}
	return 0, 0
}

// Take says what is due and takes it on, until Release; or when to look again.
// before is Config.RenewBefore.
func (s *Slot) Take(now time.Time, before time.Duration) (Work, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.Current.Load()
	if s.busy || s.demand != nil && !s.demand.needed(c, before) {
		return Nothing, now.Add(Far)
	}
	next := s.retryAt
	if c != nil {
		if at := c.RenewAt(before, s.plan.Window); at.After(next) {
			next = at
		}
	}
	if !next.After(now) {
		s.busy = true
		return Replace, now
	}
	if c == nil {
		return Nothing, next
	}
	for work, at := range map[Work]time.Time{Ask: s.plan.AskAt, Staple: s.plan.StapleAt} {
		switch {
		case at.IsZero():
		case !at.After(now):
			s.busy = true
			return work, now
		case at.Before(next):
			next = at
		}
	}
	return Nothing, next
}

// Release ends the work.
func (s *Slot) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
}

// Succeeded records a round that brought a certificate.
func (s *Slot) Succeeded() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried, s.fails, s.err, s.retryAt = true, 0, nil, time.Time{}
	s.wake()
}

// Failed records a round that brought none. A quiet one asked nobody: it
// doesn't count, and an older error says more. again says when the next round
// is to be, after so many in a row.
func (s *Slot) Failed(err error, quiet bool, again func(rounds int) time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tried = true; !quiet {
		s.fails++
	}
	if !quiet || s.err == nil {
		s.err = err
	}
	s.retryAt = again(s.fails)
	s.wake()
	return s.retryAt
}

// wake has handshakes go on that wait for the round. s.mu is held.
func (s *Slot) wake() {
	if s.demand != nil && s.demand.wanted != nil {
		close(s.demand.wanted)
		s.demand.wanted = nil
	}
}

// Encourage has it try again at once.
func (s *Slot) Encourage() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retryAt = time.Time{}
}

// Tried reports whether a round has ended.
func (s *Slot) Tried() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tried
}

// LastError is why there is no new certificate.
func (s *Slot) LastError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		return ErrNotYet
	}
	return s.err
}

// Status is when the next round is to be, zero without a certificate or a
// failure, and the last one's error, nil if it succeeded.
func (s *Slot) Status(before time.Duration) (next time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next = s.retryAt
	if c := s.Current.Load(); c != nil {
		if at := c.RenewAt(before, s.plan.Window); at.After(next) {
			next = at
		}
	}
	return next, s.err
}

// Plan changes the plan.
func (s *Slot) Plan(change func(*Plan)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.plan)
}
