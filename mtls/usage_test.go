package mtls

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/mtls/internal/fakeca"
)

// attempts counts who was asked for what.
type attempts struct {
	mu  sync.Mutex
	all map[string]int // "ca0.test server"
}

func (a *attempts) hook(at Attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil {
		a.all = map[string]int{}
	}
	host, _, _ := strings.Cut(strings.TrimPrefix(at.Directory, "https://"), "/")
	a.all[host+" "+at.Usage.String()]++
}

func (a *attempts) of(what string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all[what]
}

// TestTwoDirectories: one directory for servers and another for clients, each
// asked for what it gives only, as long as they live; who fails at one has
// nothing to do with the other.
func TestTwoDirectories(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		defer w.end()
		var asked attempts
		w.cfg.Hooks.Attempted = asked.hook
		w.cfg.CAs[0].Usage, w.cfg.CAs[1].Usage = UsageServer, UsageClient
		w.cas[0].NoInfo, w.cas[1].NoInfo = true, true
		w.cas[0].Both = true // good for clients too, but nobody asked it for that
		id := w.ready()
		defer id.Close()
		server, client := serverLeaf(t, id, "a.test"), clientLeaf(t, id)
		if server == client || !slices.Equal(client.Leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
			t.Errorf("the client's: %v", client.Leaf.ExtKeyUsage)
		}
		time.Sleep(72 * time.Hour)
		if s, c := asked.of("ca0.test server"), asked.of("ca1.test client"); s < 4 || s > 5 || c < 4 || c > 5 {
			t.Errorf("in three days: %v", asked.all)
		}
		w.cas[0].Set(fakeca.Away)
		client = clientLeaf(t, id)
		time.Sleep(25 * time.Hour)
		h := id.Health()
		if h.Able || h.Dark != "server a.test" || clientLeaf(t, id) == client {
			t.Errorf("without the servers' CA: %+v", h)
		}
		// What the other's CA could do is no consolation, and it isn't blamed. The
		// first's pause may be over just now, before it is asked again.
		if first, second := h.CAs[0], h.CAs[1]; first.Usage != "server" || first.Error == "" || first.Score > 0.5 ||
			second.Usage != "client" || second.Error != "" || second.Score < 0.99 || !second.RetryAt.IsZero() {
			t.Errorf("%+v", h.CAs)
		}
		if err := h.Certificates[0].Error; !strings.Contains(err, "ca0.test") || strings.Contains(err, "ca1.test") || h.Certificates[1].Error != "" {
			t.Errorf("%+v", h.Certificates)
		}
		// It is back: known soon, however long the clients' certificates last.
		w.cas[0].Set(fakeca.None)
		time.Sleep(2 * time.Minute)
		serverLeaf(t, id, "a.test")
		if asked.of("ca0.test client")+asked.of("ca1.test server") != 0 {
			t.Errorf("asked for what they don't give: %v", asked.all)
		}
	})
}

// TestUsageWithAnother: a CA that gives both stands in for one that gives one.
func TestUsageWithAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		defer w.end()
		var asked attempts
		w.cfg.Hooks.Attempted = asked.hook
		w.cfg.CAs[0].Usage, w.cas[1].Both = UsageServer, true
		id := w.ready()
		defer id.Close()
		if asked.of("ca0.test server") != 1 || asked.of("ca1.test client") != 1 || len(w.issued()) != 2 {
			t.Errorf("%v", asked.all)
		}
		w.cas[0].Set(fakeca.Away)
		time.Sleep(20 * time.Hour)
		if asked.of("ca1.test server") != 1 || asked.of("ca0.test client") != 0 || !id.Health().OK {
			t.Errorf("%v", asked.all)
		}
	})
}

// TestUsageNotWanted: CAs for the other usage are no part of the identity.
func TestUsageNotWanted(t *testing.T) {
	w := newWorld(t, 2)
	defer w.end()
	var asked attempts
	w.cfg.Hooks.Attempted, w.cfg.Usage = asked.hook, UsageClient
	w.cfg.CAs[0].Usage, w.cfg.CAs[1].Usage = UsageServer, UsageClient
	id := w.ready()
	defer id.Close()
	if h := id.Health(); len(h.CAs) != 1 || h.CAs[0].Directory != w.cas[1].Directory() || fmt.Sprint(asked.all) != "map[ca1.test client:1]" {
		t.Errorf("%+v, %v", h.CAs, asked.all)
	}
}

// jumpy moves on just before a timer is set, and its timers never fire.
type jumpy struct {
	manual
	jumps []time.Duration
}

// After never fires.
func (j *jumpy) After(time.Duration) <-chan time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.jumps) > 0 {
		j.now, j.jumps = j.now.Add(j.jumps[0]), j.jumps[1:]
	}
	return nil
}

// TestClockMovesBeforeTheTimer: what became due between the look at the clock
// and the timer is done without another tick.
func TestClockMovesBeforeTheTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		clock := &jumpy{manual: manual{now: time.Now()}}
		w.cas[0].Now, w.cfg.Clock = clock.Now, clock
		id := w.ready()
		defer id.Close()
		synctest.Wait()
		old := serverLeaf(t, id, "a.test")
		clock.mu.Lock()
		clock.jumps = []time.Duration{18 * time.Hour}
		clock.mu.Unlock()
		id.poke() // as after any work
		synctest.Wait()
		if serverLeaf(t, id, "a.test") == old {
			t.Error("not renewed")
		}
	})
}
