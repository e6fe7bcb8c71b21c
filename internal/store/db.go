package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrNotFound says that there is no such row.
	ErrNotFound = errors.New("store: not found")
	// ErrConflict says that a row with the same key exists already.
	ErrConflict = errors.New("store: conflicts with what is stored")
	// ErrClockBehind says that this machine's clock is more than a minute
	// behind the newest audit entry, so that nothing may be recorded.
	ErrClockBehind = errors.New("store: the clock is behind the newest audit entry")
	// ErrUnavailable wraps the driver's errors that may pass: disk full,
	// connection lost, database locked. From Update it means that nothing
	// was written, except where a commit's own answer was lost: then the
	// caller must look.
	ErrUnavailable = errors.New("store: the database is not available")
)

// Options says which database to open and how.
type Options struct {
	// DSN is "postgres://…" (or "postgresql://…") for PostgreSQL; else the
	// path of a SQLite file, with or without "sqlite:" before it; "" is
	// chancery.db in the working directory.
	DSN        string
	UnsafeSync bool             // take a PostgreSQL that may lose commits (fsync, synchronous_commit or full_page_writes off)
	Logger     *slog.Logger     // nil: discard
	Clock      func() time.Time // nil: time.Now
}

// DB is an open database. Its reading methods are those of [Tx] and see what
// is committed; writing goes through Update. Safe for concurrent use.
type DB struct {
	queries
	engine engine
	name   string
	clock  func() time.Time
	log    *slog.Logger
	stats  *counters
}

// engine is what differs between SQLite and PostgreSQL beyond the DDL.
type engine interface {
	update(ctx context.Context, fn func(*Tx) error) error
	ping(ctx context.Context) error
	// snapshot lets fn read one consistent state, for as long as it likes.
	snapshot(ctx context.Context, fn func(*queries) error) error
	close() error
}

// Tx is one write transaction. It is valid until the function handed to
// Update returns, and for that function's goroutine only.
type Tx struct {
	queries
	state *txRunner
	now   time.Time
	chain *chain // the audit chain's end; nil on PostgreSQL, where it is sequenced later
}

// Now is the transaction's time, the same at every call.
func (tx *Tx) Now() time.Time { return tx.now }

// txRunner guards a transaction's statements: none after its end, none after
// a failure that may have rolled it back, since SQLite would then commit them
// one by one.
type txRunner struct {
	runner
	aborts bool  // PostgreSQL: any error ends the transaction
	failed error // what Update will answer, whatever the function says
	over   bool
}

var errTxOver = errors.New("store: a transaction was used after its end")

func (t *txRunner) usable() error {
	if t.over {
		return errTxOver
	}
	return t.failed
}

func (t *txRunner) query(text string, args []any) (*sql.Rows, error) {
	if err := t.usable(); err != nil {
		return nil, err
	}
	return t.runner.query(text, args)
}

func (t *txRunner) exec(text string, args []any) (int64, error) {
	if err := t.usable(); err != nil {
		return 0, err
	}
	return t.runner.exec(text, args)
}

func (t *txRunner) once(text string, args []any) (*sql.Rows, error) {
	if err := t.usable(); err != nil {
		return nil, err
	}
	return t.runner.once(text, args)
}

func (t *txRunner) failure(err error) error {
	err = t.runner.failure(err)
	if t.failed == nil && (t.aborts || errors.Is(err, ErrUnavailable)) {
		t.failed = err
	}
	return err
}

// runTx calls fn and returns what is to become of the transaction.
func runTx(tx *Tx, fn func(*Tx) error) error {
	defer func() { tx.state.over = true }()
	if err := fn(tx); err != nil {
		return err
	}
	return tx.state.failed
}

// Stats are counters since Open, for metrics.
type Stats struct {
	Commits    int64         // transactions made durable
	Callers    int64         // calls of Update that shared them
	CommitTime time.Duration // sum of the time these commits took
	Waiting    int64         // calls of Update that wait or run now
}

type counters struct {
	commits, callers, commitTime, waiting atomic.Int64
}

// committed counts one commit that began at start and served so many callers.
func (c *counters) committed(start time.Time, callers int) {
	c.commits.Add(1)
	c.callers.Add(int64(callers))
	c.commitTime.Add(int64(time.Since(start)))
}

// Open opens a database, for SQLite creating it (mode 0600) when it isn't
// there, and applies the migrations it lacks; one with migrations that this
// program doesn't know is refused. A SQLite database belongs to one process
// at a time; the error names the other. A PostgreSQL older than 13, or one
// that may lose commits (unless UnsafeSync), is refused.
func Open(ctx context.Context, o Options) (*DB, error) {
	db := &DB{clock: o.Clock, log: o.Logger, stats: &counters{}}
	if db.clock == nil {
		db.clock = time.Now
	}
	if db.log == nil {
		db.log = slog.New(slog.DiscardHandler)
	}
	if strings.HasPrefix(o.DSN, "postgres://") || strings.HasPrefix(o.DSN, "postgresql://") {
		p, err := openPostgres(ctx, o.DSN, o.UnsafeSync, db)
		if err != nil {
			return nil, fmt.Errorf("store: PostgreSQL: %w", err)
		}
		db.name, db.engine, db.run = "postgres", p, p.reader
		return db, nil
	}
	path := strings.TrimPrefix(o.DSN, "sqlite:")
	if path == "" {
		path = "chancery.db"
	}
	s, err := openSQLite(ctx, path, db)
	if err != nil {
		return nil, fmt.Errorf("store: SQLite database %s: %w", path, err)
	}
	db.name, db.engine, db.run = "sqlite", s, s.readers
	return db, nil
}

// Close waits for the transaction that is under way and closes the database.
// Calls of Update that come later fail.
func (db *DB) Close() error { return db.engine.close() }

// Engine is "sqlite" or "postgres".
func (db *DB) Engine() string { return db.name }

// Ping reports whether the database answers: a read, and on SQLite a turn of
// the writer.
func (db *DB) Ping(ctx context.Context) error { return db.engine.ping(ctx) }

// Stats returns the counters as they are now.
func (db *DB) Stats() Stats {
	return Stats{
		Commits:    db.stats.commits.Load(),
		Callers:    db.stats.callers.Load(),
		CommitTime: time.Duration(db.stats.commitTime.Load()),
		Waiting:    db.stats.waiting.Load(),
	}
}

// Update runs fn in a write transaction and returns when its changes are on
// disk, or when there are none to come: an error of fn's rolls back what fn
// did and is returned as it is. It blocks for its turn and for the commit;
// ctx ends only the wait before fn starts. fn must not block, since on SQLite
// every writer waits for it, and may run more than once (PostgreSQL ends one
// of two transactions that hinder each other), so it sets, never adds to,
// what lives outside it.
func (db *DB) Update(ctx context.Context, fn func(*Tx) error) error {
	db.stats.waiting.Add(1)
	defer db.stats.waiting.Add(-1)
	return db.engine.update(ctx, fn)
}

// unavailable wraps a driver's error that may pass.
func unavailable(err error) error { return fmt.Errorf("%w: %w", ErrUnavailable, err) }
