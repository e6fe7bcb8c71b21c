package store

import (
	"context"
	"strconv"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store/engine"
)

// Snapshot is a database as of one moment, for internal/store/carry to walk
// through. Its methods call do with each row until that fails, and mustn't be
// called from within one another's.
type Snapshot struct{ run engine.Runner }

// Snapshot lets read see the database as it is now, while others go on writing.
func (db *DB) Snapshot(ctx context.Context, read func(*Snapshot) error) error {
	return db.engine.Snapshot(ctx, func(on engine.Runner) error { return read(&Snapshot{on}) })
}

// Rows are what a statement finds.
func (s *Snapshot) Rows(ctx context.Context, text string, do func(engine.Row) error) error {
	return s.run.Search(ctx, text, nil, func(row engine.Row) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return do(row)
	})
}

func walk[T any](ctx context.Context, s *Snapshot, scan func(engine.Row, *T) error, text string, do func(T) error) error {
	return s.Rows(ctx, text, func(row engine.Row) error {
		var v T
		if err := scan(row, &v); err != nil {
			return err
		}
		return do(v)
	})
}

// Revoked are the certificates that were revoked.
func (s *Snapshot) Revoked(ctx context.Context, do func(cert.Certificate) error) error {
	return walk(ctx, s, scanCertificate, "SELECT "+certificateColumns+" FROM certificates WHERE revoked_at > 0", do)
}

// Held are the certificates that rest on devices and are good at the time.
func (s *Snapshot) Held(ctx context.Context, now time.Time, do func(cert.Certificate) error) error {
	return walk(ctx, s, scanCertificate, "SELECT "+certificateColumns+" FROM certificates WHERE subject > 'device:' AND subject < 'device;' AND state = 'issued' AND revoked_at = 0 AND not_after > "+
		strconv.FormatInt(micros(now), 10), do)
}

// Accounts are all of them.
func (s *Snapshot) Accounts(ctx context.Context, do func(protocol.Account) error) error {
	return walk(ctx, s, scanAccount, "SELECT "+accountColumns+" FROM accounts", do)
}

// Devices are all of them.
func (s *Snapshot) Devices(ctx context.Context, do func(protocol.Device) error) error {
	return walk(ctx, s, scanDevice, "SELECT "+deviceColumns+" FROM devices", do)
}

// WatchedKeys are the SSH keys whose use is an alarm.
func (s *Snapshot) WatchedKeys(ctx context.Context, do func(protocol.WatchedKey) error) error {
	return walk(ctx, s, scanWatchedKey, watchedKeys, do)
}

// Changed runs a compare-and-swap of internal/store/carry's: did it find its
// row?
func (tx *Tx) Changed(text string, args ...any) (bool, error) { return tx.changed(text, args...) }
