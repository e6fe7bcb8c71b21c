package engine

import (
	"context"
	"sync/atomic"
)

// Reading lets the reads of one request go on before what they saw is on disk.
// The request waits once, by Wait, before it shows anybody what it read; a
// read without a Reading in its context waits by itself. After an Update of
// its own a request has nothing left to wait for.
type Reading struct {
	seen atomic.Pointer[batch] // the newest
}

type readingKey struct{}

// WithReading returns a context whose reads are the Reading's.
func WithReading(ctx context.Context) (context.Context, *Reading) {
	r := new(Reading)
	return context.WithValue(ctx, readingKey{}, r), r
}

// Wait returns when all that was read so far is on disk. An error of
// ErrUnavailable says that it never will be: forget what was read.
func (r *Reading) Wait(ctx context.Context) error { return r.seen.Load().wait(ctx) }

// wait waits for the batch's end; nil is none.
func (b *batch) wait(ctx context.Context) error {
	if b == nil {
		return nil
	}
	select {
	case <-b.done:
		return b.err
	default:
	}
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// saw notes that a read may have seen the batch, or waits for it.
func saw(ctx context.Context, b *batch) error {
	if b == nil {
		return nil
	}
	r, ok := ctx.Value(readingKey{}).(*Reading)
	if !ok {
		return b.wait(ctx)
	}
	for {
		old := r.seen.Load()
		if old != nil && old.number >= b.number || r.seen.CompareAndSwap(old, b) {
			return nil
		}
	}
}
