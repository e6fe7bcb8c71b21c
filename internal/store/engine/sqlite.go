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
)

// sqliteReaders is the number of connections that read. Reads take
// microseconds, so that few are enough, and each holds a cache.
const sqliteReaders = 4

// Settings of every connection. FULL: a commit is on disk when it returns.
// WAL: readers and the writer don't wait for each other. The caches are small
// since the operating system keeps the pages too; mmap would count as ours.
// The log is folded back every 4000 pages (16 MiB): hot pages are then written
// to the database once for many commits, and a restart reads little.
const (
	sqlitePragmas       = "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=foreign_keys(0)&_pragma=mmap_size(0)"
	sqliteWriterPragmas = "&_pragma=synchronous(FULL)&_pragma=cache_size(-4096)&_pragma=wal_autocheckpoint(4000)&_pragma=journal_size_limit(33554432)"
	sqliteReaderPragmas = "&_pragma=cache_size(-2048)&_pragma=query_only(1)"
)

// SQLite is one file with one writing and a few reading connections.
type SQLite struct {
	*writer
	lock     *os.File
	uri      string
	writerDB *sql.DB
	readerDB *sql.DB
	readers  *compiled
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
	conn, err := e.openWriter(ctx, c.UnsafeSync)
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, conn, c, false); err != nil {
		return nil, err
	}
	if e.readerDB, err = sql.Open("sqlite", e.uri+sqliteReaderPragmas); err != nil {
		return nil, err
	}
	e.readerDB.SetMaxOpenConns(sqliteReaders)
	e.readerDB.SetMaxIdleConns(sqliteReaders)
	e.readers = &compiled{on: e.readerDB}
	e.writer = &writer{
		Config: c, sql: &compiled{on: conn},
		calls: make(chan *call), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	go e.writer.loop()
	return e, nil
}

// Reader reads what is committed.
func (e *SQLite) Reader() Runner { return reader{e} }

// reader runs a short read on the writer's connection while that is idle, else
// and any long one on the pool. A connection forgets its cached pages whenever
// another has written, so that only the writer's are ever warm: a read there
// costs half, and no more in a large database than in a small one.
type reader struct{ *SQLite }

// Query implements Runner.
func (r reader) Query(text string, args []any, row func(*sql.Rows) error) error {
	if r.busy.TryLock() {
		defer r.busy.Unlock()
		return r.writer.sql.Query(text, args, row)
	}
	return r.readers.Query(text, args, row)
}

// Search implements Runner.
func (r reader) Search(text string, args []any, row func(*sql.Rows) error) error {
	return r.readers.Search(text, args, row)
}

// Exec implements Runner.
func (r reader) Exec(text string, args []any) (int64, error) { return r.readers.Exec(text, args) }

// Statements returns every constant statement run so far, so that a test can
// look at the plans.
func (e *SQLite) Statements() []string { return append(e.readers.list(), e.writer.sql.list()...) }

func (e *SQLite) openWriter(ctx context.Context, unsafeSync bool) (*sql.Conn, error) {
	var err error
	pragmas := sqliteWriterPragmas
	if unsafeSync {
		pragmas = strings.Replace(pragmas, "synchronous(FULL)", "synchronous(OFF)", 1)
	}
	if e.writerDB, err = sql.Open("sqlite", e.uri+pragmas); err != nil {
		return nil, err
	}
	e.writerDB.SetMaxOpenConns(1)
	return e.writerDB.Conn(ctx)
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
	return fn(&compiled{on: tx})
}

