package signer

import (
	"crypto"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// State is what the replica that holds a key reports of it, for those who
// choose between keys elsewhere.
type State struct {
	At       time.Time             `json:"at"`
	Mean     time.Duration         `json:"mean"`     // of one signature, in nanoseconds
	Parallel int                   `json:"parallel"` // signatures at once
	Running  int                   `json:"running"`
	Waiting  [schedule.Classes]int `json:"waiting"`
	Away     string                `json:"away,omitempty"` // why the key can't be used; "" if it can
}

// freshFor is how long a report is believed: replicas report every few
// seconds, and a request that goes to a key whose holder is gone waits.
const freshFor = 10 * time.Second

// Remote is a key that another replica holds. It is safe for concurrent use.
type Remote struct {
	public crypto.PublicKey

	mu       sync.Mutex // guards all below
	state    State
	heard    time.Time             // when state came
	fresh    time.Time             // until then state is believed
	reserved [schedule.Classes]int // of ours, from the choice to the end: some the holder has counted, too
}

// NewRemote makes a key that is unusable until it is reported.
func NewRemote(public crypto.PublicKey) *Remote { return &Remote{public: public} }

// Public returns the key's public half.
func (r *Remote) Public() crypto.PublicKey { return r.public }

// Report takes in what the key's holder says; one already known changes
// nothing. A state older than 10 s isn't believed, by our clock; where the
// clocks differ by more, the holder is believed from its second report on.
func (r *Remote) Report(s State) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !s.At.After(r.state.At) {
		return
	}
	if first := r.state.At.IsZero(); !first || now.Sub(s.At).Abs() <= freshFor {
		r.fresh = now.Add(freshFor)
	}
	r.state, r.heard = s, now
}

// Wait estimates the time to a signature asked for now.
func (r *Remote) Wait(q Request) time.Duration { return r.estimate(q).Wait }

// Usable reports whether the holder was heard of within 10 s and has the key.
func (r *Remote) Usable() bool { return !r.estimate(Request{}).Away }

func (r *Remote) estimate(q Request) schedule.Estimate {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.state
	if s.Away != "" || s.Mean <= 0 || s.Parallel <= 0 || !now.Before(r.fresh) {
		return schedule.Estimate{Wait: awayWait, Away: true}
	}
	var slots schedule.Slots
	for i := range min(s.Parallel, maxParallel) {
		var rest time.Duration
		if i < s.Running {
			rest = s.Mean / 2 // on average
		}
		slots.Add(s.Mean, rest)
	}
	return schedule.Estimate{Wait: slots.Wait(r.ahead(&q, slots.Rate()*now.Sub(r.heard).Seconds())), Mean: s.Mean, Rate: slots.Rate()}
}

// ahead is about how many go before a request asked for now: all of its class,
// and of the others as many as the shares allow. Since the report so many were
// served. r.mu is held.
func (r *Remote) ahead(q *Request, served float64) int {
	reported, ours := 0, 0
	for c := range schedule.Classes {
		reported += r.state.Waiting[c]
		ours += r.reserved[c]
	}
	left := max(0, 1-served/float64(max(reported, 1))) // the part of the reported that waits still
	running := min(r.state.Running, ours)              // of ours at most
	waiting := func(c schedule.Class) int {
		// The holder's count has ours, but for those it hasn't heard of.
		unsigned := r.reserved[c]
		if c == q.Class {
			unsigned -= running
		}
		return max(int(float64(r.state.Waiting[c])*left), unsigned)
	}
	share := schedule.DefaultShares()
	own := waiting(q.Class)
	if res := q.Reservation; res != nil && res.at == holder(r) && !res.done.Load() {
		own--
	}
	own = max(own, 0)
	ahead := own
	for c := range schedule.Classes {
		if c != q.Class {
			ahead += min(waiting(c), int(float64(own+1)*share[c]/share[q.Class]))
		}
	}
	return ahead
}

// Reserve counts one more signature that will be asked for.
func (r *Remote) Reserve(q Request) *Reservation {
	q.Reservation = nil
	res := &Reservation{request: q, at: r, since: time.Now(), expected: r.estimate(q).Wait}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reserved[q.Class]++
	return res
}

func (r *Remote) release(res *Reservation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reserved[res.request.Class]--
}

func (r *Remote) remains(res *Reservation) time.Duration {
	if res.done.Load() {
		return 0
	}
	asked := res.request
	asked.Reservation = res
	// Those who came later are in the estimate for now; it waits for none of
	// them.
	now := r.estimate(asked).Wait
	return min(now, max(res.expected-time.Since(res.since), now/10))
}
