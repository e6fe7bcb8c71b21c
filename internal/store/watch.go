package store

import (
	"context"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store/engine"
)

// Advisories returns the ranges of firmware that are refused.
func (q *queries) Advisories(ctx context.Context) ([]protocol.Advisory, error) {
	return all(ctx, q, func(rows engine.Row, a *protocol.Advisory) error {
		var createdAt int64
		err := rows.Scan(&a.ID, &a.First, &a.Last, &createdAt)
		a.CreatedAt = fromMicros(createdAt)
		return err
	}, "SELECT id, first, last, created_at FROM advisories ORDER BY id")
}

// InsertAdvisory refuses a range of firmware; ErrConflict when there is an
// advisory of that ID.
func (tx *Tx) InsertAdvisory(a protocol.Advisory) error {
	return tx.insert("INSERT INTO advisories (id, first, last, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		a.ID, a.First, a.Last, micros(a.CreatedAt))
}

// DeleteAdvisory withdraws an advisory. False: there is none.
func (tx *Tx) DeleteAdvisory(id string) (bool, error) {
	return tx.changed("DELETE FROM advisories WHERE id = $1", id)
}

const watchedKeys = "SELECT fingerprint, label, created_at FROM watched_keys"

func scanWatchedKey(rows engine.Row, k *protocol.WatchedKey) error {
	var createdAt int64
	err := rows.Scan(&k.Fingerprint, &k.Label, &createdAt)
	k.CreatedAt = fromMicros(createdAt)
	return err
}

// WatchedKeys returns the SSH keys whose use is an alarm.
func (q *queries) WatchedKeys(ctx context.Context) ([]protocol.WatchedKey, error) {
	return all(ctx, q, scanWatchedKey, watchedKeys+" ORDER BY fingerprint")
}

// WatchedKey returns one of them, ErrNotFound if it isn't watched.
func (q *queries) WatchedKey(ctx context.Context, fingerprint string) (protocol.WatchedKey, error) {
	return one(ctx, q, scanWatchedKey, watchedKeys+" WHERE fingerprint = $1", fingerprint)
}

// InsertWatchedKey adds one; ErrConflict when it is watched already.
func (tx *Tx) InsertWatchedKey(k protocol.WatchedKey) error {
	return tx.insert("INSERT INTO watched_keys (fingerprint, label, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
		k.Fingerprint, k.Label, micros(k.CreatedAt))
}

// DeleteWatchedKey forgets one. False: it wasn't watched.
func (tx *Tx) DeleteWatchedKey(fingerprint string) (bool, error) {
	return tx.changed("DELETE FROM watched_keys WHERE fingerprint = $1", fingerprint)
}
