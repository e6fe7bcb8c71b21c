package rota

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errDown = errors.New("down")

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// always is what is left of all certificates.
func always(left time.Duration) func(int) time.Duration {
	return func(int) time.Duration { return left }
}

// half makes every draw ½: jitter is then three quarters.
func half() float64 { return 0.5 }

func TestBackoff(t *testing.T) {
	const day = 24 * time.Hour
	for _, tc := range []struct {
		name       string
		fails      int
		left       time.Duration
		retryAfter time.Duration
		least      time.Duration
		most       time.Duration
	}{
		{"the first failure", 1, day, 0, time.Second / 2, time.Second},
		{"the fifth", 5, day, 0, 8 * time.Second, 16 * time.Second},
		{"the hundredth", 100, day, 0, 5 * time.Minute, 10 * time.Minute},
		{"no certificate: a minute at most", 100, 0, 0, 30 * time.Second, time.Minute},
		{"one that has ended: too", 100, -time.Hour, 0, 30 * time.Second, time.Minute},
		{"an hour left: three minutes", 100, time.Hour, 0, 90 * time.Second, 3 * time.Minute},
		{"a minute left: ten seconds", 100, time.Minute, 0, 5 * time.Second, 10 * time.Second},
		{"Retry-After is a floor", 1, day, 20 * time.Minute, 20 * time.Minute, 20 * time.Minute},
		{"a short Retry-After changes nothing", 100, day, time.Second, 5 * time.Minute, 10 * time.Minute},
		{"Retry-After is bounded", 1, 30 * day, day, time.Hour, time.Hour},
		{"half of what is left isn't waited through", 1, time.Hour, time.Hour, 30 * time.Minute, 30 * time.Minute},
		{"but a minute is", 1, time.Second, time.Hour, time.Minute, time.Minute},
		{"no certificate: ten minutes of Retry-After", 1, 0, time.Hour, 10 * time.Minute, 10 * time.Minute},
		{"a negative Retry-After", 1, day, -time.Hour, time.Second / 2, time.Second},
	} {
		for _, draw := range []float64{0, 0.25, 0.999} {
			r := New([]int{0}, Random, func() float64 { return draw })
			for range tc.fails {
				r.failed(0, start, Full, tc.retryAfter, errDown)
			}
			if own := r.Backoff(tc.fails, tc.left); tc.retryAfter == 0 && (own < tc.least || own > tc.most) {
				t.Errorf("%s: Backoff %v, want %v to %v", tc.name, own, tc.least, tc.most)
			}
			got := r.Next(tc.left, nil).Sub(start)
			if got < tc.least || got > tc.most {
				t.Errorf("%s: waits %v, want %v to %v", tc.name, got, tc.least, tc.most)
			}
		}
	}
}

func TestNextIsTheFirstOfAll(t *testing.T) {
	r := New([]int{0, 1}, Ordered, half)
	if r.Next(time.Hour, nil).After(start) {
		t.Error("a new rota waits")
	}
	r.failed(0, start, Full, 0, errDown)
	if r.Next(time.Hour, nil).After(start) {
		t.Error("waits although one of them may be asked")
	}
	r.failed(1, start, Full, time.Hour, errDown)
	if got := r.Next(24*time.Hour, nil).Sub(start); got > time.Second {
		t.Errorf("waits %v for the other's Retry-After", got)
	}
	r.succeeded(1, start, time.Second)
	if r.Next(time.Hour, nil).After(start) {
		t.Error("a success doesn't end the waiting")
	}
}

// Who isn't among those asked isn't waited for, ordered or blamed.
func TestAmong(t *testing.T) {
	r := New([]int{0, 0, 0}, Ordered, half)
	odd := Among(func(ca int) bool { return ca == 1 })
	if got := r.order(start, 0, odd); !slices.Equal(got, []int{1}) {
		t.Errorf("%v", got)
	}
	r.failed(1, start, Full, 0, errDown)
	if r.Next(time.Hour, nil).After(start) || !r.Next(time.Hour, odd).After(start) {
		t.Error("waits for, or goes by, another")
	}
	if r.errors(func(ca int) bool { return ca == 0 }) != nil || len(r.errors(odd)) != 1 {
		t.Error("another's error")
	}
	asked := func(context.Context, int) (int, error) { t.Error("it was asked"); return 0, nil }
	round := Round{Among: odd, Now: func() time.Time { return start }, Start: func(f func()) { f() }}
	if _, err := Race(t.Context(), r, round, asked); !errors.Is(err, ErrNobody) || !errors.Is(err, errDown) {
		t.Error(err)
	}
}

