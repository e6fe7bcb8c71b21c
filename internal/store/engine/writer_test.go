package engine

import (
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"
	"time"
)

// A sync that fails once: whoever shared it, and whoever gathered meanwhile,
// is told that nothing is stored, and nobody is believed after that, although
// the disk says yes again. Their commits would follow one that is lost.
func TestFailedSync(t *testing.T) {
	e, err := OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "a.db"), Config{
		Clock: time.Now, Logger: slog.New(slog.DiscardHandler), Counters: &Counters{}, Mark: func() func() { return func() {} },
		Migrations: fstest.MapFS{"1.sql": {Data: []byte("CREATE TABLE t (a BIGINT)")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	write := func() error {
		return e.Update(t.Context(), func(tx *Tx) error {
			_, err := tx.Exec("INSERT INTO t (a) VALUES ($1)", []any{int64(1)})
			return err
		})
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	syncing, fail := make(chan struct{}), make(chan struct{})
	var once sync.Once
	real := e.writer.disk
	e.writer.disk = func() (err error) {
		err = real()
		once.Do(func() {
			close(syncing)
			<-fail
			err = errors.New("the disk is gone")
		})
		return err
	}
	var all sync.WaitGroup
	first := make(chan error, 1)
	all.Go(func() { first <- write() })
	<-syncing
	later := make(chan error, 5)
	for range cap(later) { // they gather while the first one's sync hangs
		all.Go(func() { later <- write() })
	}
	for e.writer.gathered() < cap(later) {
		time.Sleep(time.Millisecond)
	}
	close(fail)
	all.Wait()
	close(later)
	if err := <-first; !errors.Is(err, ErrUnavailable) {
		t.Errorf("the one whose sync failed: %v", err)
	}
	for err := range later {
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("one that came after a failed sync: %v", err)
		}
	}
	if err := write(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("later still: %v", err)
	}
	err = e.Reader().Query(t.Context(), "SELECT a FROM t", nil, func(Row) error { return nil })
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("a read: %v", err)
	}
}

// gathered is how many calls the open transaction has.
func (w *writer) gathered() int {
	w.conn <- struct{}{}
	defer w.give()
	if w.open == nil {
		return 0
	}
	return w.open.calls
}
