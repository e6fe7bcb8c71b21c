package store

import (
	"context"
	"errors"
	"time"
)

// Looks that the jobs take every second, so that a round with nothing to do
// reads a row of an index and writes nothing.

// ValidationsDue reports whether ClaimValidations would find anything.
func (q *queries) ValidationsDue(ctx context.Context, now time.Time) (bool, error) {
	return q.exists(ctx, `SELECT 1 FROM authorizations WHERE processing AND next_at <= $1 AND claimed_until < $1 AND status = 'pending' LIMIT 1`, micros(now))
}

// PlansDue reports whether ClaimPlans would find anything.
func (q *queries) PlansDue(ctx context.Context, now time.Time, keyIDs []string) (bool, error) {
	if keyIDs != nil && len(keyIDs) == 0 {
		return false, nil
	}
	condition, keys := ofKeys(2, keyIDs)
	return q.exists(ctx, "SELECT 1 FROM certificates WHERE state = 'planned' AND claimed_until < $1"+condition+" LIMIT 1", append([]any{micros(now)}, keys...)...)
}

// LimitWait tells how long Take would refuse, without taking: 0 if it wouldn't.
func (tx *Tx) LimitWait(ctx context.Context, key string, l Limit) (time.Duration, error) {
	tat, err := one(ctx, &tx.queries, scanInt, "SELECT tat FROM limits WHERE key = $1", key)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	interval := max(l.Per.Microseconds()/int64(max(l.Count, 1)), 1)
	latest := micros(tx.now) + l.Per.Microseconds() - interval
	return max(time.Duration(tat-latest)*time.Microsecond, 0), err
}

// AuditNeedsSequencing reports whether entries join the chain by
// SequenceAudit, and not in the transaction that writes them.
func (db *DB) AuditNeedsSequencing() bool { return db.Engine() == "postgres" }

// Number returns the number that NextNumber last gave under the name, 0 for
// none.
func (q *queries) Number(ctx context.Context, name string) (int64, error) {
	n, err := one(ctx, q, scanInt, "SELECT value FROM numbers WHERE name = $1", name)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	return n, err
}
