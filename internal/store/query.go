package store

import (
	"context"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store/engine"
)

// queries are the reading methods, shared by DB and Tx.
type queries struct {
	run engine.Runner
}

// exec runs a statement that returns no rows.
func (q *queries) exec(text string, args ...any) (int64, error) { return q.run.Exec(text, args) }

// changed runs a compare-and-swap: did it find its row?
func (q *queries) changed(text string, args ...any) (bool, error) {
	n, err := q.exec(text, args...)
	return n > 0, err
}

// insert runs an INSERT … ON CONFLICT DO NOTHING. A plain violation would
// end the whole transaction on PostgreSQL, and the caller may want to go on.
func (q *queries) insert(text string, args ...any) error {
	n, err := q.exec(text, args...)
	if err == nil && n == 0 {
		return ErrConflict
	}
	return err
}

// one reads a single row, ErrNotFound if there is none.
func one[T any](ctx context.Context, q *queries, scan func(engine.Row, *T) error, text string, args ...any) (v T, err error) {
	if err := ctx.Err(); err != nil {
		return v, err
	}
	found := false
	err = q.run.Query(ctx, text, args, func(rows engine.Row) error {
		found = true
		return scan(rows, &v)
	})
	if err == nil && !found {
		err = ErrNotFound
	}
	return v, err
}

// all reads every row of a constant statement, which finds a few.
func all[T any](ctx context.Context, q *queries, scan func(engine.Row, *T) error, text string, args ...any) (list []T, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = q.run.Query(ctx, text, args, collect(&list, scan))
	return list, err
}

// many is all for a statement that reads a page of many.
func many[T any](ctx context.Context, q *queries, scan func(engine.Row, *T) error, text string, args ...any) (list []T, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = q.run.Search(ctx, text, args, collect(&list, scan))
	return list, err
}

func collect[T any](list *[]T, scan func(engine.Row, *T) error) func(engine.Row) error {
	return func(rows engine.Row) error {
		var v T
		if err := scan(rows, &v); err != nil {
			return err
		}
		*list = append(*list, v)
		return nil
	}
}

// exists reports whether a SELECT 1 finds a row.
func (q *queries) exists(ctx context.Context, text string, args ...any) (bool, error) {
	_, err := one(ctx, q, scanInt, text, args...)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func scanInt(rows engine.Row, n *int64) error    { return rows.Scan(n) }
func scanBytes(rows engine.Row, b *[]byte) error { return rows.Scan(b) }

func scanIDs[T ~string](rows engine.Row, id *T) error {
	var s string
	err := rows.Scan(&s)
	*id = T(s)
	return err
}

// filter puts a WHERE clause together from conditions that bear one $ each.
type filter struct {
	text strings.Builder
	args []any
}

// and adds a condition; its "$" becomes the argument's number.
func (f *filter) and(condition string, arg any) {
	f.args = append(f.args, arg)
	f.glue(strings.Replace(condition, "$", fmt.Sprintf("$%d", len(f.args)), 1))
}

func (f *filter) glue(condition string) {
	if f.text.Len() == 0 {
		f.text.WriteString(" WHERE ")
	} else {
		f.text.WriteString(" AND ")
	}
	f.text.WriteString(condition)
}

// page runs a search: statement, conditions, order, and a bounded LIMIT.
func page[T any](ctx context.Context, q *queries, scan func(engine.Row, *T) error, text string, f *filter, order string, limit int) ([]T, error) {
	return many(ctx, q, scan, text+f.text.String()+" ORDER BY "+order+fmt.Sprintf(" LIMIT %d", bound(limit)), f.args...)
}

// A page of a list is so long when nothing is said, and never longer than
// maxPage: rows are held in memory, and a certificate is a kilobyte or more.
const (
	defaultPage = 100
	maxPage     = 1000
)

func bound(limit int) int {
	if limit <= 0 {
		return defaultPage
	}
	return min(limit, maxPage)
}

// placeholders returns "$first, $first+1, …" with at least n numbers, rounded
// up to a power of two, so that a list of any length is one of few statements.
func placeholders(first, n int) (text string, count int) {
	count = 1
	for count < n {
		count *= 2
	}
	var b strings.Builder
	for i := range count {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", first+i)
	}
	return b.String(), count
}

// micros is how a time is stored: unix microseconds, the zero time as 0.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// encodeStrings writes a list whose elements may hold anything, as JSON; an
// empty one as "".
func encodeStrings(list []string) string {
	if len(list) == 0 {
		return ""
	}
	b, _ := json.Marshal(list) // strings always encode
	return string(b)
}

func decodeStrings(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	var list []string
	if err := json.Unmarshal([]byte(s), &list); err != nil {
		return nil, fmt.Errorf("store: a stored list is damaged: %w", err)
	}
	return list, nil
}

// encodeIdentifiers writes "dns:a.example dns:b.example": canonical names
// have no spaces.
func encodeIdentifiers(ids []protocol.Identifier) string {
	if len(ids) == 1 {
		return ids[0].String()
	}
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(string(id.Type))
		b.WriteByte(':')
		b.WriteString(id.Value)
	}
	return b.String()
}

