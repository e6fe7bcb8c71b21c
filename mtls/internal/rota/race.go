package rota

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Round is one round of asking for one thing.
type Round struct {
	Among Among         // whom to ask
	Left  time.Duration // of the certificate that is to be replaced; zero: there is none
	Hedge time.Duration // after so long the next is asked beside; negative: never
	Now   func() time.Time
	// Desperate lets a higher tier be asked beside a lower one that takes its
	// time.
	Desperate bool
	// Start runs an attempt on a goroutine, and may count them: those that
	// lost end after the race does.
	Start func(func())
	// RetryAfter is a CA's wish in an error, 0 for none.
	RetryAfter func(error) time.Duration
	// Blame says what an error means for the CA. Nil: Full.
	Blame func(error) Blame
}

// Blame is how far an error is the CA's.
type Blame int

// The blames.
const (
	Full  Blame = iota // it is left alone for a while
	Light              // it is asked after others; whoever asked waits by itself
	NoneAtAll
)

// ErrNobody says that all CAs of a round failed lately and none may be asked yet.
var ErrNobody = errors.New("every CA has failed lately and is to be left alone for a while")

// errLost is the cause of the end of attempts that lost.
var errLost = errors.New("another CA was faster")

type result[T any] struct {
	value T
	err   error
}

// Race asks one CA after the other until one succeeds: the next one after a
// failure at once, and beside the running ones after each round.Hedge. A CA
// of a higher tier is asked only when all of the lower ones have failed or are
// in backoff, unless the round is desperate. The first success wins and the others' contexts end. The error
// joins those of all that were asked; where none was it is ErrNobody. It
// blocks until then, or until ctx ends.
func Race[T any](ctx context.Context, r *Rota, round Round, ask func(ctx context.Context, ca int) (T, error)) (T, error) {
	var none T
	order := r.order(round.Now(), round.Left, round.Among)
	if len(order) == 0 {
		return none, fmt.Errorf("%w: %w", ErrNobody, r.errors(round.Among))
	}
	inner, lose := context.WithCancelCause(ctx)
	defer lose(errLost)
	results := make(chan result[T], len(order)) // never blocks one that lost
	next, running := 0, 0
	higher := func() bool { return r.tier(order[next]) != r.tier(order[next-1]) && !round.Desperate }
	launch := func() {
		ca := order[next]
		next++
		running++
		round.Start(func() {
			value, err := attempt(inner, r, round, ca, ask)
			results <- result[T]{value, err}
		})
	}
	launch()
	hedge := time.NewTimer(round.Hedge)
	defer hedge.Stop()
	if round.Hedge < 0 {
		hedge.Stop()
	}
	var errs []error
	for running > 0 {
		select {
		case got := <-results:
			running--
			if got.err == nil {
				return got.value, nil
			}
			errs = append(errs, got.err)
			if next == len(order) || running > 0 && higher() {
				continue
			}
		case <-hedge.C:
			if next == len(order) || higher() {
				continue
			}
		case <-ctx.Done():
			return none, context.Cause(ctx)
		}
		launch()
		if round.Hedge >= 0 {
			hedge.Reset(round.Hedge)
		}
	}
	return none, failures(errs)
}

// failures are those of one round, on one line.
type failures []error

// Error joins them.
func (f failures) Error() string {
	texts := make([]string, len(f))
	for i, err := range f {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

// errors are the last ones of some CAs.
func (r *Rota) errors(among Among) (errs failures) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.cas {
		if err := r.cas[i].err; err != nil && among.has(i) {
			errs = append(errs, err)
		}
	}
	return errs
}

// Unwrap is for errors.Is and errors.As.
func (f failures) Unwrap() []error { return f }

// attempt asks one CA and records how it did.
func attempt[T any](ctx context.Context, r *Rota, round Round, ca int, ask func(context.Context, int) (T, error)) (T, error) {
	start := time.Now()
	value, err := ask(ctx, ca)
	took, now := time.Since(start), round.Now()
	switch {
	case err == nil:
		r.succeeded(ca, now, took)
	case context.Cause(ctx) == errLost:
		r.slow(ca, now, took)
	case ctx.Err() != nil: // the caller went away
	case round.Blame == nil:
		r.failed(ca, now, Full, round.RetryAfter(err), err)
	default:
		r.failed(ca, now, round.Blame(err), round.RetryAfter(err), err)
	}
	return value, err
}
