package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/store/engine"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrNotFound says that there is no such row.
	ErrNotFound = errors.New("store: not found")
	// ErrConflict says that a row with the same key exists already.
	ErrConflict = engine.ErrConflict
	// ErrClockBehind says that this machine's clock is more than a minute
	// behind the newest audit entry, so that nothing may be recorded.
	ErrClockBehind = errors.New("store: the clock is behind the newest audit entry")
	// ErrUnavailable wraps the driver's errors that may pass: disk full,
	// connection lost, database locked. From Update it means that nothing
	// was written, except where a commit's own answer was lost: then the
	// caller must look.
	ErrUnavailable = engine.ErrUnavailable
)

// Options says which database to open and how.
type Options struct {
	// DSN is "postgres://…" (or "postgresql://…") for PostgreSQL; else the
	// path of a SQLite file, with or without "sqlite:" before it; "" is
	// chancery.db in the working directory.
	DSN string

	// UnsafeSync is for tests: SQLite doesn't wait for the disk, and a
	// PostgreSQL that doesn't either (fsync, synchronous_commit or
	// full_page_writes off) is taken. A power cut then loses certificates
	// that were handed out.
	UnsafeSync bool

	// Postgres opens a PostgreSQL: engine/postgres.Open, which only programs
	// that want it need carry. nil: such a DSN is refused.
	Postgres func(ctx context.Context, dsn string, c engine.Config) (engine.Engine, error)

	Logger *slog.Logger     // nil: discard
	Clock  func() time.Time // nil: time.Now
}

// DB is an open database. Its reading methods are those of [Tx] and see what
// is committed; writing goes through Update. Safe for concurrent use.
type DB struct {
	queries
	engine engine.Engine
	name   string
	clock  func() time.Time
	stats  *engine.Counters
	chain  *chain // the audit chain's end, the writer's; nil on PostgreSQL, where it is sequenced later
	ears   engine.Ears[Notice]
}

// Tx is one write transaction. It is valid until the function handed to
// Update returns, and for that function's goroutine only.
type Tx struct {
	queries
	tx      *engine.Tx
	now     time.Time
	chain   *chain   // the DB's
	notices []Notice // to be sent
}

// Now is the transaction's time, the same at every call.
func (tx *Tx) Now() time.Time { return tx.now }

// Stats are counters since Open, for metrics.
type Stats struct {
	Commits    int64         // transactions made durable
	Callers    int64         // calls of Update that shared them
	CommitTime time.Duration // sum of the time these commits took
	Waiting    int64         // calls of Update that wait or run now
}

// Open opens a database, for SQLite creating it (mode 0600) when it isn't
// there, and applies the migrations it lacks; one with migrations that this
// program doesn't know is refused. A SQLite database belongs to one process
// at a time; the error names the other. A PostgreSQL older than 13, or one
// that may lose commits (unless UnsafeSync), is refused.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	db := &DB{clock: o.Clock, stats: &engine.Counters{}}
	config := engine.Config{Clock: o.Clock, Logger: o.Logger, Counters: db.stats, UnsafeSync: o.UnsafeSync, Mark: db.mark}
	if strings.HasPrefix(o.DSN, "postgres://") || strings.HasPrefix(o.DSN, "postgresql://") {
		if o.Postgres == nil {
			return nil, errors.New("store: this program was built without PostgreSQL; give it the path of an SQLite file")
		}
		config.Migrations = migrations("postgres")
		p, err := o.Postgres(ctx, o.DSN, config)
		if err != nil {
			return nil, fmt.Errorf("store: PostgreSQL: %w", err)
		}
		db.name, db.engine, db.run = "postgres", p, p.Reader()
		return db, nil
	}
	path := strings.TrimPrefix(o.DSN, "sqlite:")
	if path == "" {
		path = "chancery.db"
	}
	config.Migrations = migrations("sqlite")
	s, err := engine.OpenSQLite(ctx, path, config)
	if err != nil {
		return nil, fmt.Errorf("store: SQLite database %s: %w", path, err)
	}
	db.name, db.engine, db.run = "sqlite", s, s.Reader()
	end, err := readChain(ctx, &db.queries)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	db.chain = &end
	return db, nil
}

//go:embed migrations
var migrationFiles embed.FS

// migrations are an engine's. Both have files of the same names.
func migrations(name string) fs.FS {
	sub, err := fs.Sub(migrationFiles, "migrations/"+name)
	if err != nil {
		panic(err) // only for a path that isn't one
	}
	return sub
}

// migrationNames lists the migrations in the order they are applied.
func migrationNames() ([]string, error) { return fs.Glob(migrations("sqlite"), "*.sql") }

// mark remembers the audit chain's end for when a transaction is rolled back.
func (db *DB) mark() (restore func()) {
	if db.chain == nil {
		return func() {}
	}
	before := *db.chain
	return func() { *db.chain = before }
}

// Close waits for the transaction that is under way and closes the database.
// Calls of Update that come later fail; so do reads. Closing again does
// nothing.
func (db *DB) Close() error { return db.engine.Close() }

// Engine is "sqlite" or "postgres".
func (db *DB) Engine() string { return db.name }

// Ping reports whether the database answers: a read, and on SQLite a turn of
// the writer.
func (db *DB) Ping(ctx context.Context) error { return db.engine.Ping(ctx) }

// Stats returns the counters as they are now.
func (db *DB) Stats() Stats {
	return Stats{
		Commits:    db.stats.Commits.Load(),
		Callers:    db.stats.Callers.Load(),
		CommitTime: time.Duration(db.stats.CommitTime.Load()),
		Waiting:    db.stats.Waiting.Load(),
	}
}

// Update runs fn in a write transaction and returns when its changes are on
// disk and its notices are heard here, or when there are none to come: an error of fn's rolls back what fn
// did and is returned as it is. It blocks for its turn and for the commit;
// ctx ends only the wait before fn starts, and on PostgreSQL its deadline the
// transaction too, as a lost connection would. fn must not block, since on SQLite
// every writer waits for it, and may run more than once (PostgreSQL ends one
// of two transactions that hinder each other), so it sets, never adds to,
// what lives outside it.
func (db *DB) Update(ctx context.Context, fn func(*Tx) error) error {
	db.stats.Waiting.Add(1)
	defer db.stats.Waiting.Add(-1)
	var last *Tx
	err := db.engine.Update(ctx, func(t *engine.Tx) error {
		last = &Tx{queries: queries{run: t}, tx: t, now: t.Now(), chain: db.chain}
		return fn(last)
	})
	if err == nil {
		db.ears.Tell(last.notices)
	}
	return err
}

// Reading lets the reads of one request go on before what they saw is on disk;
// see [WithReading].
type Reading = engine.Reading

// WithReading returns a context for the reads of one request, which then don't
// wait until what they saw is on disk. The request calls Wait once, before it
// shows anybody what it read. Reads with other contexts wait by themselves.
func WithReading(ctx context.Context) (context.Context, *Reading) { return engine.WithReading(ctx) }
