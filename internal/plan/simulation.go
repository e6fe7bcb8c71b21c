package plan

import (
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// simulation runs an Input from one moment to another, event by event.
type simulation struct {
	in       Input
	now      moment
	random   *rand.Rand
	calendar *calendar
	pool     *pool
	slots    []slot
	outside  []*job // that no key had room for, first come first served
	drain    drainRun
	watch    *watch
}

// slot is a place for one certificate of a workload, which over time holds
// one after the other.
type slot struct {
	key uint16 // that signed it
	gen uint8  // which one it is, so that events of an earlier one are known; 0: there is none
}

// drainRun is what becomes of the drained workloads.
type drainRun struct {
	asked []moment // by workload; before the drain: not yet
	done  []moment // when it had all its certificates
	left  []uint8  // certificates that it waits for
	open  int      // workloads that are not done
	last  moment   // when the latest was
}

// span is how much of an Input is simulated.
type span struct {
	from, to moment // the drain is at 0
	warm     moment // what happens until so long after from isn't steady state yet
	drained  bool   // end when the drain is over
	buckets  int    // of the series that is recorded; 0: none
	quiet    bool   // without the drain and the storm
}

// simulate runs it. The Input must have passed Check, with its defaults.
func simulate(in Input, over span) *simulation {
	if over.quiet {
		in.Drain, in.OCSP.Storm = Drain{}, 0
	}
	n := max(in.Fleet.inUse(), in.Fleet.slot(in.Drain.Workloads))
	s := &simulation{
		in: in, now: over.from, random: rand.New(rand.NewPCG(in.Seed, 0x9e3779b97f4a7c15)),
		calendar: newCalendar(over.from, over.to, expected(in, n, over)),
		pool:     newPool(in), slots: make([]slot, n), watch: newWatch(in, over),
	}
	s.begin()
	for s.step(over.to) {
		if over.drained && s.drain.open == 0 && s.now > s.drain.last+s.drain.last/16 {
			break
		}
	}
	s.watch.end(s)
	return s
}

// expected is about how many events the calendar will hold at a time.
func expected(in Input, slots int, over span) int {
	part := min(1, float64(over.to-over.from)/float64(in.Fleet.use()))
	return int(float64(slots)*part*(1+in.OCSP.Asked)) + in.Drain.Workloads + 1024
}

// step does what happens next; false when that lies after the end.
func (s *simulation) step(end moment) bool {
	due, any := s.calendar.first()
	if done, running := s.pool.firstDone(); running && (!any || done <= due) {
		if done >= end {
			return false
		}
		s.advance(done)
		s.signed(s.pool.finish(done))
		return true
	}
	if !any || due >= end {
		return false
	}
	s.advance(due)
	s.happen(s.calendar.take())
	return true
}

func (s *simulation) advance(to moment) {
	s.watch.series.until(to)
	s.now = max(s.now, to)
}

// begin fills the calendar with what a fleet has ahead that has run for ever.
func (s *simulation) begin() {
	in := s.in
	c := in.Fleet.ending()
	for i := range in.Fleet.inUse() {
		use := s.use()
		age := time.Duration(float64(use) * s.random.Float64())
		if c > 0 { // fewer grow old: ages are exponential, cut off at the end of use
			u := s.random.Float64() * -math.Expm1(-c*use.Seconds())
			age = min(seconds(-math.Log1p(-u)/c), use)
		}
		s.slots[i] = slot{key: s.pool.any(s.random), gen: 1}
		s.calendar.add(event{at: s.now + use - age, slot: uint32(i), gen: 1, kind: renewalDue})
		if s.asks(i) {
			s.calendar.add(event{at: s.now - age + s.nextAnswer(age), slot: uint32(i), gen: 1, kind: ocspAsked})
		}
	}
	if c > 0 {
		s.calendar.add(event{at: s.now + s.exponential(s.untilNextEnd()), kind: workloadEnds})
	}
	for k := range in.Keys {
		for range in.CRL.Lists {
			phase := time.Duration(s.random.Float64() * float64(in.CRL.Every))
			s.calendar.add(event{at: s.now + phase, slot: uint32(k), kind: listDue})
		}
	}
	s.beginDrain()
}

func (s *simulation) beginDrain() {
	m := s.in.Drain.Workloads
	s.drain = drainRun{asked: make([]moment, m), done: make([]moment, m), left: make([]uint8, m), open: m}
	for w := range m {
		s.drain.asked[w], s.drain.done[w] = -1, -1
		at := time.Duration(s.random.Float64() * float64(s.in.Drain.Over))
		s.calendar.add(event{at: at, slot: uint32(w), kind: workloadAsks})
	}
	if s.in.OCSP.Storm > 0 {
		for i := range s.in.Fleet.inUse() {
			if scattered(i, s.in.OCSP.Storm) {
				s.calendar.add(event{at: 0, slot: uint32(i), kind: ocspAsked}) // generation 0: of whichever certificate is there
			}
		}
	}
}

// use is for how long a new certificate will be used.
func (s *simulation) use() time.Duration {
	f := s.in.Fleet
	return f.use() + time.Duration((s.random.Float64()-.5)*f.Spread*float64(f.Lifetime))
}

func (s *simulation) exponential(mean time.Duration) time.Duration {
	return time.Duration(s.random.ExpFloat64() * float64(mean))
}

// untilNextEnd is the mean time between two ends of workloads.
func (s *simulation) untilNextEnd() time.Duration { return seconds(3600 / s.in.Fleet.Churn) }

// asks says whether relying parties ask about the certificates in a slot.
func (s *simulation) asks(i int) bool { return scattered(i, s.in.OCSP.Asked) }

// scattered picks a part of all slots, evenly: the multiples of the golden
// section fall evenly between 0 and 1.
func scattered(i int, part float64) bool {
	_, at := math.Modf(float64(i) * math.Phi)
	return at < part
}

// nextAnswer is the age at which an answer is next signed for a certificate
// of a given age, if it was asked about since it came to be.
func (s *simulation) nextAnswer(age time.Duration) time.Duration {
	cycle := s.in.OCSP.refresh() + s.in.OCSP.Every
	// After so many its beginning is forgotten; from when exactly is chance,
	// or all old ones would be in step.
	at := max(age-time.Duration((20+s.random.Float64())*float64(cycle)), 0)
	for at += s.exponential(s.in.OCSP.Every); at < age; {
		at += s.in.OCSP.refresh() + s.exponential(s.in.OCSP.Every)
	}
	return at
}

// happen does one event.
func (s *simulation) happen(e event) {
	if e.gen != 0 && s.slots[e.slot].gen != e.gen {
		return // of a certificate that isn't used any more
	}
	switch e.kind {
	case renewalDue:
		s.ask(schedule.Renewal, int(e.slot), false)
	case ocspAsked:
		j := s.pool.job(schedule.OCSP, int(e.slot), s.now)
		j.gen, j.during = e.gen, s.draining()
		s.pool.enter(j, int(s.slots[e.slot].key), s.now)
	case listDue:
		j := s.pool.job(schedule.CRL, 0, s.now)
		j.during = s.draining()
		s.pool.enter(j, int(e.slot), s.now)
		e.at += s.in.CRL.Every
		s.calendar.add(e)
	case workloadAsks:
		w := int(e.slot)
		s.drain.asked[w] = s.now
		s.start(w, true)
	case workloadEnds:
		s.start(s.random.IntN(s.in.Fleet.Workloads), false)
		s.calendar.add(event{at: s.now + s.exponential(s.untilNextEnd()), kind: workloadEnds})
	}
}

// start lets a workload ask for its first certificates; those that its
// predecessor had are used no more.
func (s *simulation) start(workload int, drained bool) {
	first, end := s.in.Fleet.slot(workload), s.in.Fleet.slot(workload+1)
	if drained {
		s.drain.left[workload] = uint8(end - first)
	}
	for i := first; i < end; i++ {
		s.slots[i].gen = next(s.slots[i].gen)
		s.ask(schedule.Issuance, i, drained)
	}
}

// next is the generation after one; 0 is none.
func next(gen uint8) uint8 { return max(gen+1, 1) }

// ask asks for a certificate.
func (s *simulation) ask(c schedule.Class, i int, drained bool) {
	j := s.pool.job(c, i, s.now)
	j.gen, j.drained, j.during = s.slots[i].gen, drained, s.draining()
	j.second = s.in.Fleet.Precertificates
	j.left = s.in.Fleet.Lifetime - s.in.Fleet.use()
	workload := s.workload(i)
	if clients := s.in.Fleet.Clients; clients > 0 {
		workload %= clients
	}
	j.client = uint32(workload)
	if !s.pool.place(j, s.now) {
		s.outside = append(s.outside, j)
	}
}

// draining reports whether the drain is under way.
func (s *simulation) draining() bool { return s.now >= 0 && s.drain.open > 0 }

// workload is whose slot it is.
func (s *simulation) workload(i int) int {
	w := int(float64(i) / s.in.Fleet.PerWorkload)
	for s.in.Fleet.slot(w+1) <= i {
		w++
	}
	return w
}

// signed is what follows a signature.
func (s *simulation) signed(j *job) {
	s.watch.made(j, s.now)
	if j.second { // its certificate follows the precertificate, on the same key
		j.second = false
		s.pool.enter(j, int(j.key), s.now)
		return
	}
	if len(s.outside) > 0 && s.pool.place(s.outside[0], s.now) {
		s.outside = s.outside[1:]
	}
	s.watch.answered(j, s.now)
	switch j.turn.Class {
	case schedule.Issuance, schedule.Renewal:
		s.issued(j)
	case schedule.OCSP:
		if j.gen != 0 && s.slots[j.slot].gen == j.gen {
			at := s.now + s.in.OCSP.refresh() + s.exponential(s.in.OCSP.Every)
			s.calendar.add(event{at: at, slot: j.slot, gen: j.gen, kind: ocspAsked})
		}
	}
	s.pool.forget(j)
}

// issued puts the new certificate into its slot.
func (s *simulation) issued(j *job) {
	at := &s.slots[j.slot]
	if at.gen == j.gen { // else its workload is gone
		*at = slot{key: uint16(j.key), gen: next(j.gen)}
		s.calendar.add(event{at: s.now + s.use(), slot: j.slot, gen: at.gen, kind: renewalDue})
		if s.asks(int(j.slot)) {
			s.calendar.add(event{at: s.now + s.exponential(s.in.OCSP.Every), slot: j.slot, gen: at.gen, kind: ocspAsked})
		}
	}
	if !j.drained {
		return
	}
	w := s.workload(int(j.slot))
	if s.drain.left[w]--; s.drain.left[w] == 0 {
		s.drain.done[w], s.drain.last = s.now, s.now
		s.drain.open--
	}
}

// clientName is a client's name in a line.
func clientName(client uint32) string { return strconv.Itoa(int(client)) }

// seconds makes a duration of seconds, however many.
func seconds(s float64) time.Duration {
	if s >= math.MaxInt64/float64(time.Second) {
		return math.MaxInt64
	}
	return time.Duration(s * float64(time.Second))
}
