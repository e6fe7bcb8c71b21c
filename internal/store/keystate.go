package store

import (
	"context"
	"time"

	"github.com/chancery-pki/chancery/internal/store/engine"
)

// KeyState is what a replica says of a key that it holds.
type KeyState struct {
	KeyID   string
	Replica string
	At      time.Time
	State   string // JSON
}

// keyStateKept is how long a replica's word is kept: what is so old says only
// that the replica is gone.
const keyStateKept = time.Hour

// PutKeyStates stores what a replica says of its keys in place of what it said
// before, and forgets what was said an hour ago. On PostgreSQL a crash of the
// server may lose them.
func (tx *Tx) PutKeyStates(states []KeyState) error {
	for _, s := range states {
		if _, err := tx.exec(`INSERT INTO key_states (key_id, replica, at, state) VALUES ($1, $2, $3, $4)
			ON CONFLICT (key_id, replica) DO UPDATE SET at = excluded.at, state = excluded.state`,
			hexed(s.KeyID), s.Replica, micros(s.At), s.State); err != nil {
			return err
		}
	}
	_, err := tx.exec("DELETE FROM key_states WHERE at < $1", micros(tx.now.Add(-keyStateKept)))
	return err
}

// KeyStates returns what was said at that time or later, by key and replica.
func (q *queries) KeyStates(ctx context.Context, since time.Time) ([]KeyState, error) {
	scan := func(rows engine.Row, s *KeyState) error {
		var at int64
		err := rows.Scan((*hexed)(&s.KeyID), &s.Replica, &at, &s.State)
		s.At = fromMicros(at)
		return err
	}
	return many(ctx, q, scan, "SELECT key_id, replica, at, state FROM key_states WHERE at >= $1 ORDER BY key_id, replica", micros(since))
}

// Live says what still rests on an issuing certificate.
type Live struct {
	Count   int64     // certificates that haven't ended, revoked and planned ones among them
	LastEnd time.Time // when the last of them does
}

const liveCertificates = "SELECT issuer_key_id, count(*), max(not_after) FROM certificates WHERE not_after > $1 GROUP BY issuer_key_id"

// LiveCertificates returns, by the issuing keys' ids, what hasn't ended. It
// reads every such certificate (a million take a second or two), beside the
// writers: an index for it would cost each issuance more than it saves here.
// So it is meant for every few minutes.
func (q *queries) LiveCertificates(ctx context.Context, now time.Time) (map[string]Live, error) {
	type row struct {
		key         hexed
		count, last int64
	}
	scan := func(rows engine.Row, r *row) error { return rows.Scan(&r.key, &r.count, &r.last) }
	list, err := many(ctx, q, scan, liveCertificates, micros(now))
	if err != nil {
		return nil, err
	}
	live := make(map[string]Live, len(list))
	for _, r := range list {
		live[string(r.key)] = Live{r.count, fromMicros(r.last)}
	}
	return live, nil
}
