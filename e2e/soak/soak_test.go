// Package soak_test renews thousands of identities in one process, over days of
// a simulated time, and looks for what stays behind.
package soak_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/mtls"
)

// Ten thousand identities get certificates of 24 hours and renew them three
// times, at a CA that costs little more than its signatures.
func TestTenThousandIdentities(t *testing.T) {
	const n = 10_000
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t)
		roots := []mtls.Roots{mtls.RootsPool(ca.roots())}
		trust, err := mtls.NewTrust(mtls.TrustConfig{Servers: roots, Clients: roots, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		defer trust.Close()
		begun := look()
		c := crowd{n: n, config: func(name string) mtls.Config {
			return mtls.Config{
				CAs:   []mtls.CA{{Directory: base + "/directory", HTTPClient: ca.client()}},
				Names: []string{name}, Trust: trust, Logger: quiet,
			}
		}}
		c.start(t)
		young := c.pass(t, begun, 20) // all have renewed once
		t.Logf("%d certificates: %v", ca.issued(), young)
		old := c.pass(t, begun, 34)
		t.Logf("%d certificates: %v", ca.issued(), old)
		old.holdTo(t, young)
		if counts := ca.counts(); len(counts) != n {
			t.Errorf("certificates for %d identities, want %d", len(counts), n)
		}
		for name, times := range ca.counts() {
			if times < 1+3 {
				t.Errorf("%s got %d certificates, want one and three renewals", name, times)
			}
		}
		c.close(t)
		time.Sleep(time.Hour) // for timers that nobody waits for any more
		ended := look()
		t.Logf("before: %v; closed: %v", begun, ended)
		// The runtime never gives up the descriptors of goroutines, half a KiB
		// for each that there was at once.
		if ended.goroutines > begun.goroutines || ended.alive > begun.alive+n*2<<10 {
			t.Error("something stays behind")
		}
	})
}

var quiet = slog.New(slog.DiscardHandler)

// crowd is n identities.
type crowd struct {
	n      int
	config func(name string) mtls.Config
	ids    []*mtls.Identity
}

// start makes them, a few at a time, and waits until all have certificates.
func (c *crowd) start(t *testing.T) {
	t.Helper()
	t.Cleanup(func() { c.close(t) }) // where the test ends early
	for i := range c.n {
		id, err := mtls.Start(c.config(fmt.Sprintf("n%d.soak.test", i)))
		if err != nil {
			t.Fatal(err)
		}
		c.ids = append(c.ids, id)
		if i%16 == 15 || i == c.n-1 {
			c.ready(t, c.ids[i/16*16:])
		}
	}
}

func (c *crowd) ready(t *testing.T, ids []*mtls.Identity) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, id := range ids {
		if err := id.Ready(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// pass lets hours pass, looks at the goroutines after each, and says what there
// is in the end.
func (c *crowd) pass(t *testing.T, begun sight, hours int) sight {
	t.Helper()
	for range hours {
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := runtime.NumGoroutine() - begun.goroutines; got > 2*c.n {
			t.Errorf("%d goroutines for %d identities, want at most two each", got, c.n)
		}
	}
	for i, id := range c.ids {
		if h := id.Health(); !h.OK {
			t.Fatalf("identity %d: %+v", i, h)
		}
	}
	return look()
}

func (c *crowd) close(t *testing.T) {
	t.Helper()
	var work sync.WaitGroup
	for _, id := range c.ids {
		work.Go(func() {
			if err := id.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	c.ids = nil
}

// sight is what a process holds.
type sight struct {
	goroutines   int
	alive, inUse uint64 // bytes of the heap: reachable, and in spans that hold such
}

// look collects the garbage first: twice, since what had a finalizer or lay in
// a sync.Pool goes with the second time only.
func look() sight {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return sight{runtime.NumGoroutine(), m.HeapAlloc, m.HeapInuse}
}

func (s sight) String() string {
	return fmt.Sprintf("%d goroutines, heap %.1f MiB (%.1f MiB in use)", s.goroutines, float64(s.alive)/(1<<20), float64(s.inUse)/(1<<20))
}

// holdTo fails the test if there is more than there was; of the heap, more than
// a twentieth.
func (s sight) holdTo(t *testing.T, was sight) {
	t.Helper()
	if s.goroutines > was.goroutines {
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines, there were %d\n%s", s.goroutines, was.goroutines, buf[:runtime.Stack(buf, true)])
	}
	if s.alive > was.alive+was.alive/20 || s.inUse > was.inUse+was.inUse/20 {
		t.Error("the heap has grown")
	}
}
