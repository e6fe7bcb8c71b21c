package status

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"
)

const (
	// maxFlights bounds the fetches at once, maxReading those of lists.
	maxFlights, maxReading = 64, 4
	// retryAfter is how long a failed fetch isn't tried again. refreshMin and
	// refreshMax bound when a newer finding is fetched: half-way to its
	// nextUpdate, but every hour, so that a revocation is seen soon.
	retryAfter             = 30 * time.Second
	refreshMin, refreshMax = time.Minute, time.Hour
)

// launch starts a fetch for an entry, unless one is under way or too many are.
// The lock is held.
func (c *Checker) launch(e *entry, q *query) {
	if e.flight != nil || c.closed || c.flying == maxFlights {
		return
	}
	c.flying++
	e.flight = make(chan struct{})
	cert, issuer, known, source := q.cert, q.issuer, e.found, e.source
	c.flights.Go(func() {
		found, err := c.fetch(source, cert, issuer, known)
		c.land(e, cert, found, err)
	})
}

func (c *Checker) fetch(source Source, cert, issuer *x509.Certificate, known finding) (finding, error) {
	if source == OCSP {
		_, a, err := c.askOCSP(c.ctx, cert, issuer)
		if err != nil {
			return nil, err
		}
		return a, nil
	}
	before, _ := known.(*list)
	l, err := c.fetchCRL(c.ctx, cert, issuer, before)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// land ends a fetch.
func (c *Checker) land(e *entry, cert *x509.Certificate, found finding, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flying--
	close(e.flight)
	e.flight = nil
	now := c.cfg.Now()
	if err == nil && e.found != nil {
		err = found.follows(e.found) // a staple may have come meanwhile
	}
	if err == nil {
		c.keep(e, found, now)
		return
	}
	if e.err == nil && !c.closed { // the first failure of a row
		c.cfg.Log.LogAttrs(context.Background(), slog.LevelWarn, "revocation status can't be fetched",
			slog.String("url", e.url), slog.String("issuer", cert.Issuer.String()), slog.Any("error", err))
	}
	e.err = err
	e.retryAt = now.Add(retryAfter)
}

// keep makes a finding the entry's. The lock is held.
func (c *Checker) keep(e *entry, found finding, now time.Time) {
	_, next := found.window()
	soon := min(max(next.Sub(now)/2, refreshMin), refreshMax)
	if a, ok := found.(*answer); ok && a.status == Unknown {
		soon = refreshMin // it may just have been issued
	}
	// A tenth less or more, so that not all who started together ask together.
	e.refreshAt = now.Add(soon - soon/10 + rand.N(soon/5))
	e.found, e.err, e.retryAt = found, nil, time.Time{}
	if l, ok := found.(*list); ok {
		c.lists.weigh(e, 1+len(l.serials)/entriesPerCost)
	}
}

// Staple fetches the OCSP answer about one of our own certificates. It returns
// the response in DER and its nextUpdate, or nil where the certificate names no
// responder. A *RevokedError says that it was revoked; a responder that doesn't
// know it is an error too. It blocks until the responders have answered, ten
// seconds each at most.
func (c *Checker) Staple(ctx context.Context, cert, issuer *x509.Certificate) (der []byte, next time.Time, err error) {
	if len(mirrors(cert.OCSPServer)) == 0 {
		return nil, time.Time{}, nil
	}
	der, a, err := c.askOCSP(ctx, cert, issuer)
	if err != nil {
		return nil, time.Time{}, err
	}
	switch s, detail := a.of(nil); s {
	case Revoked:
		return nil, time.Time{}, &RevokedError{cert, detail}
	case Unknown:
		return nil, time.Time{}, errors.New("the OCSP responder doesn't know the certificate")
	}
	return der, a.next, nil
}

// List is what Health says of a CRL.
type List struct {
	URL        string
	Number     string
	Entries    int
	NextUpdate time.Time
	Err        error // of the last fetch
}

// Health returns how many OCSP answers are kept, and the lists, those used last
// first.
func (c *Checker) Health() (answers int, lists []List) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for el := c.lists.used.Front(); el != nil; el = el.Next() {
		e := el.Value.(*entry)
		out := List{URL: e.url, Err: e.err}
		if l, ok := e.found.(*list); ok {
			out.Number, out.Entries, out.NextUpdate = l.number.String(), len(l.serials), l.next
		}
		lists = append(lists, out)
	}
	return len(c.answers.entries), lists
}
