package catest_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/catest"
)

var noon = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

func arrived(c <-chan time.Time) (time.Time, bool) {
	select {
	case at := <-c:
		return at, true
	default:
		return time.Time{}, false
	}
}

// A stopped clock moves when it is told to, and wakes whose time is passed.
func TestStoppedClock(t *testing.T) {
	c := catest.StoppedAt(noon)
	if !c.Now().Equal(noon) {
		t.Fatalf("it shows %v", c.Now())
	}
	day, hour, now, past := c.After(24*time.Hour), c.After(time.Hour), c.After(0), c.After(-time.Hour)
	for _, at := range []<-chan time.Time{now, past} {
		if _, ok := arrived(at); !ok {
			t.Error("what is over already waits")
		}
	}
	c.Advance(time.Hour - 1)
	if _, ok := arrived(hour); ok {
		t.Error("too early")
	}
	c.Advance(1)
	if at, ok := arrived(hour); !ok || !at.Equal(noon.Add(time.Hour)) {
		t.Errorf("after an hour: %v, %v", at, ok)
	}
	if _, ok := arrived(day); ok {
		t.Error("a day has passed in an hour")
	}
	c.Advance(48 * time.Hour)
	if at, ok := arrived(day); !ok || !at.Equal(noon.Add(24*time.Hour)) {
		t.Errorf("after a day: %v, %v", at, ok)
	}
	if _, ok := arrived(day); ok {
		t.Error("it came twice")
	}
}

// One Advance wakes all it passes, and those who begin to wait meanwhile
// count from where it ends.
func TestAdvanceWakesAll(t *testing.T) {
	c := catest.StoppedAt(noon)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			at := <-c.After(time.Duration(20-i) * time.Minute)
			if want := noon.Add(time.Duration(20-i) * time.Minute); !at.Equal(want) {
				t.Errorf("woken at %v, want %v", at, want)
			}
			if !c.Now().Equal(noon.Add(time.Hour)) {
				t.Errorf("the clock shows %v", c.Now())
			}
		})
	}
	c.BlockUntil(20)
	c.Advance(time.Hour)
	all.Wait()
	left := c.After(time.Minute)
	c.Advance(59 * time.Second)
	if _, ok := arrived(left); ok {
		t.Error("it counted from before the Advance")
	}
}

// By default the clock runs with the machine's, here the bubble's.
func TestRunningClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := catest.New(t, catest.InMemory()).Clock()
		begun := time.Now()
		if !c.Now().Equal(begun) {
			t.Errorf("it shows %v at %v", c.Now(), begun)
		}
		<-c.After(time.Minute)
		if took := time.Since(begun); took != time.Minute {
			t.Errorf("a minute took %v", took)
		}
		sooner, later := c.After(time.Hour), c.After(2*time.Hour)
		c.Advance(90 * time.Minute)
		if _, ok := arrived(sooner); !ok {
			t.Error("not woken by Advance")
		}
		if !c.Now().Equal(begun.Add(91 * time.Minute)) {
			t.Errorf("it shows %v", c.Now())
		}
		<-later
		if took := time.Since(begun); took != 31*time.Minute {
			t.Errorf("what was left took until %v", took)
		}
		synctest.Wait()
		if _, ok := arrived(sooner); ok {
			t.Error("woken twice")
		}
	})
}

// An authority whose clock went back would issue nothing.
func TestClockNeverGoesBack(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("it went back")
		}
	}()
	catest.StoppedAt(noon).Advance(-1)
}

// Certificates follow the clock, of all CAs that share it.
func TestSharedClock(t *testing.T) {
	one := catest.New(t, catest.StoppedAt(noon))
	two := catest.New(t, one.Clock())
	if two.Clock() != one.Clock() {
		t.Fatal("two clocks")
	}
	for range 3 {
		for _, ca := range []*catest.CA{one, two} {
			leaf, _ := mustObtain(t, ca.Config("web.test"))
			if want := one.Clock().Now().Add(-time.Minute); !leaf.NotBefore.Equal(want) {
				t.Errorf("from %v, want %v", leaf.NotBefore, want)
			}
		}
		two.Advance(400 * 24 * time.Hour) // accounts and keys outlive it
	}
}

// Everybody may use a clock at once.
func TestClockRaces(t *testing.T) {
	c := catest.New(t).Clock()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				before := c.Now()
				<-c.After(time.Microsecond)
				if c.Now().Before(before) {
					t.Error("it went back")
				}
				c.Advance(time.Second)
			}
		})
	}
	all.Wait()
}
