package schedule

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

// TestOneSlot: at a card the reckoning is exact: the rest of the signature
// under way, one each for those ahead, and one's own.
func TestOneSlot(t *testing.T) {
	for _, c := range []struct {
		rest  time.Duration
		ahead int
		want  time.Duration
	}{
		{0, 0, 200 * ms},
		{200 * ms, 0, 400 * ms},
		{50 * ms, 0, 250 * ms},
		{50 * ms, 3, 850 * ms},
		{5000 * ms, 1, 5400 * ms}, // it hangs
	} {
		var s Slots
		s.Add(200*ms, c.rest)
		if got := s.Wait(c.ahead); (got - c.want).Abs() > time.Microsecond {
			t.Errorf("rest %v, %d ahead: %v, want %v", c.rest, c.ahead, got, c.want)
		}
	}
	var none Slots
	if none.Wait(5) != 0 || none.Rate() != 0 || none.Mean() != 0 {
		t.Error("no slots make signatures")
	}
}

// TestSlots: several places, played through event by event: the start is right
// to within one signature of the slowest.
func TestSlots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Slots
		var means, free []time.Duration // free: when each is next
		slowest := time.Duration(0)
		rate := 0.0
		for range rapid.IntRange(1, 12).Draw(t, "slots") {
			mean := time.Duration(rapid.IntRange(50, 500).Draw(t, "mean")) * ms
			rest := mean * time.Duration(rapid.IntRange(0, 4).Draw(t, "rest")) / 4
			s.Add(mean, rest)
			means, free = append(means, mean), append(free, rest)
			slowest = max(slowest, mean)
			rate += 1 / mean.Seconds()
		}
		ahead := rapid.IntRange(0, 200).Draw(t, "ahead")
		var start time.Duration
		for range ahead + 1 {
			i := slices.Index(free, slices.Min(free))
			start = free[i]
			free[i] += means[i]
		}
		if got := s.Start(ahead); got < start-slowest || got > start+slowest {
			t.Fatalf("%d ahead at %v: starts at %v, reckoned %v", ahead, means, start, got)
		}
		if r := s.Rate(); r < rate*.999 || r > rate*1.001 {
			t.Fatalf("rate %v, want %v", r, rate)
		}
	})
}

func TestChoose(t *testing.T) {
	for name, c := range map[string]struct {
		keys  []Estimate
		first int
		want  int
	}{
		"none":               {nil, 3, -1},
		"all away":           {[]Estimate{{Away: true}, {Away: true}}, 0, -1},
		"the least wait":     {[]Estimate{{Wait: 900 * ms}, {Wait: 300 * ms}, {Wait: 600 * ms}}, 0, 1},
		"not an away one":    {[]Estimate{{Wait: 1 * ms, Away: true}, {Wait: 300 * ms}}, 0, 1},
		"equals take turns":  {[]Estimate{{Wait: 300 * ms, Mean: 200 * ms}, {Wait: 250 * ms, Mean: 200 * ms}}, 4, 0},
		"equals, the next":   {[]Estimate{{Wait: 250 * ms, Mean: 200 * ms}, {Wait: 300 * ms, Mean: 200 * ms}}, 5, 1},
		"not nearly equal":   {[]Estimate{{Wait: 400 * ms, Mean: 200 * ms}, {Wait: 250 * ms, Mean: 200 * ms}}, 0, 1},
		"not a full one":     {[]Estimate{{Wait: 100 * ms, Full: true}, {Wait: time.Hour}}, 0, 1},
		"a full one, later":  {[]Estimate{{Wait: time.Hour}, {Wait: 100 * ms, Full: true}}, 0, 0},
		"the better of full": {[]Estimate{{Wait: time.Hour, Full: true}, {Wait: 100 * ms, Full: true}}, 0, 1},
	} {
		got := Choose(len(c.keys), c.first, func(i int) Estimate { return c.keys[i] })
		if got != c.want {
			t.Errorf("%s: chose %d, want %d", name, got, c.want)
		}
	}
}
