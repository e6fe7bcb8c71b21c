package store

import (
	"context"

	"github.com/chancery-pki/chancery/internal/store/nonce"
)

// Nonces hands out nonces and takes each back once. Safe for concurrent use.
type Nonces = nonce.Set

// Nonces starts handing out nonces: on SQLite those of this process, see
// [nonce.InMemory]; on PostgreSQL those of all replicas, see [nonce.Shared].
func (db *DB) Nonces(ctx context.Context) (*Nonces, error) {
	p, ok := db.engine.(nonce.Database)
	if !ok {
		return nonce.InMemory(db.clock), nil
	}
	var start int64
	if err := db.Update(ctx, func(tx *Tx) (err error) {
		start, err = tx.NextNumber("nonce.range", 1)
		return err
	}); err != nil {
		return nil, err
	}
	return nonce.Shared(ctx, p, db.clock, start)
}
