package store_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/engine"
	pg "github.com/chancery-pki/chancery/internal/store/engine/postgres"
)

// wire is a network between us and PostgreSQL that can go dead: connections
// stay, new ones are taken, and nothing comes through.
type wire struct {
	dsn     string
	mu      sync.RWMutex // held for writing while it is dead
	server  string
	sockets sync.Map
}

func newWire(t *testing.T) *wire {
	t.Helper()
	u, err := url.Parse(dsn(t, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{server: u.Host}
	u.Host = l.Addr().String()
	u.RawQuery += "&connect_timeout=1"
	w.dsn = u.String()
	t.Cleanup(func() {
		l.Close()
		w.sockets.Range(func(c, _ any) bool { return c.(net.Conn).Close() == nil || true })
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.carry(c)
		}
	}()
	return w
}

func (w *wire) carry(c net.Conn) {
	w.sockets.Store(c, nil)
	s, err := net.Dial("tcp", w.server)
	if err != nil {
		c.Close()
		return
	}
	w.sockets.Store(s, nil)
	pipe := func(to, from net.Conn) {
		defer to.Close()
		b := make([]byte, 16<<10)
		for {
			n, err := from.Read(b)
			w.mu.RLock() // waits while the wire is dead
			_, failed := to.Write(b[:n])
			w.mu.RUnlock()
			if err != nil || failed != nil {
				return
			}
		}
	}
	go pipe(s, c)
	pipe(c, s)
}

// open opens the engine over the wire, with so many connections in its pool.
func (w *wire) open(t *testing.T, silence time.Duration, connections int) *pg.DB {
	t.Helper()
	e, err := pg.Open(t.Context(), w.dsn, engine.Config{
		Clock: time.Now, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Counters: new(engine.Counters),
		Migrations: fstest.MapFS{"0001_first.sql": {Data: []byte("CREATE TABLE things (name TEXT PRIMARY KEY)")}},
		UnsafeSync: true, Silence: silence,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	var all, here sync.WaitGroup
	here.Add(connections)
	for range connections {
		all.Go(func() {
			err := e.Update(t.Context(), func(*engine.Tx) error { here.Done(); here.Wait(); return nil })
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	return e.(*pg.DB)
}

func insert(name string) func(*engine.Tx) error {
	return func(tx *engine.Tx) error {
		_, err := tx.Exec("INSERT INTO things (name) VALUES ($1)", []any{name})
		return err
	}
}

// fails checks that work fails for want of a database, soon.
func fails(t *testing.T, what string, within time.Duration, work func() error) {
	t.Helper()
	begun := time.Now()
	err := work()
	if !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%s: %v, want that the database is not available", what, err)
	}
	if took := time.Since(begun); took > within {
		t.Errorf("%s took %v, more than %v", what, took, within)
	}
}

// A server that goes silent costs one caller his patience once: the other
// connections of the pool aren't tried, and when it speaks again all is well.
func TestPostgresSilence(t *testing.T) {
	onPostgres(t, func(t *testing.T) {
		const silence = 600 * time.Millisecond
		w := newWire(t)
		e := w.open(t, silence, 8)
		w.mu.Lock()
		fails(t, "the first transaction", 2*silence, func() error { return e.Update(t.Context(), insert("first")) })
		// The seven idle connections are as dead, and each has its patience.
		const connect = time.Second + silence
		fails(t, "the next transaction", connect, func() error { return e.Update(t.Context(), insert("second")) })
		fails(t, "a read", connect, func() error { return e.Ping(t.Context()) })
		fails(t, "one on the other pool", connect, func() error { _, err := e.Hasty().Exec("SELECT 1", nil); return err })
		w.mu.Unlock()
		if err := e.Update(t.Context(), insert("third")); err != nil {
			t.Errorf("when it speaks again: %v", err)
		}
		names := 0
		err := e.Reader().Query(t.Context(), "SELECT name FROM things WHERE name <> 'third'", nil, func(engine.Row) error { names++; return nil })
		if err != nil || names != 0 {
			t.Errorf("%d transactions that failed were committed: %v", names, err)
		}
	})
}

// A connection that lay idle is asked first whether it lives.
func TestPostgresSilentIdle(t *testing.T) {
	onPostgres(t, func(t *testing.T) {
		const silence = 600 * time.Millisecond
		w := newWire(t)
		e := w.open(t, silence, 8)
		time.Sleep(1100 * time.Millisecond)
		w.mu.Lock()
		fails(t, "a transaction", time.Second+2*silence, func() error { return e.Update(t.Context(), insert("first")) })
		w.mu.Unlock()
	})
}

// The deadline of a context ends what waits for the server, at every stage of
// a transaction, and what hadn't begun to commit then is not committed.
func TestPostgresDeadline(t *testing.T) {
	onPostgres(t, func(t *testing.T) {
		const patience = 300 * time.Millisecond
		for _, test := range []struct {
			name  string
			inner func(w *wire) func(tx *engine.Tx) error
		}{
			{"before it begins", func(w *wire) func(*engine.Tx) error { w.mu.Lock(); return insert("x") }},
			{"in a statement", func(w *wire) func(*engine.Tx) error {
				return func(tx *engine.Tx) error { w.mu.Lock(); return insert("x")(tx) }
			}},
			{"in the commit", func(w *wire) func(*engine.Tx) error {
				return func(tx *engine.Tx) error { defer w.mu.Lock(); return insert("x")(tx) }
			}},
		} {
			t.Run(test.name, func(t *testing.T) {
				w := newWire(t)
				e := w.open(t, 0, 1)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				fails(t, "the transaction", patience+time.Second, func() error { return e.Update(ctx, test.inner(w)) })
				ctx, cancel = context.WithTimeout(t.Context(), patience)
				defer cancel()
				fails(t, "a read", patience+time.Second, func() error { return e.Ping(ctx) })
				w.mu.Unlock()
				// Its outcome is settled: the row isn't half there, nor locked.
				err := e.Update(t.Context(), insert("x"))
				if test.name != "in the commit" && err != nil || err != nil && !errors.Is(err, store.ErrConflict) {
					t.Errorf("when the wire is back: %v", err)
				}
				if _, err := e.Reader().Exec("SELECT 1", nil); err != nil {
					t.Error(err)
				}
			})
		}
	})
}
