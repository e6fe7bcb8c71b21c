package signer

import (
	"sync/atomic"
	"time"
)

// Pool chooses between keys that can stand in for one another, each with its
// own queue. It is safe for concurrent use.
type Pool struct {
	queues []*Queue
	turn   atomic.Uint32 // where the next search begins
}

// NewPool makes a pool; [Pool.Choose] answers with places in this list.
func NewPool(queues ...*Queue) *Pool { return &Pool{queues: queues} }

// Choose returns the place of the key with the least expected wait among the
// usable ones (nil: all), or -1 if there is none. Keys whose waits differ by
// less than half a signature count as equal and take turns, so that noise in
// the measured rates doesn't send everybody to one.
func (p *Pool) Choose(c Class, usable func(place int) bool) int {
	n := len(p.queues)
	best, wait := -1, time.Duration(0)
	first := int(p.turn.Add(1) % uint32(max(n, 1)))
	for i := range n {
		place := (first + i) % n
		if usable != nil && !usable(place) {
			continue
		}
		w, mean := p.queues[place].waitAndMean(c)
		if best < 0 || w+mean/2 < wait {
			best, wait = place, w
		}
	}
	return best
}

// Wait is the least expected wait of all the keys; 0 if there are none.
func (p *Pool) Wait(c Class) time.Duration {
	var least time.Duration
	for i, q := range p.queues {
		if w := q.Wait(c); i == 0 || w < least {
			least = w
		}
	}
	return least
}