// Close implements Engine.
func (e *SQLite) Close() error {
	e.once.Do(func() {
		close(e.stop)
		<-e.stopped
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
	if e.writerDB != nil {
		errs = append(errs, e.writerDB.Close())
	}
	errs = append(errs, e.lock.Close())
	return errors.Join(errs...)
}

// writer owns the one connection that writes. Its goroutine takes the calls
// of Update, runs each in its own savepoint of a transaction, and commits once
// for all that came while it was busy: they share one fsync.
type writer struct {
	Config
	sql  *compiled
	busy sync.Mutex // who holds it has the connection: a batch, or a short read

	calls   chan *call // unbuffered: until the writer takes it, a call can be given up
	once    sync.Once
	stop    chan struct{}
	stopped chan struct{}
}

// call is one Update on its way through the writer.
type call struct {
	fn       func(*Tx) error
	err      error
	panicked any
	done     chan struct{}
}

// A batch ends after so many calls or so long, so that the first of them
// doesn't wait for ever while others keep coming.
const (
	maxBatch     = 256
	maxBatchTime = 5 * time.Millisecond
)

var errClosed = unavailable(errors.New("it was closed"))

// Update implements Engine.
func (w *writer) Update(ctx context.Context, fn func(*Tx) error) error {
	c := &call{fn: fn, done: make(chan struct{})}
	select {
	case <-w.stop:
		return errClosed
	default:
	}
	select {
	case w.calls <- c:
	case <-ctx.Done():
		return ctx.Err()
	case <-w.stop:
		return errClosed
	}
	<-c.done
	if c.panicked != nil {
		panic(c.panicked)
	}
	return c.err
}

func (w *writer) loop() {
	leaving := false
	defer func() {
		if leaving {
			close(w.stopped)
		} else { // a function called runtime.Goexit, as a test's FailNow does
			go w.loop()
		}
	}()
	for {
		select {
		case c := <-w.calls:
			w.batch(c)
		case <-w.stop:
			leaving = true
			return
		}
	}
}

var errGoexit = errors.New("store: the function given to Update ended its goroutine")

// batch runs the first call, then, each in a savepoint, those that wait.
func (w *writer) batch(first *call) {
	w.busy.Lock()
	defer w.busy.Unlock()
	restore := w.Mark()
	batch := []*call{first}
	ended := errGoexit // what all are told if a call ends this goroutine
	defer func() {
		if ended != nil {
			w.sql.Exec("ROLLBACK", nil) // fails when SQLite has done it already
			restore()
		}
		for _, c := range batch {
			if c.err == nil {
				c.err = ended
			}
			close(c.done)
		}
	}()
	if _, err := w.sql.Exec("BEGIN IMMEDIATE", nil); err != nil {
		ended = unavailable(err)
		return
	}
	// The first needs no savepoint: when it fails there is nothing else.
	if first.err = w.run(first); first.err != nil {
		ended = first.err
		return
	}
	for start := time.Now(); len(batch) < maxBatch && time.Since(start) < maxBatchTime; {
		c := w.waiting()
		if c == nil {
			break
		}
		batch = append(batch, c)
		if err := w.inSavepoint(c); err != nil {
			ended = unavailable(err)
			return
		}
	}
	start := time.Now()
	if _, err := w.sql.Exec("COMMIT", nil); err != nil {
		ended = unavailable(err)
		return
	}
	w.Counters.committed(start, len(batch))
	ended = nil
}

// waiting returns a call whose caller waits, or nil.
func (w *writer) waiting() *call {
	select {
	case c := <-w.calls:
		return c
	default:
		return nil
	}
}

// inSavepoint runs a call so that its failure undoes only its own changes.
// An error means that the whole transaction is lost.
func (w *writer) inSavepoint(c *call) error {
	restore := w.Mark()
	if _, err := w.sql.Exec("SAVEPOINT one_call", nil); err != nil {
		return err
	}
	if c.err = w.run(c); c.err != nil {
		restore()
		if _, err := w.sql.Exec("ROLLBACK TO one_call", nil); err != nil {
			return c.err // SQLite has rolled back all, as when the disk is full
		}
	}
	_, err := w.sql.Exec("RELEASE one_call", nil)
	return err
}

// run runs a call's function; a panic becomes an error here and a panic
// again where Update was called.
func (w *writer) run(c *call) (err error) {
	tx := &Tx{on: w.sql, now: w.Clock()}
	returned := false
	defer func() {
		if !returned {
			if c.panicked = recover(); c.panicked != nil {
				err = fmt.Errorf("store: panic in a transaction: %v", c.panicked)
			}
		}
	}()
	err = tx.run(c.fn)
	returned = true
	return err
}

// sqliteFailure turns SQLite's result codes (sqlite.org/rescode.html) into
// the package's errors.
func sqliteFailure(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		if errors.Is(err, sql.ErrConnDone) || errors.Is(err, sql.ErrTxDone) {
			return unavailable(err)
		}
		return err
	}
	switch e.Code() {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID:
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	switch e.Code() & 0xff { // the primary code
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN,
		sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_INTERRUPT:
		return unavailable(err)
	}
	return fmt.Errorf("store: %w", err)
}
