package postgres

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chancery-pki/chancery/internal/store/engine"
)

// Bounds of a connection to PostgreSQL. No statement of ours runs for seconds,
// so whoever waits longer waits for a database that is away. A request that
// meets a silent server gets its answer within the 20 s that the edge allows.
const (
	connections      = 16 // per replica; ten replicas fit the server's default of 100 only if told so
	hastyConnections = 4
	connectTimeout   = 5 * time.Second
	defaultSilence   = 12 * time.Second // no answer from the server for so long: the connection is dead
	statementTimeout = "10s"            // less, so that a server which only is slow says so
	idleTimeout      = "60s"            // the server ends a transaction that a replica left open
	retries          = 10               // of a transaction that lost against another
	longPatience     = 10 * time.Minute // the silence of a migration's statement, or a backup's
)

// DB is a pool of connections, and a small one whose commits don't wait for
// the disk.
type DB struct {
	engine.Config
	dsn   string
	pool  *pool
	hasty *pool
}

// Open connects and migrates; the engine is a *DB. A server older than 13 is
// refused, and one that may lose commits unless UnsafeSync is set. It is what
// store.Options takes.
func Open(ctx context.Context, dsn string, c engine.Config) (_ engine.Engine, err error) {
	e := &DB{Config: c, dsn: dsn}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	silence, generation := cmp.Or(c.Silence, defaultSilence), new(atomic.Int64)
	if e.pool, err = openPool(dsn, connections, silence, generation, nil); err != nil {
		return nil, err
	}
	if e.hasty, err = openPool(dsn, hastyConnections, silence, generation, map[string]string{"synchronous_commit": "off"}); err != nil {
		return nil, err
	}
	t, err := e.pool.take(ctx)
	if err != nil {
		return nil, err
	}
	defer t.give()
	if err := checkServer(ctx, t.Conn, c.UnsafeSync); err != nil {
		return nil, err
	}
	t.wait(longPatience)
	if err := migrate(ctx, t.Conn, c); err != nil {
		return nil, err
	}
	return e, nil
}

// migrationLock is the key of the advisory lock that keeps replicas which
// start together from migrating together.
const migrationLock = 0x6368616e63657279 // "chancery"

func migrate(ctx context.Context, conn *sql.Conn, c engine.Config) error {
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", migrationLock); err != nil {
		return err
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", migrationLock)
	return engine.Migrate(ctx, conn, c, "BEGIN; SET LOCAL statement_timeout = 0")
}

// Reader implements engine.Engine: it reads what is committed.
func (e *DB) Reader() engine.Runner { return e.pool }

// Hasty runs statements each of which may be lost, though never halved, when
// the server loses power.
func (e *DB) Hasty() engine.Runner { return e.hasty }

// ExecHasty is Hasty's Exec, until ctx's deadline.
func (e *DB) ExecHasty(ctx context.Context, text string, args ...any) (int64, error) {
	return e.hasty.exec(ctx, text, args)
}

// checkServer refuses a server that we weren't tested with, or that answers a
// commit before it is on disk.
func checkServer(ctx context.Context, conn *sql.Conn, unsafeSync bool) error {
	show := func(setting string) (value string, err error) {
		err = conn.QueryRowContext(ctx, "SHOW "+setting).Scan(&value)
		return value, err
	}
	version, err := show("server_version_num")
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(version); err != nil || n < 130000 {
		return fmt.Errorf("the server is version %s; 13 or newer is needed", version)
	}
	encoding, err := show("server_encoding")
	if err != nil {
		return err
	}
	if encoding != "UTF8" {
		return fmt.Errorf("the database's encoding is %s; create it with ENCODING 'UTF8'", encoding)
	}
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		value, err := show(setting)
		if err != nil {
			return err
		}
		if value == "off" && !unsafeSync {
			return fmt.Errorf("%s is off, so that a power cut may lose certificates that were handed out: turn it on, or allow unsafe_sync", setting)
		}
	}
	return nil
}

// Update implements engine.Engine.
func (e *DB) Update(ctx context.Context, fn func(*engine.Tx) error) error {
	var err error
	for try := range retries {
		var again bool
		if again, err = e.try(ctx, fn); !again {
			return err
		}
		e.Logger.Debug("a transaction runs again", "try", try+1, "error", err)
		select { // let the other finish; longer each time
		case <-time.After(time.Duration(try) * 5 * time.Millisecond):
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return err
		}
	}
	return err
}

// try runs fn in one transaction. again says that nothing was written and
// that it may go better next time. When ctx's deadline passes, the connection
// is closed, and with it ends the transaction.
func (e *DB) try(ctx context.Context, fn func(*engine.Tx) error) (again bool, err error) {
	t, err := e.pool.take(ctx)
	if err != nil {
		return false, err
	}
	defer t.give()
	sqlTx, err := t.BeginTx(context.Background(), nil)
	if err != nil { // the connection died in the pool; unless it was silent, which nobody waits for twice
		t.line.doubt()
		return !timedOut(err), failure(err)
	}
	defer sqlTx.Rollback() // after a commit it does nothing
	if err := engine.RunFragile(&direct{on: sqlTx}, e.Clock(), fn); err != nil {
		return lostRace(err), err
	}
	start := time.Now()
	if err := sqlTx.Commit(); err != nil {
		err = failure(err)
		return lostRace(err), err
	}
	e.Counters.Committed(start, 1)
	return false, nil
}

// timedOut finds the end of somebody's patience.
func timedOut(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// Ping implements engine.Engine.
func (e *DB) Ping(ctx context.Context) error {
	return e.pool.Query(ctx, "SELECT 1", nil, func(engine.Row) error { return nil })
}

// Snapshot implements engine.Engine.
func (e *DB) Snapshot(ctx context.Context, fn func(engine.Runner) error) error {
	t, err := e.pool.take(ctx)
	if err != nil {
		return err
	}
	defer t.give()
	tx, err := t.BeginTx(context.Background(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return failure(err)
	}
	defer tx.Rollback()
	on := &direct{on: tx}
	if _, err := on.Exec("SET LOCAL statement_timeout = 0", nil); err != nil {
		return err
	}
	t.wait(longPatience)
	return fn(on)
}

// Close implements engine.Engine.
func (e *DB) Close() error {
	var errs []error
	for _, p := range []*pool{e.pool, e.hasty} {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(errs...)
}

// lostRace finds the two SQLSTATEs by which PostgreSQL ends one of several
// transactions: serialization_failure and deadlock_detected.
func lostRace(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (e.Code == "40001" || e.Code == "40P01")
}

// failure turns SQLSTATEs (PostgreSQL manual, appendix A) into the
// engine's errors. An error that isn't the server's is the connection's.
func failure(err error) error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return engine.Unavailable(err)
	}
	if e.Code == "23505" { // unique_violation
		return fmt.Errorf("%w: %w", engine.ErrConflict, err)
	}
	if len(e.Code) < 2 {
		return fmt.Errorf("store: %w", err)
	}
	switch e.Code[:2] {
	case "08", // connection exception
		"25", // invalid transaction state: a server that became read-only
		"40", // transaction rollback
		"53", // insufficient resources: disk full, too many connections
		"55", // object not in prerequisite state: lock not available
		"57", // operator intervention: shutdown, statement timeout
		"58": // system error
		return engine.Unavailable(err)
	}
	return fmt.Errorf("store: %w", err)
}
