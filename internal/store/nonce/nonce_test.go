package nonce_test

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/internal/store/nonce"
)

func use(t testing.TB, n *nonce.Set, text string, want bool) {
	t.Helper()
	got, err := n.Use(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("Use = %v, want %v", got, want)
	}
}

// A restart begins a new epoch: what was handed out before is refused, since
// nobody remembers whether it was used.
func TestNoncesRestart(t *testing.T) {
	before, after := nonce.InMemory(time.Now), nonce.InMemory(time.Now)
	n := before.New()
	use(t, after, n, false)
	use(t, before, n, true)
}

// The memory for used nonces is bounded, and none goes stale within an hour
// unless the bound makes it.
func TestNoncesMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := nonce.InMemory(time.Now)
		old := n.New()
		n.HandOut(10 << 20)
		time.Sleep(59 * time.Minute)
		n.HandOut(10 << 20)
		use(t, n, old, true)
		use(t, n, old, false)
		kept := n.New()
		time.Sleep(2 * time.Minute)
		n.HandOut(1 << 20)
		use(t, n, old, false) // forgotten, and refused
		use(t, n, kept, true)
		n.HandOut(200 << 20)
		if m := n.Memory(); m > 8<<20 {
			t.Errorf("used nonces take %d bytes, want at most 8 MiB", m)
		}
		use(t, n, n.New(), true)
	})
}

func FuzzNonce(f *testing.F) {
	n := nonce.InMemory(time.Now)
	f.Add("")
	f.Add(n.New()[1:])
	f.Add(strings.Repeat("A", 43))
	f.Add(strings.Repeat("_", 42) + "=")
	f.Fuzz(func(t *testing.T, text string) { use(t, n, text, false) })
}

func BenchmarkNonce(b *testing.B) {
	n := nonce.InMemory(time.Now)
	b.ReportAllocs()
	for b.Loop() {
		use(b, n, n.New(), true)
	}
}

// Many goroutines across a segment's edge: each nonce once.
func TestNoncesParallel(t *testing.T) {
	n := nonce.InMemory(time.Now)
	n.HandOut(1<<20 - 1) // no more than the first segment
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 2000 {
				text := n.New()
				use(t, n, text, true)
				use(t, n, text, false)
			}
		})
	}
	all.Wait()
}
