package job

import (
	"slices"
	"sync"
)

// News wakes those who wait for something that another process does. The zero
// value is ready; it is safe for concurrent use. News may get lost on their way
// here: whoever waits looks for itself now and then.
type News struct {
	mu      sync.Mutex
	waiting map[string][]chan struct{} // by what they wait for
}

// Wait returns a channel that gets a value when the news come, and what to
// call when nobody waits any more.
func (n *News) Wait(id string) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.waiting == nil {
		n.waiting = make(map[string][]chan struct{})
	}
	n.waiting[id] = append(n.waiting[id], c)
	return c, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		left := slices.DeleteFunc(n.waiting[id], func(other chan struct{}) bool { return other == c })
		if n.waiting[id] = left; len(left) == 0 {
			delete(n.waiting, id)
		}
	}
}

// Tell wakes those who wait for it. It doesn't block.
func (n *News) Tell(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	wake(n.waiting[id])
}

// TellAll wakes everybody, when news may have been lost. It doesn't block.
func (n *News) TellAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, waiting := range n.waiting {
		wake(waiting)
	}
}

func wake(waiting []chan struct{}) {
	for _, c := range waiting {
		select {
		case c <- struct{}{}:
		default: // it has been told and not looked yet
		}
	}
}
