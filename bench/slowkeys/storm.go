package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// stormSize is how much of everything there is.
type stormSize struct {
	signature    time.Duration // of the key under test
	certificates int
	half         time.Duration // of each phase at half the load
	full         time.Duration // of each saturated phase
	alone        time.Duration // of the phase without orders
	fast         time.Duration // a signature once the rest is to be worked off
}

// inFlight are the orders that keep a key saturated: a client notices its
// certificate a second late at worst.
const inFlight = 30

// stormRun is the scenario under way.
type stormRun struct {
	stormSize
	*site
	o       *options
	keyID   string
	clients []client
	storm   *storm
	budget  float64 // signatures a second
}

// stormScenario: one key, and relying parties that ask for everything at once.
func stormScenario(ctx context.Context, l *lab, o *options) (r result, err error) {
	size := stormSize{200 * time.Millisecond, 40_000, 70 * time.Second, 60 * time.Second, 10 * time.Second, 2 * time.Millisecond}
	if o.quick {
		size = stormSize{40 * time.Millisecond, 1_000, 5 * time.Second, 6 * time.Second, 2 * time.Second, 2 * time.Millisecond}
	}
	s := &stormRun{stormSize: size, o: o, budget: 1 / size.signature.Seconds()}
	r.Title = fmt.Sprintf("One key, %v a signature, %d certificates in force, all of them asked for at once by OCSP", size.signature, size.certificates)
	if s.site, err = l.newSite(ctx, "storm", issuer{"slow", 1, "ocsp"}); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.begin(ctx); err != nil {
		return r, err
	}
	return r, s.run(ctx, &r)
}

// begin fills the database and starts the server.
func (s *stormRun) begin(ctx context.Context) (err error) {
	label := s.issuers[0].label(0)
	if s.keyID, err = s.site.keyID(label); err != nil {
		return err
	}
	ca, err := s.certificate(label)
	if err != nil {
		return err
	}
	serials, err := output(ctx, s.dir, nil, s.program("inside"), "live", s.database(), s.keyID, ocspURL+"/ocsp", strconv.Itoa(s.certificates))
	if err != nil {
		return err
	}
	if s.storm, err = newStorm(s.publish, ca, strings.Fields(string(serials))); err != nil {
		return err
	}
	if err := errors.Join(s.delay("", s.signature), s.serve(ctx)); err != nil {
		return err
	}
	s.clients, err = s.site.clients(ctx, "slow", 5)
	return err
}

// phase is what was measured for a while.
type phase struct {
	before, after metrics
}

func (p phase) issued() float64 { return p.after.rate(p.before, signaturesTotal, `class="issuance"`) }
func (p phase) ocsp() float64   { return p.after.rate(p.before, signaturesTotal, `class="ocsp"`) }

// busy is the part of the time that keys signed, of as many keys.
func (p phase) busy(keys int) float64 {
	return p.after.rate(p.before, "chancery_signing_busy_seconds_total") / float64(keys)
}

const signaturesTotal = "chancery_signing_signatures_total"

func (s *stormRun) run(ctx context.Context, r *result) error {
	at := arrivals(s.budget/2, s.half)
	quietWaits, _, err := s.halfLoad(ctx, at)
	if err != nil {
		return err
	}
	quiet, err := s.saturated(ctx, nil)
	if err != nil {
		return err
	}
	s.o.say("without a storm: %.2f/s saturated, p99 %v at half the load", quiet.issued(), quantile(quietWaits, .99).Round(time.Millisecond))
	var asked time.Duration
	stormy, err := s.saturated(ctx, func() (err error) {
		asked, err = s.askUntilWanted()
		return err
	})
	if err != nil {
		return err
	}
	stormWaits, half, err := s.halfLoad(ctx, at)
	if err != nil {
		return err
	}
	s.o.say("with one: %.2f/s saturated, p99 %v at half the load", stormy.issued(), quantile(stormWaits, .99).Round(time.Millisecond))
	r.atLeast("certificates a second while saturated, with the storm by without", "%.3f", .95, stormy.issued()/quiet.issued())
	rise := quantile(stormWaits, .99) - quantile(quietWaits, .99)
	r.atMost("rise of p99 of the wait at half the load, in signature times", "%.2f", 2, rise.Seconds()/s.signature.Seconds())
	r.atLeast("part of the time that the key signs while certificates wait, without the storm", "%.3f", .95, quiet.busy(1))
	r.atLeast("the same with the storm", "%.3f", .95, stormy.busy(1))
	r.fact("certificates a second while saturated, without and with the storm", "%.2f, %.2f", quiet.issued(), stormy.issued())
	r.fact("OCSP answers a second while certificates saturate the key", "%.2f", stormy.ocsp())
	for _, w := range []struct {
		when  string
		waits []time.Duration
	}{{"without", quietWaits}, {"with", stormWaits}} {
		r.fact(fmt.Sprintf("wait at half the load %s the storm, p50, p99 and worst of %d", w.when, len(w.waits)), "%v, %v, %v",
			quantile(w.waits, .5).Round(time.Millisecond), quantile(w.waits, .99).Round(time.Millisecond), quantile(w.waits, 1).Round(time.Millisecond))
	}
	r.fact("time until all were asked for, and wanted", "%.1f s", asked.Seconds())
	left := 1/s.mean(half) - half.issued()
	r.atLeast("OCSP answers a second at half the load, by what the budget leaves", "%.3f", .95, half.ocsp()/left)
	r.fact("OCSP answers a second at half the load", "%.2f", half.ocsp())
	return s.refresh(ctx, r)
}

