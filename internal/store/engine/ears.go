package engine

import (
	"slices"
	"sync"
)

// Ears are who listens in this process. The zero value is nobody; safe for
// concurrent use.
type Ears[T any] struct {
	mu    sync.RWMutex
	heard []*func(T)
}

// Join adds a listener, until leave is called.
func (e *Ears[T]) Join(heard func(T)) (leave func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = append(slices.Clone(e.heard), &heard) // Tell has the old one
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.heard = slices.DeleteFunc(slices.Clone(e.heard), func(h *func(T)) bool { return h == &heard })
	}
}

// Tell calls every listener with each notice, on the caller's goroutine.
func (e *Ears[T]) Tell(notices []T) {
	if len(notices) == 0 {
		return
	}
	e.mu.RLock()
	all := e.heard
	e.mu.RUnlock()
	for _, n := range notices {
		for _, heard := range all {
			(*heard)(n)
		}
	}
}
