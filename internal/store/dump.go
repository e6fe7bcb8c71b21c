package store

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
	"time"

	"github.com/chancery-pki/chancery/internal/store/engine"
)

// A dump is lines of JSON: a header; for each table a line with its name and
// columns, followed by its rows as arrays (bytes in base64); and a trailer with
// the number of rows and the SHA-256 of all lines before it. It holds secrets
// (EAB keys, account data): treat it like the database.
const (
	dumpFormat  = "chancery dump"
	dumpVersion = 1
)

// A line of a dump holds one row: at most a response and some names, or a
// certificate. The bound keeps a damaged file from filling the memory.
const maxDumpLine = 16 << 20

type dumpHeader struct {
	Format     string   `json:"format"`
	Version    int      `json:"version"`
	Engine     string   `json:"engine"`
	At         string   `json:"at"`
	Migrations []string `json:"migrations"`
}

type dumpSection struct {
	Table   string   `json:"table"`
	Columns []string `json:"columns"`
}

type dumpTrailer struct {
	Rows   int64  `json:"rows"`
	SHA256 string `json:"sha256"`
}

// dumpTable names a table's columns with their kinds: t text, i integer,
// b bytes, f flag. Leases and nonces aren't dumped: they mean nothing elsewhere.
type dumpTable struct {
	name, columns, key string
}

// unsequencedTable exists on PostgreSQL only; on SQLite its rows join the
// chain when they are loaded.
const unsequencedTable = "audit_unsequenced"

var dumpTables = []dumpTable{
	{"accounts", "id:t directory:t status:t thumbprint:t jwk:b contact:t terms_at:i eab_key:t created_at:i keep_until:i", "id"},
	{"retired_keys", "directory:t thumbprint:t retired_at:i", "directory, thumbprint"},
	{"eab_keys", "id:t directory:t label:t mac_key:b profiles:t names:t pre_approved:f max_accounts:i accounts:i created_at:i expires_at:i revoked_at:i", "id"},
	{"orders", "id:t account:t directory:t status:t identifiers:t authorizations:t profile:t not_before:i not_after:i replaces:t problem:t certificate:t created_at:i expires_at:i", "id"},
	{"authorizations", "id:t account:t directory:t identifier:t wildcard:f status:t expires_at:i token:t offered:t created_at:i attempt_type:t processing:f tries:i next_at:i problem:t validated_at:i response:b claimed_until:i", "id"},
	{"certificates", "serial:b state:t order_id:t account:t directory:t profile:t issuer:t issuer_key_id:b names:t der:b key_hash:b not_before:i not_after:i planned_at:i revoked_at:i revoked_reason:i replaced_by:t claimed_until:i", "serial"},
	{"certificate_names", "name:t not_after:i serial:b", "name, not_after, serial"},
	{"blocked_keys", "key_hash:b why:t blocked_at:i", "key_hash"},
	{"limits", "key:t tat:i", "key"},
	{"numbers", "name:t value:i", "name"},
	{"secrets", "name:t value:b", "name"},
	{"audit", "sequence:i at:i object:t hash:b entry:t", "sequence"},
	{unsequencedTable, "at:i object:t entry:t", "id"},
}

// split returns the columns' names and kinds.
func (t dumpTable) split() (names []string, kinds []byte) {
	for column := range strings.FieldsSeq(t.columns) {
		name, kind, _ := strings.Cut(column, ":")
		names, kinds = append(names, name), append(kinds, kind[0])
	}
	return names, kinds
}