func TestOrder(t *testing.T) {
	day := 24 * time.Hour
	t.Run("ordered, tiers apart, failed ones last", func(t *testing.T) {
		r := New([]int{1, 0, 0, 2}, Ordered, half)
		if got := r.order(start, day, nil); !slices.Equal(got, []int{1, 2, 0, 3}) {
			t.Fatalf("%v", got)
		}
		r.failed(1, start, Full, 0, errDown)
		if got := r.order(start, day, nil); !slices.Equal(got, []int{2, 0, 3}) {
			t.Errorf("in backoff: %v", got)
		}
		if got := r.order(start.Add(2*time.Second), day, nil); !slices.Equal(got, []int{2, 1, 0, 3}) {
			t.Errorf("after backoff: %v; last of its tier, before the next tier", got)
		}
		if got := r.order(start.Add(2*time.Hour), day, nil); !slices.Equal(got, []int{1, 2, 0, 3}) {
			t.Errorf("long after: %v", got)
		}
	})
	t.Run("the worst last", func(t *testing.T) {
		r := New([]int{0, 0, 0}, Ordered, half)
		for range 3 {
			r.failed(0, start, Full, 0, errDown)
		}
		r.failed(1, start, Full, 0, errDown)
		if got := r.order(start.Add(time.Minute), day, nil); !slices.Equal(got, []int{2, 1, 0}) {
			t.Errorf("%v", got)
		}
	})
	t.Run("random spreads", func(t *testing.T) {
		r, first := New([]int{0, 0, 0}, Random, nil), map[int]int{}
		for range 3000 {
			first[r.order(start, day, nil)[0]]++
		}
		for ca := range 3 {
			if first[ca] < 850 || first[ca] > 1150 { // five standard deviations
				t.Errorf("%v", first)
			}
		}
	})
	t.Run("nearest", func(t *testing.T) {
		r := New([]int{0, 0, 0}, Nearest, half)
		r.succeeded(0, start, 3*time.Second)
		r.succeeded(1, start, time.Second)
		if got := r.order(start, day, nil); !slices.Equal(got, []int{2, 1, 0}) {
			t.Errorf("%v; who isn't known is asked first", got)
		}
		r.succeeded(2, start, 2*time.Second)
		if got := r.order(start, day, nil); !slices.Equal(got, []int{1, 2, 0}) {
			t.Errorf("%v", got)
		}
		r.slow(1, start, 10*time.Second) // lost a race
		if got := r.order(start, day, nil); !slices.Equal(got, []int{2, 0, 1}) {
			t.Errorf("after it was slow: %v", got)
		}
		r.succeeded(0, start.Add(30*day), time.Second)
		if got := r.order(start.Add(30*day), day, nil); got[2] != 0 {
			t.Errorf("stale measures count: %v", got)
		}
	})
}

func TestStates(t *testing.T) {
	r := New([]int{0, 3}, Ordered, half)
	r.failed(1, start, Full, time.Minute, errDown)
	r.succeeded(0, start, time.Second)
	got := r.States(start, always(time.Hour))
	if got[0] != (State{0, 1, time.Second, time.Time{}, nil}) {
		t.Errorf("%+v", got[0])
	}
	if s := got[1]; s.Tier != 3 || s.Score != 0.5 || s.Err != errDown || !s.RetryAt.Equal(start.Add(time.Minute)) {
		t.Errorf("%+v", s)
	}
	for range 50 {
		r.failed(1, start, Full, 0, errDown)
	}
	if s := r.States(start, always(time.Hour))[1]; s.Score < 0 || s.Score > 0.01 {
		t.Errorf("score %v after fifty failures", s.Score)
	}
	if s := r.States(start.Add(time.Hour), always(time.Hour))[1]; s.Score < 0.49 || s.Score > 0.51 || !s.RetryAt.IsZero() {
		t.Errorf("%+v an hour later", s)
	}
	if s := r.States(start.Add(-time.Hour), always(time.Hour))[1]; s.Score < 0 || s.Score > 1 {
		t.Errorf("a clock that went back makes the score %v", s.Score)
	}
}

