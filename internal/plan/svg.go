package plan

import (
	"fmt"
	"html"
	"math"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// The page.
const (
	pageWidth  = 1000
	pageLeft   = 64
	pageRight  = pageWidth - 40
	lineHeight = 21
)

// style is the look, in light and in dark surroundings. Colours stay apart for
// the colour-blind, and are never the only word for a thing.
const style = `
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","DejaVu Sans",sans-serif;fill:#1d2733;font-size:14px}
.page{fill:#fff}.head{font-size:27px;font-weight:600}.section{font-size:17px;font-weight:600}
.soft,.tick{fill:#667384}.tick{font-size:12px}.note{font-size:12px;fill:#445163}.end{text-anchor:end}.mid{text-anchor:middle}
.number{font-size:25px;font-weight:600}.over{fill:#c2410c}.card,.free{fill:#f1f4f8}.strong{font-weight:600}
.edge{stroke:#9aa6b4}.axis{stroke:#9aa6b4;stroke-width:1}.grid{stroke:#e4e9ef;stroke-width:1}.mark{stroke:#445163;stroke-width:1.2;stroke-dasharray:2 3}
.bound{stroke:#c2410c;stroke-width:1.6;stroke-dasharray:6 4}.boundnote{fill:#c2410c;font-size:12px}.echo{fill:#8794a5;fill-opacity:.16}
.c0{fill:#3569c9}.c1{fill:#2fa58b}.c2{fill:#f0a431}.c3{fill:#b8529a}.w{fill:#3569c9;fill-opacity:.3}.wline{fill:none;stroke:#3569c9;stroke-width:2}
@media (prefers-color-scheme:dark){
text{fill:#e7ecf2}.page{fill:#11161d}.soft,.tick{fill:#94a1b2}.note{fill:#b9c4d1}.over,.boundnote{fill:#ff9d66}.card,.free{fill:#1e2630}
.axis{stroke:#5a6778}.grid{stroke:#28313c}.mark{stroke:#b9c4d1}.bound{stroke:#ff9d66}
.c0{fill:#6f9dfa}.c1{fill:#4cc9ab}.c2{fill:#ffbd55}.c3{fill:#e07fc0}.w{fill:#6f9dfa;fill-opacity:.3}.wline{stroke:#6f9dfa}
}`

// page is a drawing that is filled from the top.
type page struct {
	drawing
	y float64 // what is above is taken
	r *Result
}

// SVG is the result as a picture: one document that needs nothing else, has no
// scripts, and follows its surroundings' light or dark.
func (r *Result) SVG() []byte {
	p := &page{y: 34, r: r}
	p.header()
	p.tiles()
	p.advice()
	p.budget()
	p.day()
	if r.Drain != nil {
		p.drain()
		y := p.y
		p.histogram()
		left := p.y
		p.y = y
		p.rungs()
		p.y = max(p.y, left)
	}
	height := p.y + 16
	var out drawing
	out.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %.0f" width="%d" height="%.0f" role="img">`, pageWidth, height, pageWidth, height)
	out.add("<title>%s</title><desc>%s</desc>", html.EscapeString("Signing budget"), html.EscapeString(strings.Join(append([]string{r.Verdict() + "."}, r.Advice()...), " ")))
	out.add("<style>%s</style>", style)
	out.add(`<rect width="%d" height="%.0f" class="page"/>`, pageWidth, height)
	return []byte(out.String() + p.String() + "</svg>\n")
}

func (p *page) header() {
	p.text(40, p.y, "soft", "Signing budget")
	p.y += 5
	for _, line := range wrap(p.r.Verdict(), 58) {
		p.y += 33
		p.text(40, p.y, "head", line)
	}
	p.y += 8
	for _, line := range together(p.r.fleetInWords(), 110) {
		p.y += lineHeight
		p.text(40, p.y, "soft", line)
	}
	p.y += 22
}

// together puts short texts into lines, none of them apart.
func together(texts []string, width int) []string {
	var lines []string
	for _, s := range texts {
		if n := len(lines); n > 0 && len(lines[n-1])+len(s) < width {
			lines[n-1] += " · " + s
		} else {
			lines = append(lines, s)
		}
	}
	return lines
}

// tile is one figure to remember.
type tile struct {
	number, what string
	over         bool // it is too much
}

func (p *page) tiles() {
	r := p.r
	free := 1 - r.wanted()
	budget := tile{percent(max(free, 0)), "of the budget is free while nothing happens", free <= 0}
	var all []tile
	if d := r.Drain; d != nil {
		bound := r.Input.Bound
		all = []tile{
			{within(d.Workloads.P50), "until half of them have theirs", d.Workloads.P50 > bound},
			{within(d.Workloads.P99), "until 99 of 100 have", d.Workloads.P99 > bound},
			{within(d.Workloads.Worst), "until the last has", d.Workloads.Worst > bound},
			budget,
		}
	} else {
		all = []tile{budget}
		for _, c := range []schedule.Class{schedule.Issuance, schedule.Renewal, schedule.OCSP} {
			if w := r.Uses[c].Waits; w.P99 > 0 {
				all = append(all, tile{within(w.P99), classNames[c] + " wait at p99", w.P99 > time.Minute})
			}
		}
	}
	const gap = 14
	width := (float64(pageRight) - 40 - 3*gap) / 4
	for i, t := range all {
		x := 40 + float64(i)*(width+gap)
		p.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="82" rx="10" class="card"/>`, x, p.y, width)
		class := "number"
		if t.over {
			class += " over"
		}
		p.text(x+16, p.y+36, class, t.number)
		for j, line := range wrap(t.what, 30) {
			p.text(x+16, p.y+56+float64(j)*15, "note", line)
		}
	}
	p.y += 82 + 10
}

func (p *page) advice() {
	for _, s := range p.r.Advice() {
		for i, line := range wrap(s, 122) {
			p.y += lineHeight
			if i == 0 {
				p.text(40, p.y, "soft", "›")
			}
			p.text(54, p.y, "", line)
		}
	}
}

func (p *page) section(title, after string) {
	p.y += 46
	p.text(40, p.y, "section", title)
	if after != "" {
		p.add(`<text x="%d" y="%.1f" class="soft end">%s</text>`, pageRight, p.y, html.EscapeString(after))
	}
	p.y += 14
}

// budget is a bar of all that there is, and who takes how much of it.
func (p *page) budget() {
	r := p.r
	all := rate(r.Budget) + " signatures a second are all there is"
	whole := max(r.wanted(), 1)
	if whole > 1 {
		p.section("What takes the budget while nothing happens", "")
		p.y += 10
	} else {
		p.section("What takes the budget while nothing happens", all)
	}
	width := float64(pageRight - 40)
	p.add(`<rect x="40" y="%.1f" width="%.1f" height="30" rx="4" class="free"/>`, p.y, width)
	x := 40.0
	for c, u := range r.Uses {
		if w := u.Share / whole * width; w > 0 {
			p.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="30" class="c%d">%s</rect>`, x, p.y, w, c, tip(classNames[c]+": "+percent(u.Share)))
			x += w
		}
	}
	if whole > 1 {
		at := 40 + width/whole
		p.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="bound"/>`, at, p.y-6, at, p.y+36)
		p.text(min(at, 840), p.y-10, "boundnote mid", all)
	}
	p.y += 30
	p.uses(width / 5)
}

// uses says in words what the bar shows.
func (p *page) uses(column float64) {
	r := p.r
	word := func(i int, class, part, name, detail string) {
		x := 40 + float64(i)*column
		p.add(`<rect x="%.1f" y="%.1f" width="11" height="11" rx="2" class="%s"/>`, x, p.y+15, class)
		p.text(x+18, p.y+25, "strong", part)
		p.text(x+18, p.y+42, "note", name)
		p.text(x+18, p.y+57, "tick", detail)
	}
	for c, u := range r.Uses {
		word(c, fmt.Sprintf("c%d", c), percent(u.Share), classNames[c], rate(u.Demand)+" a second"+p99(u.Waits))
	}
	free := max(1-r.wanted(), 0)
	word(len(r.Uses), "free edge", percent(free), "free", rate(free*r.Budget)+" a second")
	p.y += 62
}

func p99(w Waits) string {
	if w.P99 == 0 {
		return ""
	}
	return ", p99 " + within(w.P99)
}

// room takes a chart's place.
func (p *page) room(height float64, s Series) frame {
	f := frame{
		left: pageLeft + 20, right: pageRight, upper: p.y, lower: p.y + height,
		low: s.From.Seconds(), high: (s.From + s.length()).Seconds(), top: 1,
	}
	p.y += height
	return f
}

// day is the overview.
func (p *page) day() {
	r := p.r
	p.section("How busy the keys are", howLong(r.Day.length()))
	p.y += 14
	f := p.room(150, r.Day)
	p.percentLines(f)
	if use := r.Input.Fleet.use(); r.Drain != nil && use.Seconds() < f.high {
		half := r.Input.Fleet.Spread / 2 * r.Input.Fleet.Lifetime.Seconds()
		over := 0.0
		if r.Drain.Over != Forever {
			over = r.Drain.Over.Seconds()
		}
		from, to := f.x(use.Seconds()-half), f.x(min(use.Seconds()+half+over, f.high))
		p.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" class="echo"/>`, from, f.upper-14, to-from, f.lower-f.upper+14)
		p.text((from+to)/2, f.upper-3, "note mid", "its certificates are renewed")
	}
	p.stack(f, r.Day)
	if r.Drain != nil {
		p.mark(f, 0, 14, "mark", "the drain")
	}
	p.timeTicks(f)
	p.y += 18
}

