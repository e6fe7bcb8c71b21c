package job

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestRoom(t *testing.T) {
	r := NewRoom(3)
	var entered atomic.Int32
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if r.Enter("a") {
				entered.Add(1)
			}
		})
	}
	all.Wait()
	if entered.Load() != 3 || r.Count("a") != 3 || !r.Enter("b") {
		t.Errorf("%d entered, %d are inside", entered.Load(), r.Count("a"))
	}
	r.Leave("a")
	if !r.Enter("a") || r.Enter("a") {
		t.Error("one left, one may enter")
	}
	for range 3 {
		r.Leave("a")
	}
	r.Leave("b")
	if r.Count("a") != 0 || len(r.inside) != 0 {
		t.Errorf("left: %v", r.inside)
	}
}
