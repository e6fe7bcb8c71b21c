package catest

import (
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/mtls"
)

// Clock is the time of a CA and of all who are to agree with it: an mtls.Clock
// that a test can move on. It is an [Option] too, so that several CAs share
// one. Safe for concurrent use; not to be copied.
type Clock struct {
	mu      sync.Mutex
	stopped bool
	at      time.Time     // where it stands; only if stopped
	ahead   time.Duration // of the machine's time; only if it runs
	waiting []wait        // by due
	timer   *time.Timer   // to the first of them, while the clock runs; nil before there was one
	more    *sync.Cond    // waiting grew
}

var _ mtls.Clock = (*Clock)(nil)

// wait is one call of After.
type wait struct {
	due  time.Time
	gone chan time.Time // has room for the one value
}

// StoppedAt returns a clock that stands at a time, between 1999 and 2099, and
// moves by Advance only.
func StoppedAt(at time.Time) *Clock {
	c := newClock()
	c.stopped, c.at = true, at
	return c
}

// newClock is one that runs with the machine's.
func newClock() *Clock {
	c := new(Clock)
	c.more = sync.NewCond(&c.mu)
	return c
}

func (c *Clock) apply(s *settings) { s.clock = c }

// Now is the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now()
}

func (c *Clock) now() time.Time {
	if c.stopped {
		return c.at
	}
	return time.Now().Add(c.ahead)
}

// After sends the time when d has passed by this clock, once. The channel has
// room for it: who doesn't listen holds nobody up.
func (c *Clock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	w := wait{due: now.Add(d), gone: make(chan time.Time, 1)}
	if d <= 0 {
		w.gone <- now
		return w.gone
	}
	// Of equal times, first come first.
	i := sort.Search(len(c.waiting), func(i int) bool { return c.waiting[i].due.After(w.due) })
	c.waiting = slices.Insert(c.waiting, i, w)
	c.wind(now)
	c.more.Broadcast()
	return w.gone
}

// Advance moves the clock on by d, at once, and sends to all channels of After
// whose time is passed, the earliest first. It doesn't wait for anybody who
// hears that: what they find is the time after the move, so go in steps no
// longer than what is to be watched. It panics for a negative d, since an
// authority whose clock went back issues nothing.
func (c *Clock) Advance(d time.Duration) {
	if d < 0 {
		panic("catest: time doesn't go back")
	}
	c.mu.Lock()
	if c.stopped {
		c.at = c.at.Add(d)
	} else {
		c.ahead += d
	}
	c.mu.Unlock()
	c.fire()
}

// fire sends to all whose time has come.
func (c *Clock) fire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	over := 0
	for over < len(c.waiting) && !c.waiting[over].due.After(now) {
		c.waiting[over].gone <- c.waiting[over].due
		over++
	}
	c.waiting = slices.Delete(c.waiting, 0, over)
	c.wind(now)
}

// wind sets the timer of a running clock to the first who waits; mu is held.
func (c *Clock) wind(now time.Time) {
	switch {
	case c.stopped || len(c.waiting) == 0:
	case c.timer == nil:
		c.timer = time.AfterFunc(c.waiting[0].due.Sub(now), c.fire)
	default:
		c.timer.Reset(c.waiting[0].due.Sub(now))
	}
}

// BlockUntil waits until at least n channels of After wait for their time:
// then those who are to be woken by an Advance have gone to sleep.
func (c *Clock) BlockUntil(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.waiting) < n {
		c.more.Wait()
	}
}