// Dump writes everything that is worth keeping, as of one moment, while
// others go on writing. It reads row by row and holds none of them up.
func (db *DB) Dump(ctx context.Context, w io.Writer) error {
	return db.engine.Snapshot(ctx, func(on engine.Runner) error {
		q := &queries{run: on}
		applied, err := all(ctx, q, scanText, "SELECT name FROM migrations ORDER BY name")
		if err != nil {
			return err
		}
		buffered := bufio.NewWriterSize(w, 64<<10)
		out := &dumpWriter{sum: sha256.New(), to: buffered}
		out.line(dumpHeader{dumpFormat, dumpVersion, db.name, db.clock().UTC().Format(time.RFC3339), applied})
		for _, t := range dumpTables {
			if t.name == unsequencedTable && db.name != "postgres" {
				continue
			}
			if err := out.table(ctx, q, t); err != nil {
				return fmt.Errorf("store: dumping %s: %w", t.name, err)
			}
		}
		out.line(dumpTrailer{out.rows, hex.EncodeToString(out.sum.Sum(nil))})
		return errors.Join(out.err, buffered.Flush())
	})
}

// dumpWriter writes lines and sums them up; its first error stays.
type dumpWriter struct {
	sum  hash.Hash
	to   *bufio.Writer
	rows int64
	err  error
}

func (d *dumpWriter) line(v any) {
	if d.err != nil {
		return
	}
	b, err := json.Marshal(v)
	if err == nil {
		b = append(b, '\n')
		d.sum.Write(b)
		_, err = d.to.Write(b)
	}
	d.err = err
}

func (d *dumpWriter) table(ctx context.Context, q *queries, t dumpTable) error {
	names, kinds := t.split()
	d.line(dumpSection{t.name, names})
	values := dumpRow(kinds)
	return q.run.Search(ctx, "SELECT "+strings.Join(names, ", ")+" FROM "+t.name+" ORDER BY "+t.key, nil, func(rows engine.Row) error {
		if err := errors.Join(d.err, ctx.Err()); err != nil {
			return err
		}
		if err := rows.Scan(values...); err != nil {
			return err
		}
		for _, v := range values {
			if b, ok := v.(*[]byte); ok {
				*b = notNil(*b) // SQLite's driver returns nil for no bytes
			}
		}
		d.line(values)
		d.rows++
		return d.err
	})
}

// dumpRow returns pointers to one row's values, for JSON and for Scan.
func dumpRow(kinds []byte) (values []any) {
	for _, kind := range kinds {
		switch kind {
		case 't':
			values = append(values, new(string))
		case 'i':
			values = append(values, new(int64))
		case 'b':
			values = append(values, new([]byte))
		case 'f':
			values = append(values, new(bool))
		}
	}
	return values
}

// Load fills an empty database from a dump, all or nothing, and checks that
// the dump is whole. A dump of a newer version is refused.
func (db *DB) Load(ctx context.Context, r io.Reader) error {
	begun := false
	return db.Update(ctx, func(tx *Tx) error {
		if begun {
			return errors.New("store: the database ended the load; empty it and try again")
		}
		begun = true
		l := &loader{ctx: ctx, tx: tx, postgres: db.name == "postgres", sum: sha256.New(), in: bufio.NewScanner(r)}
		l.in.Buffer(make([]byte, 64<<10), maxDumpLine)
		if err := l.load(); err != nil {
			return fmt.Errorf("store: loading a dump, line %d: %w", l.line, err)
		}
		return nil
	})
}

// loader reads a dump into a transaction.
type loader struct {
	ctx      context.Context
	tx       *Tx
	postgres bool
	in       *bufio.Scanner
	sum      hash.Hash
	line     int
	rows     int64
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
	var end dumpTrailer
	if err := json.Unmarshal(line, &end); err != nil {
		return err
	}
	if end.SHA256 != sum || end.Rows != l.rows {
		return errors.New("the dump is damaged: its checksum or its count is wrong")
	}
	if l.in.Scan() {
		return errors.New("something follows the dump's end")
	}
	if l.tx.chain == nil {
		return nil
	}
	return l.sequence()
}

