package plan

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// Text is the result for a terminal of 80 columns, with small pictures.
func (r *Result) Text() string {
	var b strings.Builder
	line := func(format string, args ...any) {
		b.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), " ") + "\n")
	}
	line("%s.", r.Verdict())
	line("")
	for _, s := range r.fleetInWords() {
		for i, part := range wrap(s, 76) {
			line("  %s%s", strings.Repeat("  ", min(i, 1)), part)
		}
	}
	line("")
	line("What takes the budget while nothing happens")
	line("  %-17s %9s %8s %10s %8s", "", "a second", "share", "simulated", "p99")
	for c, u := range r.Uses {
		wait := "–"
		if u.Waits.P99 > 0 {
			wait = within(u.Waits.P99)
		}
		line("  %-17s %9s %8s %10s %8s  %s", classNames[c], rate(u.Demand), percent(u.Share), percent(u.Simulated), wait, bar(u.Share, 20))
	}
	if free := 1 - r.wanted(); free >= 0 {
		line("  %-17s %9s %8s", "free", rate(free*r.Budget), percent(free))
	} else {
		line("  %-17s %9s %8s", "too much by", rate(-free*r.Budget), percent(-free))
	}
	line("")
	r.textDay(line)
	if r.Drain != nil {
		r.textDrain(line)
	}
	line("When to add a key")
	for _, s := range r.Advice() {
		for i, part := range wrap(s, 74) {
			line("  %s%s", strings.Repeat("  ", min(i, 1)), part)
		}
	}
	return b.String()
}

// The pictures' size.
const (
	textColumns = 64
	textRows    = 6
)

func (r *Result) textDay(line func(string, ...any)) {
	day := r.Day
	line("How busy the keys are: %s", legend())
	chart(day, line)
	axis := []rune(strings.Repeat("─", textColumns))
	put := func(at time.Duration, mark rune) {
		if i := int(float64(at-day.From) / float64(day.length()) * textColumns); i >= 0 && i < len(axis) {
			axis[i] = mark
		}
	}
	notes := howLong(day.length()) + " in all"
	if r.Drain != nil {
		put(0, '┴')
		notes = "┴ the drain"
		if back := r.Input.Fleet.use(); back < day.From+day.length() {
			put(back, '╨')
			notes += ", ╨ its certificates are renewed " + howLong(back) + " later"
		}
	}
	line("      %s", string(axis))
	line("      %s", notes)
	line("")
}

func (r *Result) textDrain(line func(string, ...any)) {
	d := r.Drain
	for i, part := range wrap("The drain: "+r.drainInWords(), 78) {
		line("%s%s", strings.Repeat("  ", min(i, 1)), part)
	}
	line("  half of them have theirs within  %9s", within(d.Workloads.P50))
	line("  99 of 100 have                   %9s", within(d.Workloads.P99))
	line("  the last has                     %9s", within(d.Workloads.Worst))
	if others := r.othersInWords(); len(others) > 0 {
		line("  meanwhile, of those not drained,")
		for _, s := range others {
			for i, part := range wrap(s, 72) {
				line("    %s%s", strings.Repeat("  ", min(i, 1)), part)
			}
		}
	}
	line("")
	chart(r.Close, line)
	line("      %s", strings.Repeat("─", textColumns))
	line("      %s", spark(r.Close.Workloads))
	line("      workloads that wait, over %s", howLong(r.Close.length()))
	line("")
	line("  %6s  %12s  %12s  %12s", "keys", "half", "99 of 100", "the last")
	for _, rung := range r.Growth.Rungs {
		note := ""
		switch {
		case rung.Keys == len(r.Input.Keys):
			note = "now"
		case rung.Keys == r.Growth.Keys:
			note = "enough for " + howLong(r.Input.Bound)
		}
		w := rung.Workloads
		line("  %6d  %12s  %12s  %12s  %s", rung.Keys, within(w.P50), within(w.P99), within(w.Worst), note)
	}
	line("")
}

// bar draws a part of 1 in eighths of a character.
func bar(part float64, width int) string {
	eighths := int(min(max(part, 0), 1)*float64(width)*8 + .5)
	s := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		s += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return s
}

// shades are the classes in a terminal's picture.
var shades = [schedule.Classes]rune{'█', '▓', '▒', '░'}

func legend() string {
	var parts []string
	for c, name := range classNames {
		parts = append(parts, string(shades[c])+" "+strings.TrimSuffix(name, " answers"))
	}
	return strings.Join(parts, "  ")
}

// chart draws the classes' parts of the budget over time, one upon the other.
func chart(s Series, line func(string, ...any)) {
	columns := squeeze(s.Busy, textColumns)
	top := scale(columns)
	for row := textRows - 1; row >= 0; row-- {
		cells := make([]rune, len(columns))
		for i, busy := range columns {
			cells[i] = ' '
			level := top * (float64(row) + .5) / textRows
			if row == 0 {
				level = top / textRows / 8 // what there is little of is seen all the same
			}
			var sum float64
			for c, part := range busy {
				if sum += part; level < sum {
					cells[i] = shades[c]
					break
				}
			}
		}
		label := map[int]float64{textRows - 1: top, textRows/2 - 1: top / 2}[row]
		if label == 0 {
			line("%5s▕%s", "", string(cells))
		} else {
			line("%3.0f %%▕%s", 100*label, string(cells))
		}
	}
}

// scale is the least round part of the budget that the columns fit under.
func scale(columns [][schedule.Classes]float64) float64 {
	var most float64
	for _, busy := range columns {
		var sum float64
		for _, part := range busy {
			sum += part
		}
		most = max(most, sum)
	}
	for _, top := range []float64{.1, .2, .5} {
		if most <= top {
			return top
		}
	}
	return 1
}

// squeeze makes n columns of buckets, each their mean.
func squeeze(busy [][schedule.Classes]float64, n int) [][schedule.Classes]float64 {
	out := make([][schedule.Classes]float64, 0, n)
	for i := range n {
		from, to := i*len(busy)/n, (i+1)*len(busy)/n
		to = max(to, from+1)
		var sum [schedule.Classes]float64
		for _, b := range busy[min(from, len(busy)):min(to, len(busy))] {
			for c := range sum {
				sum[c] += b[c] / float64(to-from)
			}
		}
		out = append(out, sum)
	}
	return out
}

// spark draws counts in one line.
func spark(counts []int) string {
	most := 1
	for _, n := range counts {
		most = max(most, n)
	}
	levels := []rune(" ▁▂▃▄▅▆▇█")
	var b strings.Builder
	for i := range textColumns {
		if len(counts) == 0 {
			break
		}
		n := counts[i*len(counts)/textColumns]
		b.WriteRune(levels[(n*8+most-1)/most])
	}
	return b.String()
}

// wrap breaks a text into lines.
func wrap(s string, width int) []string {
	var lines []string
	now := ""
	for _, word := range strings.Fields(s) {
		if now != "" && utf8.RuneCountInString(now)+1+utf8.RuneCountInString(word) > width {
			lines, now = append(lines, now), ""
		}
		if now != "" {
			now += " "
		}
		now += word
	}
	return append(lines, now)
}

func (s Series) length() time.Duration { return s.Width * time.Duration(len(s.Busy)) }
