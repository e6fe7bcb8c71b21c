package engine

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"slices"
	"strconv"
	"strings"

	zombiezen "zombiezen.com/go/sqlite"
)

// conn is the connection that writes. It speaks to SQLite without database/sql,
// which costs more than half of a short statement's time, and without SQLite's
// own locks, since one goroutine has it at a time.
type conn struct {
	c     *zombiezen.Conn
	texts map[string]statement // every constant statement so far, compiled
}

// statement is a compiled one. To SQLite "$2" is a name, and parameters are
// numbered as they come; order has the argument's place for each.
type statement struct {
	*zombiezen.Stmt
	order []int
}

// openConn opens the file and makes its settings.
func openConn(path string, pragmas ...string) (*conn, error) {
	c, err := zombiezen.OpenConn(path, zombiezen.OpenReadWrite)
	if err != nil {
		return nil, err
	}
	w := &conn{c: c, texts: make(map[string]statement)}
	for _, p := range pragmas {
		if err := w.Search(context.Background(), "PRAGMA "+p, nil, nil); err != nil {
			w.close()
			return nil, err
		}
	}
	return w, nil
}

// close finalizes the statements and closes the connection.
func (w *conn) close() error {
	for _, s := range w.texts {
		s.Finalize() // repeats the error of its last step
	}
	return w.c.Close()
}

// list returns the texts so far.
func (w *conn) list() (texts []string) {
	for text := range w.texts {
		texts = append(texts, text)
	}
	slices.Sort(texts)
	return texts
}

// statement finds or compiles a constant statement.
func (w *conn) statement(text string) (statement, error) {
	if s, ok := w.texts[text]; ok {
		return s, nil
	}
	s, err := w.compile(text)
	if err == nil {
		w.texts[text] = s
	}
	return s, err
}

func (w *conn) compile(text string) (s statement, err error) {
	if s.Stmt, _, err = w.c.PrepareTransient(text); err != nil {
		return s, err
	}
	for i := range s.BindParamCount() {
		n, err := strconv.Atoi(strings.TrimPrefix(s.BindParamName(i+1), "$"))
		if err != nil {
			s.Finalize()
			return s, fmt.Errorf("store: parameters are $1, $2 …: %s", text)
		}
		s.order = append(s.order, n-1)
	}
	return s, nil
}

// Query implements Runner.
func (w *conn) Query(_ context.Context, text string, args []any, row func(Row) error) error {
	s, err := w.statement(text)
	if err != nil {
		return sqliteFailure(err)
	}
	return step(s, args, row)
}

// Search implements Runner.
func (w *conn) Search(_ context.Context, text string, args []any, row func(Row) error) error {
	s, err := w.compile(text)
	if err != nil {
		return sqliteFailure(err)
	}
	defer s.Finalize()
	return step(s, args, row)
}

// Exec implements Runner.
func (w *conn) Exec(text string, args []any) (int64, error) {
	s, err := w.statement(text)
	if err != nil {
		return 0, sqliteFailure(err)
	}
	if err := step(s, args, nil); err != nil {
		return 0, err
	}
	return int64(w.c.Changes()), nil
}

// step binds the arguments and runs a statement to its end, with row for each
// row, and leaves it ready for the next time.
func step(s statement, args []any, row func(Row) error) error {
	for i, place := range s.order {
		if place >= len(args) {
			return fmt.Errorf("store: a statement wants $%d and got %d arguments", place+1, len(args))
		}
		if err := bind(s.Stmt, i+1, args[place]); err != nil {
			return err
		}
	}
	for {
		more, err := s.Step()
		if err != nil {
			return sqliteFailure(err)
		}
		if !more {
			break
		}
		if row == nil {
			continue
		}
		if err := row(connRow{s.Stmt}); err != nil {
			s.Reset()
			return err
		}
	}
	return sqliteFailure(s.Reset())
}

// bind gives one argument, which is of a type that database/sql takes too.
func bind(s *zombiezen.Stmt, n int, arg any) error {
	switch v := arg.(type) {
	case string:
		s.BindText(n, v)
	case int64:
		s.BindInt64(n, v)
	case []byte:
		s.BindBytes(n, v)
	case bool:
		s.BindBool(n, v)
	case nil:
		s.BindNull(n)
	default:
		value, err := driver.DefaultParameterConverter.ConvertValue(arg)
		if err != nil {
			return fmt.Errorf("store: argument %d: %w", n, err)
		}
		if fmt.Sprintf("%T", value) == fmt.Sprintf("%T", arg) {
			return fmt.Errorf("store: argument %d is a %T", n, arg)
		}
		return bind(s, n, value)
	}
	return nil
}

// connRow is the row that a statement stands on.
type connRow struct{ s *zombiezen.Stmt }

// Scan implements Row.
func (r connRow) Scan(into ...any) error {
	for i, to := range into {
		switch to := to.(type) {
		case *string:
			*to = r.s.ColumnText(i)
		case *int64:
			*to = r.s.ColumnInt64(i)
		case *int:
			*to = r.s.ColumnInt(i)
		case *bool:
			*to = r.s.ColumnBool(i)
		case *[]byte:
			*to = r.bytes(i)
		case sql.Scanner:
			if err := to.Scan(r.value(i)); err != nil {
				return err
			}
		default:
			return fmt.Errorf("store: can't scan into a %T", to)
		}
	}
	return nil
}

func (r connRow) bytes(i int) []byte {
	b := make([]byte, r.s.ColumnLen(i))
	r.s.ColumnBytes(i, b)
	return b
}

func (r connRow) value(i int) any {
	switch r.s.ColumnType(i) {
	case zombiezen.TypeInteger:
		return r.s.ColumnInt64(i)
	case zombiezen.TypeText:
		return r.s.ColumnText(i)
	case zombiezen.TypeBlob:
		return r.bytes(i)
	}
	return nil
}
