package postgres

import (
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/chancery-pki/chancery/internal/store/engine"
)

// pool is connections to a PostgreSQL server. Whoever takes one has it until
// the deadline of his context, and no statement of his waits longer. A context
// given to each statement would do it too, with two goroutines for each.
type pool struct{ *sql.DB }

// openPool makes a pool, which connects when it is used. The generation is
// shared by the pools to one server; see [line].
func openPool(dsn string, connections int, silence time.Duration, generation *atomic.Int64, parameters map[string]string) (*pool, error) {
	c, err := connectionSettings(dsn)
	if err != nil {
		return nil, err
	}
	for name, value := range parameters {
		c.RuntimeParams[name] = value
	}
	dial := c.DialFunc
	c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		socket, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		l := &line{Conn: socket, silence: silence, generation: generation, born: generation.Load()}
		l.patience.Store(int64(silence))
		return l, nil
	}
	p := &pool{sql.OpenDB(stdlib.GetConnector(*c, stdlib.OptionShouldPing(shouldPing), stdlib.OptionResetSession(reuse)))}
	p.SetMaxOpenConns(connections)
	p.SetMaxIdleConns(connections)
	p.SetConnMaxIdleTime(5 * time.Minute)
	p.SetConnMaxLifetime(time.Hour) // so that a balancer in between can move us
	return p, nil
}

// connectionSettings are those of every connection.
func connectionSettings(dsn string) (*pgx.ConnConfig, error) {
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err // pgx leaves the password out
	}
	for name, value := range map[string]string{
		"application_name":                    "chancery",
		"statement_timeout":                   statementTimeout,
		"idle_in_transaction_session_timeout": idleTimeout,
	} {
		if _, ok := c.RuntimeParams[name]; !ok {
			c.RuntimeParams[name] = value
		}
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	return c, nil
}

// taken is a connection that somebody has for himself.
type taken struct {
	*sql.Conn
	line *line
}

// take waits for a connection, no longer than ctx allows, and keeps what is
// done on it to ctx's deadline. Give it back.
func (p *pool) take(ctx context.Context) (*taken, error) {
	c, err := p.Conn(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, failure(err)
	}
	t := &taken{Conn: c}
	if err := c.Raw(func(c any) error { t.line = lineOf(c.(*stdlib.Conn).Conn()); return nil }); err != nil {
		return nil, errors.Join(failure(err), c.Close())
	}
	if d, ok := ctx.Deadline(); ok {
		t.line.until.Store(d.UnixNano())
	}
	return t, nil
}

func (t *taken) give() {
	t.line.until.Store(0)
	t.line.patience.Store(int64(t.line.silence))
	t.Conn.Close()
}

// wait is how long each of the next statements may be silent.
func (t *taken) wait(patience time.Duration) { t.line.patience.Store(int64(patience)) }

// do runs a statement on a connection. One that dies before the statement is
// sent, as all do when the server restarts, is replaced.
func (p *pool) do(ctx context.Context, statement func(*direct) error) error {
	const tries = 3
	for try := 1; ; try++ {
		if err := p.once(ctx, statement); !errors.Is(err, driver.ErrBadConn) || try == tries {
			return err
		}
	}
}

func (p *pool) once(ctx context.Context, statement func(*direct) error) error {
	t, err := p.take(ctx)
	if err != nil {
		return err
	}
	defer t.give()
	err = statement(&direct{on: t.Conn})
	if errors.Is(err, driver.ErrBadConn) {
		t.line.doubt()
	}
	return err
}

// Query implements engine.Runner.
func (p *pool) Query(ctx context.Context, text string, args []any, row func(engine.Row) error) error {
	return p.do(ctx, func(on *direct) error { return on.Query(ctx, text, args, row) })
}

// Search implements engine.Runner.
func (p *pool) Search(ctx context.Context, text string, args []any, row func(engine.Row) error) error {
	return p.Query(ctx, text, args, row)
}

// Exec implements engine.Runner.
func (p *pool) Exec(text string, args []any) (int64, error) {
	return p.exec(context.Background(), text, args)
}

func (p *pool) exec(ctx context.Context, text string, args []any) (n int64, err error) {
	err = p.do(ctx, func(on *direct) error {
		n, err = on.Exec(text, args)
		return err
	})
	return n, err
}

// line is a connection's socket. It ends one whose server has gone without a
// word. Then the others that lie in the pools are dead too, in all likelihood:
// the generation moves on, and no line that was born before is used again.
type line struct {
	net.Conn
	silence    time.Duration
	generation *atomic.Int64
	born       int64

	patience atomic.Int64 // how long the server may be silent, a time.Duration
	until    atomic.Int64 // the deadline of whoever has it, unix nanoseconds; 0 for none
	late     atomic.Bool  // the server didn't answer in time what was written last
}

func lineOf(c *pgx.Conn) *line {
	socket := c.PgConn().Conn()
	if t, ok := socket.(*tls.Conn); ok {
		socket = t.NetConn()
	}
	return socket.(*line) // openPool's DialFunc makes no others
}

// Read implements net.Conn.
func (l *line) Read(b []byte) (int, error) {
	begun := time.Now()
	deadline := l.deadline(begun)
	if l.late.Load() { // pgx, which may read in the background, reads once more after a timeout there
		deadline = begun
	}
	if err := l.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	n, err := l.Conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		l.late.Store(true)
	}
	return n, l.note(begun, err)
}

// Write implements net.Conn.
func (l *line) Write(b []byte) (int, error) {
	begun := time.Now()
	l.late.Store(false)
	if err := l.SetWriteDeadline(l.deadline(begun)); err != nil {
		return 0, err
	}
	n, err := l.Conn.Write(b)
	return n, l.note(begun, err)
}

func (l *line) deadline(now time.Time) time.Time {
	d := now.Add(time.Duration(l.patience.Load()))
	if until := l.until.Load(); until != 0 && until < d.UnixNano() {
		return time.Unix(0, until)
	}
	return d
}

// note returns the error. A deadline that passed soon was the caller's, and
// says nothing of the server.
func (l *line) note(begun time.Time, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && time.Since(begun) >= l.silence/2 {
		l.doubt()
	}
	return err
}

// doubt takes all lines of this one's generation out of use.
func (l *line) doubt() { l.generation.CompareAndSwap(l.born, l.born+1) }

func (l *line) outdated() bool { return l.born != l.generation.Load() }

// shouldPing is asked before a connection leaves the pool: one that lay there
// for a second may be dead.
func shouldPing(_ context.Context, p stdlib.ShouldPingParams) bool {
	l := lineOf(p.Conn)
	if l.outdated() || p.IdleDuration <= time.Second {
		return false
	}
	l.patience.Store(int64(l.silence / 2)) // no work is waited for
	return true
}

// reuse is asked last.
func reuse(_ context.Context, c *pgx.Conn) error {
	l := lineOf(c)
	if l.outdated() {
		l.Close() // now, and not after a word of farewell that nobody takes
		return driver.ErrBadConn
	}
	l.patience.Store(int64(l.silence))
	return nil
}