// drain is a closer look at the drain: who waits, and what the keys do.
func (p *page) drain() {
	r := p.r
	p.section("The drain", r.drainInWords())
	p.y += 6
	p.text(pageLeft+20, p.y+8, "note", "workloads that wait for their certificates")
	p.y += 16
	f := p.room(120, r.Close)
	most := 1
	for _, n := range r.Close.Workloads {
		most = max(most, n)
	}
	f.top = float64(most) * 1.06
	p.countLines(f)
	p.waitingArea(f)
	p.y += 14
	p.text(pageLeft+20, p.y+8, "note", "the keys' time")
	p.y += 16
	g := p.room(90, r.Close)
	p.percentLines(g)
	p.stack(g, r.Close)
	p.timeTicks(g)
	p.y += 22
	for i, s := range r.othersInWords() {
		p.y += lineHeight
		if i == 0 {
			p.text(pageLeft+20, p.y, "soft", "Meanwhile, of those not drained,")
		}
		p.text(pageLeft+262, p.y, "", s)
	}
}

func (p *page) waitingArea(f frame) {
	s := p.r.Close
	line, verb := "", "M"
	for i, n := range s.Workloads {
		at := (s.From + s.Width*time.Duration(i+1)).Seconds()
		if at > f.high {
			break
		}
		line += fmt.Sprintf("%s%.1f %.1f", verb, f.x(at), f.y(float64(n)))
		verb = "L"
	}
	if line == "" {
		return
	}
	p.add(`<path class="w" d="%sL%.1f %.1fL%.1f %.1fZ"/>`, line, f.right, f.lower, f.x((s.From + s.Width).Seconds()), f.lower)
	p.add(`<path class="wline" d="%s"/>`, line)
}

