package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// machine is what the numbers depend on.
type machine struct {
	CPU    string  `json:"cpu"`
	Cores  int     `json:"cores"`
	Kernel string  `json:"kernel"`
	Go     string  `json:"go"`
	SyncMS float64 `json:"syncMS"` // median of one fdatasync after a write of 4 KiB
}

// results are all samples of a run, in the order in which they were taken.
type results struct {
	Machine     machine
	Rounds      int
	CellSeconds float64
	Stored      int
	FilledBytes float64                // bytes for each certificate filled in
	Bytes       map[string]float64     // by server: bytes of database for each certificate issued
	Syncs       map[string][]syncCount // by server

	cells []*cell
}

// cell is one scenario at one server, a sample for each round.
type cell struct {
	Scenario scenario
	Server   string
	Samples  []sample
}

func (r *results) add(server string, sc scenario, s sample) {
	c := r.cell(server, sc)
	if c == nil {
		c = &cell{Scenario: sc, Server: server}
		r.cells = append(r.cells, c)
	}
	c.Samples = append(c.Samples, s)
}

// cell returns nil for what wasn't measured.
func (r *results) cell(server string, sc scenario) *cell {
	i := slices.IndexFunc(r.cells, func(c *cell) bool { return c.Server == server && c.Scenario == sc })
	if i < 0 {
		return nil
	}
	return r.cells[i]
}

// per divides by the certificates; 0 of none is 0.
func (s sample) per(v float64) float64 { return v / float64(max(s.Certificates, 1)) }

func (s sample) rate() float64  { return float64(s.Certificates) / max(s.Seconds, 1e-9) }
func (s sample) cpu() float64   { return s.per(s.ServerCPU) * 1000 }
func (s sample) p50() float64   { return quantile(s.Latencies, 0.5) }
func (s sample) posts() float64 { return s.per(float64(s.Posts)) }

// each returns a value of every round.
func (c *cell) each(f func(sample) float64) []float64 {
	var all []float64
	for _, s := range c.Samples {
		all = append(all, f(s))
	}
	return all
}

// ratio is the median over the rounds of a's value by b's in the same round.
func (r *results) ratio(sc scenario, a, b string, f func(sample) float64) (float64, bool) {
	ca, cb := r.cell(a, sc), r.cell(b, sc)
	if ca == nil || cb == nil {
		return 0, false
	}
	va, vb := ca.each(f), cb.each(f)
	var ratios []float64
	for i := range min(len(va), len(vb)) {
		if vb[i] > 0 {
			ratios = append(ratios, va[i]/vb[i])
		}
	}
	return median(ratios), len(ratios) > 0
}

// row is one line of the report.
type row struct {
	Scenario    scenario `json:"scenario"`
	Server      string   `json:"server"`
	Rate        float64  `json:"certificatesPerSecond"`
	P50         float64  `json:"p50ms"`
	P99         float64  `json:"p99ms"`
	Posts       float64  `json:"postsPerCertificate"`
	Requests    float64  `json:"requestsPerCertificate"`
	CPU         float64  `json:"serverCPUms"`
	ByFloor     float64  `json:"byFloor,omitempty"`
	Allocations float64  `json:"allocationsPerCertificate,omitempty"`
	AllocKiB    float64  `json:"allocatedKiBPerCertificate,omitempty"`
	Commits     float64  `json:"commitsPerCertificate,omitempty"`
	PeakMiB     float64  `json:"peakMiB"`
	ClientCPU   float64  `json:"clientCPUms"`
	Issued      int      `json:"certificates"`
	Failures    int      `json:"failures"`
	FirstError  string   `json:"firstError,omitempty"`
}

