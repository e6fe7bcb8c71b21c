package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// poolRun is a site with issuers of 1, 2, 4 and 8 keys, which all work at the
// same time: what disturbs one disturbs all.
type poolRun struct {
	*site
	o         *options
	signature time.Duration
	window    time.Duration // for the rates
	pulled    time.Duration // for which a key is away, and is watched before and after
	clients   map[string][]client
	keys      map[string][]string // their IDs, by issuer
}

// poolScenario: N keys, and one of four pulled out.
func poolScenario(ctx context.Context, l *lab, o *options) (r result, err error) {
	p := &poolRun{o: o, signature: 200 * time.Millisecond, window: 40 * time.Second, pulled: 15 * time.Second,
		clients: map[string][]client{}, keys: map[string][]string{}}
	numbers := []int{1, 2, 4, 8}
	if o.quick {
		p.window, p.pulled, numbers = 5*time.Second, 4*time.Second, numbers[:3]
	}
	r.Title = fmt.Sprintf("Issuers with %s keys of %v a signature, all at work at the same time", listed(numbers), p.signature)
	var issuers []issuer
	for _, n := range numbers {
		issuers = append(issuers, issuer{fmt.Sprintf("k%d", n), n, "none"})
	}
	if p.site, err = l.newSite(ctx, "pool", issuers...); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := errors.Join(p.delay("", p.signature), p.serve(ctx)); err != nil {
		return r, err
	}
	for _, i := range p.issuers {
		if p.clients[i.name], err = p.site.clients(ctx, i.name, 5); err != nil {
			return r, err
		}
		for k := range i.keys {
			id, err := p.keyID(i.label(k))
			if err != nil {
				return r, err
			}
			p.keys[i.name] = append(p.keys[i.name], id)
		}
	}
	return r, p.run(ctx, &r)
}

// certificates a second that an issuer's keys made.
func (p *poolRun) rate(w phase, i issuer) (rate, busy float64) {
	for _, id := range p.keys[i.name] {
		rate += w.after.rate(w.before, signaturesTotal, `class="issuance"`, id)
		busy += w.after.rate(w.before, "chancery_signing_busy_seconds_total", id)
	}
	return rate, busy / float64(i.keys)
}

func (p *poolRun) run(ctx context.Context, r *result) error {
	loads := map[int]*saturation{}
	for _, i := range p.issuers {
		loads[i.keys] = saturate(ctx, p.clients[i.name], 5+15*i.keys)
	}
	sleep(ctx, 4*time.Second)
	all, err := p.watch(ctx, p.window)
	if err == nil {
		p.judge(r, all)
		for keys, l := range loads {
			if keys != 4 {
				l.ending.Store(true)
			}
		}
		err = p.pullOne(ctx, r)
	}
	done, lost := 0, 0
	for _, l := range loads {
		if fault := l.end(); fault != nil {
			p.o.say("%v", fault)
		}
		done, lost = done+len(l.waits), lost+l.bad
	}
	r.exactly("orders lost", 0, lost)
	r.fact("orders that got their certificates", "%d", done)
	return err
}

// watch measures for a while.
func (p *poolRun) watch(ctx context.Context, d time.Duration) (w phase, err error) {
	if w.before, err = p.scrape(); err != nil {
		return w, err
	}
	sleep(ctx, d)
	if w.after, err = p.scrape(); err != nil {
		return w, err
	}
	return w, ctx.Err()
}

func (p *poolRun) judge(r *result, w phase) {
	one, _ := p.rate(w, p.issuers[0])
	least := 1.0
	for _, i := range p.issuers {
		rate, busy := p.rate(w, i)
		least = min(least, busy)
		p.o.say("%d keys: %.2f/s, busy %.3f", i.keys, rate, busy)
		if i.keys > 1 {
			r.atLeast(fmt.Sprintf("certificates a second with %d keys by %d times those with one", i.keys, i.keys), "%.3f", .95, rate/one/float64(i.keys))
		}
	}
	r.atLeast("part of the time that keys sign while certificates wait, the least of these four", "%.3f", .95, least)
	r.fact("certificates a second with one key", "%.2f", one)
}

// pullOne pulls one key of four out for a while, and puts it back.
func (p *poolRun) pullOne(ctx context.Context, r *result) error {
	four := p.issuers[2]
	before, err := p.watch(ctx, p.pulled)
	if err != nil {
		return err
	}
	label := four.label(1)
	if err := p.pull(label); err != nil {
		return err
	}
	begun := time.Now()
	sleep(ctx, time.Second)
	away, err := p.watch(ctx, p.pulled)
	if err != nil {
		return err
	}
	if err := p.plug(label); err != nil {
		return err
	}
	plugged := time.Now()
	var back time.Duration
	for back == 0 {
		m, err := p.scrape()
		if err != nil {
			return err
		}
		switch d := time.Since(plugged); {
		case m.sum("chancery_signing_token_away") == 0:
			back = d
		case d > time.Minute || ctx.Err() != nil:
			return fmt.Errorf("the token isn't back %v after it was put in again", d)
		}
		sleep(ctx, 20*time.Millisecond)
	}
	after, err := p.watch(ctx, p.pulled)
	if err != nil {
		return err
	}
	was, _ := p.rate(before, four)
	without, busy := p.rate(away, four)
	again, _ := p.rate(after, four)
	r.atLeast("certificates a second with one of four pulled out by three quarters of those with four", "%.3f", .9, without/(.75*was))
	r.atLeast("the other three sign for this part of the time", "%.3f", .95, busy/.75)
	r.atLeast("certificates a second once it is back by those before", "%.3f", .9, again/was)
	r.fact("time away, and from its return until it is used again", "%.1f s, %.1f s", plugged.Sub(begun).Seconds(), back.Seconds())
	return nil
}

// listed writes numbers as people do: 1, 2 and 4.
func listed(numbers []int) string {
	text := ""
	for i, n := range numbers {
		switch {
		case i == 0:
		case i == len(numbers)-1:
			text += " and "
		default:
			text += ", "
		}
		text += strconv.Itoa(n)
	}
	return text
}
