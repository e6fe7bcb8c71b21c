package mtls

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"log/slog"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
	"github.com/chancery-pki/chancery/mtls/internal/authority"
	"github.com/chancery-pki/chancery/mtls/internal/issued"
	"github.com/chancery-pki/chancery/mtls/internal/memkey"
	"github.com/chancery-pki/chancery/mtls/internal/rota"
	"github.com/chancery-pki/chancery/mtls/internal/slot"
)

const (
	// longestSleep has the loop look at the clock: one that was set, or that
	// stood still while the machine slept, is noticed so soon.
	longestSleep = 10 * time.Minute
	// shortestPause is between two rounds for one certificate.
	shortestPause = time.Second
	// eraseAfter is how long a key outlives its certificate's replacement: a
	// handshake signs moments after it picked the certificate.
	eraseAfter = time.Minute
	// nameJobs bounds how many names on demand are worked on at once.
	nameJobs = 4
)

// retired is a key that waits for its end.
type retired struct {
	key *memkey.Key
	at  time.Time
}

// poke has the loop look again.
func (id *Identity) poke() {
	select {
	case id.life.wake <- struct{}{}:
	default:
	}
}

// run is the identity's one goroutine: it sleeps until something is due and
// has jobs do that, which end with their work.
func (id *Identity) run() {
	id.loadCache()
	for {
		now := id.clock.Now()
		next := now.Add(longestSleep)
		for _, s := range id.slots() {
			if s.OnDemand() && id.names.Active.Load() >= nameJobs || id.served(s) {
				continue // who ends pokes
			}
			work, at := s.Take(now, id.cfg.RenewBefore)
			if work != slot.Nothing {
				id.job(s, work)
			} else if at.Before(next) {
				next = at
			}
		}
		if at := id.buryKeys(now); at.Before(next) {
			next = at
		}
		id.names.Expire(now)
		id.checkReady()
		timer := id.clock.After(next.Sub(now))
		if !id.clock.Now().Before(next) {
			continue // the clock was moved on before the timer was set
		}
		select {
		case <-timer:
		case <-id.life.wake:
		case <-id.life.ctx.Done():
			return
		}
	}
}

func (id *Identity) checkReady() {
	for _, s := range id.base() {
		if s.Current.Load() == nil {
			return
		}
	}
	id.life.makeReady()
}

// served reports whether the client's slot has nothing to do of its own: the
// first server certificate is being got and may do for both, or does.
func (id *Identity) served(s *slot.Slot) bool {
	if s != id.client || id.server == nil || !s.Both {
		return false
	}
	client, server := s.Current.Load(), id.server.Current.Load()
	if client != nil || server != nil {
		return client != nil && client == server
	}
	return !id.server.Tried()
}

// job does a slot's work on a goroutine of its own.
func (id *Identity) job(s *slot.Slot, work slot.Work) {
	if s.OnDemand() {
		id.names.Active.Add(1)
	}
	id.life.work.Go(func() {
		switch work {
		case slot.Replace:
			id.replace(s)
		case slot.Ask:
			id.askRenewal(s)
		case slot.Staple:
			id.renewStaple(s)
		}
		if s.OnDemand() {
			id.names.Active.Add(-1)
		}
		s.Release()
		id.poke()
	})
}

// replace is one round of asking CAs for a slot's certificate.
func (id *Identity) replace(s *slot.Slot) {
	ctx := id.life.ctx
	left, life := s.Left(id.clock.Now())
	if s.OnDemand() {
		if err := id.cfg.SNI(s.Names[0]); err != nil {
			id.failed(s, err)
			return
		}
	}
	round := rota.Round{
		Among: id.among(s), Left: left, Hedge: id.cfg.HedgeAfter, Desperate: left > 0 && left < life/12,
		Now: id.clock.Now, Start: id.life.work.Go, RetryAfter: authority.RetryAfter, Blame: blames(s),
	}
	c, err := rota.Race(ctx, id.rota, round, func(ctx context.Context, ca int) (*issued.Credential, error) {
		return id.ask(ctx, id.cas[ca], s)
	})
	switch {
	case ctx.Err() != nil:
		if c != nil {
			authority.EraseKey(c.Key)
		}
		s.Failed(ErrClosed, true, func(int) time.Time { return time.Time{} })
		return
	case err != nil:
		id.failed(s, err)
		return
	}
	c, stapleEnd := id.firstStaple(ctx, c)
	id.install(s, c, stapleEnd)
	id.storeCache(s, c)
	for _, other := range id.base() { // a CA is back
		if other != s && id.among(other)(c.CA) {
			other.Encourage()
		}
	}
	id.log.InfoContext(ctx, "mtls: a new certificate", "certificate", s.String(), "directory", id.cas[c.CA].Directory,
		"not_after", c.Leaf().NotAfter, "renew_at", c.RenewAt(id.cfg.RenewBefore, acme.Window{}))
}

