package engine

import (
	"context"
	"database/sql"
	"slices"
	"sync"
)

// Each calls row for every row and closes them. failure turns the driver's
// errors into the package's; the function's own stay as they are.
func Each(rows *sql.Rows, err error, row func(Row) error, failure func(error) error) error {
	if err != nil {
		return failure(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return failure(err)
	}
	return nil
}

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
func (c *compiled) Query(_ context.Context, text string, args []any, row func(Row) error) error {
	s, err := c.statement(text)
	if err != nil {
		return sqliteFailure(err)
	}
	rows, err := s.QueryContext(context.Background(), args...)
	return Each(rows, err, row, sqliteFailure)
}

// Exec implements Runner.
func (c *compiled) Exec(text string, args []any) (int64, error) {
	s, err := c.statement(text)
	if err != nil {
		return 0, sqliteFailure(err)
	}
	r, err := s.ExecContext(context.Background(), args...)
	if err != nil {
		return 0, sqliteFailure(err)
	}
	return r.RowsAffected() // of this driver, it never fails
}

// Search implements Runner.
func (c *compiled) Search(_ context.Context, text string, args []any, row func(Row) error) error {
	rows, err := c.on.QueryContext(context.Background(), text, args...)
	return Each(rows, err, row, sqliteFailure)
}
