package plan

import (
	"math"
	"slices"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// Forever is a wait that didn't end while it was simulated.
const Forever = time.Duration(math.MaxInt64)

// Result is what a simulation of an Input says.
type Result struct {
	Input  Input                 // with its defaults
	Budget float64               // signatures per second that all keys make
	Uses   [schedule.Classes]Use // in steady state, before the drain
	Drain  *Drained              // nil: none was asked for
	Growth Growth
	Day    Series // from a little before the drain to the horizon
	Close  Series // the drain itself; empty without one
	Signed int    // signatures simulated, in all runs
}

// Use is one class of signatures in steady state.
type Use struct {
	Demand    float64 // signatures per second, by formula
	Share     float64 // the part of the budget that this is
	Simulated float64 // the part of the budget that it took when simulated
	Waits     Waits   // from being asked for to being signed
}

// Waits sums up how long some waited.
type Waits struct {
	Count                 int
	Mean, P50, P99, Worst time.Duration // Forever: not over when the simulation ended
}

// Drained is what becomes of a drain.
type Drained struct {
	Certificates int
	Workloads    Waits                   // until one has all its certificates
	Each         Waits                   // one certificate
	Over         time.Duration           // until the last is done; Forever: it wasn't
	Watched      time.Duration           // until the simulation ended
	Others       [schedule.Classes]Waits // of those who asked meanwhile and weren't drained
	Done         []time.Duration         // the wait of each workload, the shortest first; those that never end left out
}

// Growth says when there is too little of what.
type Growth struct {
	Exhausted float64 // how many times the fleet may grow until steady state takes the whole budget; +Inf: however large
	Fits      float64 // how many times fleet and drain may grow until p99 of the drain's waits passes the bound; 0: there is no drain, or none is small enough; +Inf: it doesn't however far the search went
	Keys      int     // as fast as these that keep p99 of this drain within the bound; 0: there is no drain, or no number does
	Rungs     []Rung  // the drain with other numbers of keys, the fewest first
}

// Rung is the drain with some number of keys.
type Rung struct {
	Keys      int
	Workloads Waits
}

// Series is a simulation over time, in buckets.
type Series struct {
	From, Width time.Duration               // of the first bucket, against the beginning of the drain; of each
	Busy        [][schedule.Classes]float64 // the part of the budget that each class took
	Workloads   []int                       // drained ones that wait at the end of the bucket
}

// How much is simulated: enough for p99 to be steady, little enough to be
// quick.
const (
	steadySignatures = 60_000
	daySignatures    = 30_000_000
	dayBuckets       = 288
	closeBuckets     = 256

	hopelessSignatures = 500_000
	searchSignatures   = 300_000
	searchCertificates = 300_000
)

// Run simulates what is planned for. It returns Check's errors. A fleet of a
// million workloads with a hundred keys takes seconds.
func Run(in Input) (*Result, error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	in = in.withDefaults()
	r := &Result{Input: in, Budget: in.Budget()}
	r.steady()
	if in.Drain.Workloads > 0 {
		r.drain()
	}
	r.day()
	r.Growth = Growth{Exhausted: in.exhausted()}
	if r.Drain != nil {
		r.grow()
	}
	return r, nil
}

// run simulates, and counts.
func (r *Result) run(in Input, over span) *simulation {
	s := simulate(in, over)
	for _, n := range s.watch.signed {
		r.Signed += n
	}
	return s
}

// steady says what the budget goes to while nothing happens.
func (r *Result) steady() {
	demand := r.Input.Demand()
	var all float64
	for c, d := range demand {
		r.Uses[c] = Use{Demand: d, Share: d / r.Budget}
		all += d
	}
	if all == 0 {
		return
	}
	long := max(seconds(steadySignatures/min(all, r.Budget)), time.Second)
	warm := long / 10
	if all > r.Budget && r.certificates() < r.Budget { // what is late is later the longer it goes on, up to a point
		long = max(long, min(2*r.Input.Fleet.use(), seconds(10*searchSignatures/r.Budget)))
		warm = long / 2
	}
	s := r.run(r.Input, span{to: long, warm: warm, quiet: true})
	for c := range demand {
		r.Uses[c].Simulated = s.watch.used[c].Seconds() / (long - warm).Seconds() / places(r.Input)
		r.Uses[c].Waits = s.watch.before[c].waits()
	}
	// What has no room grows without end; how far depends on when one looks.
	if r.certificates() >= r.Budget {
		for _, c := range []schedule.Class{schedule.Issuance, schedule.Renewal} {
			if demand[c] > 0 {
				r.Uses[c].Waits = Waits{r.Uses[c].Waits.Count, Forever, Forever, Forever, Forever}
			}
		}
	}
}

// certificates is what certificates want in steady state, in signatures per
// second.
func (r *Result) certificates() float64 {
	return r.Uses[schedule.Issuance].Demand + r.Uses[schedule.Renewal].Demand
}

// places is how many signatures can be under way at once, over all keys.
func places(in Input) float64 {
	n := 0
	for _, k := range in.Keys {
		n += k.Parallel
	}
	return float64(n)
}

// drain simulates the drain to its end.
func (r *Result) drain() {
	s := r.run(r.Input, drainSpan(r.Input, closeBuckets, 0))
	d := s.drained()
	for c := range d.Others {
		d.Others[c] = s.watch.during[c].waits()
	}
	d.Each = s.watch.each.waits()
	if d.Over == Forever {
		d.Each.Worst = Forever
	}
	r.Drain, r.Close = d, s.series()
	if d.Over != Forever {
		r.Close.cut(-d.Over/12, d.Over+d.Over/12)
	}
}

// cut leaves out the buckets before one time and after another.
func (s *Series) cut(from, to time.Duration) {
	first := min(max(int((from-s.From)/s.Width), 0), len(s.Busy))
	end := min(max(int((to-s.From)/s.Width)+1, first), len(s.Busy))
	s.From += s.Width * time.Duration(first)
	s.Busy, s.Workloads = s.Busy[first:end], s.Workloads[first:end]
}

// drainSpan is from long enough before the drain for the queues to be as they
// usually are until its end, or until patience is over (0: some times what it
// should take). Where that is never, a few million signatures show it.
func drainSpan(in Input, buckets int, patience time.Duration) span {
	takes := in.drainTakes()
	lead := time.Duration(0)
	for _, k := range in.Keys {
		lead = max(lead, 200*k.Signature)
	}
	lead = max(lead, min(takes/12, time.Hour))
	to := patience
	switch {
	case to != 0:
	case takes < 365*24*time.Hour:
		to = in.Drain.Over + 4*takes + lead
	default:
		to = in.Drain.Over + min(24*time.Hour, seconds(hopelessSignatures/in.Budget()))
	}
	return span{from: -lead, to: to, drained: true, buckets: buckets}
}

// drainTakes is about how long the keys need for the drain; Forever where
// renewals leave them no time.
func (in Input) drainTakes() time.Duration {
	f := in.Fleet
	d := in.Demand()
	left := in.Budget() - d[schedule.Renewal] - d[schedule.Issuance]
	left -= min(d[schedule.OCSP]+d[schedule.CRL], .05*in.Budget())
	certificates := float64(f.slot(in.Drain.Workloads)) * f.signatures()
	if left <= certificates/Forever.Seconds() {
		return Forever
	}
	return max(seconds(certificates/left), in.Drain.Over)
}

// drained reads how the drained workloads fared.
func (s *simulation) drained() *Drained {
	d := &Drained{Certificates: s.in.Fleet.slot(s.in.Drain.Workloads), Watched: s.now}
	for w, done := range s.drain.done {
		if done >= 0 {
			d.Done = append(d.Done, done-s.drain.asked[w])
			d.Over = max(d.Over, done)
		}
	}
	slices.Sort(d.Done)
	if s.drain.open > 0 {
		d.Over = Forever
	}
	d.Workloads = waitsOf(d.Done, len(s.drain.done))
	return d
}

// waitsOf sums up sorted waits, of which those that aren't there never ended.
func waitsOf(sorted []time.Duration, n int) Waits {
	at := func(q float64) time.Duration {
		if i := min(int(q*float64(n)), n-1); i < len(sorted) {
			return sorted[i]
		}
		return Forever
	}
	w := Waits{Count: n, Mean: Forever, P50: at(.5), P99: at(.99), Worst: at(1)}
	if len(sorted) == n && n > 0 {
		var sum float64
		for _, d := range sorted {
			sum += d.Seconds()
		}
		w.Mean = seconds(sum / float64(n))
	}
	return w
}

// series reads what was recorded over time.
func (s *simulation) series() Series {
	r := &s.watch.series
	n := min(int((s.now-r.from)/r.width)+1, len(r.busy))
	out := Series{From: r.from, Width: r.width, Workloads: make([]int, n)}
	all := r.width.Seconds() * places(s.in)
	for b := range n {
		var busy [schedule.Classes]float64
		for c, t := range r.busy[b] {
			busy[c] = t.Seconds() / all
		}
		out.Busy = append(out.Busy, busy)
	}
	bucket := func(at moment) int { return max(int((at-r.from)/r.width), 0) }
	for w, asked := range s.drain.asked {
		if asked < 0 {
			continue
		}
		end := n
		if done := s.drain.done[w]; done >= 0 {
			end = min(bucket(done), n)
		}
		for b := bucket(asked); b < end; b++ {
			out.Workloads[b]++
		}
	}
	return out
}

// day simulates until the drain's certificates have been renewed.
func (r *Result) day() {
	in := r.Input
	to := in.Horizon
	if to == 0 {
		renewed := in.Fleet.use() + time.Duration(in.Fleet.Spread/2*float64(in.Fleet.Lifetime))
		to = min(renewed+renewed/10, 48*time.Hour)
	}
	var all float64
	for _, u := range r.Uses {
		all += u.Demand
	}
	if all > 0 {
		to = min(to, seconds(daySignatures/min(all, r.Budget)))
	}
	if d := r.Drain; d != nil && d.Over != Forever && in.Horizon == 0 {
		to = max(to, d.Over+d.Over/2)
	}
	to = max(to, time.Second)
	// Shares of the budget are the same with fewer keys that have as much
	// less to do, and a day is long.
	in = in.withKeys(len(in.Keys))
	over := span{from: -to / 16, to: to, buckets: dayBuckets}
	if in.Drain.Workloads == 0 && in.OCSP.Storm == 0 {
		over.from, over.quiet = 0, true
	}
	s := r.run(in, over)
	r.Day = s.series()
}

// sample is how many keys a search simulates at most: more of them, with as
// much more to do, wait as long.
const sample = 8

// withKeys is the Input with another number of keys.
func (in Input) withKeys(n int) Input {
	if n <= sample {
		keys := make([]Key, n)
		for i := range keys {
			keys[i] = in.Keys[i%len(in.Keys)]
		}
		in.Keys = keys
		return in
	}
	mean := Key{Parallel: 1, Signature: seconds(float64(len(in.Keys)) / in.Budget())}
	if same := in.Keys[0]; !slices.ContainsFunc(in.Keys, func(k Key) bool { return k.Signature != same.Signature || k.Parallel != same.Parallel }) {
		mean = same
	}
	in = in.scaled(sample / float64(n))
	in.Keys = slices.Repeat([]Key{mean}, sample)
	return in
}

// scaled is the Input with a fleet and a drain f times as large.
func (in Input) scaled(f float64) Input {
	in.Fleet.Workloads = int(float64(in.Fleet.Workloads)*f + .5)
	in.Fleet.Churn *= f
	in.Drain.Workloads = max(int(float64(in.Drain.Workloads)*f+.5), 1)
	return in
}

// wait is p99 of the drain's waits; about that, unsimulated, where it is
// plainly more than the bound, and Forever where there is no end.
func (r *Result) wait(in Input) time.Duration {
	takes := in.drainTakes()
	if takes == Forever || takes-in.Drain.Over > 3*in.Bound+10*in.slowest() {
		return takes
	}
	s := r.run(in, drainSpan(in, 0, 0))
	return s.drained().Workloads.P99
}

func (in Input) slowest() time.Duration {
	var slowest time.Duration
	for _, k := range in.Keys {
		slowest = max(slowest, k.Signature)
	}
	return slowest
}

// most is how many times as large a fleet a search looks at: one that is
// simulated in no time, or at least somewhat more than there is.
func (in Input) most() float64 {
	certificates := max(in.Fleet.inUse(), in.Fleet.slot(in.Drain.Workloads))
	d := in.Demand()
	grows := d[schedule.Issuance] + d[schedule.Renewal] + d[schedule.OCSP]
	lasts := in.Bound + in.Drain.Over + 200*in.slowest()
	signatures := grows*lasts.Seconds() + float64(in.Fleet.slot(in.Drain.Workloads))*in.Fleet.signatures()
	quick := min(searchCertificates/float64(certificates), searchSignatures/signatures)
	return min(max(quick, 8), max(MaxCertificates/float64(certificates), 2))
}

// grow says when keys are to be added.
func (r *Result) grow() {
	g := &r.Growth
	in, p99 := r.Input, r.Drain.Workloads.P99
	g.Fits = r.fits(p99)
	g.Keys = r.keysFor(p99)
	for _, n := range rungs(len(in.Keys), g.Keys) {
		rung := Rung{Keys: n, Workloads: r.Drain.Workloads}
		if n != len(in.Keys) {
			other := in.withKeys(n)
			if other.drainTakes() == Forever {
				rung.Workloads = Waits{0, Forever, Forever, Forever, Forever}
			} else {
				rung.Workloads = r.run(other, drainSpan(other, 0, 0)).drained().Workloads
			}
			rung.Workloads.Count = in.Drain.Workloads
		}
		g.Rungs = append(g.Rungs, rung)
	}
}

// rungs are the numbers of keys worth a look: half of what there is, that,
// somewhat more, what is needed, two and three times as many.
func rungs(have, need int) []int {
	all := []int{have, (have + 1) / 2, have + (have+3)/4, 2 * have, 3 * have}
	if need > 0 {
		all = append(all, need)
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(n int) bool { return n > MaxKeys })
}

// fits searches how many times as large fleet and drain may be. The wait is
// nearly in proportion to the size, and more so the fuller the keys are.
func (r *Result) fits(p99 time.Duration) float64 {
	in := r.Input
	model := in.withKeys(len(in.Keys))
	low, high := 0.0, math.Inf(1) // fits; doesn't
	least := 1 / float64(model.Drain.Workloads)
	most := model.most()
	for f, tries := 1.0, 0; tries < 14; tries++ {
		if tries > 0 || len(in.Keys) > sample {
			p99 = r.wait(model.scaled(f))
		}
		if p99 <= in.Bound {
			low = f
		} else {
			high = f
		}
		if low == f && f >= most {
			return math.Inf(1)
		}
		if high <= 1.01*low {
			break
		}
		if high <= least {
			return 0
		}
		guess := f * min(max(in.Bound.Seconds()/max(p99.Seconds(), 1e-9), .1), 10)
		if guess <= low*1.001 || guess >= high/1.001 {
			guess = math.Sqrt(max(low, least/2) * min(high, 10*max(low, least)))
		}
		f = min(guess, most)
	}
	return low
}

// keysFor searches the least number of keys that keep the drain within the
// bound.
func (r *Result) keysFor(p99 time.Duration) int {
	in := r.Input
	low, high := 0, MaxKeys+1 // doesn't fit; fits
	for n, tries := len(in.Keys), 0; tries < 16; tries++ {
		if tries > 0 {
			p99 = r.wait(in.withKeys(n))
		}
		if p99 <= in.Bound {
			high = n
		} else {
			low = n
		}
		if high <= low+1 {
			break
		}
		part := min(max(p99.Seconds()/in.Bound.Seconds(), .1), 4)
		n = min(max(int(math.Ceil(float64(n)*part)), low+1), high-1)
		if tries > 4 {
			n = (low + high) / 2
		}
	}
	if high > MaxKeys {
		return 0
	}
	return high
}
