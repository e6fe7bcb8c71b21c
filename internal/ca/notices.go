package ca

import (
	"context"
	"slices"
	"sync"

	"github.com/chancery-pki/chancery/internal/store"
)

// told wakes those who wait for something that another replica does.
type told struct {
	mu      sync.Mutex
	waiting map[string][]chan struct{} // by what they wait for
}

// wait returns a channel that gets a value when the news come, and what to
// call when nobody waits any more.
func (t *told) wait(id string) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting == nil {
		t.waiting = make(map[string][]chan struct{})
	}
	t.waiting[id] = append(t.waiting[id], c)
	return c, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		left := slices.DeleteFunc(t.waiting[id], func(other chan struct{}) bool { return other == c })
		if t.waiting[id] = left; len(left) == 0 {
			delete(t.waiting, id)
		}
	}
}

// wake wakes those who wait for it.
func (t *told) wake(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.waiting[id] {
		select {
		case c <- struct{}{}:
		default: // it has been told and not looked yet
		}
	}
}

// heard takes a notice of the store's. It must not block.
func (a *Authority) heard(n store.Notice) {
	switch n.Topic {
	case topicPlanned:
		if slices.Contains(a.rules.Load().held, n.Body) {
			select {
			case a.planned <- struct{}{}:
			default:
			}
		}
	case topicIssued:
		a.told.wake(n.Body)
	}
}

// ReportKeys records how the keys that this replica holds are doing, for those
// that don't hold them.
func (a *Authority) ReportKeys(ctx context.Context, states []store.KeyState) error {
	for i := range states {
		states[i].Replica = a.replica
	}
	return a.db.Update(ctx, func(tx *store.Tx) error { return tx.PutKeyStates(states) })
}
