package plan

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// wanted is the part of the budget that all uses want in steady state; more
// than 1 is more than there is.
func (r *Result) wanted() float64 {
	var sum float64
	for _, u := range r.Uses {
		sum += u.Share
	}
	return sum
}

// Verdict says in a sentence how it stands.
func (r *Result) Verdict() string {
	certificates := r.certificates() / r.Budget
	switch d := r.Drain; {
	case certificates >= 1: // all else follows
		return "The keys can't keep up: certificates alone want " + percent(certificates)
	case d != nil && d.Over == Forever:
		return "A drain of " + several(r.Input.Drain.Workloads, "workload") + " is not over after " + howLong(d.Watched)
	case d != nil:
		return "A drain of " + several(r.Input.Drain.Workloads, "workload") + " is over in " + howLong(d.Over)
	case r.wanted() >= 1:
		return "OCSP answers fall behind: " + percent(r.wanted()) + " of the budget is wanted"
	}
	return "While nothing happens, " + percent(1-r.wanted()) + " of the signing budget is free"
}

// Advice says what to do, a sentence each.
func (r *Result) Advice() []string {
	in, g := r.Input, r.Growth
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	have := len(in.Keys)
	bound := "99 of 100 drained workloads have their certificates within " + howLong(in.Bound)
	switch {
	case r.Drain == nil:
	case g.Keys == 0 && g.Fits < 1:
		say("No number of keys brings the drain within %s: that is less than one workload waits by itself, or takes more than %d keys.", howLong(in.Bound), MaxKeys)
	case g.Fits < 1 && g.Keys > have:
		say("Add %s (%d in all): then %s.", several(g.Keys-have, "key"), g.Keys, bound)
		if g.Fits > 0 {
			say("These keys do it for %s.", r.bothOf(g.Fits))
		}
	case math.IsInf(g.Fits, 1):
		say("Enough keys, for a far larger fleet too: %s.", bound)
	default:
		say("Enough keys: %s.", bound)
		say("Add one at %s: %s as much as now.", r.bothOf(g.Fits), times(g.Fits))
		if g.Keys > 0 && g.Keys < have {
			say("%s would do for now.", capital(several(g.Keys, "key")))
		}
	}
	switch {
	case r.certificates() >= r.Budget:
		say("Certificates want more signatures than there are, drain or no drain: nothing but more keys helps, or longer lifetimes.")
	case r.wanted() >= 1:
		say("All uses together want %s of the budget. Certificates keep their part; OCSP answers are late.", percent(r.wanted()))
		say("Longer OCSP validity, fewer who ask, or short lifetimes without OCSP make room.")
	case !math.IsInf(g.Exhausted, 1):
		say("Steady state takes the whole budget at %s (%s as many as now).", r.fleetOf(g.Exhausted), times(g.Exhausted))
	}
	return out
}

// fleetOf is a fleet f times as large, in certificates alive; where there is
// none yet, in drained workloads.
func (r *Result) fleetOf(f float64) string {
	if alive := r.Input.Fleet.Alive(); alive > 0 {
		return rough(float64(alive)*f) + " certificates alive"
	}
	return "drains of " + rough(float64(r.Input.Drain.Workloads)*f) + " workloads"
}

// bothOf is a fleet f times as large, with its drain.
func (r *Result) bothOf(f float64) string {
	drain := "drains of " + rough(float64(r.Input.Drain.Workloads)*f) + " workloads"
	if r.Input.Fleet.Workloads == 0 {
		return drain
	}
	return r.fleetOf(f) + " and " + drain
}

// times writes a factor.
func times(f float64) string {
	if f < 10 {
		return fmt.Sprintf("%.1f times", f)
	}
	return rough(f) + " times"
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// fleetInWords says what was planned for, a line each.
func (r *Result) fleetInWords() []string {
	in, f := r.Input, r.Input.Fleet
	var out []string
	if f.Workloads > 0 {
		out = append(out, fmt.Sprintf("%s with %.3g certificates each: %s alive, %s in use",
			several(f.Workloads, "workload"), f.PerWorkload, about(f.Alive()), about(f.inUse())))
	}
	line := fmt.Sprintf("certificates live %s and are renewed after %s", howLong(f.Lifetime), howLong(f.use()))
	if f.Precertificates {
		line += "; each takes two signatures, for its precertificate"
	}
	out = append(out, line)
	if o := in.OCSP; o.Asked > 0 {
		out = append(out, fmt.Sprintf("OCSP answers last %s; %s of the certificates are asked about", howLong(o.Validity), percent(o.Asked)))
	}
	return append(out, keysInWords(in.Keys)+": "+rate(r.Budget)+" signatures a second")
}

// drainInWords says what the drain is.
func (r *Result) drainInWords() string {
	in := r.Input
	s := fmt.Sprintf("%s ask for %s", several(in.Drain.Workloads, "workload"), several(r.Drain.Certificates, "certificate"))
	if in.Drain.Over > 0 {
		s += " within " + howLong(in.Drain.Over)
	} else {
		s += " at once"
	}
	if in.OCSP.Storm > 0 {
		s += ", and relying parties about " + percent(in.OCSP.Storm) + " of all"
	}
	return s
}

// othersInWords says how those fared that weren't drained.
func (r *Result) othersInWords() []string {
	var out []string
	for c, w := range r.Drain.Others {
		before := r.Uses[c].Waits
		if w.Count == 0 {
			continue
		}
		s := fmt.Sprintf("%s wait %s at p99", classNames[c], within(w.P99))
		if before.Count > 100 && before.P99 != Forever {
			s += ", " + within(before.P99) + " otherwise"
		}
		if schedule.Class(c) == schedule.OCSP && w.P99 > 10*time.Second {
			s += "; an answer that is still valid is served"
		}
		out = append(out, s)
	}
	return out
}
