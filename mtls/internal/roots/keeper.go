package roots

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// retryBundle is when a failed fetch of a bundle is tried again.
const retryBundle = time.Minute

// Clock is the time.
type Clock interface {
	Now() time.Time
	After(time.Duration) <-chan time.Time
}

// Config is what a Keeper needs.
type Config struct {
	// FilesEvery and URLsEvery are how often sources are looked at; negative:
	// only by Reload.
	FilesEvery, URLsEvery time.Duration
	Clock                 Clock
	Log                   *slog.Logger
}

// List is roots that are used together.
type List struct {
	Name    string // for errors and the log
	Sources []Source
}

// Today is a list's roots at one time.
type Today struct {
	Pool       *x509.CertPool // not to be changed
	Generation uint64         // another one for other roots; none comes back
}

// Keeper keeps lists of roots. Its methods may be called at the same time.
type Keeper struct {
	cfg    Config
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended

	lists []*list       // fixed
	turn  chan struct{} // held by who reloads: only that one writes to places

	mu         sync.Mutex // guards what is in places, and generation
	generation uint64
}

type list struct {
	name   string
	places []*place
	today  atomic.Pointer[Today]
}

// place is a source of a list and what it brought last.
type place struct {
	from  Source
	certs []*x509.Certificate
	pool  *x509.CertPool // of opaque sources
	stat  os.FileInfo    // of files
	due   time.Time      // when it is looked at again; zero: never
	err   error          // of the last look
}

// New loads the lists, and starts looking at what may change. Bundles aren't
// waited for.
func New(cfg Config, lists ...List) (*Keeper, error) {
	k := &Keeper{cfg: cfg, done: make(chan struct{}), turn: make(chan struct{}, 1)}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	for _, l := range lists {
		if err := k.add(l); err != nil {
			k.cancel()
			return nil, err
		}
	}
	if k.due().IsZero() {
		close(k.done)
	} else {
		go k.run()
	}
	return k, nil
}

// add loads a list, all but its bundles: those need the other sources' roots.
func (k *Keeper) add(from List) error {
	l := &list{name: from.Name}
	k.lists = append(k.lists, l)
	opaque, anchors := 0, 0
	now := k.cfg.Clock.Now()
	for i, s := range from.Sources {
		p := &place{from: s, due: k.next(s, true, nil, now)}
		l.places = append(l.places, p)
		var err error
		switch {
		case s.kind == bundle:
			err = checkURL(s.text)
		case s.opaque() && opaque > 0:
			err = errors.New("pools can't be merged: a list may have one RootsSystem or RootsPool; give the other roots as PEM")
		default:
			if s.opaque() {
				opaque++
			}
			anchors++
			var got loaded
			got, err = s.load(k.ctx, nil, nil, now)
			p.certs, p.pool, p.stat = got.certs, got.pool, got.stat
		}
		if err != nil {
			return fmt.Errorf("%s[%d] (%v): %w", l.name, i, s, err)
		}
	}
	if anchors == 0 && len(from.Sources) > 0 {
		return fmt.Errorf("%s: %v is authenticated by roots that are trusted already; name their source beside it", l.name, from.Sources[0])
	}
	k.build(l)
	return nil
}

// next is when a source is looked at again, zero if never.
func (k *Keeper) next(s Source, first bool, failed error, now time.Time) time.Time {
	every := k.cfg.FilesEvery
	switch {
	case s.kind == bundle:
		every = k.cfg.URLsEvery
		if first && every >= 0 {
			return now
		}
		if failed != nil {
			every = min(every, retryBundle)
		}
		if every > 0 { // up to a tenth less, so that not all who started together ask together
			every -= rand.N(every/10 + 1)
		}
	case s.kind != file:
		return time.Time{}
	}
	if every < 0 {
		return time.Time{}
	}
	return now.Add(max(every, time.Second))
}

