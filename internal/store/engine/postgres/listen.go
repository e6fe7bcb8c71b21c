package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chancery-pki/chancery/internal/store/engine"
)

// Bounds of a connection that listens.
const (
	listenCheck  = time.Second     // how often it is asked whether it lives
	listenAnswer = 2 * time.Second // in which it must say so
	listenPause  = time.Second     // before the next try to connect
)

// Listen calls heard with each notice's payload, on one goroutine, until ctx
// ends; intact(true) when it begins to hear, and intact(false) when it may miss
// some, at the latest three seconds after the server fell silent. It has a
// connection of its own and makes it anew by itself.
func (e *DB) Listen(ctx context.Context, heard func(payload string), intact func(bool)) {
	told := false // one warning for each time that it goes deaf
	for {
		err := e.listen(ctx, heard, func(is bool) { intact(is); told = told && !is })
		if ctx.Err() != nil {
			return
		}
		if !told {
			e.Logger.Warn("notices of other replicas are not heard; it is tried again every second", "error", err)
			told = true
		}
		select {
		case <-time.After(listenPause):
		case <-ctx.Done():
			return
		}
	}
}

// listen is Listen on one connection, until that fails.
func (e *DB) listen(ctx context.Context, heard func(string), intact func(bool)) error {
	settings, err := connectionSettings(e.dsn)
	if err != nil {
		return err
	}
	c, err := pgx.ConnectConfig(ctx, settings)
	if err != nil {
		return err
	}
	defer within(context.WithoutCancel(ctx), listenAnswer, c.Close)
	if err := proveListening(ctx, c); err != nil {
		return err
	}
	intact(true)
	defer intact(false)
	for {
		if err := hear(ctx, c, listenCheck, func(payload string) bool {
			if !strings.HasPrefix(payload, " ") {
				heard(payload)
			}
			return false
		}); err != nil {
			return err
		}
		if err := within(ctx, listenAnswer, c.Ping); err != nil {
			return err
		}
	}
}

var errDeaf = errors.New("PostgreSQL took LISTEN and brings no notices: behind a connection pooler, let it keep sessions (pgbouncer: pool_mode = session)")

// proveListening begins to listen, and hears a notice of its own: a pooler
// between us and the server may say yes to LISTEN, and mean another connection.
func proveListening(ctx context.Context, c *pgx.Conn) error {
	proof := " " + rand.Text()
	for _, statement := range []string{"LISTEN " + engine.Channel, "NOTIFY " + engine.Channel + ", '" + proof + "'"} {
		if err := within(ctx, listenAnswer, func(ctx context.Context) error {
			_, err := c.Exec(ctx, statement)
			return err
		}); err != nil {
			return err
		}
	}
	proved := false
	err := hear(ctx, c, listenAnswer, func(payload string) bool {
		proved = payload == proof
		return proved
	})
	if err == nil && !proved {
		err = errDeaf
	}
	return err
}

// hear passes notices on for so long, or until one is enough.
func hear(ctx context.Context, c *pgx.Conn, long time.Duration, enough func(payload string) bool) error {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	for {
		n, err := c.WaitForNotification(ctx)
		if n != nil && enough(n.Payload) || pgconn.Timeout(err) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// within calls fn with a context that ends after so long.
func within(ctx context.Context, long time.Duration, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	return fn(ctx)
}