// among are the CAs to ask for a slot's certificate.
func (id *Identity) among(s *slot.Slot) rota.Among {
	return func(ca int) bool { return id.cfg.CAs[ca].Usage.covers(usageOf(s)) }
}

// blames spares a CA for what it says of names: our other certificates needn't
// wait for it, and whoever asks for names on demand that no CA gives shall not
// even make us think less of it.
func blames(s *slot.Slot) func(error) rota.Blame {
	return func(err error) rota.Blame {
		switch {
		case !authority.Refused(err):
			return rota.Full
		case s.OnDemand():
			return rota.NoneAtAll
		}
		return rota.Light
	}
}

// ask makes one attempt at one CA and tells the hooks of it, unless it was
// called off.
func (id *Identity) ask(ctx context.Context, ca *authority.CA, s *slot.Slot) (*issued.Credential, error) {
	start := time.Now()
	both := s.Both && id.cfg.CAs[ca.Number].Usage == UsageBoth
	c, err := ca.Obtain(ctx, authority.Request{Names: s.Names, Client: s.Client, Both: both, Old: s.Current.Load()})
	if id.hooks.Attempted != nil && (err == nil || ctx.Err() == nil) {
		id.hooks.Attempted(Attempt{ca.Directory, usageOf(s), time.Since(start), err})
	}
	return c, err
}

// failed plans the next round and says how bad it is.
func (id *Identity) failed(s *slot.Slot, err error) {
	now := id.clock.Now()
	left, _ := s.Left(now)
	nobody := errors.Is(err, rota.ErrNobody)
	at := s.Failed(err, nobody, func(rounds int) time.Time {
		pause := shortestPause
		if !nobody {
			pause = max(pause, id.rota.Backoff(rounds, left))
		}
		if s.OnDemand() {
			pause = max(pause, slot.Retry)
			if left <= 0 {
				pause = slot.Pause(rounds)
			}
		}
		at := now.Add(pause)
		if next := id.rota.Next(left, id.among(s)); next.After(at) {
			return next
		}
		return at
	})
	if nobody {
		return // was told when they failed
	}
	level, what := slog.LevelWarn, "mtls: no certificate yet"
	attrs := []slog.Attr{slog.String("certificate", s.String()), slog.Any("error", err), slog.Time("next_try", at)}
	if c := s.Current.Load(); c != nil {
		what = "mtls: a certificate could not be renewed; when it ends its handshakes fail"
		attrs = append(attrs, slog.Time("ends", c.Leaf().NotAfter), slog.Duration("left", left.Round(time.Second)))
		if c.Late(id.cfg.RenewBefore, now) {
			level = slog.LevelError
		}
	}
	id.log.LogAttrs(id.life.ctx, level, what, attrs...)
}

// install puts a new certificate in the place of the old one, for both usages
// if it is good for both.
func (id *Identity) install(s *slot.Slot, c *issued.Credential, stapleEnd time.Time) {
	now := id.clock.Now()
	life := c.Leaf().NotAfter.Sub(c.Obtained)
	plan := slot.Plan{AskAt: c.Obtained.Add(max(time.Minute, time.Duration(float64(life/24)*(1+c.Place)/2)))}
	if len(c.Leaf().OCSPServer) > 0 {
		plan.StapleAt, plan.StapleEnd = halfway(now, stapleEnd), stapleEnd
	}
	old := s.Current.Load() // only this job replaces it
	if s == id.server && id.client != nil && id.cfg.CAs[c.CA].Usage == UsageBoth && issued.Good(c.Leaf(), x509.ExtKeyUsageClientAuth) {
		// First the client's slot, which then has nothing left to ask for.
		if was := id.client.Current.Load(); was == nil || was == old {
			id.client.Current.Store(c)
			id.client.Succeeded()
		}
	}
	s.Current.Store(c)
	s.Plan(func(p *slot.Plan) { *p = plan })
	s.Succeeded()
	if old != nil {
		id.retire(old)
	}
}

// retire plans the end of a replaced certificate's key, unless it is in use
// still.
func (id *Identity) retire(old *issued.Credential) {
	key, ok := old.Key.(*memkey.Key)
	if !ok { // its owner's business
		return
	}
	for _, s := range id.base() {
		if c := s.Current.Load(); c != nil && c.Key == crypto.Signer(key) {
			return
		}
	}
	id.life.mu.Lock()
	defer id.life.mu.Unlock()
	id.life.retired = append(id.life.retired, retired{key, id.clock.Now().Add(eraseAfter)})
}

// buryKeys erases the keys whose time has come and returns when the next is
// due.
func (id *Identity) buryKeys(now time.Time) time.Time {
	id.life.mu.Lock()
	defer id.life.mu.Unlock()
	next := now.Add(slot.Far)
	kept := id.life.retired[:0]
	for _, r := range id.life.retired {
		if !r.at.After(now) {
			r.key.Erase()
			continue
		}
		if kept = append(kept, r); r.at.Before(next) {
			next = r.at
		}
	}
	clear(id.life.retired[len(kept):])
	id.life.retired = kept
	return next
}
