package signer

import (
	"math"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// awayWait is what stands for the wait for a key that is away. Most come back
// within seconds, pulled and plugged again or restarted, and then sign at once.
const awayWait = 5 * time.Second

// Stats is a Queue's state for metrics. Counters begin when the queue is made.
type Stats struct {
	Running   int
	Waiting   [schedule.Classes]int           // by class
	Signed    [schedule.Classes]uint64        // by class
	WaitTotal [schedule.Classes]time.Duration // waited for a turn, the sum by class
	Busy      time.Duration                   // spent on signatures, the sum
	Failed    uint64                          // the key's errors
	Mean      time.Duration                   // of one signature, smoothed; 0: none measured yet
	Parallel  int                             // signatures at once, of the tokens that are there
	Away      string                          // why no token is there; "" if one is
	Tokens    []TokenStats
}

// TokenStats is the state of one place where a key is.
type TokenStats struct {
	URI   string
	Away  string    // why it can't be used; "" if it can
	Since time.Time // when it went away
	Mean  time.Duration
}

// Stats returns the state of this moment.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := Stats{Signed: q.counted.signed, WaitTotal: q.counted.waited, Busy: q.counted.busy, Failed: q.counted.failed}
	for c := range schedule.Classes {
		s.Waiting[c] = q.line.Len(c)
	}
	for _, w := range q.again {
		s.Waiting[w.turn.Class]++
	}
	for _, t := range q.tokens {
		s.Running += t.running()
		ts := TokenStats{URI: t.uri, Away: t.reason(), Mean: t.mean}
		if t.usable() {
			s.Parallel += len(t.slots)
		} else {
			ts.Since = t.since
		}
		s.Tokens = append(s.Tokens, ts)
	}
	s.Mean = q.meanTime()
	if !q.usable() {
		s.Away = q.away().Error()
	}
	return s
}

// meanTime is the mean over the tokens that are there, each counted by how much
// it signs; 0: none was measured yet. q.mu is held.
func (q *Queue) meanTime() time.Duration {
	n, rate := 0, 0.0
	for _, t := range q.tokens {
		if t.usable() && t.mean > 0 {
			n += len(t.slots)
			rate += float64(len(t.slots)) / t.mean.Seconds()
		}
	}
	if n == 0 {
		return 0
	}
	return time.Duration(float64(n) / rate * float64(time.Second))
}

// State is what those on other replicas need to choose between this key and
// others.
func (q *Queue) State() State {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	s := State{At: now}
	if !q.usable() {
		s.Away = q.away().Error()
		return s
	}
	slots, _ := q.slots(now)
	for _, t := range q.tokens {
		if t.usable() {
			s.Parallel += len(t.slots)
			s.Running += t.running()
		}
	}
	s.Mean = time.Duration(float64(s.Parallel) / slots.Rate() * float64(time.Second))
	for c := range schedule.Classes {
		s.Waiting[c] = q.line.Len(c) + q.reserved[c]
	}
	for _, w := range q.again {
		s.Waiting[w.turn.Class]++
	}
	return s
}

// Rate returns how many signatures a second the key makes, on all tokens that
// are there, as lately measured.
func (q *Queue) Rate() float64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	slots, _ := q.slots(time.Now())
	return slots.Rate()
}

// Wait estimates the time to a signature asked for now, from the place it would
// get, the measured rates and what is left of the signatures under way; for an
// idle key it is the time of one signature. A reservation that the request
// carries counts as its own place.
func (q *Queue) Wait(r Request) time.Duration { return q.estimate(r).Wait }

// Usable reports whether a token that holds the key is there.
func (q *Queue) Usable() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.usable()
}

func (q *Queue) estimate(r Request) schedule.Estimate {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.expect(&r, now)
}

// expect is what a request asked for now can expect; q.mu is held.
func (q *Queue) expect(r *Request, now time.Time) schedule.Estimate {
	if !q.usable() {
		return schedule.Estimate{Wait: awayWait, Away: true}
	}
	promised := q.promised()
	if own := r.Reservation; own != nil && own.at == holder(q) && !own.done.Load() {
		promised--
	}
	slots, fastest := q.slots(now)
	e := schedule.Estimate{Rate: slots.Rate(), Mean: fastest, Wait: fastest}
	if q.waiting > 0 || fastest == 0 || promised > 0 {
		t := q.turn(r, now)
		e.Mean, e.Wait = slots.Mean(), slots.Wait(promised+len(q.again)+q.line.Ahead(&t))
		e.Full = q.line.Len(r.Class) >= q.depth
	}
	return e
}

// slots adds up the tokens that are there; q.mu is held. fastest is the mean
// time of the fastest that has a free slot, 0 if none has.
func (q *Queue) slots(now time.Time) (slots schedule.Slots, fastest time.Duration) {
	expected := q.promised() > 0
	for _, t := range q.tokens {
		if !t.usable() {
			continue
		}
		t.addTo(&slots, now, expected)
		if m := t.meanTime(expected); len(t.idle) > 0 && (fastest == 0 || m < fastest) {
			fastest = m
		}
	}
	return slots, fastest
}

// promised is how many have a place and don't ask yet; q.mu is held.
func (q *Queue) promised() int {
	n := 0
	for _, r := range q.reserved {
		n += r
	}
	return n
}

// turn is the turn that a request would get now; q.mu is held.
func (q *Queue) turn(r *Request, now time.Time) schedule.Turn {
	t := schedule.Turn{Class: r.Class, Directory: r.Directory, Client: r.Client}
	if r.Class != schedule.Renewal {
		return t
	}
	left := time.Duration(math.MaxInt64)
	if !r.Ends.IsZero() {
		left = r.Ends.Sub(now)
	}
	// Whether it is urgent depends on its place if it isn't. To look for that
	// takes time where many wait, and mostly doesn't matter.
	slots, _ := q.slots(now)
	t.Urgency = schedule.Urgency(left, slots.Wait(q.waiting))
	if t.Urgency != schedule.Urgency(left, 0) {
		t.Urgency = schedule.Urgency(math.MaxInt64, 0)
		t.Urgency = schedule.Urgency(left, slots.Wait(len(q.again)+q.line.Ahead(&t)))
	}
	return t
}
