package postgres

import (
	"context"
	"database/sql"

	"github.com/chancery-pki/chancery/internal/store/engine"
)

// direct runs statements by the driver, which prepares each once
// per connection and remembers it.
type direct struct {
	on interface {
		QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error)
		ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error)
	}
}

// Query implements engine.Runner.
func (d *direct) Query(_ context.Context, text string, args []any, row func(engine.Row) error) error {
	rows, err := d.on.QueryContext(context.Background(), text, args...)
	return engine.Each(rows, err, row, failure)
}

// Exec implements engine.Runner.
func (d *direct) Exec(text string, args []any) (int64, error) {
	r, err := d.on.ExecContext(context.Background(), text, args...)
	if err != nil {
		return 0, failure(err)
	}
	return r.RowsAffected() // of this driver, it never fails
}

// Search implements engine.Runner.
func (d *direct) Search(ctx context.Context, text string, args []any, row func(engine.Row) error) error {
	return d.Query(ctx, text, args, row)
}
