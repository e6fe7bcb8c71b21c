package plan

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// card is a YubiKey: five signatures a second.
const card = 200 * time.Millisecond

// keys are n keys that never vary.
func keys(n int, signature time.Duration) []Key {
	all := make([]Key, n)
	for i := range all {
		all[i] = Key{Signature: signature}
	}
	return all
}

// usual is a fleet as in a cluster of some size: a day's certificates, 2.5 per
// workload, OCSP for half of them.
func usual(workloads, drained, n int) Input {
	return Input{
		Fleet: Fleet{Workloads: workloads, PerWorkload: 2.5, Clients: 20, Lifetime: 24 * time.Hour},
		Drain: Drain{Workloads: drained},
		OCSP:  OCSP{Validity: 8 * time.Hour, Asked: .5},
		CRL:   CRL{Lists: 1},
		Keys:  keys(n, card),
		Seed:  1,
	}
}

func mustRun(t testing.TB, in Input) *Result {
	t.Helper()
	r, err := Run(in)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance*math.Abs(want)) {
		t.Errorf("%s: %.5g, want %.5g within %.1f %%", what, got, want, 100*tolerance)
	}
}

// Requests that come at random to one key of constant time wait as the theory
// of queues says: M/D/1, mean time in the system D + ρD/(2(1-ρ)).
func TestWaitsAreThoseOfMD1(t *testing.T) {
	for _, load := range []float64{.3, .5, .8} {
		in := Input{
			// Nobody's certificate lives to be renewed: a workload ends
			// after a hundredth of that time on average.
			Fleet: Fleet{Workloads: 1000, Clients: 1, Lifetime: 9 * 365 * 24 * time.Hour, Churn: load * 5 * 3600},
			Keys:  keys(1, card), Vary: -1, Seed: 7, Horizon: time.Hour,
		}
		w := mustRun(t, in).Uses[schedule.Issuance].Waits
		want := .2 + load*.2/(2*(1-load))
		near(t, "mean wait", w.Mean.Seconds(), want, .04)
	}
}

// A drain of M certificates at R signatures a second takes M/R, and whoever is
// in the middle waits half of that.
func TestDrainTakesSizeOverRate(t *testing.T) {
	for _, c := range []struct {
		keys, workloads, per int
		precertificates      bool
	}{{1, 500, 1, false}, {1, 200, 3, false}, {4, 1000, 2, false}, {8, 2000, 1, false}, {2, 300, 1, true}} {
		in := Input{
			Fleet: Fleet{PerWorkload: float64(c.per), Clients: 10, Lifetime: 24 * time.Hour, Precertificates: c.precertificates},
			Drain: Drain{Workloads: c.workloads}, Keys: keys(c.keys, card), Seed: 1,
		}
		signatures := float64(c.workloads * c.per)
		if c.precertificates {
			signatures *= 2
		}
		want := signatures / (5 * float64(c.keys))
		d := mustRun(t, in).Drain
		near(t, "drain", d.Over.Seconds(), want, .05)
		near(t, "half of the certificates", d.Each.P50.Seconds(), want/2, map[bool]float64{false: .05, true: 1.05}[c.precertificates])
		near(t, "the last", d.Workloads.Worst.Seconds(), want, .05)
	}
}

// While a key is saturated OCSP has its share, 4 % of what OCSP and
// certificates have together (there are no lists), and certificates the rest.
func TestOCSPKeepsToItsShare(t *testing.T) {
	in := usual(4000, 2000, 1)
	in.OCSP.Asked, in.OCSP.Storm, in.CRL.Lists = 0, 1, 0
	in.Fleet.Lifetime = 365 * 24 * time.Hour
	r := mustRun(t, in)
	var certificates, ocsp float64
	over := int((r.Drain.Over - r.Close.From) / r.Close.Width)
	for _, busy := range r.Close.Busy[int(-r.Close.From/r.Close.Width)+1 : over] {
		certificates += busy[schedule.Issuance] + busy[schedule.Renewal]
		ocsp += busy[schedule.OCSP]
	}
	near(t, "OCSP's part", ocsp/(certificates+ocsp), .04/.99, .03)

	in.OCSP.Storm = 0
	quiet := mustRun(t, in)
	if kept := float64(quiet.Drain.Over) / float64(r.Drain.Over); kept < .95 {
		t.Errorf("under an OCSP storm certificates are issued at %.3f of the rate without, want 0.95 at least", kept)
	}
}