// race runs one round in a bubble; each CA answers after so long with that.
type answer struct {
	after time.Duration
	err   error
}

type outcome struct {
	value  int
	err    error
	took   time.Duration
	asked  []string // CA and when
	called map[int]error
}

func race(t *testing.T, r *Rota, round Round, answers []answer, timeout time.Duration) (o outcome) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var all sync.WaitGroup
		o.called = map[int]error{}
		begin := time.Now()
		round.Now, round.Start = time.Now, all.Go
		if round.RetryAfter == nil {
			round.RetryAfter = func(error) time.Duration { return 0 }
		}
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		o.value, o.err = Race(ctx, r, round, func(ctx context.Context, ca int) (int, error) {
			mu.Lock()
			o.asked = append(o.asked, fmt.Sprintf("%d@%v", ca, time.Since(begin)))
			mu.Unlock()
			select {
			case <-time.After(answers[ca].after):
				return ca, answers[ca].err
			case <-ctx.Done():
				mu.Lock()
				o.called[ca] = context.Cause(ctx)
				mu.Unlock()
				return 0, ctx.Err()
			}
		})
		o.took = time.Since(begin)
		all.Wait()
	})
	return o
}

func TestRace(t *testing.T) {
	const sec, never = time.Second, time.Hour
	for _, tc := range []struct {
		name    string
		tiers   []int
		hedge   time.Duration
		urgent  bool
		answers []answer
		asked   []string
		value   int // -1: an error
		took    time.Duration
	}{
		{"the first answers", []int{0, 0}, 10 * sec, false, []answer{{sec, nil}, {sec, nil}}, []string{"0@0s"}, 0, sec},
		{"the next one after a failure, at once", []int{0, 0, 0}, 10 * sec, false, []answer{{sec, errDown}, {sec, errDown}, {sec, nil}}, []string{"0@0s", "1@1s", "2@2s"}, 2, 3 * sec},
		{"all fail, each asked once", []int{0, 0}, 10 * sec, false, []answer{{sec, errDown}, {sec, errDown}}, []string{"0@0s", "1@1s"}, -1, 2 * sec},
		{"a slow one is hedged and loses", []int{0, 0}, 10 * sec, false, []answer{{never, nil}, {sec, nil}}, []string{"0@0s", "1@10s"}, 1, 11 * sec},
		{"a slow one is hedged and wins", []int{0, 0}, 10 * sec, false, []answer{{12 * sec, nil}, {5 * sec, nil}}, []string{"0@0s", "1@10s"}, 0, 12 * sec},
		{"two slow ones", []int{0, 0, 0}, 10 * sec, false, []answer{{never, nil}, {never, nil}, {sec, nil}}, []string{"0@0s", "1@10s", "2@20s"}, 2, 21 * sec},
		{"never hedged", []int{0, 0}, -1, false, []answer{{30 * sec, errDown}, {sec, nil}}, []string{"0@0s", "1@30s"}, 1, 31 * sec},
		{"the last resort isn't hedged to", []int{0, 1}, 10 * sec, false, []answer{{30 * sec, nil}, {sec, nil}}, []string{"0@0s"}, 0, 30 * sec},
		{"the last resort when the rest have failed", []int{0, 0, 1}, 10 * sec, false, []answer{{15 * sec, errDown}, {15 * sec, errDown}, {sec, nil}}, []string{"0@0s", "1@10s", "2@25s"}, 2, 26 * sec},
		{"the last resort beside, when desperate", []int{0, 1}, 10 * sec, true, []answer{{30 * sec, nil}, {sec, nil}}, []string{"0@0s", "1@10s"}, 1, 11 * sec},
		{"the caller goes", []int{0}, 10 * sec, false, []answer{{never, nil}}, []string{"0@0s"}, -1, 60 * sec},
	} {
		r := New(tc.tiers, Ordered, half)
		o := race(t, r, Round{Hedge: tc.hedge, Desperate: tc.urgent}, tc.answers, 60*sec)
		switch {
		case !slices.Equal(o.asked, tc.asked) || o.took != tc.took:
			t.Errorf("%s: asked %v, took %v; want %v, %v", tc.name, o.asked, o.took, tc.asked, tc.took)
		case tc.value >= 0 && (o.err != nil || o.value != tc.value), tc.value < 0 && o.err == nil:
			t.Errorf("%s: %d, %v", tc.name, o.value, o.err)
		}
	}
}

