package plan

import (
	"fmt"
	"html"
	"math"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// drawing is an SVG in the making.
type drawing struct{ strings.Builder }

func (d *drawing) add(format string, args ...any) { fmt.Fprintf(d, format+"\n", args...) }

// text writes at a place; class is of the style sheet.
func (d *drawing) text(x, y float64, class, s string) {
	d.add(`<text x="%.1f" y="%.1f" class="%s">%s</text>`, x, y, class, html.EscapeString(s))
}

// tip is a text that shows while the pointer is over what it is in.
func tip(s string) string { return "<title>" + html.EscapeString(s) + "</title>" }

// frame is the area of a chart: what lies between low and high in x and
// between 0 and top in y.
type frame struct {
	left, right, upper, lower float64 // on the page
	low, high                 float64 // in x
	top                       float64 // in y
}

func (f frame) x(v float64) float64 { return f.left + (v-f.low)/(f.high-f.low)*(f.right-f.left) }
func (f frame) y(v float64) float64 { return f.lower - v/f.top*(f.lower-f.upper) }

// percentLines draws the lines at 0, 50 and 100 % of the budget.
func (d *drawing) percentLines(f frame) {
	for _, part := range []float64{0, .5, 1} {
		y := f.y(part)
		class := "grid"
		if part == 0 {
			class = "axis"
		}
		d.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`, f.left, y, f.right, y, class)
		d.text(f.left-8, y+4, "tick end", percentTick(part))
	}
}

func percentTick(part float64) string { return fmt.Sprintf("%.0f %%", 100*part) }

// countLines draws lines at round counts.
func (d *drawing) countLines(f frame) {
	step := roundStep(f.top / 4)
	for n := 0.0; n <= f.top; n += step {
		y := f.y(n)
		class := "grid"
		if n == 0 {
			class = "axis"
		}
		d.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`, f.left, y, f.right, y, class)
		d.text(f.left-8, y+4, "tick end", count(n))
	}
}

// roundStep is the least of 1, 2, 5, 10, 20 … that isn't less than n.
func roundStep(n float64) float64 {
	if n <= 1 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(n)))
	for _, m := range []float64{1, 2, 5} {
		if m*unit >= n {
			return m * unit
		}
	}
	return 10 * unit
}

// timeSteps are distances between marks of a time axis.
var timeSteps = []time.Duration{
	time.Microsecond, 10 * time.Microsecond, 100 * time.Microsecond, time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond,
	200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second,
	15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute,
	30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 24 * time.Hour, 48 * time.Hour, 7 * 24 * time.Hour,
	30 * 24 * time.Hour, 90 * 24 * time.Hour, 365 * 24 * time.Hour,
}

// timeTicks writes the times below a chart, which has seconds in x, about as
// many as there is room for.
func (d *drawing) timeTicks(f frame) {
	room := seconds((f.high - f.low) / ((f.right - f.left) / 80))
	step := timeSteps[len(timeSteps)-1]
	for _, s := range timeSteps {
		if s >= room {
			step = s
			break
		}
	}
	for at := max(seconds(f.low)/step*step, 0); at.Seconds() <= f.high; at += step {
		x := f.x(at.Seconds())
		d.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="axis"/>`, x, f.lower, x, f.lower+4)
		d.text(x, f.lower+18, "tick mid", tickTime(at))
	}
}

func tickTime(at time.Duration) string {
	if at == 0 {
		return "0"
	}
	return howLong(at)
}

// stack draws the classes' parts of the budget over time, one upon the other.
func (d *drawing) stack(f frame, s Series) {
	below := make([]float64, len(s.Busy))
	for c := range schedule.Classes {
		above := make([]float64, len(s.Busy))
		used := false
		for i, busy := range s.Busy {
			above[i] = min(below[i]+busy[c], 1)
			used = used || busy[c] > 0
		}
		if used {
			d.add(`<path class="c%d" d="%s">%s</path>`, c, band(f, s, below, above), tip(classNames[c]))
		}
		below = above
	}
}

// band is the path around what lies between two lines of buckets.
func band(f frame, s Series, below, above []float64) string {
	var b strings.Builder
	at := func(i int) float64 {
		return min(max(f.x((s.From+s.Width*time.Duration(i)).Seconds()), f.left), f.right)
	}
	for i, v := range above {
		verb := "L"
		if i == 0 {
			verb = "M"
		}
		fmt.Fprintf(&b, "%s%.1f %.1fH%.1f", verb, at(i), f.y(v), at(i+1))
	}
	for i := len(below) - 1; i >= 0; i-- {
		fmt.Fprintf(&b, "L%.1f %.1fH%.1f", at(i+1), f.y(below[i]), at(i))
	}
	return b.String() + "Z"
}

// mark draws a line down a chart, with a word beside its top.
func (d *drawing) mark(f frame, at, lift float64, class, word string) {
	x := f.x(at)
	d.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`, x, f.upper-lift, x, f.lower, class)
	if x > f.right-float64(len(word))*7 {
		d.text(x-6, f.upper-lift+9, "note end", word)
		return
	}
	d.text(x+6, f.upper-lift+9, "note", word)
}
