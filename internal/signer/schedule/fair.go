package schedule

import "math"

// fair is start-time fair queueing between a few parties, each of which may
// have turns waiting. A turn of party i takes 1/weight[i] of virtual time, and
// the party whose next turn would end first is served.
type fair struct {
	weight  []float64
	virtual float64   // the clock: the start of the latest turn
	finish  []float64 // when each party's latest turn ended
}

// wake lets a party that had nothing waiting come back: idle time earned it no
// credit.
func (f *fair) wake(i int) { f.finish[i] = max(f.finish[i], f.virtual) }

// next returns the party whose turn it is, -1 if none has anything waiting.
// Of two that would end at once the first in the list wins.
func (f *fair) next(waiting func(int) int) int {
	best, end := -1, 0.0
	for i, w := range f.weight {
		if waiting(i) == 0 {
			continue
		}
		if e := f.finish[i] + 1/w; best < 0 || e < end {
			best, end = i, e
		}
	}
	return best
}

// serve notes that a turn of party i is given.
func (f *fair) serve(i int) {
	f.virtual = max(f.virtual, f.finish[i])
	f.finish[i] += 1 / f.weight[i]
}

// before returns how many turns of the others are served before party i's turn
// number rank (0: its next), if nobody comes or goes.
func (f *fair) before(i, rank int, waiting func(int) int) int {
	start := f.finish[i]
	if waiting(i) == 0 {
		start = max(start, f.virtual)
	}
	end := start + float64(rank+1)/f.weight[i]
	total := 0
	for j, w := range f.weight {
		n := waiting(j)
		if j == i || n == 0 {
			continue
		}
		turns := (end - f.finish[j]) * w // that would end by then
		whole := math.Floor(turns + 1e-9)
		if j > i && whole > turns-1e-9 { // a tie, which i wins
			whole--
		}
		total += max(0, int(min(whole, float64(n))))
	}
	return total
}