func decodeIdentifiers(s string) ([]protocol.Identifier, error) {
	if s == "" {
		return nil, nil
	}
	ids := make([]protocol.Identifier, 0, strings.Count(s, " ")+1)
	for part := range strings.SplitSeq(s, " ") {
		id, err := decodeIdentifier(part)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func decodeIdentifier(s string) (protocol.Identifier, error) {
	typ, value, ok := strings.Cut(s, ":")
	if !ok {
		return protocol.Identifier{}, fmt.Errorf("store: a stored identifier is damaged: %q", s)
	}
	return protocol.Identifier{Type: protocol.IdentifierType(typ), Value: value}, nil
}

// hexed is a text of hexadecimal digits, such as a serial, which is stored as
// the bytes it stands for: half as long, in the row and in each index.
type hexed string

// Value implements driver.Valuer.
func (h hexed) Value() (driver.Value, error) {
	b, err := hex.DecodeString(string(h))
	if err != nil {
		return nil, fmt.Errorf("store: %q should be hexadecimal: %w", string(h), err)
	}
	return b, nil
}

// Scan implements sql.Scanner.
func (h *hexed) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok && v != nil {
		return fmt.Errorf("store: stored bytes are a %T", v)
	}
	*h = hexed(hex.EncodeToString(b))
	return nil
}

// storedProblem is a protocol.Problem as it lies in the database, with names
// that a change to the Go type can't alter.
type storedProblem struct {
	Type       protocol.ProblemType `json:"type"`
	Detail     string               `json:"detail,omitempty"`
	Status     int                  `json:"status,omitempty"`
	Identifier *protocol.Identifier `json:"identifier,omitempty"`
	Sub        []storedProblem      `json:"sub,omitempty"`
	Algorithms []string             `json:"algorithms,omitempty"`
	Instance   string               `json:"instance,omitempty"`
	RetryAfter int64                `json:"retryAfter,omitempty"` // microseconds
}

func encodeProblem(p *protocol.Problem) (string, error) {
	if p == nil {
		return "", nil
	}
	b, err := json.Marshal(toStored(*p))
	return string(b), err
}

func decodeProblem(s string) (*protocol.Problem, error) {
	if s == "" {
		return nil, nil
	}
	var p storedProblem
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return nil, fmt.Errorf("store: a stored problem is damaged: %w", err)
	}
	return new(fromStored(p)), nil
}

func toStored(p protocol.Problem) storedProblem {
	s := storedProblem{
		Type: p.Type, Detail: p.Detail, Status: p.Status, Identifier: p.Identifier,
		Algorithms: p.Algorithms, Instance: p.Instance, RetryAfter: p.RetryAfter.Microseconds(),
	}
	for _, sub := range p.Sub {
		s.Sub = append(s.Sub, toStored(sub))
	}
	return s
}

func fromStored(s storedProblem) protocol.Problem {
	p := protocol.Problem{
		Type: s.Type, Detail: s.Detail, Status: s.Status, Identifier: s.Identifier,
		Algorithms: s.Algorithms, Instance: s.Instance, RetryAfter: time.Duration(s.RetryAfter) * time.Microsecond,
	}
	for _, sub := range s.Sub {
		p.Sub = append(p.Sub, fromStored(sub))
	}
	return p
}