// mean is the time of a signature.
func (s *stormRun) mean(p phase) float64 {
	return p.after.since(p.before, "chancery_signing_busy_seconds_total") / p.after.since(p.before, signaturesTotal)
}

// halfLoad lets orders come at half the key's rate.
func (s *stormRun) halfLoad(ctx context.Context, at []time.Duration) (waits []time.Duration, p phase, err error) {
	if p.before, err = s.scrape(); err != nil {
		return nil, p, err
	}
	if waits, err = arrive(ctx, s.clients, at); err != nil {
		return nil, p, err
	}
	p.after, err = s.scrape()
	return waits, p, err
}

// saturated measures while more orders wait than the key can sign. What begins
// as the measurement does runs beside it.
func (s *stormRun) saturated(ctx context.Context, beside func() error) (p phase, err error) {
	orders := saturate(ctx, s.clients, inFlight)
	sleep(ctx, 2*time.Second) // until the queue is full
	side := make(chan error, 1)
	if p.before, err = s.edge(ctx); err == nil {
		go func() {
			if beside == nil {
				side <- nil
				return
			}
			side <- beside()
		}()
		sleep(ctx, s.full)
		if p.after, err = s.edge(ctx); err == nil {
			err = <-side
		}
	}
	return p, errors.Join(err, orders.end(), ctx.Err())
}

// edge reads the metrics just after a certificate was signed: a minute has but
// some three hundred of them, and one more or less would show.
func (s *stormRun) edge(ctx context.Context) (m metrics, err error) {
	first := -1.0
	for ctx.Err() == nil {
		if m, err = s.scrape(); err != nil {
			return m, err
		}
		n := m.sum(signaturesTotal, `class="issuance"`)
		if first < 0 {
			first = n
		}
		if n > first {
			break
		}
		sleep(ctx, 3*time.Millisecond)
	}
	return m, ctx.Err()
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// askUntilWanted asks for everything, again and again as relying parties do,
// until the server has noted all it doesn't have.
func (s *stormRun) askUntilWanted() (took time.Duration, err error) {
	begun := time.Now()
	for {
		if _, err := s.storm.all(false); err != nil {
			return 0, err
		}
		m, err := s.scrape()
		if err != nil {
			return 0, err
		}
		if wanted := int(m.sum("chancery_ocsp_wanted_total")); wanted >= s.certificates {
			return time.Since(begun), nil
		}
		if time.Since(begun) > 2*time.Minute {
			return 0, fmt.Errorf("of %d certificates %v answers are wanted after 2 minutes", s.certificates, m.sum("chancery_ocsp_wanted_total"))
		}
	}
}

// refresh gives OCSP the whole key, first at its own speed and then at one at
// which the rest is worked off soon, and looks at what came of it.
func (s *stormRun) refresh(ctx context.Context, r *result) error {
	var own, fast phase
	var err error
	if own.before, err = s.scrape(); err != nil {
		return err
	}
	sleep(ctx, s.alone)
	if own.after, err = s.scrape(); err != nil {
		return err
	}
	r.atLeast("part of the time that the key signs while only OCSP waits", "%.3f", .95, own.busy(1))
	r.fact("OCSP answers a second with the key to themselves", "%.2f", own.ocsp())
	if err := s.delay("", s.fast); err != nil {
		return err
	}
	sleep(ctx, 500*time.Millisecond)
	if fast.before, err = s.scrape(); err != nil {
		return err
	}
	for end := time.Now().Add(5 * time.Minute); ; sleep(ctx, 100*time.Millisecond) {
		if fast.after, err = s.scrape(); err != nil {
			return err
		}
		if int(fast.after.sum(signaturesTotal, `class="ocsp"`)) >= s.certificates {
			break
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("after 5 minutes there are %v answers of %d", fast.after.sum(signaturesTotal, `class="ocsp"`), s.certificates)
		}
	}
	r.fact(fmt.Sprintf("OCSP answers a second once a signature takes %v, and the part of the time that the key signs", s.fast),
		"%.0f, %.2f", fast.ocsp(), fast.busy(1))
	sleep(ctx, time.Second) // those that were signed are stored
	if _, err := s.storm.all(true); err != nil {
		return err
	}
	return s.verdict(r)
}

// verdict counts answers and signatures.
func (s *stormRun) verdict(r *result) error {
	m, err := s.scrape()
	if err != nil {
		return err
	}
	fresh, different := s.storm.count()
	r.exactly("certificates with a fresh answer in the end", s.certificates, fresh)
	r.exactly("signatures for OCSP, of as many different answers", different, int(m.sum(signaturesTotal, `class="ocsp"`)))
	r.exactly("OCSP requests that were refused, other than until later", 0, s.storm.refused)
	r.fact("OCSP requests in all", "%d", s.storm.asked)
	return nil
}