// The storm's answers are all signed, once each, and the drained workloads'
// neighbours don't feel the drain.
func TestNeighboursDontWaitForTheDrain(t *testing.T) {
	in := usual(4000, 1000, 2)
	in.Fleet.Clients, in.Fleet.Churn = 50, 720
	in.OCSP.Asked = 0
	r := mustRun(t, in)
	// The drain's workloads are of all 50 clients, so a newcomer waits at
	// most about its client's part; renewals, which are few, hardly at all.
	if w := r.Drain.Others[schedule.Renewal]; w.Count == 0 || w.P99 > 10*card {
		t.Errorf("renewals wait %v at p99 during the drain (%d of them)", w.P99, w.Count)
	}
	if w := r.Drain.Others[schedule.Issuance]; w.Count == 0 || w.P99 > r.Drain.Over {
		t.Errorf("new certificates of others wait %v at p99, the drain takes %v", w.P99, r.Drain.Over)
	}
}

// N keys are at least 0.95 N times as fast as one.
func TestKeysAddUp(t *testing.T) {
	one := usual(0, 400, 1)
	one.OCSP.Asked, one.CRL.Lists = 0, 0
	alone := mustRun(t, one).Drain.Over
	for _, n := range []int{2, 4, 8} {
		in := one
		in.Keys, in.Drain.Workloads = keys(n, card), 400*n
		over := mustRun(t, in).Drain.Over
		if speed := float64(n) * float64(alone) / float64(over); speed < .95*float64(n) {
			t.Errorf("%d keys are %.2f times as fast as one", n, speed)
		}
	}
}

// Formula and simulation agree on what steady state takes.
func TestDemandIsWhatIsSimulated(t *testing.T) {
	const h = time.Hour
	base := func(change func(*Input)) Input {
		in := usual(3000, 0, 4)
		change(&in)
		return in
	}
	for name, in := range map[string]Input{
		"a day's certificates":         base(func(*Input) {}),
		"all asked about":              base(func(in *Input) { in.OCSP.Asked, in.OCSP.Validity = 1, 4*h }),
		"rarely asked about":           base(func(in *Input) { in.OCSP.Asked, in.OCSP.Every = 1, 5*h }),
		"a month's certificates":       base(func(in *Input) { in.Fleet.Lifetime, in.OCSP.Asked = 30*24*h, 1 }),
		"an hour's certificates":       base(func(in *Input) { in.Fleet.Lifetime, in.OCSP.Asked, in.Fleet.Workloads = h, 0, 2000 }),
		"workloads that come and go":   base(func(in *Input) { in.Fleet.Churn = 1000 }),
		"renewed late, to the second":  base(func(in *Input) { in.Fleet.RenewAt, in.Fleet.Spread = .9, -1 }),
		"with precertificates":         base(func(in *Input) { in.Fleet.Precertificates = true }),
		"many lists":                   base(func(in *Input) { in.CRL.Lists, in.CRL.Every = 64, h }),
		"keys of different speed":      base(func(in *Input) { in.Keys[0].Signature, in.Keys[1].Parallel = time.Second, 3 }),
		"one certificate per workload": base(func(in *Input) { in.Fleet.PerWorkload = 1 }),
	} {
		t.Run(name, func(t *testing.T) {
			r := mustRun(t, in)
			for c, u := range r.Uses {
				if u.Share*steadySignatures < 100*r.wanted() {
					continue // too few to compare
				}
				// A few standard deviations of so many signatures.
				tolerance := .02 + 4/math.Sqrt(u.Share/r.wanted()*steadySignatures)
				if name != "keys of different speed" { // which don't get the same part of each class
					near(t, schedule.Class(c).String(), u.Simulated, u.Share, tolerance)
				}
				near(t, schedule.Class(c).String()+" signatures", float64(u.Waits.Count)*in.Fleet.perAsk(schedule.Class(c)), u.Demand/(r.wanted()*r.Budget)*steadySignatures*.9, tolerance)
			}
		})
	}
}

// perAsk is how many signatures one request of a class takes.
func (f Fleet) perAsk(c schedule.Class) float64 {
	if c <= schedule.Renewal {
		return f.signatures()
	}
	return 1
}