func (r *results) row(c *cell) row {
	med := func(f func(sample) float64) float64 { return median(c.each(f)) }
	out := row{Scenario: c.Scenario, Server: c.Server,
		Rate: med(sample.rate), Posts: med(sample.posts), CPU: med(sample.cpu),
		Requests:    med(func(s sample) float64 { return s.per(float64(s.Requests)) }),
		Allocations: med(func(s sample) float64 { return s.per(s.Allocations) }),
		AllocKiB:    med(func(s sample) float64 { return s.per(s.AllocBytes) / 1024 }),
		Commits:     med(func(s sample) float64 { return s.per(s.Commits) }),
		ClientCPU:   med(func(s sample) float64 { return s.per(s.ClientCPU) * 1000 })}
	var all []time.Duration
	for _, s := range c.Samples {
		all = append(all, s.Latencies...)
		out.PeakMiB = max(out.PeakMiB, float64(s.PeakBytes)/(1<<20))
		out.Issued += s.Certificates
		out.Failures += s.Failures
		out.FirstError = cmp.Or(out.FirstError, s.FirstError)
	}
	out.P50, out.P99 = quantile(all, 0.5), quantile(all, 0.99)
	out.ByFloor, _ = r.ratio(c.Scenario, c.Server, floorName, sample.cpu)
	return out
}

// rows groups the cells by scenario, in the order of the plan.
func (r *results) rows() []row {
	var rows []row
	for _, c := range r.cells {
		rows = append(rows, r.row(c))
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Compare(slices.Index(plan, a.Scenario), slices.Index(plan, b.Scenario))
	})
	return rows
}

// report is what --json prints.
type report struct {
	Machine     machine                `json:"machine"`
	Rounds      int                    `json:"rounds"`
	CellSeconds float64                `json:"cellSeconds"`
	Stored      int                    `json:"stored,omitempty"`
	Rows        []row                  `json:"rows"`
	Targets     []target               `json:"targets"`
	Bytes       map[string]float64     `json:"databaseBytesPerCertificate"`
	FilledBytes float64                `json:"filledBytesPerCertificate,omitempty"`
	Syncs       map[string][]syncCount `json:"syncsPerCertificate,omitempty"`
}

func (r *results) report() report {
	return report{r.Machine, r.Rounds, r.CellSeconds, r.Stored, r.rows(), r.targets(), r.Bytes, r.FilledBytes, r.Syncs}
}

var columns = []string{"", "cert/s", "p50 ms", "p99 ms", "POSTs", "CPU ms", "× floor", "allocs", "KiB alloc", "commits", "peak MiB", "client ms", "failed"}

// fields are the columns of one row; what wasn't measured is a dot.
func (r row) fields() []string {
	num := func(format string, v float64) string {
		if v == 0 {
			return "·"
		}
		return fmt.Sprintf(format, v)
	}
	failed := "0"
	if r.Failures > 0 {
		failed = fmt.Sprintf("%d (%.0f %%)", r.Failures, 100*float64(r.Failures)/float64(r.Failures+r.Issued))
	}
	byFloor := num("%.2f", r.ByFloor)
	if r.Server == floorName {
		byFloor = "1"
	}
	return []string{r.Server, num("%.0f", r.Rate), num("%.1f", r.P50), num("%.1f", r.P99), num("%.1f", r.Posts), num("%.2f", r.CPU), byFloor,
		num("%.0f", r.Allocations), num("%.0f", r.AllocKiB), num("%.2f", r.Commits), num("%.0f", r.PeakMiB), num("%.2f", r.ClientCPU), failed}
}

func (sc scenario) title() string {
	if sc.Clients == 1 {
		return string(sc.Mode) + ", 1 client"
	}
	return fmt.Sprintf("%s, %d clients", sc.Mode, sc.Clients)
}

// table writes the report for a terminal.
func (r *results) table(w io.Writer) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s\n\n", r.conditions())
	var last scenario
	for _, row := range r.rows() {
		if row.Scenario != last {
			last = row.Scenario
			fmt.Fprintln(&out)
			line(&out, append([]string{last.title()}, columns[1:]...))
		}
		line(&out, row.fields())
	}
	fmt.Fprintln(&out)
	for _, row := range r.rows() {
		if row.FirstError != "" {
			fmt.Fprintf(&out, "%s at %s failed first with: %s\n", row.Scenario.title(), row.Server, row.FirstError)
		}
	}
	for _, line := range r.storage() {
		fmt.Fprintln(&out, line)
	}
	fmt.Fprintln(&out)
	t := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, goal := range r.targets() {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", goal.verdict(), goal.Got, goal.Want, goal.Name)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := out.WriteTo(w)
	return err
}

