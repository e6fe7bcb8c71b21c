package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync/atomic"
	"time"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrConflict says that a row with the same key exists already.
	ErrConflict = errors.New("store: conflicts with what is stored")
	// ErrUnavailable wraps the driver's errors that may pass: disk full,
	// connection lost, database locked. From Update it means that nothing
	// was written, except where a commit's own answer was lost: then the
	// caller must look.
	ErrUnavailable = errors.New("store: the database is not available")
)

// Row is the row that a statement stands on; *sql.Rows is one. Values must not
// be null unless they are scanned into a sql.Scanner.
type Row interface{ Scan(into ...any) error }

// Runner runs single statements: on SQLite by statements compiled once per
// connection, on PostgreSQL by the driver, which does the same by itself.
// None of them is interrupted by a context: a client that hangs up cancels
// nothing, and database/sql would start goroutines for each. Only the deadline
// of a context holds, on PostgreSQL: of Query's and Search's, and within a
// transaction of Update's. The driver's errors come back as the package's.
type Runner interface {
	// Query runs a constant statement which finds a few rows at once, and
	// calls row for each until it fails. It must not wait for anything. The
	// context is for a [Reading].
	Query(ctx context.Context, text string, args []any, row func(Row) error) error
	// Search is Query for a statement that was put together at run time,
	// or that reads much.
	Search(ctx context.Context, text string, args []any, row func(Row) error) error
	// Exec runs a constant statement and returns the number of rows affected.
	Exec(text string, args []any) (int64, error)
}

// Engine is a database, whichever it is.
type Engine interface {
	// Reader reads what is committed; see [Reading].
	Reader() Runner
	// Update runs fn in a write transaction; see store.DB.Update.
	Update(ctx context.Context, fn func(*Tx) error) error
	// Ping reports whether the database answers.
	Ping(ctx context.Context) error
	// Snapshot lets fn read one consistent state, for as long as it likes.
	Snapshot(ctx context.Context, fn func(Runner) error) error
	// Close waits for the transaction under way. Closing again does nothing.
	io.Closer
}

// Channel is where notices between replicas go by. PostgreSQL's channels belong
// to one database. A payload begins with a word; those that begin with a space
// are the engine's.
const Channel = "chancery"

// Config is what both engines need.
type Config struct {
	Clock      func() time.Time
	Logger     *slog.Logger
	Counters   *Counters
	Migrations fs.FS // *.sql, applied in the order of their names
	UnsafeSync bool  // see store.Options

	// Silence is how long a PostgreSQL may not answer; 0: 12 s.
	Silence time.Duration

	// Mark is called when a transaction or a savepoint begins, and what it
	// returns when that is rolled back: for state beside the database that
	// must go back with it. SQLite only, and never two at once.
	Mark func() (restore func())
}

// Counters count commits, for metrics.
type Counters struct {
	Commits, Callers, CommitTime, Waiting atomic.Int64 // CommitTime in nanoseconds
}

// Committed counts one commit that began at start and served so many callers.
func (c *Counters) Committed(start time.Time, callers int) {
	c.Commits.Add(1)
	c.Callers.Add(int64(callers))
	c.CommitTime.Add(int64(time.Since(start)))
}

// Tx is a write transaction. No statement runs after its end, nor after a
// failure that may have rolled it back, since SQLite would then commit each by
// itself.
type Tx struct {
	on      Runner
	now     time.Time
	fragile bool  // any error ends the transaction
	failed  error // what Update will answer, whatever the function says
	over    bool
}

var errTxOver = errors.New("store: a transaction was used after its end")

// Now is the transaction's time.
func (t *Tx) Now() time.Time { return t.now }

// Fail makes the transaction fail with err, even if its function succeeds.
func (t *Tx) Fail(err error) {
	if t.failed == nil {
		t.failed = err
	}
}

func (t *Tx) usable() error {
	if t.over {
		return errTxOver
	}
	return t.failed
}

// Query implements Runner.
func (t *Tx) Query(ctx context.Context, text string, args []any, row func(Row) error) error {
	if err := t.usable(); err != nil {
		return err
	}
	return t.note(t.on.Query(ctx, text, args, row))
}

// Search implements Runner.
func (t *Tx) Search(ctx context.Context, text string, args []any, row func(Row) error) error {
	if err := t.usable(); err != nil {
		return err
	}
	return t.note(t.on.Search(ctx, text, args, row))
}

// Exec implements Runner.
func (t *Tx) Exec(text string, args []any) (int64, error) {
	if err := t.usable(); err != nil {
		return 0, err
	}
	n, err := t.on.Exec(text, args)
	return n, t.note(err)
}

// note remembers an error that ends the transaction.
func (t *Tx) note(err error) error {
	if err != nil && (t.fragile || errors.Is(err, ErrUnavailable)) {
		t.Fail(err)
	}
	return err
}

// run calls fn and returns what is to become of the transaction.
func (t *Tx) run(fn func(*Tx) error) error {
	defer func() { t.over = true }()
	if err := fn(t); err != nil {
		return err
	}
	return t.failed
}

// RunFragile runs fn in a transaction of which any error is the end, as on
// PostgreSQL. It returns nil if that may be committed.
func RunFragile(on Runner, now time.Time, fn func(*Tx) error) error {
	return (&Tx{on: on, now: now, fragile: true}).run(fn)
}

// Unavailable wraps a driver's error that may pass.
func Unavailable(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
