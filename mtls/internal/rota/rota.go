package rota

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// The bounds of waiting after a failure.
const (
	minBackoff = time.Second
	maxBackoff = 10 * time.Minute
	// maxRetryAfter bounds what a CA may ask for.
	maxRetryAfter = time.Hour
	// eager is the part of a certificate's remaining life that is waited for
	// at most, so that tries come closer as the end does, but never closer
	// than eagerFloor.
	eager      = 20
	eagerFloor = 10 * time.Second
	// dark bounds our own wait, and darkAfter the CA's Retry-After, where
	// there is no certificate to live on.
	dark      = time.Minute
	darkAfter = 10 * time.Minute
)

const (
	// forget is the time in which half of a bad name is forgotten.
	forget = time.Hour
	// sick is the score under which a CA is asked after the others.
	sick = 0.75
	// stale is when a measured latency says nothing any more.
	stale = 7 * 24 * time.Hour
)

// Pick is an order within a tier.
type Pick int

// The orders; see mtls.Pick.
const (
	Random Pick = iota
	Ordered
	Nearest
)

// Rota remembers how CAs did. Its methods may be called from many goroutines.
type Rota struct {
	pick Pick
	rand func() float64 // in [0,1)

	mu  sync.Mutex // guards what follows, never held while somebody is asked
	cas []state
}

// state is what is known of one CA.
type state struct {
	tier       int
	score      float64       // as of scored; 1 is well
	scored     time.Time     // of the last change
	latency    time.Duration // moving average, 0: not known
	measured   time.Time
	fails      int           // in a row
	failed     time.Time     // the last of them
	retryAfter time.Duration // what the CA asked for then
	jitter     float64       // of that wait, in [½,1)
	err        error
}

// New makes a rota of len(tiers) CAs, each in its tier. A nil random is
// math/rand's.
func New(tiers []int, pick Pick, random func() float64) *Rota {
	if random == nil {
		random = rand.Float64
	}
	r := &Rota{pick: pick, rand: random, cas: make([]state, len(tiers))}
	for i, tier := range tiers {
		r.cas[i] = state{tier: tier, score: 1}
	}
	return r
}

// goodness is the score at a time: half of what is missing comes back in each
// hour.
func (s *state) goodness(now time.Time) float64 {
	age := max(now.Sub(s.scored), 0)
	return 1 - (1-s.score)*math.Exp2(-age.Hours()/forget.Hours())
}

// ready is when the CA may be asked again for a certificate that has left to
// live (zero or less: there is none).
func (s *state) ready(left time.Duration) time.Time {
	if s.fails == 0 {
		return time.Time{}
	}
	asked := darkAfter
	if left > 0 {
		asked = max(left/2, time.Minute)
	}
	// A CA's own wish is a floor, but nobody waits through half of what is
	// left of a certificate.
	return s.failed.Add(max(backoff(s.fails, left, s.jitter), min(s.retryAfter, maxRetryAfter, asked)))
}

// backoff is how long to wait after so many failures in a row.
func backoff(fails int, left time.Duration, jitter float64) time.Duration {
	pause, limit := maxBackoff, dark
	if fails < 12 { // 2^11 s are past the bound
		pause = min(minBackoff<<max(fails-1, 0), maxBackoff)
	}
	if left > 0 {
		limit = max(left/eager, eagerFloor)
	}
	return time.Duration(float64(min(pause, limit)) * jitter)
}

// Backoff is how long to wait after so many failed rounds in a row for a
// certificate that has left to live: from a second to ten minutes, with jitter.
func (r *Rota) Backoff(rounds int, left time.Duration) time.Duration {
	return backoff(rounds, left, r.jitter())
}

// jitter is in [½,1).
func (r *Rota) jitter() float64 { return (1 + r.rand()) / 2 }

// Among says which CAs a question is about. Nil: all.
type Among func(ca int) bool

func (a Among) has(ca int) bool { return a == nil || a(ca) }

// Next is when the first of some CAs may be asked, in the past if one may be
// now.
func (r *Rota) Next(left time.Duration, among Among) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	var next time.Time
	first := true
	for i := range r.cas {
		if !among.has(i) {
			continue
		}
		if at := r.cas[i].ready(left); first || at.Before(next) {
			next, first = at, false
		}
	}
	return next
}

// order returns those of some that may be asked now, the first to be asked
// first.
func (r *Rota) order(now time.Time, left time.Duration, among Among) []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := make([]sortKey, len(r.cas))
	var order []int
	for i := range r.cas {
		s := &r.cas[i]
		if !among.has(i) || s.ready(left).After(now) {
			continue
		}
		order = append(order, i)
		k := sortKey{tier: s.tier, pick: float64(i)}
		if g := s.goodness(now); g < sick {
			k.ill = 1 - g
		}
		switch r.pick {
		case Random:
			k.pick = r.rand()
		case Nearest: // who isn't known goes first: else nobody would ever know
			k.pick = 0
			if now.Sub(s.measured) < stale {
				k.pick = s.latency.Seconds()
			}
		}
		keys[i] = k
	}
	slices.SortStableFunc(order, func(a, b int) int { return keys[a].compare(keys[b]) })
	return order
}

type sortKey struct {
	tier      int
	ill, pick float64
}

func (k sortKey) compare(l sortKey) int {
	return cmp.Or(cmp.Compare(k.tier, l.tier), cmp.Compare(k.ill, l.ill), cmp.Compare(k.pick, l.pick))
}

func (r *Rota) tier(ca int) int { return r.cas[ca].tier } // never changes

// succeeded, failed and slow record how an attempt ended.
func (r *Rota) succeeded(ca int, now time.Time, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.cas[ca]
	s.score, s.scored = (1+s.goodness(now))/2, now
	s.fails, s.err, s.retryAfter = 0, nil, 0
	s.measure(now, took)
}

func (r *Rota) failed(ca int, now time.Time, blame Blame, retryAfter time.Duration, err error) {
	if blame == NoneAtAll {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.cas[ca]
	s.score, s.scored, s.err = s.goodness(now)/2, now, err
	if blame == Light {
		return
	}
	s.fails++
	s.failed, s.retryAfter, s.jitter = now, max(retryAfter, 0), r.jitter()
}

// slow is for who lost a race: it did nothing wrong, but took so long at least.
func (r *Rota) slow(ca int, now time.Time, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := &r.cas[ca]; took > s.latency {
		s.measure(now, took)
	}
}

func (s *state) measure(now time.Time, took time.Duration) {
	took = max(took, 1)
	if s.latency == 0 || now.Sub(s.measured) >= stale {
		s.latency = took
	} else {
		s.latency += (took - s.latency) / 2
	}
	s.measured = now
}

// State is what a rota knows of one CA.
type State struct {
	Tier    int
	Score   float64 // 1: answers well, 0: failed again and again
	Latency time.Duration
	RetryAt time.Time // zero: may be asked now
	Err     error     // of the last attempt
}

// States returns what is known of each, as a certificate with left to live
// sees it.
func (r *Rota) States(now time.Time, left func(ca int) time.Duration) []State {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]State, len(r.cas))
	for i := range r.cas {
		s := &r.cas[i]
		out[i] = State{s.tier, s.goodness(now), s.latency, s.ready(left(i)), s.err}
		if !out[i].RetryAt.After(now) {
			out[i].RetryAt = time.Time{}
		}
	}
	return out
}
