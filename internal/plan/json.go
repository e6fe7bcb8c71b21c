package plan

import (
	"encoding/json"
	"math"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// The result for programs. Spans are seconds, null where something never
// happens; shares are parts of 1; classes have their names.
type (
	resultJSON struct {
		Verdict     string             `json:"verdict"`
		Advice      []string           `json:"advice"`
		Budget      float64            `json:"budget"` // signatures per second
		Keys        int                `json:"keys"`
		Workloads   int                `json:"workloads"`
		Alive       int                `json:"certificates_alive"`
		InUse       int                `json:"certificates_in_use"`
		Uses        map[string]useJSON `json:"uses"`
		Drain       *drainJSON         `json:"drain,omitempty"`
		Growth      growthJSON         `json:"growth"`
		Day         seriesJSON         `json:"day"`
		DrainSeries *seriesJSON        `json:"drain_series,omitempty"`
	}
	useJSON struct {
		Demand    float64   `json:"demand"` // signatures per second
		Share     float64   `json:"share"`
		Simulated float64   `json:"simulated"`
		Waits     waitsJSON `json:"waits"`
	}
	waitsJSON struct {
		Count int      `json:"count"`
		Mean  *float64 `json:"mean"`
		P50   *float64 `json:"p50"`
		P99   *float64 `json:"p99"`
		Worst *float64 `json:"worst"`
	}
	drainJSON struct {
		Workloads    waitsJSON            `json:"workloads"`
		Certificates waitsJSON            `json:"certificates"`
		Over         *float64             `json:"over"`
		Others       map[string]waitsJSON `json:"others"`
	}
	growthJSON struct {
		Bound      *float64   `json:"bound"`
		Exhausted  *float64   `json:"exhausted_times"`
		Fits       *float64   `json:"fits_times"`
		KeysNeeded int        `json:"keys_needed,omitzero"`
		Rungs      []rungJSON `json:"with_keys,omitempty"`
	}
	rungJSON struct {
		Keys      int       `json:"keys"`
		Workloads waitsJSON `json:"workloads"`
	}
	seriesJSON struct {
		From      *float64             `json:"from"`
		Width     *float64             `json:"width"`
		Busy      map[string][]float64 `json:"busy"`
		Workloads []int                `json:"workloads_waiting"`
	}
)

// MarshalJSON writes the result for programs: spans in seconds, null for
// never; shares as parts of 1.
func (r *Result) MarshalJSON() ([]byte, error) {
	in := r.Input
	out := resultJSON{
		Verdict: r.Verdict(), Advice: r.Advice(), Budget: r.Budget, Keys: len(in.Keys),
		Workloads: in.Fleet.Workloads, Alive: in.Fleet.Alive(), InUse: in.Fleet.inUse(),
		Uses: map[string]useJSON{}, Day: r.Day.forJSON(),
		Growth: growthJSON{Bound: inSeconds(in.Bound), Exhausted: finite(r.Growth.Exhausted), Fits: finite(r.Growth.Fits), KeysNeeded: r.Growth.Keys},
	}
	for c, u := range r.Uses {
		out.Uses[schedule.Class(c).String()] = useJSON{u.Demand, u.Share, u.Simulated, u.Waits.forJSON()}
	}
	for _, rung := range r.Growth.Rungs {
		out.Growth.Rungs = append(out.Growth.Rungs, rungJSON{rung.Keys, rung.Workloads.forJSON()})
	}
	if d := r.Drain; d != nil {
		out.Drain = &drainJSON{d.Workloads.forJSON(), d.Each.forJSON(), inSeconds(d.Over), map[string]waitsJSON{}}
		for c, w := range d.Others {
			out.Drain.Others[schedule.Class(c).String()] = w.forJSON()
		}
		out.DrainSeries = new(r.Close.forJSON())
	}
	return json.Marshal(out)
}

// finite is null for no bound at all.
func finite(n float64) *float64 {
	if math.IsInf(n, 1) {
		return nil
	}
	return &n
}

func inSeconds(d time.Duration) *float64 {
	if d == Forever {
		return nil
	}
	return new(d.Seconds())
}

func (w Waits) forJSON() waitsJSON {
	return waitsJSON{w.Count, inSeconds(w.Mean), inSeconds(w.P50), inSeconds(w.P99), inSeconds(w.Worst)}
}

func (s Series) forJSON() seriesJSON {
	out := seriesJSON{inSeconds(s.From), inSeconds(s.Width), map[string][]float64{}, s.Workloads}
	for c := range schedule.Classes {
		busy := make([]float64, len(s.Busy))
		for i := range s.Busy {
			busy[i] = math.Round(s.Busy[i][c]*1e6) / 1e6
		}
		out.Busy[c.String()] = busy
	}
	return out
}