// line writes one row: the first column to the left, the others to the right.
func line(w io.Writer, fields []string) {
	fmt.Fprintf(w, "%-30s", fields[0])
	for i, f := range fields[1:] {
		fmt.Fprintf(w, "%*s", 2+max(6, utf8.RuneCountInString(columns[i+1])), f)
		if i == len(columns)-3 {
			fmt.Fprint(w, "   ") // room for a share of failures
		}
	}
	fmt.Fprintln(w)
}

// markdown writes the report as tables for docs/PERFORMANCE.md.
func (r *results) markdown(w io.Writer) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s\n", r.conditions())
	var last scenario
	for _, row := range r.rows() {
		if row.Scenario != last {
			last = row.Scenario
			fmt.Fprintf(&out, "\n| %s | %s |\n|---|%s\n", last.title(), strings.Join(columns[1:], " | "), strings.Repeat("--:|", len(columns)-1))
		}
		fmt.Fprintf(&out, "| %s |\n", strings.Join(row.fields(), " | "))
	}
	fmt.Fprintln(&out)
	for _, line := range r.storage() {
		fmt.Fprintf(&out, "* %s\n", line)
	}
	fmt.Fprint(&out, "\n| target | wanted | measured | |\n|---|--:|--:|---|\n")
	for _, goal := range r.targets() {
		fmt.Fprintf(&out, "| %s | %s | %s | %s |\n", goal.Name, goal.Want, goal.Got, goal.verdict())
	}
	_, err := out.WriteTo(w)
	return err
}

func (r *results) conditions() string {
	return fmt.Sprintf("%s, %d cores, Linux %s, %s; one fdatasync takes %.2f ms. %d rounds of %g s a turn; every number is the median of the rounds, p50 and p99 are over all certificates, ratios are within a round.",
		r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go, r.Machine.SyncMS, r.Rounds, r.CellSeconds)
}

// storage says what the certificates cost on disk.
func (r *results) storage() []string {
	var lines []string
	for _, name := range []string{chancerySQLite, chanceryPostgres, chanceryMillion, stepName} {
		if v := r.Bytes[name]; v > 0 {
			lines = append(lines, fmt.Sprintf("%s: %.0f bytes of database for each certificate of this run", name, v))
		}
		if v := r.Syncs[name]; v != nil {
			var parts []string
			for _, n := range v {
				parts = append(parts, fmt.Sprintf("%.1f (%s)", n.Calls, n.Scenario.title()))
			}
			lines = append(lines, fmt.Sprintf("%s: sync calls that strace saw for a certificate: %s", name, strings.Join(parts, ", ")))
		}
	}
	if r.FilledBytes > 0 {
		lines = append(lines, fmt.Sprintf("%s: %.0f bytes of database for each certificate filled in", chanceryMillion, r.FilledBytes))
	}
	return lines
}

func describeMachine(dir string) machine {
	m := machine{CPU: "unknown CPU", Cores: runtime.NumCPU(), Go: runtime.Version()}
	text, _ := os.ReadFile("/proc/cpuinfo")
	if _, after, ok := strings.Cut(string(text), "model name"); ok {
		line, _, _ := strings.Cut(after, "\n")
		m.CPU = strings.TrimLeft(line, " \t:")
	}
	text, _ = os.ReadFile("/proc/sys/kernel/osrelease")
	m.Kernel = strings.TrimSpace(string(text))
	var times []time.Duration
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return m
	}
	defer f.Close()
	for range 50 {
		begin := time.Now()
		_, _ = f.Write(make([]byte, 4096))
		_ = syscall.Fdatasync(int(f.Fd()))
		times = append(times, time.Since(begin))
	}
	m.SyncMS = quantile(times, 0.5)
	return m
}