// Answers for certificates that live long are asked for at all times alike,
// not in waves.
func TestSteadyStateIsSteady(t *testing.T) {
	in := usual(8000, 0, 1)
	in.Fleet.Lifetime, in.OCSP.Asked = 60*24*time.Hour, 1
	r := mustRun(t, in)
	const parts = 8 // of a day and a half
	for i := range parts {
		var sum float64
		of := r.Day.Busy[i*len(r.Day.Busy)/parts : (i+1)*len(r.Day.Busy)/parts]
		for _, busy := range of {
			sum += busy[schedule.OCSP]
		}
		near(t, "OCSP's part", sum/float64(len(of)), r.Uses[schedule.OCSP].Share, .08)
	}
}

// What a fleet has by Little's law: so many in use, a lifetime each, so many
// alive.
func TestAliveAndInUse(t *testing.T) {
	f := Fleet{Workloads: 16_000, PerWorkload: 2.5, RenewAt: 2. / 3}
	if got := f.Alive(); got != 60_000 {
		t.Errorf("alive: %d, want 60,000: two thirds of their time 40,000 are in use", got)
	}
	if got := f.WorkloadsOf(60_000); got != 16_000 {
		t.Errorf("workloads of 60,000 certificates: %d, want 16,000", got)
	}
	if got := (Fleet{Workloads: 3, PerWorkload: 2.5}).inUse(); got != 7 {
		t.Errorf("3 workloads of 2.5 use %d certificates, want 2, 3 and 2", got)
	}
}

// The seeds of the matter: tens of thousands of certificates, answers that
// last four to eight hours, keys of five signatures a second.
func TestOCSPThatDoesNotFit(t *testing.T) {
	in := usual(30_000, 400, 1)
	in.Horizon = time.Hour
	in.OCSP = OCSP{Validity: 4 * time.Hour, Asked: 1}
	r := mustRun(t, in)
	if wanted := r.wanted(); wanted < 1.5 {
		t.Fatalf("all uses want %.2f of the budget; this fleet should want far more than there is", wanted)
	}
	// Certificates have what they need all the same, before and in the drain.
	renewals := r.Uses[schedule.Renewal]
	near(t, "renewals' part", renewals.Simulated, renewals.Share, .05)
	if renewals.Waits.P99 > 20*card {
		t.Errorf("renewals wait %v at p99 for OCSP", renewals.Waits.P99)
	}
	near(t, "the drain", r.Drain.Over.Seconds(), 1000/(5*.96-renewals.Demand), .1)
	if p99 := r.Uses[schedule.OCSP].Waits.P99; p99 < time.Hour {
		t.Errorf("OCSP answers wait %v at p99, though there is no room for them", p99)
	}
}

// The drain's certificates are renewed together, a window wide, at two thirds
// of their life.
func TestRenewalsComeBack(t *testing.T) {
	in := usual(4000, 1000, 1)
	in.OCSP.Asked, in.CRL.Lists = 0, 0
	r := mustRun(t, in)
	mean := func(from, to time.Duration) float64 {
		var sum, n float64
		for i, busy := range r.Day.Busy {
			if at := r.Day.From + r.Day.Width*time.Duration(i); at >= from && at < to {
				sum, n = sum+busy[schedule.Renewal], n+1
			}
		}
		return sum / n
	}
	const h = time.Hour
	// A quarter of the fleet is renewed within two hours; the other three
	// quarters go on as ever.
	near(t, "renewals in the window", mean(15*h+15*time.Minute, 16*h+45*time.Minute), (2500./7200+7500./57600)/5, .1)
	near(t, "renewals before", mean(5*h, 14*h), 7500./57600/5, .1)
}

// What Run says of growth holds when one looks.
func TestGrowthHolds(t *testing.T) {
	in := usual(8000, 600, 3)
	r := mustRun(t, in)
	g := r.Growth
	if g.Fits <= 0 || g.Fits >= 1 || g.Keys <= 3 || g.Keys > sample {
		t.Fatalf("growth %+v: this drain should need a few keys more", g)
	}
	fits := func(in Input) bool { return mustRun(t, in).Drain.Workloads.P99 <= DefaultBound }
	if !fits(in.scaled(g.Fits*.97)) || fits(in.scaled(g.Fits*1.06)) {
		t.Errorf("the bound isn't passed at %.3f times the fleet", g.Fits)
	}
	if !fits(in.withKeys(g.Keys)) || fits(in.withKeys(g.Keys-1)) {
		t.Errorf("%d keys aren't the least that do", g.Keys)
	}
	last := Forever
	for _, rung := range g.Rungs {
		if rung.Workloads.P99 > last {
			t.Errorf("%d keys are slower than fewer", rung.Keys)
		}
		last = rung.Workloads.P99
	}
	d := in.scaled(r.Growth.Exhausted).Demand()
	near(t, "the whole budget", d[0]+d[1]+d[2]+d[3], r.Budget, .01)
}

