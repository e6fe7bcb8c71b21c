package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// mode is what kind of client comes.
type mode string

const (
	// throwaway makes an account for each certificate and forgets it, on a
	// connection that stays: the life of a workload.
	throwaway mode = "throwaway account"
	// kept has one account for each client.
	kept mode = "kept account"
	// cold is throwaway on a new TLS connection, with directory and newNonce.
	cold mode = "cold client"
	// shared has one account for all clients: cert-manager's life.
	shared mode = "shared account"
)

// scenario is one row of the comparison.
type scenario struct {
	Mode    mode `json:"mode"`
	Clients int  `json:"clients"`
}

// plan is everything that is measured at every server, in this order, in
// every round.
var plan = []scenario{
	{throwaway, 1}, {throwaway, 8}, {throwaway, 32},
	{kept, 1}, {kept, 8}, {kept, 32},
	{cold, 8}, {shared, 32},
}

// sample is one scenario at one server in one round.
type sample struct {
	Certificates int             `json:"certificates"`
	Failures     int             `json:"failures"`
	Seconds      float64         `json:"seconds"`
	Posts        int             `json:"posts"`
	Requests     int             `json:"requests"`  // directory and newNonce included
	ServerCPU    float64         `json:"serverCPU"` // seconds
	ClientCPU    float64         `json:"clientCPU"` // seconds
	PeakBytes    int64           `json:"peakBytes"` // of the server's own process
	Allocations  float64         `json:"allocations,omitempty"`
	AllocBytes   float64         `json:"allocBytes,omitempty"`
	Commits      float64         `json:"commits,omitempty"` // synchronous ones, as the server counts them, less those of an idle one
	Latencies    []time.Duration `json:"-"`
	FirstError   string          `json:"firstError,omitempty"`
}

// settle is how long a server's clock runs on after its turn, so that what it
// put off for a moment is charged to it and not to the next one.
const settle = 100 * time.Millisecond

// warmUp is how many issuances each client makes before the clock runs: they
// open the connection, make the kept account and fetch directory and nonce.
const warmUp = 1

// measure lets clients issue for a while.
func (l *lab) measure(ctx context.Context, srv *server, sc scenario, length time.Duration, js *jobs) (sample, error) {
	for len(srv.callers) < sc.Clients {
		srv.callers = append(srv.callers, newCaller(srv, l.answers))
	}
	callers := srv.callers[:sc.Clients]
	for i, c := range callers {
		// A fresh connection: servers close those that were idle meanwhile.
		c.wire.close()
		c.wire.cold, c.wire.nonce = sc.Mode == cold, ""
		if sc.Mode == shared && i > 0 {
			c.account, c.url = callers[0].account, callers[0].url
		}
		if err := l.warm(ctx, c, sc, js); err != nil {
			return sample{}, fmt.Errorf("%s, %s, warming up: %w", srv.name, sc.Mode, err)
		}
	}
	resetPeak(srv.pid())
	before := scrape(srv.metrics)
	for _, c := range callers {
		c.wire.posts, c.wire.requests = 0, 0
	}
	r := &run{jobs: js, srv: srv, mode: sc.Mode}
	cpu, own, begin := srv.cpu(), ownCPU(), time.Now()
	r.drive(ctx, callers, func() bool { return time.Since(begin) < length })
	s := r.sample
	s.Seconds, s.ClientCPU = r.last.Sub(begin).Seconds(), (ownCPU() - own).Seconds()
	time.Sleep(settle)
	s.ServerCPU, s.PeakBytes = (srv.cpu() - cpu).Seconds(), peakRSS(srv.pid())
	after := scrape(srv.metrics)
	s.Allocations = after["go_memstats_mallocs_total"] - before["go_memstats_mallocs_total"]
	s.AllocBytes = after["go_memstats_alloc_bytes_total"] - before["go_memstats_alloc_bytes_total"]
	s.Commits = after[commitsTotal] - before[commitsTotal] - srv.idleCommits*time.Since(begin).Seconds()
	for _, c := range callers {
		s.Posts += c.wire.posts
		s.Requests += c.wire.requests
		if sc.Mode == shared {
			c.account, c.url = nil, "" // others' accounts end with this scenario
		}
	}
	return s, nil
}

// commitsTotal is chanceryd's own count of synchronous commits.
const commitsTotal = "chancery_store_commits_total"

// idle counts what servers commit with nobody there: leases and sweeps come by
// the clock, and are no certificate's cost.
func idle(servers []*server) {
	const watch = 3 * time.Second
	var before []float64
	for _, srv := range servers {
		before = append(before, scrape(srv.metrics)[commitsTotal])
	}
	time.Sleep(watch)
	for i, srv := range servers {
		srv.idleCommits = (scrape(srv.metrics)[commitsTotal] - before[i]) / watch.Seconds()
	}
}

// warm lets one client make its first issuances of a turn.
func (l *lab) warm(ctx context.Context, c *caller, sc scenario, js *jobs) error {
	for range warmUp {
		j, err := js.at(c.srv.next)
		if err != nil {
			return err
		}
		c.srv.next++
		if err := c.issue(ctx, j, sc.Mode.keepsAccount()); err != nil {
			return err
		}
		if sc.Mode == cold {
			c.wire.close()
		}
	}
	return nil
}

func (m mode) keepsAccount() bool { return m == kept || m == shared }

// run collects what the clients of one turn do.
type run struct {
	jobs *jobs
	srv  *server
	mode mode

	mu     sync.Mutex // guards what follows, and srv.next
	sample sample
	last   time.Time // when the last certificate was had
}

// drive runs all clients while more says so; each ends what it has begun. It
// stops early when everything fails, at a server that is gone.
func (r *run) drive(ctx context.Context, callers []*caller, more func() bool) {
	var wg sync.WaitGroup
	for _, c := range callers {
		wg.Go(func() {
			for more() && ctx.Err() == nil && !r.hopeless() {
				r.one(ctx, c)
			}
		})
	}
	wg.Wait()
}

func (r *run) done() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sample.Certificates
}

func (r *run) hopeless() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sample.Failures > 100 && r.sample.Certificates == 0
}

func (r *run) one(ctx context.Context, c *caller) {
	r.mu.Lock()
	i := r.srv.next
	r.srv.next++
	r.mu.Unlock()
	j, err := r.jobs.at(i)
	begin := time.Now()
	if err == nil {
		err = c.issue(ctx, j, r.mode.keepsAccount())
	}
	if r.mode == cold {
		c.wire.close()
	}
	end := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = end
	if err != nil {
		r.sample.Failures++
		if r.sample.FirstError == "" {
			r.sample.FirstError = err.Error()
		}
		return
	}
	r.sample.Certificates++
	r.sample.Latencies = append(r.sample.Latencies, end.Sub(begin))
}

// quantile returns the q-th part of durations in milliseconds, 0 if there are
// none.
func quantile(all []time.Duration, q float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Seconds() * 1000
}

// median returns the middle of values, 0 if there are none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}
