package plan

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

// odd are Inputs at the edges of what there is.
func odd() map[string]Input {
	change := func(f func(*Input)) Input {
		in := usual(2000, 100, 2)
		f(&in)
		return in
	}
	return map[string]Input{
		"usual":        change(func(*Input) {}),
		"no drain":     change(func(in *Input) { in.Drain = Drain{} }),
		"nothing yet":  change(func(in *Input) { in.Fleet.Workloads = 0 }),
		"one workload": change(func(in *Input) { in.Fleet.Workloads, in.Drain.Workloads, in.Fleet.PerWorkload = 1, 1, 1 }),
		"too much":     change(func(in *Input) { in.Fleet.Workloads, in.Keys, in.Horizon = 150_000, keys(1, card), time.Hour }),
		"OCSP too much": change(func(in *Input) {
			in.Fleet.Workloads, in.OCSP.Asked, in.OCSP.Validity, in.Horizon = 20_000, 1, time.Hour, 2*time.Hour
		}),
		"in memory":      change(func(in *Input) { in.Keys = []Key{{Signature: 20 * time.Microsecond, Parallel: 8}} }),
		"no such bound":  change(func(in *Input) { in.Bound = time.Millisecond }),
		"a slow key":     change(func(in *Input) { in.Keys = keys(1, time.Hour); in.Fleet.Workloads, in.Drain.Workloads = 1, 3 }),
		"over a while":   change(func(in *Input) { in.Drain.Over = time.Hour }),
		"ten years":      change(func(in *Input) { in.Fleet.Lifetime, in.OCSP.Validity = maxLifetime, time.Hour }),
		"a minute":       change(func(in *Input) { in.Fleet.Lifetime, in.Fleet.Workloads = time.Minute, 20 }),
		"storm":          change(func(in *Input) { in.OCSP.Storm = 1 }),
		"each by itself": change(func(in *Input) { in.Fleet.Clients = 0 }),
		"hundred keys":   change(func(in *Input) { in.Keys = keys(100, card) }),
		"odd keys":       change(func(in *Input) { in.Keys[0] = Key{Name: "<&\">", Signature: 33 * time.Millisecond, Parallel: 3} }),
	}
}

// Whatever the result, the text fits a terminal, the picture is one document
// without scripts or references, and the JSON has numbers only.
func TestShown(t *testing.T) {
	for name, in := range odd() {
		t.Run(name, func(t *testing.T) {
			r := mustRun(t, in)
			text := r.Text()
			for line := range strings.Lines(text) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 84 {
					t.Errorf("a line of %d characters: %s", n, line)
				}
			}
			for _, bad := range []string{"NaN", "Inf", "%!", "-0", "2562047h"} {
				if contains(text, bad) || bytes.Contains(r.SVG(), []byte(bad)) {
					t.Errorf("%s in\n%s", bad, text)
				}
			}
			wellFormed(t, r.SVG())
			b, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			var back map[string]any
			if err := json.Unmarshal(b, &back); err != nil || back["verdict"] != r.Verdict() {
				t.Errorf("%v: %.200s", err, b)
			}
		})
	}
}

// wellFormed refuses what isn't a picture by itself.
func wellFormed(t *testing.T, svg []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	elements := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in %.300s", err, svg)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		elements++
		if slices.Contains([]string{"script", "image", "use", "foreignObject", "a"}, e.Name.Local) {
			t.Errorf("<%s> in the picture", e.Name.Local)
		}
		for _, a := range e.Attr {
			if strings.HasPrefix(a.Name.Local, "on") || a.Name.Local == "href" || strings.Contains(a.Value, "-0.0 ") {
				t.Errorf("%s=%q in the picture", a.Name.Local, a.Value)
			}
		}
	}
	if elements < 30 || len(svg) > 1<<20 {
		t.Errorf("%d elements in %d bytes", elements, len(svg))
	}
}

// No input makes a run panic or write rubbish.
func FuzzRun(f *testing.F) {
	f.Add(100, 10, 2.5, int64(24*time.Hour), int64(card), 1, int64(8*time.Hour), .5, int64(time.Minute))
	f.Add(1, 1, 1.0, int64(time.Minute), int64(time.Microsecond), 9, int64(0), 0.0, int64(0))
	f.Add(0, 30, 99.0, int64(time.Hour), int64(time.Hour), 3, int64(time.Minute), 1.0, int64(time.Second))
	f.Fuzz(func(t *testing.T, workloads, drained int, per float64, lifetime, signature int64, n int, validity int64, asked float64, bound int64) {
		if n < 0 || n > 12 || workloads > 3000 || drained > 3000 {
			return // too much to be quick
		}
		in := Input{
			Fleet: Fleet{Workloads: workloads, PerWorkload: per, Clients: 3, Lifetime: time.Duration(lifetime)},
			Drain: Drain{Workloads: drained}, OCSP: OCSP{Validity: time.Duration(validity), Asked: asked},
			Keys: keys(n, time.Duration(signature)), Bound: time.Duration(bound), Horizon: time.Hour,
		}
		r, err := Run(in)
		if err != nil {
			return
		}
		wellFormed(t, r.SVG())
		if text := r.Text(); contains(text, "NaN") || contains(text, "%!") {
			t.Error(text)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
	})
}

// The calendar gives back what it got, in order, whenever it got it.
func TestCalendar(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCalendar(-100, 10_000, rapid.IntRange(1, 5000).Draw(t, "expect"))
		var want, got []moment
		now := moment(-100)
		for _, at := range rapid.SliceOf(rapid.Int64Range(-200, 11_000)).Draw(t, "events") {
			e := event{at: max(moment(at), now)}
			c.add(e)
			if e.at < 10_000 {
				want = append(want, e.at)
			}
			if _, any := c.first(); any && rapid.Bool().Draw(t, "take") {
				now = c.take().at
				got = append(got, now)
			}
		}
		for {
			if _, any := c.first(); !any {
				break
			}
			got = append(got, c.take().at)
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

// A histogram's quantiles are those of what was added, within half a per cent.
func TestHistogram(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		waits := rapid.SliceOfN(rapid.Int64Range(0, int64(1000*time.Hour)), 1, 200).Draw(t, "waits")
		var h histogram
		for _, w := range waits {
			h.add(time.Duration(w))
		}
		slices.Sort(waits)
		for _, q := range []float64{0, .5, .99, 1} {
			want := float64(waits[min(int(q*float64(len(waits))), len(waits)-1)])
			if got := float64(h.quantile(q)); math.Abs(got-want) > .005*want {
				t.Fatalf("quantile %v: %v, want %v", q, got, want)
			}
		}
	})
}

func TestHowLong(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 µs", 20 * time.Microsecond: "20 µs", 1500 * time.Microsecond: "1.5 ms", 200 * time.Millisecond: "0.2 s",
		9960 * time.Millisecond: "10 s", 59700 * time.Millisecond: "1m", 61 * time.Second: "1m 1s", time.Hour: "1h",
		time.Hour - time.Second/4: "1h", 25*time.Hour + time.Minute: "25h 1m", 100 * time.Hour: "4d 4h", Forever: "for ever",
	} {
		if got := howLong(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
	for n, want := range map[float64]string{0: "0", 99: "99", 1234567: "1,200,000", 100_000: "100,000"} {
		if got := rough(n); got != want {
			t.Errorf("rough %v: %q, want %q", n, got, want)
		}
	}
}