// histogram is how the waits are distributed.
func (p *page) histogram() {
	const bins, middle = 32, 500
	d := p.r.Drain
	p.section("How long they wait", "")
	p.y += 22
	f := frame{left: pageLeft + 20, right: middle - 30, upper: p.y, lower: p.y + 150, low: 0}
	p.y += 150 + 24
	if len(d.Done) == 0 {
		p.text(f.left, f.upper+40, "soft", "None of them was served.")
		return
	}
	f.high = max(d.Done[len(d.Done)-1].Seconds()*1.04, 1e-6)
	var counts [bins]int
	for _, w := range d.Done {
		counts[min(int(w.Seconds()/f.high*bins), bins-1)]++
	}
	most := 1
	for _, n := range counts {
		most = max(most, n)
	}
	f.top = float64(most) * 1.06
	p.countLines(f)
	for i, n := range counts {
		if n == 0 {
			continue
		}
		left, right := f.x(f.high*float64(i)/bins), f.x(f.high*float64(i+1)/bins)
		p.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" class="c0">%s</rect>`, left+.6, f.y(float64(n)), right-left-1.2, f.lower-f.y(float64(n)),
			tip(several(n, "workload")+" up to "+howLong(seconds(f.high*float64(i+1)/bins))))
	}
	p.mark(f, d.Workloads.P50.Seconds(), 18, "mark", "half")
	if d.Workloads.P99 != Forever {
		p.mark(f, d.Workloads.P99.Seconds(), 18, "mark", "99 of 100")
	}
	p.timeTicks(f)
}

// rungs are the same drain with other numbers of keys.
func (p *page) rungs() {
	const middle = 500
	r := p.r
	p.section("", "")
	p.text(middle+20, p.y-14, "section", "With other numbers of keys")
	p.y += 8
	longest, bound := 0.0, r.Input.Bound.Seconds()
	for _, rung := range r.Growth.Rungs {
		if w := rung.Workloads.P99; w != Forever {
			longest = max(longest, w.Seconds())
		}
	}
	near := longest == 0 || longest > bound/5 // that the bound is on the picture
	if near {
		longest = max(longest, 1.25*bound)
	}
	f := frame{left: middle + 104, right: pageRight - 66, upper: p.y, low: 0, high: longest, top: 1}
	const step = 31
	for _, rung := range r.Growth.Rungs {
		class := "end"
		if rung.Keys == len(r.Input.Keys) {
			class += " strong"
		}
		p.text(f.left-10, p.y+20, class, several(rung.Keys, "key"))
		p.rung(f, rung.Workloads)
		p.y += step
	}
	f.lower = p.y + 4
	if at := f.x(bound); near {
		p.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="bound"/>`, at, f.upper, at, f.lower)
		p.text(at, f.lower+14, "boundnote mid", "wanted: "+howLong(r.Input.Bound))
		p.y += 18
	}
	p.y += 24
	p.text(middle+20, p.y, "tick", "Full: until half of them have theirs; pale: until 99 of 100 have.")
}

func (p *page) rung(f frame, w Waits) {
	bar := func(until time.Duration, class string) {
		to := f.x(min(until.Seconds(), f.high))
		p.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="18" rx="2" class="%s">%s</rect>`, f.left, p.y+6, math.Max(to-f.left, 1), class, tip(within(until)))
	}
	bar(w.P99, "w")
	bar(w.P50, "c0")
	class := "note end"
	if w.P99 > p.r.Input.Bound {
		class += " over"
	}
	p.text(pageRight, p.y+20, class, within(w.P99))
}
