package job

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// One job per ID, so many at once, and who waits gives up in time.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, gate, runs := NewSet[string](2, 2), make(chan bool), atomic.Int32{}
		work := func(ctx context.Context) (string, error) { runs.Add(1); <-gate; return "made", ctx.Err() }
		ctx, cancel := context.WithCancel(t.Context())
		a := s.Start(ctx, "a", "", Task{About: "x", Left: func() time.Duration { return 4*time.Second + 300*time.Millisecond }}, work)
		if again := s.Start(ctx, "a", "", Task{}, work); a == nil || again != a {
			t.Error("a second job for one ID")
		}
		s.Start(ctx, "b", "", Task{About: "y"}, work)
		if j := s.Start(ctx, "c", "", Task{}, work); j != nil {
			t.Error("more than there is room for")
		}
		cancel() // whoever asked hangs up
		if a.Wait(ctx, time.Hour) || a.Wait(t.Context(), time.Second) {
			t.Error("it didn't end")
		}
		if n, here := s.RetryAfter("a"); n != 4*time.Second || !here {
			t.Errorf("come back after %v, want 4s; %v", n, here)
		}
		if n, here := s.RetryAfter("b"); n != time.Second || !here {
			t.Errorf("come back after %v, want 1s; %v", n, here)
		}
		if _, here := s.RetryAfter("none"); here || len(s.Longer(2*time.Second)) != 0 || len(s.Longer(time.Second/2)) != 2 {
			t.Error("what jobs say of themselves")
		}
		s.Describe("a", Task{About: "z"})
		s.Describe("b", Task{})
		s.Describe("none", Task{About: "z"})
		if about, ok := s.Find("a"); !ok || about != "z" {
			t.Error(about, ok)
		}
		if about := s.Longer(time.Second / 2); len(about) != 1 || about[0] != "z" {
			t.Error(about)
		}
		if about, ok := s.Find("none"); ok || about != "" {
			t.Error(about, ok)
		}
		done, stop := context.WithTimeout(t.Context(), time.Second)
		s.Idle(done)
		stop()
		if s.Count() != 2 {
			t.Error("they ended")
		}
		close(gate)
		s.Idle(t.Context())
		if !a.Wait(t.Context(), 0) || a.Err != nil || a.Made != "made" || s.Count() != 0 || runs.Load() != 2 {
			t.Errorf("%q, %v, %d left, %d runs", a.Made, a.Err, s.Count(), runs.Load())
		}
		var wait sync.WaitGroup
		for i := range 10 {
			wait.Go(func() {
				s.Start(t.Context(), fmt.Sprint(i), "", Task{}, func(context.Context) (string, error) { return "", nil })
			})
		}
		wait.Wait()
		s.Idle(t.Context())
	})
}

// So many of one group run at once, those without one aren't counted, and
// groups leave no trace.
func TestGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, gate := NewSet[int](100, 2), make(chan bool)
		broken := errors.New("broken")
		work := func(context.Context) (int, error) { <-gate; return 0, broken }
		for i, tt := range []struct {
			id, group string
			starts    bool
		}{
			{"1", "a", true}, {"2", "a", true}, {"3", "a", false}, {"1", "a", true}, // which runs already
			{"4", "b", true}, {"5", "", true}, {"6", "", true}, {"7", "", true}, {"3", "b", true}, {"8", "b", false},
		} {
			if j := s.Start(t.Context(), tt.id, tt.group, Task{}, work); (j != nil) != tt.starts {
				t.Errorf("%d: %s of %q starts: %v", i, tt.id, tt.group, j != nil)
			}
		}
		close(gate)
		s.Idle(t.Context())
		if len(s.groups)+len(s.running) != 0 {
			t.Errorf("left: %v", s.groups)
		}
		j := s.Start(t.Context(), "3", "a", Task{}, work)
		if j == nil || !j.Wait(t.Context(), time.Second) || j.Err != broken {
			t.Errorf("%+v", j)
		}
	})
}

// Clients are never told to come back at once, nor so late that they miss a
// queue that got shorter.
func TestRetry(t *testing.T) {
	for left, want := range map[time.Duration]time.Duration{
		-time.Hour: time.Second, 0: time.Second, 1400 * time.Millisecond: time.Second, 1600 * time.Millisecond: 2 * time.Second,
		time.Minute: time.Minute, time.Hour: 10 * time.Minute,
	} {
		if got := Retry(left); got != want {
			t.Errorf("%v left: come back after %v, want %v", left, got, want)
		}
	}
}

// A job may end without a result as long as nobody was promised one, and nobody
// is promised one by a job that is ending so.
func TestPromise(t *testing.T) {
	for _, promised := range []bool{true, false} {
		s, gate := NewSet[string](1, 1), make(chan bool)
		gaveUp := make(chan bool)
		j := s.Start(t.Context(), "a", "", Task{}, func(context.Context) (string, error) {
			<-gate
			gaveUp <- s.GiveUp("a")
			<-gate
			return "", nil
		})
		if promised && !s.Promise("a") {
			t.Error("a running job promises nothing")
		}
		gate <- true
		if got := <-gaveUp; got == promised {
			t.Errorf("promised: %v, gave up: %v", promised, got)
		}
		if s.Promise("a") != promised {
			t.Error("a job that gives up promises")
		}
		close(gate)
		j.Wait(t.Context(), time.Minute)
		if s.Promise("a") || !s.GiveUp("a") {
			t.Error("a job that has ended promises")
		}
	}
}

// A group may have a bound of its own.
func TestGroupBound(t *testing.T) {
	s, gate := NewSet[string](10, 1), make(chan bool)
	work := func(context.Context) (string, error) { <-gate; return "", nil }
	for i, want := range []bool{true, true, true, false} {
		if j := s.Start(t.Context(), fmt.Sprint(i), "wide", Task{Most: 3}, work); (j != nil) != want {
			t.Errorf("job %d: %v", i, j != nil)
		}
	}
	for i, want := range []bool{true, false} {
		if j := s.Start(t.Context(), fmt.Sprint("n", i), "narrow", Task{}, work); (j != nil) != want {
			t.Errorf("job %d of the narrow group: %v", i, j != nil)
		}
	}
	close(gate)
	s.Idle(t.Context())
}
