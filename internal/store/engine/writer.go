package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// writer is the one connection that writes, and the group commit on it. A call
// of Update runs on its caller's goroutine, each in a savepoint of the
// transaction that is open. One of the callers leads: it commits for all, syncs
// the log, and tells them. While it syncs, off the connection, the next
// transaction gathers calls; one of these leads next. So all who come during
// one sync share the next one, and nobody waits for the disk but for its own
// changes.
type writer struct {
	Config
	sql  *conn
	wal  *os.File      // the log; nil with UnsafeSync
	disk func() error  // brings what is in the log to the disk
	stop chan struct{} // closed when the database is

	// conn is full while somebody has the connection, who alone touches the
	// fields below. It is first come, first served.
	conn    chan struct{}
	open    *batch // the transaction under way; nil for none
	leading bool   // somebody leads, or was told to
	shared  bool   // the last batch had several calls
	number  int64  // of the last batch
	broken  error  // a sync failed: what is on disk is not known any more

	// committed is the newest batch that other connections can see, stored
	// before they do.
	committed atomic.Pointer[batch]
}

// batch is one transaction and those who share its commit.
type batch struct {
	number  int64
	calls   int    // that succeeded so far
	restore func() // of Mark
	begun   time.Time
	lead    chan struct{} // one waiting caller takes it, and leads
	done    chan struct{} // closed when the batch is on disk, or lost
	err     error         // why it is lost; set before done is closed
}

var errClosed = Unavailable(errors.New("it was closed"))

// sqliteWriterSettings are for the connection that writes; see sqlitePragmas.
var sqliteWriterSettings = []string{
	"busy_timeout(10000)", "journal_mode(WAL)", "foreign_keys(0)", "mmap_size(0)",
	"cache_size(-4096)", "wal_autocheckpoint(4000)", "journal_size_limit(33554432)",
}

// newWriter opens the connection. The log is opened beside SQLite's own
// descriptor: it is the file that is synced, not a descriptor.
func newWriter(path string, c Config) (w *writer, err error) {
	sync := "synchronous(NORMAL)"
	if c.UnsafeSync {
		sync = "synchronous(OFF)"
	}
	w = &writer{Config: c, stop: make(chan struct{}), conn: make(chan struct{}, 1)}
	if w.sql, err = openConn(path, append(sqliteWriterSettings, sync)...); err != nil {
		return nil, err
	}
	if c.UnsafeSync {
		w.disk = func() error { return nil }
		return w, nil
	}
	for _, text := range []string{"BEGIN IMMEDIATE", "COMMIT"} { // now the log is there
		if _, err := w.sql.Exec(text, nil); err != nil {
			return nil, errors.Join(err, w.sql.close())
		}
	}
	if w.wal, err = os.OpenFile(path+"-wal", os.O_RDWR, 0); err != nil {
		return nil, errors.Join(err, w.sql.close())
	}
	w.disk = func() error { return fdatasync(w.wal) }
	return w, nil
}

// errBusy is take's answer when the wait was too long.
var errBusy = errors.New("the connection is busy")

// take gets the connection, waiting at most so long, 0 for as long as it takes.
func (w *writer) take(ctx context.Context, most time.Duration) error {
	select {
	case <-w.stop:
		return errClosed
	default:
	}
	select { // the common case, without a timer
	case w.conn <- struct{}{}:
		return w.usable()
	default:
	}
	var late <-chan time.Time
	if most > 0 {
		timer := time.NewTimer(most)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case w.conn <- struct{}{}:
		return w.usable()
	case <-late:
		return errBusy
	case <-ctx.Done():
		return ctx.Err()
	case <-w.stop:
		return errClosed
	}
}

// usable gives the connection back where the database is broken.
func (w *writer) usable() error {
	err := w.broken
	if err != nil {
		w.give()
	}
	return err
}

// give hands the connection on.
func (w *writer) give() { <-w.conn }

// newest is the batch that a read on the connection may have seen; conn is held.
func (w *writer) newest() *batch {
	if w.open != nil {
		return w.open
	}
	return w.committed.Load()
}

// Update implements Engine.
func (w *writer) Update(ctx context.Context, fn func(*Tx) error) error {
	if err := w.take(ctx, 0); err != nil {
		return err
	}
	b, err := w.join(fn)
	if b == nil { // nobody else has a part in it
		w.give()
		return err
	}
	lead, linger := err == nil && !w.leading, w.shared
	if lead {
		w.leading = true
	}
	w.give()
	if lead {
		w.commit(b, linger)
		return b.err
	}
	select {
	case <-b.done:
	case <-b.lead:
		w.commit(b, true)
	}
	// What the function decided may rest on what others of the batch did.
	return cmpErr(b.err, err)
}

