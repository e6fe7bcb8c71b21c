package dump

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/store/engine"
)

// A dump is lines of JSON: a header; for each table a line with its name and
// columns, followed by its rows as arrays (bytes in base64); and a trailer with
// the number of rows and the SHA-256 of all lines before it. It holds secrets
// (EAB keys, account data): treat it like the database.
const (
	formatName    = "chancery dump"
	formatVersion = 1
)

// A line of a dump holds one row: at most a response and some names, or a
// certificate. The bound keeps a damaged file from filling the memory.
const maxLine = 16 << 20

type header struct {
	Format     string   `json:"format"`
	Version    int      `json:"version"`
	Engine     string   `json:"engine"`
	At         string   `json:"at"`
	Migrations []string `json:"migrations"`
}

type section struct {
	Table   string   `json:"table"`
	Columns []string `json:"columns"`
}

type trailer struct {
	Rows   int64  `json:"rows"`
	SHA256 string `json:"sha256"`
}

// table names a table's columns with their kinds: t text, i integer,
// b bytes, f flag. Leases, nonces and what replicas say of their keys aren't
// dumped: they mean nothing elsewhere. OCSP answers and CRLs neither: those of
// a backup may be older than a revocation, and CRL numbers must not go back
// (RFC 5280 section 5.2.3). They are signed anew.
type table struct {
	name, columns, key string
}

// unsequencedTable exists on PostgreSQL only; on SQLite its rows join the
// chain when they are loaded.
const unsequencedTable = "audit_unsequenced"

var tables = []table{
	{"accounts", "id:t directory:t status:t thumbprint:t jwk:b contact:t terms_at:i eab_key:t created_at:i keep_until:i", "id"},
	{"retired_keys", "directory:t thumbprint:t retired_at:i", "directory, thumbprint"},
	{"eab_keys", "id:t directory:t label:t mac_key:b profiles:t names:t pre_approved:f max_accounts:i accounts:i created_at:i expires_at:i revoked_at:i", "id"},
	{"devices", "id:t owner:t state:t spki:b key_hash:b serial:i slot:t firmware:t form_factor:i pin_policy:t touch_policy:t attestation:b names:t other_names:t principals:t max_lifetime:i enrolled_at:i enrolled_by:t ended_at:i", "id"},
	{"device_names", "name:t owner:t proof:t", "name"},
	{"advisories", "id:t first:t last:t created_at:i", "id"},
	{"watched_keys", "fingerprint:t label:t created_at:i", "fingerprint"},
	{"orders", "id:t account:t directory:t status:t identifiers:t authorizations:t profile:t not_before:i not_after:i replaces:t problem:t certificate:t created_at:i expires_at:i", "id"},
	{"authorizations", "id:t account:t directory:t identifier:t wildcard:f status:t expires_at:i token:t offered:t created_at:i attempt_type:t processing:f tries:i next_at:i problem:t validated_at:i response:b bound_to:t subject:t claimed_until:i", "id"},
	{"certificates", "serial:b state:t order_id:t account:t directory:t profile:t issuer:t issuer_key_id:b names:t der:b key_hash:b not_before:i not_after:i planned_at:i revoked_at:i revoked_reason:i replaced_by:t crl_shard:i client:t format:t subject:t claimed_until:i", "serial"},
	{"certificate_names", "name:t not_after:i serial:b", "name, not_after, serial"},
	{"blocked_keys", "key_hash:b why:t blocked_at:i", "key_hash"},
	{"limits", "key:t tat:i", "key"},
	{"numbers", "name:t value:i", "name"},
	{"secrets", "name:t value:b", "name"},
	{"audit", "sequence:i at:i object:t hash:b entry:t", "sequence"},
	{unsequencedTable, "at:i object:t entry:t", "id"},
}

// split returns the columns' names and kinds.
func (t table) split() (names []string, kinds []byte) {
	for column := range strings.FieldsSeq(t.columns) {
		name, kind, _ := strings.Cut(column, ":")
		names, kinds = append(names, name), append(kinds, kind[0])
	}
	return names, kinds
}

// Write writes everything that is worth keeping, as the runner sees it: a
// snapshot of the named engine.
func Write(ctx context.Context, on engine.Runner, engineName string, at time.Time, to io.Writer) error {
	buffered := bufio.NewWriterSize(to, 64<<10)
	out := &writer{sum: sha256.New(), to: buffered}
	h := header{Format: formatName, Version: formatVersion, Engine: engineName, At: at.UTC().Format(time.RFC3339)}
	err := on.Search(ctx, "SELECT name FROM migrations ORDER BY name", nil, func(row engine.Row) error {
		var name string
		err := row.Scan(&name)
		h.Migrations = append(h.Migrations, name)
		return err
	})
	if err != nil {
		return err
	}
	out.line(h)
	for _, t := range tables {
		if t.name == unsequencedTable && engineName != "postgres" {
			continue
		}
		if err := out.table(ctx, on, t); err != nil {
			return fmt.Errorf("store: dumping %s: %w", t.name, err)
		}
	}
	out.line(trailer{out.rows, hex.EncodeToString(out.sum.Sum(nil))})
	return errors.Join(out.err, buffered.Flush())
}

// writer writes lines and sums them up; its first error stays.
type writer struct {
	sum  hash.Hash
	to   *bufio.Writer
	rows int64
	err  error
}

func (d *writer) line(v any) {
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

func (d *writer) table(ctx context.Context, on engine.Runner, t table) error {
	names, kinds := t.split()
	d.line(section{t.name, names})
	values := newRow(kinds)
	return on.Search(ctx, "SELECT "+strings.Join(names, ", ")+" FROM "+t.name+" ORDER BY "+t.key, nil, func(rows engine.Row) error {
		if err := errors.Join(d.err, ctx.Err()); err != nil {
			return err
		}
		if err := rows.Scan(values...); err != nil {
			return err
		}
		for _, v := range values {
			if b, ok := v.(*[]byte); ok && *b == nil {
				*b = []byte{} // SQLite's driver returns nil for no bytes
			}
		}
		d.line(values)
		d.rows++
		return d.err
	})
}

// newRow returns pointers to one row's values, for JSON and for Scan.
func newRow(kinds []byte) (values []any) {
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
