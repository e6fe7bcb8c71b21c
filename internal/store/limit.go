package store

import (
	"context"
	"fmt"
	"time"
)

// Limit allows Count events in any time of length Per, all at once if need be.
type Limit struct {
	Count int
	Per   time.Duration
}

// Take counts one event against the limit of that key. A wait above zero
// means that it was refused, and nothing taken, and how long until it would
// be allowed. It is GCRA (ITU-T I.371): the row holds the theoretical arrival
// time, that is when all events so far are paid for at Count per Per.
func (tx *Tx) Take(key string, l Limit) (wait time.Duration, err error) {
	if l.Count <= 0 || l.Per <= 0 {
		return 0, fmt.Errorf("store: a limit of %d per %s allows nothing", l.Count, l.Per)
	}
	now := micros(tx.now)
	interval := max(l.Per.Microseconds()/int64(l.Count), 1)
	latest := now + l.Per.Microseconds() - interval // the latest arrival time that leaves room for one more
	taken, err := tx.changed(`INSERT INTO limits (key, tat) VALUES ($1, $2)
		ON CONFLICT (key) DO UPDATE SET tat = CASE WHEN limits.tat > $3 THEN limits.tat ELSE $3 END + $4 WHERE limits.tat <= $5`,
		key, now+interval, now, interval, latest)
	if err != nil || taken {
		return 0, err
	}
	tat, err := one(context.Background(), &tx.queries, scanInt, "SELECT tat FROM limits WHERE key = $1", key)
	return time.Duration(tat-latest) * time.Microsecond, err
}
