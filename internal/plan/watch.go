package plan

import (
	"math/bits"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// watch records what a simulation shows.
type watch struct {
	steady moment // what was asked for from here on, and before the drain, is steady state
	quiet  bool   // there is no drain
	to     moment

	before [schedule.Classes]histogram // waits in steady state
	during [schedule.Classes]histogram // of those who asked while the drain ran, but weren't of it
	each   histogram                   // of the drain's certificates

	used   [schedule.Classes]time.Duration // of the keys, in steady state
	signed [schedule.Classes]int           // signatures made in all, by class
	series series
}

// series is a simulation over time, in buckets of equal width. Where its end
// isn't known, the buckets become wider as it goes on.
type series struct {
	from, width moment
	grows       bool
	busy        [][schedule.Classes]time.Duration // of the keys
}

func newWatch(in Input, over span) *watch {
	w := &watch{steady: over.from + over.warm, quiet: over.quiet, to: over.to}
	if n := moment(over.buckets); n > 0 {
		width := (over.to - over.from) / n
		if over.drained {
			width = -over.from / n
		}
		w.series = series{
			from: over.from, width: max(width, 1), grows: over.drained,
			busy: make([][schedule.Classes]time.Duration, n),
		}
	}
	return w
}

// until makes room for a moment.
func (r *series) until(at moment) {
	for r.grows && at > r.from+r.width*moment(len(r.busy)) {
		r.widen()
	}
}

// made notes a signature.
func (w *watch) made(j *job, now moment) {
	c := j.turn.Class
	w.signed[c]++
	end := now
	if !w.quiet {
		end = min(now, 0) // the drain begins
	}
	w.used[c] += max(end-max(j.begun, w.steady), 0)
	w.series.add(c, j.begun, now)
}

// widen makes one bucket of every two.
func (r *series) widen() {
	n := len(r.busy)
	for b := range n {
		var busy [schedule.Classes]time.Duration
		if 2*b+1 < n {
			for c := range busy {
				busy[c] = r.busy[2*b][c] + r.busy[2*b+1][c]
			}
		}
		r.busy[b] = busy
	}
	r.width *= 2
}

func (r *series) add(c schedule.Class, begun, end moment) {
	for b := max(int((begun-r.from)/max(r.width, 1)), 0); b < len(r.busy); b++ {
		left, right := r.from+r.width*moment(b), r.from+r.width*moment(b+1)
		r.busy[b][c] += max(min(end, right)-max(begun, left), 0)
		if end <= right {
			return
		}
	}
}

// answered notes that a job is done, both of its signatures where it has two.
func (w *watch) answered(j *job, now moment) {
	waited := now - j.asked
	switch {
	case j.drained:
		w.each.add(waited)
	case !w.quiet && j.asked >= 0:
		if j.during {
			w.during[j.turn.Class].add(waited)
		}
	case j.asked >= w.steady:
		w.before[j.turn.Class].add(waited)
	}
}

// end counts what is under way when the simulation ends.
func (w *watch) end(s *simulation) {
	w.series.until(s.now)
	for _, r := range s.pool.done {
		end := min(r.until, w.to)
		w.series.add(r.job.turn.Class, r.job.begun, end)
		if w.quiet {
			w.used[r.job.turn.Class] += max(end-max(r.job.begun, w.steady), 0)
		}
	}
}

// fine is how many buckets a histogram has per power of two: what it says of
// a wait is wrong by less than half a per cent.
const fine = 128

// histogram counts waits. The mean and the worst are exact.
type histogram struct {
	n      int
	sum    float64 // seconds
	worst  time.Duration
	counts []int
}

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	h.n++
	h.sum += d.Seconds()
	h.worst = max(h.worst, d)
	i := histogramBucket(d)
	for len(h.counts) <= i {
		h.counts = append(h.counts, make([]int, i+1-len(h.counts)+fine)...)
	}
	h.counts[i]++
}

func histogramBucket(d time.Duration) int {
	shift := max(bits.Len64(uint64(d))-8, 0) // 8 bits are kept
	return shift*fine + int(d>>shift)
}

// at is the wait in the middle of a bucket.
func (h *histogram) at(i int) time.Duration {
	if i < 2*fine {
		return time.Duration(i)
	}
	shift := i/fine - 1
	return time.Duration(i-shift*fine)<<shift + time.Duration(1)<<shift/2
}

// quantile is the wait that a part q of all don't exceed; 0 if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	rank := int(q * float64(h.n))
	for i, n := range h.counts {
		if rank -= n; rank < 0 {
			return min(h.at(i), h.worst)
		}
	}
	return h.worst
}

// mean is 0 if there are none.
func (h *histogram) mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return seconds(h.sum / float64(h.n))
}

// waits sums it up.
func (h *histogram) waits() Waits {
	return Waits{Count: h.n, Mean: h.mean(), P50: h.quantile(.5), P99: h.quantile(.99), Worst: h.worst}
}