func TestRaceRemembers(t *testing.T) {
	const sec = time.Second
	r := New([]int{0, 0}, Ordered, half)
	o := race(t, r, Round{Hedge: 10 * sec}, []answer{{time.Hour, nil}, {sec, nil}}, time.Hour)
	if o.value != 1 || !errors.Is(o.called[0], errLost) {
		t.Fatalf("%+v", o)
	}
	bubble := time.Date(2000, 1, 1, 0, 1, 0, 0, time.UTC) // synctest's clock
	states := r.States(bubble, always(time.Hour))
	if s := states[0]; s.Err != nil || s.Score != 1 || s.Latency < 10*sec {
		t.Errorf("who lost: %+v; it did nothing wrong, but was slow", s)
	}
	if s := states[1]; s.Latency != sec || s.Score != 1 {
		t.Errorf("who won: %+v", s)
	}

	r = New([]int{0, 0}, Ordered, half)
	o = race(t, r, Round{Hedge: 10 * sec, RetryAfter: func(error) time.Duration { return 5 * time.Minute }}, []answer{{sec, errDown}, {sec, nil}}, time.Hour)
	if s := r.States(bubble, always(24*time.Hour))[0]; s.Err != errDown || s.RetryAt.Before(bubble.Add(3*time.Minute)) {
		t.Errorf("who failed: %+v", s)
	}

	r = New([]int{0}, Ordered, half)
	o = race(t, r, Round{Hedge: 10 * sec, Blame: func(error) Blame { return NoneAtAll }}, []answer{{sec, errDown}}, time.Hour)
	if s := r.States(bubble, always(time.Hour))[0]; !errors.Is(o.err, errDown) || s.Err != nil || s.Score != 1 {
		t.Errorf("not its fault: %v, %+v", o.err, s)
	}

	r = New([]int{0}, Ordered, half)
	o = race(t, r, Round{Hedge: 10 * sec, Blame: func(error) Blame { return Light }}, []answer{{sec, errDown}}, time.Hour)
	if s := r.States(bubble.Add(-time.Minute), always(time.Hour))[0]; s.Err != errDown || s.Score > 0.6 || !s.RetryAt.IsZero() {
		t.Errorf("hardly its fault: %+v", s)
	}

	r = New([]int{0}, Ordered, half)
	o = race(t, r, Round{Hedge: 10 * sec}, []answer{{time.Hour, nil}}, sec)
	if s := r.States(bubble, always(time.Hour))[0]; !errors.Is(o.err, context.DeadlineExceeded) || s.Err != nil {
		t.Errorf("the caller went: %v, %+v", o.err, s)
	}
}

func TestNobody(t *testing.T) {
	r := New([]int{0}, Ordered, half)
	round := Round{Now: func() time.Time { return start }, Left: time.Hour, Start: func(f func()) { f() }, RetryAfter: func(error) time.Duration { return time.Hour }}
	var asked atomic.Int32
	ask := func(context.Context, int) (int, error) { asked.Add(1); return 0, errDown }
	if _, err := Race(t.Context(), r, round, ask); !errors.Is(err, errDown) {
		t.Fatal(err)
	}
	if _, err := Race(t.Context(), r, round, ask); !errors.Is(err, ErrNobody) || !errors.Is(err, errDown) || asked.Load() != 1 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
	// As the end comes near it is asked again all the same.
	round.Left = 5 * time.Minute
	round.Now = func() time.Time { return start.Add(3 * time.Minute) }
	if _, err := Race(t.Context(), r, round, ask); !errors.Is(err, errDown) || asked.Load() != 2 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
}

func BenchmarkOrder(b *testing.B) {
	r := New(make([]int, 5), Random, nil)
	b.ReportAllocs()
	for b.Loop() {
		r.order(start, time.Hour, nil)
	}
}
