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
	fresh    time.Time             // until then state is believed
	reserved [schedule.Classes]int // places at which nothing was handed over yet
	// What was handed over since the latest report, and between that and the
	// one before it: the latest may have been made before it arrived.
	handed, earlier [schedule.Classes]int
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
	r.state = s
	r.earlier, r.handed = r.handed, [schedule.Classes]int{}
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
	return schedule.Estimate{Wait: slots.Wait(r.ahead(&q)), Mean: s.Mean, Rate: slots.Rate()}
}

// ahead is about how many go before a request asked for now: all of its class,
// and of the others as many as the shares allow; r.mu is held.
func (r *Remote) ahead(q *Request) int {
	waiting := func(c schedule.Class) int {
		return r.state.Waiting[c] + r.reserved[c] + r.handed[c] + r.earlier[c]
	}
	share := schedule.DefaultShares()
	own := waiting(q.Class)
	if res := q.Reservation; res != nil && res.at == holder(r) && !res.done.Load() {
		own--
	}
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
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reserved[q.Class]++
	return &Reservation{request: q, at: r}
}

func (r *Remote) release(res *Reservation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reserved[res.request.Class]--
}

func (r *Remote) handOver(res *Reservation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reserved[res.request.Class]--
	r.handed[res.request.Class]++
}

func (r *Remote) remains(res *Reservation) time.Duration {
	if res.done.Load() {
		return 0
	}
	asked := res.request
	asked.Reservation = res
	return r.estimate(asked).Wait
}