// due is when the first source is to be looked at, zero if none ever is.
func (k *Keeper) due() (first time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range k.lists {
		for _, p := range l.places {
			if !p.due.IsZero() && (first.IsZero() || p.due.Before(first)) {
				first = p.due
			}
		}
	}
	return first
}

func (k *Keeper) run() {
	defer close(k.done)
	for {
		due := k.due()
		timer := k.cfg.Clock.After(due.Sub(k.cfg.Clock.Now()))
		if k.cfg.Clock.Now().Before(due) { // else it was moved on before the timer was set
			select {
			case <-timer:
			case <-k.ctx.Done():
			}
		}
		if k.ctx.Err() != nil {
			return
		}
		k.reload(k.ctx, false) // has logged its errors
	}
}

// Reload looks at all sources now, and returns why those that failed did. It
// blocks until files are read and bundles fetched, ten seconds each at most.
func (k *Keeper) Reload(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(k.ctx, cancel)()
	return k.reload(ctx, true)
}

func (k *Keeper) reload(ctx context.Context, all bool) error {
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	var errs []error
	for _, l := range k.lists {
		changed := false
		for _, p := range l.places {
			now := k.cfg.Clock.Now()
			if p.from.kind != file && p.from.kind != bundle || !all && (p.due.IsZero() || now.Before(p.due)) {
				continue
			}
			before := p.stat
			if all {
				before = nil
			}
			got, err := p.from.load(ctx, before, l.today.Load().Pool, now)
			if k.take(l, p, got, err) {
				changed = true
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s (%v): %w", l.name, p.from, err))
			}
		}
		if changed {
			k.build(l)
		}
	}
	return errors.Join(errs...)
}

// take makes what was loaded the place's, and reports whether that changes its
// roots.
func (k *Keeper) take(l *list, p *place, got loaded, err error) (changed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := p.err
	p.err, p.due = err, k.next(p.from, false, err, k.cfg.Clock.Now())
	log := k.cfg.Log.With(slog.String("roots", l.name), slog.String("source", p.from.String()))
	switch {
	case err != nil:
		if k.ctx.Err() == nil && (before == nil || before.Error() != err.Error()) {
			log.Warn("roots can't be loaded; the former ones stay", slog.Any("error", err))
		}
		return false
	case got.same:
		return false
	}
	p.stat = got.stat
	if slices.EqualFunc(p.certs, got.certs, (*x509.Certificate).Equal) {
		return false
	}
	log.Info("roots have changed", slog.Any("new", missing(got.certs, p.certs)), slog.Any("gone", missing(p.certs, got.certs)))
	p.certs = got.certs
	return true
}

// missing names the certificates of a that aren't in b.
func missing(a, b []*x509.Certificate) (names []string) {
	for _, c := range a {
		if !slices.ContainsFunc(b, c.Equal) {
			names = append(names, fmt.Sprintf("%s (serial %x)", c.Subject, c.SerialNumber))
		}
	}
	return names
}

// build makes a list's roots of what its sources have.
func (k *Keeper) build(l *list) {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := x509.NewCertPool()
	for _, p := range l.places {
		if p.pool != nil {
			all = p.pool.Clone()
		}
	}
	for _, p := range l.places {
		for _, c := range p.certs {
			all.AddCert(c)
		}
	}
	k.generation++
	l.today.Store(&Today{all, k.generation})
}

// Today returns the roots of a list, by its place in New's.
func (k *Keeper) Today(list int) *Today { return k.lists[list].today.Load() }

// Close ends the background work and waits for it. Today goes on.
func (k *Keeper) Close() {
	k.cancel()
	<-k.done
}

// Health is the state of one source.
type Health struct {
	List  string
	From  Source
	Roots int // -1: a pool's can't be counted
	Err   error
}

// Health returns the state of all sources.
func (k *Keeper) Health() (all []Health) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range k.lists {
		for _, p := range l.places {
			h := Health{List: l.name, From: p.from, Roots: len(p.certs), Err: p.err}
			if p.from.opaque() {
				h.Roots = -1
			}
			all = append(all, h)
		}
	}
	return all
}
