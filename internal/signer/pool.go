package signer

import (
	"sync"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// Candidate is a key that a Pool may choose: a *Queue, or a *Remote.
type Candidate interface {
	// Wait estimates the time to a signature asked for now.
	Wait(Request) time.Duration
	// Usable reports whether the key could sign now, be it after a wait.
	Usable() bool
	// Reserve counts one more signature that will be asked for.
	Reserve(Request) *Reservation
	// estimate says all that a choice needs, as of one moment.
	estimate(Request) schedule.Estimate
}

// Pool chooses between keys that can stand in for one another, each with its
// own queue. It is safe for concurrent use.
type Pool struct {
	keys []Candidate

	mu   sync.Mutex // held while one chooses, so that the next sees the choice
	turn int        // where the next search begins
}

// NewPool makes a pool; [Pool.Choose] answers with places in this list.
func NewPool(keys ...Candidate) *Pool { return &Pool{keys: keys} }

// Choose returns the place of the key with the least expected wait among those
// that usable lets pass (nil: all) and that are there, and reserves a place at
// it, so that of a burst each sees those before. -1 and nil if there is none.
// The reservation belongs into the Request of Sign, or must be cancelled.
// Keys whose waits differ by less than half a signature take turns. usable must
// not block: the pool is locked meanwhile.
func (p *Pool) Choose(r Request, usable func(place int) bool) (int, *Reservation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn++
	place := schedule.Choose(len(p.keys), p.turn, func(place int) schedule.Estimate {
		if usable != nil && !usable(place) {
			return schedule.Estimate{Away: true}
		}
		return p.keys[place].estimate(r)
	})
	if place < 0 {
		return -1, nil
	}
	return place, p.keys[place].Reserve(r)
}

// Wait is the least expected wait of the keys that are there; when all are
// away, the time after which that is looked at again. 0 for an empty pool.
func (p *Pool) Wait(r Request) time.Duration {
	least, found := time.Duration(0), false
	for _, k := range p.keys {
		if e := k.estimate(r); !e.Away && (!found || e.Wait < least) {
			least, found = e.Wait, true
		}
	}
	if !found && len(p.keys) > 0 {
		return awayWait
	}
	return least
}

// Rate returns how many signatures a second all keys that are there make.
func (p *Pool) Rate() float64 {
	total := 0.0
	for _, k := range p.keys {
		total += k.estimate(Request{}).Rate
	}
	return total
}
