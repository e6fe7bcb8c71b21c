package store

import (
	"context"
	"errors"
	"io"

	"github.com/chancery-pki/chancery/internal/store/dump"
	"github.com/chancery-pki/chancery/internal/store/engine"
)

// Dump writes everything that is worth keeping, as of one moment, while
// others go on writing. It reads row by row and holds none of them up.
func (db *DB) Dump(ctx context.Context, w io.Writer) error {
	return db.engine.Snapshot(ctx, func(on engine.Runner) error {
		return dump.Write(ctx, on, db.name, db.clock(), w)
	})
}

// Load fills an empty database from a dump, all or nothing, and checks that
// the dump is whole. A dump of a newer version is refused.
func (db *DB) Load(ctx context.Context, r io.Reader) error {
	known, err := migrationNames()
	if err != nil {
		return err
	}
	begun := false
	return db.Update(ctx, func(tx *Tx) error {
		if begun {
			return errors.New("store: the database ended the load; empty it and try again")
		}
		begun = true
		return dump.Load(ctx, dump.Target{
			On: tx.run, Postgres: tx.chain == nil, Known: known,
			Chain: func(at int64, object, entry string) error { return tx.insertAudit(at, object, []byte(entry)) },
			ChainLoaded: func() (err error) {
				*tx.chain, err = readChain(ctx, &tx.queries)
				return err
			},
		}, r)
	})
}