// join runs a call in the open transaction, or in one that it opens. It
// answers the batch whose end the caller waits for, nil if there is none; conn
// is held.
func (w *writer) join(fn func(*Tx) error) (*batch, error) {
	b := w.open
	if b == nil {
		return w.begin(fn)
	}
	restore := w.Mark()
	if _, err := w.sql.Exec("SAVEPOINT one_call", nil); err != nil {
		w.lose(b, err)
		return b, err
	}
	err := w.run(fn, func() { restore(); w.undo(b) })
	if b.err != nil { // undoing failed
		return b, err
	}
	if err != nil {
		return b, err
	}
	if _, err := w.sql.Exec("RELEASE one_call", nil); err != nil {
		w.lose(b, err)
		return b, err
	}
	b.calls++
	return b, nil
}

// begin opens a transaction for its first call, which needs no savepoint: when
// it fails there is nothing else.
func (w *writer) begin(fn func(*Tx) error) (*batch, error) {
	w.number++
	b := &batch{
		number: w.number, restore: w.Mark(), begun: time.Now(), lead: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if _, err := w.sql.Exec("BEGIN IMMEDIATE", nil); err != nil {
		return nil, Unavailable(err)
	}
	err := w.run(fn, func() {
		b.restore()
		w.sql.Exec("ROLLBACK", nil) // fails when SQLite has done it already
	})
	if err != nil {
		return nil, err
	}
	b.calls, w.open = 1, b
	return b, nil
}

// undo takes back a call that failed within a batch.
func (w *writer) undo(b *batch) {
	if _, err := w.sql.Exec("ROLLBACK TO one_call", nil); err != nil {
		w.lose(b, err) // SQLite has rolled back all, as when the disk is full
		return
	}
	if _, err := w.sql.Exec("RELEASE one_call", nil); err != nil {
		w.lose(b, err)
	}
}

// lose ends a batch that can't be committed; conn is held. Whoever was to lead
// it, and hasn't begun, needn't.
func (w *writer) lose(b *batch, err error) {
	select {
	case <-b.lead:
		w.leading = false
	default:
	}
	w.sql.Exec("ROLLBACK", nil) // fails when SQLite has done it already
	b.restore()
	w.open = nil
	b.err = Unavailable(err)
	close(b.done)
}

// run runs a function; undo takes it back when it fails. A panic, or a
// runtime.Goexit as a test's FailNow does, goes on after that, with conn given.
func (w *writer) run(fn func(*Tx) error, undo func()) (err error) {
	returned := false
	defer func() {
		if !returned {
			undo()
			w.give()
		}
	}()
	tx := &Tx{on: w.sql, now: w.Clock()}
	err = tx.run(fn)
	returned = true
	if err != nil {
		undo()
	}
	return err
}

// commitDelay is how long a leader waits for more to join where others are
// about, as PostgreSQL's commit_delay: no longer than a sync takes on many
// disks, and it saves a third of the commits at eight clients (docs/PERFORMANCE.md).
// One who is alone never waits.
const commitDelay = time.Millisecond

// commit leads: it ends the batch for all that share it, and finds who leads
// next. Those who wait for the connection already come before it, and so join.
func (w *writer) commit(b *batch, linger bool) {
	if linger {
		time.Sleep(commitDelay)
	}
	w.conn <- struct{}{}
	w.shared = b.calls > 1
	switch {
	case w.open != b: // it was lost
	case w.broken != nil: // its commit would follow one that the disk may not have
		w.lose(b, w.broken)
	default:
		w.open = nil
		before := w.committed.Swap(b)
		if _, err := w.sql.Exec("COMMIT", nil); err != nil {
			w.committed.Store(before)
			w.lose(b, err)
		}
	}
	w.give()
	select {
	case <-b.done: // it was lost
	default:
		w.sync(b)
	}
	w.conn <- struct{}{}
	if w.open != nil {
		w.open.lead <- struct{}{} // has room for this one
	} else {
		w.leading = false
	}
	w.give()
}

// sync brings the commit to the disk. After a failed sync nobody knows what the
// disk has, and trying again proves nothing: the database is not used any more
// until it is opened anew.
func (w *writer) sync(b *batch) {
	if err := w.disk(); err != nil {
		b.err = Unavailable(fmt.Errorf("syncing the log failed; restart the server: %w", err))
		w.conn <- struct{}{}
		w.broken = b.err
		w.give()
	}
	w.Counters.Committed(b.begun, b.calls)
	close(b.done)
}

// close waits for the batches under way and keeps the connection for good.
func (w *writer) close() {
	close(w.stop)
	for {
		w.conn <- struct{}{}
		b := w.newest()
		if !w.leading {
			break
		}
		w.give()
		if b != nil {
			<-b.done
		}
		time.Sleep(time.Millisecond) // the leader is about to look for the next
	}
	if w.wal != nil {
		w.wal.Close()
	}
}
