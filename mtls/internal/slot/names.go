package slot

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
	"github.com/chancery-pki/chancery/mtls/internal/issued"
)

const (
	// Retry is how long a name that could not be had isn't tried again; it
	// doubles with each failure up to maxRetry.
	Retry    = time.Minute
	maxRetry = time.Hour
	// Keep is how long a new name can't be pushed out by others, which bounds
	// what strangers can have us ask for in that time.
	Keep = time.Hour
)

// Pause is how long to wait after so many failures in a row for a name that
// has no certificate.
func Pause(fails int) time.Duration { return min(Retry<<min(max(fails-1, 0), 10), maxRetry) }

// Names are the slots of names on demand: a bounded number, of which the least
// used goes first. A nil one is empty.
type Names struct {
	Max    int
	Gone   func(*issued.Credential) // told of certificates that go
	Active atomic.Int32             // those at work

	mu    sync.RWMutex // guards the map; taken before a slot's own; never held during a request
	slots map[string]*Slot
}

// demand is what a slot on demand has beside others.
type demand struct {
	used atomic.Int64 // by a handshake, unix seconds
	born time.Time

	wanted chan struct{} // guarded by Slot.mu: closed when the round that handshakes wait for has ended
}

// needed reports whether handshakes wait for the certificate, or have used it
// in the second half of its time. Slot.mu is held.
func (d *demand) needed(c *issued.Credential, before time.Duration) bool {
	if c == nil {
		return d.wanted != nil
	}
	half := c.RenewAt(before, acme.Window{}).Sub(c.Obtained) / 2
	return !time.Unix(d.used.Load(), 0).Before(c.Obtained.Add(half))
}

// Used records that a handshake used the slot's certificate.
func (s *Slot) Used(now time.Time) { s.demand.used.Store(now.Unix()) }

// Find returns a name's slot, nil if there is none.
func (n *Names) Find(name string) *Slot {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.slots[name]
}

// Want makes sure that a name has a slot and that somebody gets it a
// certificate. ended is closed when a round for it has ended; nil: there is a
// certificate already. It is an error if the name failed a short while ago, or
// there are too many new ones.
func (n *Names) Want(name string, now time.Time) (s *Slot, ended <-chan struct{}, err error) {
	n.mu.Lock() // what is wanted can't be dropped any more
	defer n.mu.Unlock()
	if s = n.slots[name]; s == nil {
		if s, err = n.add(name, now); err != nil {
			return nil, nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.Current.Load() != nil:
		return s, nil, nil
	case s.demand.wanted == nil && s.retryAt.After(now):
		return nil, nil, fmt.Errorf("no other try for %q before %s: %w", name, s.retryAt.Format(time.RFC3339), s.err)
	case s.demand.wanted == nil:
		s.demand.wanted = make(chan struct{})
	}
	return s, s.demand.wanted, nil
}

// add makes a slot, at the cost of the least used one if need be. n.mu is held.
func (n *Names) add(name string, now time.Time) (*Slot, error) {
	if len(n.slots) >= n.Max {
		least := ""
		for other, s := range n.slots {
			if s.evictable(now) && (least == "" || s.demand.used.Load() < n.slots[least].demand.used.Load()) {
				least = other
			}
		}
		if least == "" {
			return nil, fmt.Errorf("no place for %q: there are %d names on demand already, all new (Config.MaxSNI)", name, len(n.slots))
		}
		n.drop(least)
	}
	s := &Slot{Names: []string{name}, demand: &demand{born: now}}
	s.Used(now)
	if n.slots == nil {
		n.slots = map[string]*Slot{}
	}
	n.slots[name] = s
	return s, nil
}

// drop forgets a name. n.mu is held.
func (n *Names) drop(name string) {
	if c := n.slots[name].Current.Load(); c != nil {
		n.Gone(c)
	}
	delete(n.slots, name)
}

// evictable reports whether a slot may go: nobody works on it, and it is old
// enough or has failed long enough ago.
func (s *Slot) evictable(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.busy || s.demand.wanted != nil:
		return false
	case s.Current.Load() == nil:
		return !s.retryAt.After(now)
	}
	return !now.Before(s.demand.born.Add(Keep))
}

// Expire forgets names whose certificates have ended, and those that failed
// and that nobody has asked for since.
func (n *Names) Expire(now time.Time) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, s := range n.slots {
		s.mu.Lock()
		c, idle := s.Current.Load(), !s.busy && s.demand.wanted == nil
		old := c == nil && now.After(s.retryAt.Add(maxRetry)) || c != nil && now.After(c.Leaf().NotAfter)
		s.mu.Unlock()
		if idle && old {
			n.drop(name)
		}
	}
}

// All returns the slots.
func (n *Names) All() (slots []*Slot) {
	if n == nil {
		return nil
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, s := range n.slots {
		slots = append(slots, s)
	}
	return slots
}