func (l *loader) header() error {
	line, err := l.next()
	if err != nil {
		return err
	}
	var h dumpHeader
	if err := json.Unmarshal(line, &h); err != nil || h.Format != dumpFormat {
		return errors.New("this is not a dump")
	}
	known, err := migrationNames()
	if err != nil {
		return err
	}
	unknown := func(name string) bool { return !slices.Contains(known, name) }
	if h.Version > dumpVersion || slices.ContainsFunc(h.Migrations, unknown) {
		return errors.New("the dump is of a newer version; load it with that one")
	}
	return nil
}

func (l *loader) empty() error {
	for _, t := range dumpTables {
		if t.name == unsequencedTable && !l.postgres {
			continue
		}
		some, err := l.tx.exists(l.ctx, "SELECT 1 FROM "+t.name+" LIMIT 1")
		if err != nil {
			return err
		}
		if some {
			return fmt.Errorf("the database isn't empty: %s has rows", t.name)
		}
	}
	return nil
}

// loadBatch rows go in by one statement: on PostgreSQL each is a trip.
const loadBatch = 50

// section loads one table's rows and returns the line that follows them.
func (l *loader) section(line []byte) ([]byte, error) {
	var s dumpSection
	if err := json.Unmarshal(line, &s); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(dumpTables, func(t dumpTable) bool { return t.name == s.Table })
	if i < 0 {
		return nil, fmt.Errorf("unknown table %q", s.Table)
	}
	names, kinds := dumpTables[i].split()
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
	insert := loadInsert{l: l, section: s}
	for {
		line, err := l.next()
		if err != nil {
			return nil, err
		}
		if !bytes.HasPrefix(line, []byte{'['}) {
			return line, insert.flush()
		}
		values := dumpRow(order)
		if err := decodeRow(line, values); err != nil {
			return nil, err
		}
		l.rows++
		if err := insert.add(values); err != nil {
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
			values[i] = notNil(*v)
		}
	}
	return nil
}

// loadInsert collects rows for one INSERT.
type loadInsert struct {
	l       *loader
	section dumpSection
	args    []any
	rows    int
}

func (i *loadInsert) add(values []any) error {
	i.args = append(i.args, values...)
	if i.rows++; i.rows < loadBatch {
		return nil
	}
	return i.flush()
}

func (i *loadInsert) flush() error {
	if i.rows == 0 {
		return nil
	}
	table := i.section.Table
	if table == unsequencedTable && !i.l.postgres {
		return i.chain()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "INSERT INTO %s (%s) VALUES ", table, strings.Join(i.section.Columns, ", "))
	for n := range i.args {
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
	text, args := b.String(), i.args
	full := i.rows == loadBatch
	i.args, i.rows = nil, 0
	if full {
		_, err := i.l.tx.exec(text, args...)
		return err
	}
	return i.l.tx.run.Search(context.Background(), text, args, nil) // no rows, and not a text to remember
}

// chain appends waiting entries to SQLite's chain, which stands loaded since
// the table comes after it.
func (i *loadInsert) chain() error {
	if err := i.l.sequence(); err != nil {
		return err
	}
	width := len(i.section.Columns)
	at, object, entry := slices.Index(i.section.Columns, "at"), slices.Index(i.section.Columns, "object"), slices.Index(i.section.Columns, "entry")
	if min(at, object, entry) < 0 {
		return errors.New("audit_unsequenced lacks a column")
	}
	for row := range slices.Chunk(i.args, width) {
		next := *i.l.tx.chain
		next.link(row[at].(int64), []byte(row[entry].(string)))
		if _, err := i.l.tx.exec("INSERT INTO audit (sequence, at, object, hash, entry) VALUES ($1, $2, $3, $4, $5)",
			next.sequence, row[at], row[object], next.hash[:], row[entry]); err != nil {
			return err
		}
		*i.l.tx.chain = next
	}
	i.args, i.rows = i.args[:0], 0
	return nil
}

// sequence makes the writer go on from the chain that was loaded.
func (l *loader) sequence() (err error) {
	*l.tx.chain, err = readChain(l.ctx, &l.tx.queries)
	return err
}
