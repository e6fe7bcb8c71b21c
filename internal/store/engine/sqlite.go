package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
	zombiezen "zombiezen.com/go/sqlite"
)

// sqliteReaders is the number of connections that read. Reads take
// microseconds, so that few are enough, and each holds a cache.
const sqliteReaders = 4

// Settings of every connection. WAL: readers and the writer don't wait for each
// other. NORMAL: SQLite itself syncs what a consistent database needs, around
// checkpoints; the writer syncs the log after each commit, off the connection,
// so that others go on meanwhile. The caches are small
// since the operating system keeps the pages too; mmap would count as ours.
// The log is folded back every 4000 pages (16 MiB): hot pages are then written
// to the database once for many commits, and a restart reads little.
const (
	sqlitePragmas       = "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=foreign_keys(0)&_pragma=mmap_size(0)"
	sqliteReaderPragmas = "&_pragma=cache_size(-2048)&_pragma=query_only(1)"
)

// SQLite is one file with one writing and a few reading connections.
type SQLite struct {
	*writer
	lock     *os.File
	uri      string
	readerDB *sql.DB
	readers  *compiled
	once     sync.Once
	closed   error // of closing
}

// OpenSQLite opens the file, creating it (mode 0600) when it isn't there, and
// migrates it. It belongs to one process at a time; the error names the other.
func OpenSQLite(ctx context.Context, path string, c Config) (_ *SQLite, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	lock, err := lockFile(path)
	if err != nil {
		return nil, err
	}
	e := &SQLite{lock: lock, uri: "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + sqlitePragmas}
	defer func() {
		if err != nil {
			e.closeFiles()
		}
	}()
	if err := createPrivate(path); err != nil {
		return nil, err
	}
	if err := e.migrate(ctx, c); err != nil {
		return nil, err
	}
	if e.readerDB, err = sql.Open("sqlite", e.uri+sqliteReaderPragmas); err != nil {
		return nil, err
	}
	e.readerDB.SetMaxOpenConns(sqliteReaders)
	e.readerDB.SetMaxIdleConns(sqliteReaders)
	e.readers = &compiled{on: e.readerDB}
	e.writer, err = newWriter(path, c)
	return e, err
}

// Reader implements Engine: it reads what is on disk; see [Reading].
func (e *SQLite) Reader() Runner { return reader{e} }

// reader runs short reads on the writer's connection and long ones on the
// pool. A connection forgets its cached pages whenever another has written, so
// that only the writer's are ever warm: a read there costs half, and no more
// in a large database than in a small one.
type reader struct{ *SQLite }

// maxReadWait is how long a read waits for the writer's connection, which is
// held for some 100 µs at a time, before it goes to the pool. So a transaction
// that is large, or that reads beside itself, holds nobody up.
const maxReadWait = 2 * time.Millisecond

// Query implements Runner.
func (r reader) Query(ctx context.Context, text string, args []any, row func(Row) error) error {
	switch err := r.take(ctx, maxReadWait); {
	case err == errBusy:
		return r.pooled(ctx, text, args, row)
	case err != nil:
		return err
	}
	seen, err := r.onConn(ctx, text, args, row)
	return cmpErr(err, saw(ctx, seen))
}

// onConn is Query on the writer's connection, which is held; it is given back
// whatever row does.
func (r reader) onConn(ctx context.Context, text string, args []any, row func(Row) error) (*batch, error) {
	defer r.give()
	err := r.writer.sql.Query(ctx, text, args, row)
	return r.newest(), err
}

// pooled is Query on the pool.
func (r reader) pooled(ctx context.Context, text string, args []any, row func(Row) error) error {
	err := r.readers.Query(ctx, text, args, row)
	return cmpErr(err, saw(ctx, r.committed.Load()))
}

// Search implements Runner.
func (r reader) Search(ctx context.Context, text string, args []any, row func(Row) error) error {
	err := r.readers.Search(ctx, text, args, row)
	return cmpErr(err, saw(ctx, r.committed.Load()))
}

// Exec implements Runner.
func (r reader) Exec(text string, args []any) (int64, error) { return r.readers.Exec(text, args) }

// cmpErr is the first error of two.
func cmpErr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// Statements returns every constant statement run so far, so that a test can
// look at the plans.
func (e *SQLite) Statements() []string { return append(e.readers.list(), e.writer.sql.list()...) }

// migrate brings the tables up to date, on a connection of its own.
func (e *SQLite) migrate(ctx context.Context, c Config) error {
	db, err := sql.Open("sqlite", e.uri)
	if err != nil {
		return err
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return Migrate(ctx, conn, c, "BEGIN IMMEDIATE")
}

// lockFile takes PATH.lock for this process. It is a file of its own, since
// closing any descriptor of the database would drop SQLite's own locks on it.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		var b [20]byte
		n, _ := f.Read(b[:])
		f.Close()
		return nil, fmt.Errorf("process %s has it open (%s.lock); stop that one first", strings.TrimSpace(string(b[:n])), path)
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := fmt.Fprintln(f, os.Getpid()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// createPrivate makes the database file 0600; SQLite gives its -wal and -shm
// the same mode. It holds EAB keys and the nonce key, so that one which others
// may read is refused.
func createPrivate(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		return f.Close()
	}
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("others may read it (mode %04o), and it holds EAB keys: chmod 600 it", info.Mode().Perm())
	}
	return nil
}

// Ping implements Engine: a read, and a turn of the writer.
func (e *SQLite) Ping(ctx context.Context) error {
	if _, err := e.readers.Exec("SELECT 1", nil); err != nil {
		return err
	}
	return e.Update(ctx, func(*Tx) error { return nil })
}

// Snapshot implements Engine.
func (e *SQLite) Snapshot(ctx context.Context, fn func(Runner) error) error {
	db, err := sql.Open("sqlite", e.uri+sqliteReaderPragmas)
	if err != nil {
		return sqliteFailure(err)
	}
	defer db.Close()
	tx, err := db.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return sqliteFailure(err)
	}
	defer tx.Rollback()
	err = fn(&compiled{on: tx})
	return cmpErr(err, saw(context.WithoutCancel(ctx), e.committed.Load()))
}

// Close implements Engine.
func (e *SQLite) Close() error {
	e.once.Do(func() {
		e.writer.close()
		e.closed = e.closeFiles()
	})
	return e.closed
}

// closeFiles closes what is open, the last connection folding the log back.
func (e *SQLite) closeFiles() error {
	var errs []error
	if e.readerDB != nil {
		errs = append(errs, e.readerDB.Close())
	}
	if e.writer != nil { // last, so that it folds the log back
		errs = append(errs, e.writer.sql.close())
	}
	errs = append(errs, e.lock.Close())
	return errors.Join(errs...)
}

// sqliteFailure turns SQLite's result codes (sqlite.org/rescode.html) into
// the package's errors.
func sqliteFailure(err error) error {
	code, ok := resultCode(err)
	if !ok {
		if errors.Is(err, sql.ErrConnDone) || errors.Is(err, sql.ErrTxDone) {
			return Unavailable(err)
		}
		return err
	}
	switch code {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID:
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	switch code & 0xff { // the primary code
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN,
		sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_INTERRUPT:
		return Unavailable(err)
	}
	return fmt.Errorf("store: %w", err)
}

// resultCode finds SQLite's extended result code in an error of either way to
// speak to it.
func resultCode(err error) (int, bool) {
	if err == nil {
		return 0, false
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code(), true
	}
	code := zombiezen.ErrCode(err)
	return int(code), code != zombiezen.ResultError // which it says of any other error too
}
