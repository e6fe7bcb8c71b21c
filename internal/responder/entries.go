package responder

import (
	"container/heap"
	"context"
	"errors"
	"iter"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/revocation"
)

// entries are those of a list: certificates that end later than after, in the
// order of their serials. The full list is all shards' together, each of which
// is read by pages: a thousand entries, or 100 KB, of each are in memory.
func (r *Responder) entries(ctx context.Context, a *authority, shard int, after time.Time) func(func(revocation.Entry) error) error {
	if shard > 0 || len(a.lists.lists()) == 1 {
		return func(yield func(revocation.Entry) error) error { return r.shardEntries(ctx, a, shard, after, yield) }
	}
	return func(yield func(revocation.Entry) error) error {
		var sources []iter.Seq2[revocation.Entry, error]
		for shard := range a.lists.lists() {
			sources = append(sources, func(yield func(revocation.Entry, error) bool) {
				stop := errors.New("enough")
				err := r.shardEntries(ctx, a, shard, after, func(e revocation.Entry) error {
					if !yield(e, nil) {
						return stop
					}
					return nil
				})
				if err != nil && err != stop {
					yield(revocation.Entry{}, err)
				}
			})
		}
		return merge(sources, yield)
	}
}

func (r *Responder) shardEntries(ctx context.Context, a *authority, shard int, after time.Time, yield func(revocation.Entry) error) error {
	return r.db.RevokedCertificates(ctx, a.keyID, shard, after, func(serial cert.Serial, at time.Time, reason cert.Reason, _ time.Time) error {
		return yield(revocation.Entry{Serial: serial, At: at, Reason: reason})
	})
}

// merge yields the entries of several sources in the order of their serials;
// each source's are in order.
func merge(sources []iter.Seq2[revocation.Entry, error], yield func(revocation.Entry) error) error {
	var heads smallest
	for _, source := range sources {
		next, stop := iter.Pull2(source)
		defer stop()
		if e, err, ok := next(); ok {
			heads = append(heads, head{e, err, next})
		}
	}
	heap.Init(&heads)
	for len(heads) > 0 {
		h := &heads[0]
		if h.err != nil {
			return h.err
		}
		if err := yield(h.Entry); err != nil {
			return err
		}
		var ok bool
		if h.Entry, h.err, ok = h.next(); ok {
			heap.Fix(&heads, 0)
		} else {
			heap.Pop(&heads)
		}
	}
	return nil
}

// head is a source's next entry.
type head struct {
	revocation.Entry
	err  error
	next func() (revocation.Entry, error, bool)
}

// smallest is a heap with the smallest serial on top; an error, which has none,
// comes first of all.
type smallest []head

func (s smallest) Len() int           { return len(s) }
func (s smallest) Less(i, j int) bool { return s[i].Serial < s[j].Serial }
func (s smallest) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *smallest) Push(x any)        { *s = append(*s, x.(head)) }
func (s *smallest) Pop() any          { old := *s; last := old[len(old)-1]; *s = old[:len(old)-1]; return last }
