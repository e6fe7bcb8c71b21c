package dump

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"github.com/chancery-pki/chancery/internal/store/engine"
)

// Target is an empty database to be loaded, by a transaction of it.
type Target struct {
	On       engine.Runner
	Postgres bool
	Known    []string // its migrations

	// On SQLite: ChainLoaded is called when the audit chain is there, as far
	// as the dump has it, and Chain for each entry that waits for its place,
	// after that. PostgreSQL's are loaded as they are.
	ChainLoaded func() error
	Chain       func(at int64, object, entry string) error
}

// Load fills the target from a dump and checks that the dump is whole. When it
// fails, the transaction is to be rolled back. A dump of a newer version is
// refused.
func Load(ctx context.Context, to Target, from io.Reader) error {
	l := &loader{ctx: ctx, to: to, sum: sha256.New(), in: bufio.NewScanner(from)}
	l.in.Buffer(make([]byte, 64<<10), maxLine)
	if err := l.load(); err != nil {
		return fmt.Errorf("store: loading a dump, line %d: %w", l.line, err)
	}
	return nil
}

// loader reads a dump into a transaction.
type loader struct {
	ctx  context.Context
	to   Target
	in   *bufio.Scanner
	sum  hash.Hash
	line int
	rows int64
}

// next returns the next line, and adds the one before to the sum.
func (l *loader) next() ([]byte, error) {
	if l.line > 0 {
		l.sum.Write(l.in.Bytes())
		l.sum.Write([]byte{'\n'})
	}
	if err := l.ctx.Err(); err != nil {
		return nil, err
	}
	l.line++
	if !l.in.Scan() {
		return nil, errors.Join(errors.New("the dump ends too early"), l.in.Err())
	}
	return l.in.Bytes(), nil
}

func (l *loader) load() error {
	if err := l.header(); err != nil {
		return err
	}
	if err := l.empty(); err != nil {
		return err
	}
	line, err := l.next()
	for err == nil && bytes.HasPrefix(line, []byte(`{"table":`)) {
		line, err = l.section(line)
	}
	if err != nil {
		return err
	}
	sum := hex.EncodeToString(l.sum.Sum(nil))
	var end trailer
	if err := json.Unmarshal(line, &end); err != nil {
		return err
	}
	if end.SHA256 != sum || end.Rows != l.rows {
		return errors.New("the dump is damaged: its checksum or its count is wrong")
	}
	if l.in.Scan() {
		return errors.New("something follows the dump's end")
	}
	if l.to.Postgres {
		return nil
	}
	return l.to.ChainLoaded()
}

func (l *loader) header() error {
	line, err := l.next()
	if err != nil {
		return err
	}
	var h header
	if err := json.Unmarshal(line, &h); err != nil || h.Format != formatName {
		return errors.New("this is not a dump")
	}
	unknown := func(name string) bool { return !slices.Contains(l.to.Known, name) }
	if h.Version > formatVersion || slices.ContainsFunc(h.Migrations, unknown) {
		return errors.New("the dump is of a newer version; load it with that one")
	}
	return nil
}

func (l *loader) empty() error {
	for _, t := range tables {
		if t.name == unsequencedTable && !l.to.Postgres {
			continue
		}
		some := false
		if err := l.to.On.Search(l.ctx, "SELECT 1 FROM "+t.name+" LIMIT 1", nil, func(engine.Row) error { some = true; return nil }); err != nil {
			return err
		}
		if some {
			return fmt.Errorf("the database isn't empty: %s has rows", t.name)
		}
	}
	return nil
}

// So much goes in by one statement, since on PostgreSQL each is a trip: this
// many rows, or the first row beyond this many bytes.
const (
	batchRows  = 50
	batchBytes = 1 << 20
)

// section loads one table's rows and returns the line that follows them.
func (l *loader) section(line []byte) ([]byte, error) {
	var s section
	if err := json.Unmarshal(line, &s); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(tables, func(t table) bool { return t.name == s.Table })
	if i < 0 {
		return nil, fmt.Errorf("unknown table %q", s.Table)
	}
	names, kinds := tables[i].split()
	var order []byte // the kinds in the dump's order
	for _, column := range s.Columns {
		j := slices.Index(names, column)
		if j < 0 {
			return nil, fmt.Errorf("unknown column %q of %s", column, s.Table)
		}
		order = append(order, kinds[j])
	}
	if len(order) == 0 {
		return nil, fmt.Errorf("no columns of %s", s.Table)
	}
	into := insert{l: l, section: s}
	for {
		line, err := l.next()
		if err != nil {
			return nil, err
		}
		if !bytes.HasPrefix(line, []byte{'['}) {
			return line, into.flush()
		}
		values := newRow(order)
		if err := decodeRow(line, values); err != nil {
			return nil, err
		}
		l.rows++
		if err := into.add(values); err != nil {
			return nil, err
		}
	}
}

// decodeRow reads an array of exactly these values.
func decodeRow(line []byte, values []any) error {
	var raw []json.RawMessage
	if err := json.Unmarshal(line, &raw); err != nil {
		return err
	}
	if len(raw) != len(values) {
		return fmt.Errorf("%d values where there are %d columns", len(raw), len(values))
	}
	for i := range raw {
		if err := json.Unmarshal(raw[i], values[i]); err != nil {
			return err
		}
		switch v := values[i].(type) {
		case *string:
			values[i] = *v
		case *int64:
			values[i] = *v
		case *bool:
			values[i] = *v
		case *[]byte:
			values[i] = *v
			if *v == nil {
				values[i] = []byte{}
			}
		}
	}
	return nil
}

// insert collects rows for one INSERT.
type insert struct {
	l       *loader
	section section
	args    []any
	rows    int
	bytes   int
}

func (i *insert) add(values []any) error {
	for _, v := range values {
		switch v := v.(type) {
		case string:
			i.bytes += len(v)
		case []byte:
			i.bytes += len(v)
		}
	}
	i.args = append(i.args, values...)
	if i.rows++; i.rows < batchRows && i.bytes < batchBytes {
		return nil
	}
	return i.flush()
}

func (i *insert) flush() error {
	if i.rows == 0 {
		return nil
	}
	args, rows := i.args, i.rows
	i.args, i.rows, i.bytes = nil, 0, 0
	if i.section.Table == unsequencedTable && !i.l.to.Postgres {
		return i.chain(args)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "INSERT INTO %s (%s) VALUES ", i.section.Table, strings.Join(i.section.Columns, ", "))
	for n := range args {
		switch {
		case n == 0:
			b.WriteString("(")
		case n%len(i.section.Columns) == 0:
			b.WriteString("), (")
		default:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", n+1)
	}
	b.WriteString(")")
	if rows == batchRows {
		_, err := i.l.to.On.Exec(b.String(), args)
		return err
	}
	return i.l.to.On.Search(context.Background(), b.String(), args, nil) // no rows, and not a text to remember
}

// chain appends waiting entries to SQLite's chain, which stands loaded since
// the table comes after it.
func (i *insert) chain(args []any) error {
	if err := i.l.to.ChainLoaded(); err != nil {
		return err
	}
	columns := i.section.Columns
	at, object, entry := slices.Index(columns, "at"), slices.Index(columns, "object"), slices.Index(columns, "entry")
	if min(at, object, entry) < 0 {
		return errors.New("audit_unsequenced lacks a column")
	}
	for row := range slices.Chunk(args, len(columns)) {
		if err := i.l.to.Chain(row[at].(int64), row[object].(string), row[entry].(string)); err != nil {
			return err
		}
	}
	return nil
}
