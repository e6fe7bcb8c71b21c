package main

import (
	"fmt"
	"math"
)

// target is one line of what the project set out to reach.
type target struct {
	Name string `json:"name"`
	Want string `json:"want"`
	Got  string `json:"got"`
	Pass bool   `json:"pass"`
}

func (t target) verdict() string {
	if t.Pass {
		return "ok"
	}
	return "MISSED"
}

func (r *results) passed() bool {
	for _, t := range r.targets() {
		if !t.Pass {
			return false
		}
	}
	return true
}

// targets holds the run against its targets; those that weren't measured are
// left out. SQLite is what they are set for; PostgreSQL's CPU time includes
// the database server's own, which a floor without any database lacks.
func (r *results) targets() []target {
	var all []target
	atMost := func(name, unit string, limit, got float64, ok bool) {
		if ok {
			all = append(all, target{name, fmt.Sprintf("≤ %.4g%s", limit, unit), fmt.Sprintf("%.4g%s", got, unit), got <= limit})
		}
	}
	atLeast := func(name, unit string, limit, got float64, ok bool) {
		if ok {
			all = append(all, target{name, fmt.Sprintf("≥ %.4g%s", limit, unit), fmt.Sprintf("%.4g%s", got, unit), got >= limit})
		}
	}
	by := func(m mode, clients int, other string, f func(sample) float64) (float64, bool) {
		return r.ratio(scenario{m, clients}, chancerySQLite, other, f)
	}
	value := func(m mode, clients int, server string, f func(row) float64) (float64, bool) {
		c := r.cell(server, scenario{m, clients})
		if c == nil {
			return 0, false
		}
		return f(r.row(c)), true
	}

	got, ok := by(throwaway, 8, floorName, sample.cpu)
	atMost("CPU by the floor's, 8 clients", " ×", 2.0, got, ok)
	got, ok = by(throwaway, 8, stepName, sample.cpu)
	atMost("CPU by step-ca's, 8 clients", " ×", 0.4, got, ok)
	got, ok = by(throwaway, 8, pebbleName, sample.cpu)
	atMost("CPU by Pebble's, 8 clients", " ×", 0.8, got, ok)
	got, ok = by(cold, 8, floorName, sample.cpu)
	atMost("CPU by the cold floor's, 8 cold clients", " ×", 2.0, got, ok)
	got, ok = by(throwaway, 1, stepName, sample.p50)
	atMost("p50 by step-ca's, 1 client", " ×", 0.5, got, ok)
	for _, n := range []int{8, 32} {
		got, ok = by(throwaway, n, stepName, sample.rate)
		atLeast(fmt.Sprintf("certificates/s by step-ca's, %d clients", n), " ×", 2.5, got, ok)
	}
	for _, server := range []string{chancerySQLite, chanceryPostgres} {
		posts := func(r row) float64 { return r.Posts }
		got, ok = value(throwaway, 8, server, posts)
		atMost("POSTs for a certificate, "+server, "", 6, got, ok)
		got, ok = value(kept, 8, server, posts)
		atMost("POSTs with a kept account, "+server, "", 5, got, ok)
		// To one digit: a sweep that falls into the turn isn't the certificate's.
		commits := func(r row) float64 { return math.Round(10*r.Commits) / 10 }
		alone, ok := value(throwaway, 1, server, commits)
		atMost("commits for a certificate, 1 client, "+server, "", 5, alone, ok)
		got, ok = value(kept, 1, server, commits)
		atMost("commits with a kept account, 1 client, "+server, "", 4, got, ok)
		got, ok = r.Bytes[server]
		atMost("bytes of database for a certificate alive, "+server, "", 4096, got, ok)
		got, ok = value(shared, 32, server, func(r row) float64 { return float64(r.Failures) })
		atMost("failures, one account, 32 clients, "+server, "", 0, got, ok)
		atMost("failures in all, "+server, "", 0, r.failures(server), r.measured(server))
	}
	// PostgreSQL counts a commit for each transaction and shares the sync
	// below that: see what strace says.
	got, ok = value(throwaway, 32, chancerySQLite, func(r row) float64 { return r.Commits })
	atMost("commits for a certificate, 32 clients, "+chancerySQLite, "", 4.5, got, ok)
	got, ok = r.ratio(scenario{throwaway, 8}, chanceryMillion, chancerySQLite, sample.cpu)
	atMost(fmt.Sprintf("CPU with %d certificates stored by CPU with none, 8 clients", r.Stored), " ×", 1.1, got, ok)
	got, ok = value(throwaway, 32, chanceryMillion, func(r row) float64 { return r.PeakMiB })
	atMost(fmt.Sprintf("peak memory with %d certificates stored, 32 clients", r.Stored), " MiB", 150, got, ok)
	return all
}

func (r *results) measured(server string) bool {
	for _, c := range r.cells {
		if c.Server == server {
			return true
		}
	}
	return false
}

func (r *results) failures(server string) float64 {
	sum := 0
	for _, c := range r.cells {
		if c.Server == server {
			for _, s := range c.Samples {
				sum += s.Failures
			}
		}
	}
	return float64(sum)
}