// Searches use a few keys for many: more keys with as much more to do wait as
// long.
func TestFewKeysStandForMany(t *testing.T) {
	in := usual(40_000, 4000, 40).withDefaults()
	many := simulate(in, drainSpan(in, 0, 0)).drained().Workloads
	model := in.withKeys(40)
	if len(model.Keys) != sample {
		t.Fatalf("%d keys in the model", len(model.Keys))
	}
	few := simulate(model, drainSpan(model, 0, 0)).drained().Workloads
	near(t, "p50", few.P50.Seconds(), many.P50.Seconds(), .05)
	near(t, "p99", few.P99.Seconds(), many.P99.Seconds(), .05)
}

// Keys that can't keep up are said to be so, and the simulation ends.
func TestTooMuch(t *testing.T) {
	in := usual(150_000, 100, 1)
	in.Horizon = time.Hour
	r := mustRun(t, in)
	if r.Drain.Workloads.Worst == 0 || r.Uses[schedule.Renewal].Waits.P99 != Forever {
		t.Errorf("375,000 certificates in use and 5 signatures a second: %+v", r.Uses[schedule.Renewal])
	}
	if r.Growth.Exhausted >= 1 || r.Growth.Fits >= 1 {
		t.Errorf("growth %+v", r.Growth)
	}
}

// One Input has one Result; another seed has another that tells the same.
func TestRepeatable(t *testing.T) {
	in := usual(4000, 400, 3)
	encode := func(in Input) string {
		b, err := json.Marshal(mustRun(t, in))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first := encode(in)
	if encode(in) != first {
		t.Error("the same input has two results")
	}
	p99 := mustRun(t, in).Drain.Workloads.P99.Seconds()
	in.Seed++
	if encode(in) == first {
		t.Error("the seed changes nothing")
	}
	near(t, "p99 of another seed", mustRun(t, in).Drain.Workloads.P99.Seconds(), p99, .05)
}

func TestCheck(t *testing.T) {
	for want, change := range map[string]func(*Input){
		"no keys":                        func(in *Input) { in.Keys = nil },
		"no workloads":                   func(in *Input) { in.Fleet.Workloads, in.Drain.Workloads = 0, 0 },
		"negative":                       func(in *Input) { in.Drain.Workloads = -1 },
		"more than 10,000,000":           func(in *Input) { in.Fleet.Workloads = 5_000_000 },
		"certificates per workload":      func(in *Input) { in.Fleet.PerWorkload = math.NaN() },
		"the lifetime of certificates":   func(in *Input) { in.Fleet.Lifetime = time.Second },
		"the renewal point":              func(in *Input) { in.Fleet.RenewAt = 1.5 },
		"the renewal window":             func(in *Input) { in.Fleet.Spread = .9 },
		"started per hour":               func(in *Input) { in.Fleet.Churn = math.Inf(1) },
		"no OCSP":                        func(in *Input) { in.OCSP.Validity = 0 },
		"validity of OCSP answers":       func(in *Input) { in.OCSP.Validity = time.Millisecond },
		"share of relying parties":       func(in *Input) { in.OCSP.Asked = 2 },
		"revocation lists per key":       func(in *Input) { in.CRL.Lists = 258 },
		"for a signature is not between": func(in *Input) { in.Keys[0].Signature = 0 },
		"signatures at once":             func(in *Input) { in.Keys[0].Parallel = 1 << 40 },
		"1001 keys":                      func(in *Input) { in.Keys = keys(1001, card) },
		"signing shares":                 func(in *Input) { in.Shares = schedule.Shares{.5, .5, .5, .5} },
		"within which drained workloads": func(in *Input) { in.Drain.Over = 25 * time.Hour },
		"variation":                      func(in *Input) { in.Vary = 2 },
		"time to simulate":               func(in *Input) { in.Horizon = -1 },
	} {
		in := usual(10, 1, 1)
		change(&in)
		_, err := Run(in)
		if err == nil || !contains(err.Error(), want) {
			t.Errorf("want an error about %q, got %v", want, err)
		}
	}
}
