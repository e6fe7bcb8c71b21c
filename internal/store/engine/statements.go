package engine

import (
	"context"
	"database/sql"
	"slices"
	"sync"
)

// compiled keeps the statements that a SQLite connection, or a pool of them,
// has compiled. Their texts are constants, and lists in them come in a few
// lengths, so that it stays small.
type compiled struct {
	on interface {
		PrepareContext(ctx context.Context, text string) (*sql.Stmt, error)
		QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error)
	}
	mu    sync.RWMutex
	texts map[string]*sql.Stmt
}

func (c *compiled) statement(text string) (*sql.Stmt, error) {
	c.mu.RLock()
	s := c.texts[text]
	c.mu.RUnlock()
	if s != nil {
		return s, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.texts[text]; s != nil {
		return s, nil
	}
	s, err := c.on.PrepareContext(context.Background(), text)
	if err != nil {
		return nil, err
	}
	if c.texts == nil {
		c.texts = make(map[string]*sql.Stmt)
	}
	c.texts[text] = s
	return s, nil
}

// list returns the texts so far.
func (c *compiled) list() (texts []string) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for text := range c.texts {
		texts = append(texts, text)
	}
	slices.Sort(texts)
	return texts
}

// Query implements Runner.
func (c *compiled) Query(text string, args []any) (*sql.Rows, error) {
	s, err := c.statement(text)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(context.Background(), args...)
}

// Exec implements Runner.
func (c *compiled) Exec(text string, args []any) (int64, error) {
	s, err := c.statement(text)
	if err != nil {
		return 0, err
	}
	r, err := s.ExecContext(context.Background(), args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// Once implements Runner.
func (c *compiled) Once(text string, args []any) (*sql.Rows, error) {
	return c.on.QueryContext(context.Background(), text, args...)
}

// Failure implements Runner.
func (c *compiled) Failure(err error) error { return sqliteFailure(err) }

// direct runs statements by the PostgreSQL driver, which prepares each once
// per connection and remembers it.
type direct struct {
	on interface {
		QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error)
		ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error)
	}
}

// Query implements Runner.
func (d *direct) Query(text string, args []any) (*sql.Rows, error) {
	return d.on.QueryContext(context.Background(), text, args...)
}

// Exec implements Runner.
func (d *direct) Exec(text string, args []any) (int64, error) {
	r, err := d.on.ExecContext(context.Background(), text, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// Once implements Runner.
func (d *direct) Once(text string, args []any) (*sql.Rows, error) { return d.Query(text, args) }

// Failure implements Runner.
func (d *direct) Failure(err error) error { return postgresFailure(err) }
