package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/store/engine"
)

// clockSlack is how far the clock may lie behind the newest entry (DESIGN,
// principle 3: a clock further behind stops issuance).
const clockSlack = time.Minute

// Record is a stored audit entry with its place in the chain.
type Record struct {
	Sequence int64 // 1 for the first, without gaps
	Hash     audit.Hash
	Entry    audit.Entry
}

// chain is the end of the audit chain, or of what is left before its first
// entry: the anchor.
type chain struct {
	sequence int64
	hash     audit.Hash
	newest   int64 // the latest time in it
}

// link appends an entry and returns its row.
func (c *chain) link(at int64, canonical []byte) {
	c.hash = audit.Link(c.hash, c.sequence+1, canonical)
	c.sequence++
	c.newest = max(c.newest, at)
}

func scanChain(rows engine.Row, c *chain) error {
	var hash []byte
	if err := rows.Scan(&c.sequence, &hash, &c.newest); err != nil {
		return err
	}
	copy(c.hash[:], hash)
	return nil
}

// readChain finds the chain's end.
func readChain(ctx context.Context, q *queries) (chain, error) {
	c, err := one(ctx, q, scanChain, "SELECT sequence, hash, at FROM audit ORDER BY sequence DESC LIMIT 1")
	if errors.Is(err, ErrNotFound) {
		return readAnchor(ctx, q)
	}
	return c, err
}

// auditAnchor names the secret that holds the last entry which was swept
// away, so that what follows can still be verified.
const auditAnchor = "audit.anchor"

func readAnchor(ctx context.Context, q *queries) (chain, error) {
	var c chain
	b, err := q.Secret(ctx, auditAnchor)
	if errors.Is(err, ErrNotFound) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if len(b) != 16+len(c.hash) {
		return c, errors.New("store: the audit chain's anchor is damaged")
	}
	c.sequence = int64(binary.BigEndian.Uint64(b))
	c.newest = int64(binary.BigEndian.Uint64(b[8:]))
	copy(c.hash[:], b[16:])
	return c, nil
}

func (tx *Tx) putAnchor(c chain) error {
	b := binary.BigEndian.AppendUint64(nil, uint64(c.sequence))
	b = binary.BigEndian.AppendUint64(b, uint64(c.newest))
	return tx.PutSecret(auditAnchor, append(b, c.hash[:]...))
}

// Audit records a decision together with the transaction's changes, at the
// transaction's time whatever the entry says. ErrClockBehind when that lies
// more than a minute before the newest entry. An entry that can't be recorded
// fails the whole transaction, whether or not the caller looks at the error.
func (tx *Tx) Audit(e audit.Entry) error {
	e.At = tx.now
	err := tx.appendAudit(micros(tx.now), objectKey(e.Object), e.Canonical())
	if err != nil {
		tx.tx.Fail(err)
	}
	return err
}

// objectKey is the part of an object's name that is stored beside the entry
// and indexed: 12 bytes hold an id's time and more. What else begins so is
// told apart by the entry itself.
func objectKey(object string) string {
	return strings.ToValidUTF8(object[:min(len(object), 12)], "")
}

// appendAudit chains an entry at once on SQLite, where one goroutine writes.
// On PostgreSQL that would make all writers wait for each other, so that
// SequenceAudit does it soon after.
func (tx *Tx) appendAudit(at int64, object string, canonical []byte) error {
	if tx.chain == nil {
		newest, err := one(context.Background(), &tx.queries, func(rows engine.Row, n *sql.Null[int64]) error { return rows.Scan(n) },
			`INSERT INTO audit_unsequenced (at, object, entry) VALUES ($1, $2, $3)
			RETURNING (SELECT at FROM audit ORDER BY sequence DESC LIMIT 1)`, at, object, string(canonical))
		if err == nil && newest.V-at > clockSlack.Microseconds() {
			return ErrClockBehind
		}
		return err
	}
	if tx.chain.newest-at > clockSlack.Microseconds() {
		return ErrClockBehind
	}
	return tx.insertAudit(at, object, canonical)
}

// insertAudit gives an entry its place in SQLite's chain.
func (tx *Tx) insertAudit(at int64, object string, canonical []byte) error {
	next := *tx.chain
	next.link(at, canonical)
	if _, err := tx.exec("INSERT INTO audit (sequence, at, object, hash, entry) VALUES ($1, $2, $3, $4, $5)",
		next.sequence, at, object, next.hash[:], string(canonical)); err != nil {
		return err
	}
	*tx.chain = next
	return nil
}

// unsequenced is an entry that waits for its place (PostgreSQL).
type unsequenced struct {
	id, at        int64
	object, entry string
}

func scanUnsequenced(rows engine.Row, u *unsequenced) error {
	return rows.Scan(&u.id, &u.at, &u.object, &u.entry)
}

// SequenceAudit gives up to limit waiting entries their place in the chain,
// if the holder has or gets the lease "audit", and returns how many. Nothing
// waits on SQLite. To be called every second or so by every replica.
func (tx *Tx) SequenceAudit(now time.Time, holder string, limit int) (int, error) {
	if tx.chain != nil {
		return 0, nil
	}
	// The lease's row stays locked until the commit, so that two
	// sequencers can't meet even if their clocks disagree.
	if ours, err := tx.Lease("audit", holder, now.Add(30*time.Second)); err != nil || !ours {
		return 0, err
	}
	waiting, err := all(context.Background(), &tx.queries, scanUnsequenced,
		"SELECT id, at, object, entry FROM audit_unsequenced ORDER BY id LIMIT $1", int64(limit))
	if err != nil || len(waiting) == 0 {
		return 0, err
	}
	end, err := readChain(context.Background(), &tx.queries)
	if err != nil {
		return 0, err
	}
	var ids, sequences, times []int64
	var objects, entries []string
	var hashes [][]byte
	for _, u := range waiting {
		end.link(u.at, []byte(u.entry))
		ids, sequences, times = append(ids, u.id), append(sequences, end.sequence), append(times, u.at)
		objects, entries = append(objects, u.object), append(entries, u.entry)
		hashes = append(hashes, append([]byte(nil), end.hash[:]...))
	}
	// PostgreSQL only, so its arrays may be used: one trip for them all.
	if _, err := tx.exec(`INSERT INTO audit (sequence, at, object, hash, entry)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bytea[], $5::text[])`, sequences, times, objects, hashes, entries); err != nil {
		return 0, err
	}
	_, err = tx.exec("DELETE FROM audit_unsequenced WHERE id = ANY($1::bigint[])", ids)
	return len(waiting), err
}

// AuditFilter narrows AuditEntries; a zero field matches everything.
type AuditFilter struct {
	After    int64 // the last sequence number of the page before
	Limit    int   // 0: 100; at most 1000
	Object   string
	Actor    string
	Action   string
	From, To time.Time // at or after, before
}

// auditRow is an entry as stored.
type auditRow struct {
	sequence, at  int64
	object, entry string
	hash          []byte
}

const auditColumns = "sequence, at, object, hash, entry"

func scanAudit(rows engine.Row, r *auditRow) error {
	return rows.Scan(&r.sequence, &r.at, &r.object, &r.hash, &r.entry)
}

func (r auditRow) record() (Record, error) {
	e, err := audit.Parse([]byte(r.entry))
	if err != nil {
		return Record{}, fmt.Errorf("store: audit entry %d: %w", r.sequence, err)
	}
	e.At = e.At.UTC()
	record := Record{Sequence: r.sequence, Entry: e}
	copy(record.Hash[:], r.hash)
	return record, nil
}

// AuditEntries returns a page of the chain, oldest first. A search by object
// or by time reads only what it finds; one by actor or action reads through
// the rest, page by page, until ctx ends. On PostgreSQL an entry is seen once
// it was sequenced.
func (q *queries) AuditEntries(ctx context.Context, f AuditFilter) ([]Record, error) {
	first, last, err := q.auditRange(ctx, f)
	if err != nil {
		return nil, err
	}
	var found []Record
	for after := first; len(found) < bound(f.Limit); {
		var where filter
		where.and("sequence > $", after)
		if last >= 0 {
			where.and("sequence <= $", last)
		}
		if f.Object != "" {
			where.and("object = $", objectKey(f.Object))
		}
		rows, err := page(ctx, q, scanAudit, "SELECT "+auditColumns+" FROM audit", &where, "sequence", maxPage)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			record, match, err := f.match(row)
			if err != nil {
				return nil, err
			}
			if match && len(found) < bound(f.Limit) {
				found = append(found, record)
			}
		}
		if len(rows) < maxPage {
			break
		}
		after = rows[len(rows)-1].sequence
	}
	return found, nil
}

// match looks at what the statement couldn't.
func (f AuditFilter) match(r auditRow) (Record, bool, error) {
	if !f.From.IsZero() && r.at < micros(f.From) || !f.To.IsZero() && r.at >= micros(f.To) {
		return Record{}, false, nil
	}
	if !strings.Contains(r.entry, f.Action) { // cheaper than to parse; actions are plain words
		return Record{}, false, nil
	}
	record, err := r.record()
	e := record.Entry
	return record, err == nil && (f.Actor == "" || e.Actor == f.Actor) && (f.Action == "" || e.Action == f.Action) &&
		(f.Object == "" || e.Object == f.Object), err
}

// auditDisorder bounds how far an entry's time may lie before that of an
// earlier entry: clockSlack, and on PostgreSQL the length of a transaction
// and the difference of two replicas' clocks too.
const auditDisorder = 5 * time.Minute

// auditRange returns sequence numbers between which all entries of the
// filter's time lie: above first, and up to last unless that is negative.
func (q *queries) auditRange(ctx context.Context, f AuditFilter) (first, last int64, err error) {
	first, last = f.After, -1
	if !f.From.IsZero() {
		n, err := q.searchAudit(ctx, micros(f.From.Add(-auditDisorder)))
		if err != nil {
			return 0, 0, err
		}
		first = max(first, n-1)
	}
	if !f.To.IsZero() {
		last, err = q.searchAudit(ctx, micros(f.To.Add(auditDisorder)))
	}
	return first, last, err
}

// searchAudit finds, by bisection over the sequence, an entry of about the
// time: those more than auditDisorder earlier are before it, those more than
// auditDisorder later after it.
func (q *queries) searchAudit(ctx context.Context, at int64) (int64, error) {
	low, err := readAnchor(ctx, q)
	if err != nil {
		return 0, err
	}
	high, err := readChain(ctx, q)
	if err != nil {
		return 0, err
	}
	from, to := low.sequence+1, high.sequence+1
	for from < to {
		middle := from + (to-from)/2
		t, err := one(ctx, q, scanInt, "SELECT at FROM audit WHERE sequence = $1", middle)
		if err != nil && !errors.Is(err, ErrNotFound) { // not found: swept just now, so it was early
			return 0, err
		}
		if err == nil && t >= at {
			to = middle
		} else {
			from = middle + 1
		}
	}
	return from, nil
}

// ErrAuditBroken is VerifyAudit's answer to a chain that doesn't hold; the
// text names the first entry that doesn't fit.
var ErrAuditBroken = errors.New("the audit chain is broken")

// VerifyAudit walks the chain and returns how many entries fit; the error
// names the first that doesn't. A chain whose end was cut off can't be told
// from a shorter one: keep the last hash elsewhere.
func (q *queries) VerifyAudit(ctx context.Context) (entries int64, err error) {
	end, err := readAnchor(ctx, q)
	if err != nil {
		return 0, err
	}
	for {
		rows, err := many(ctx, q, scanAudit, "SELECT "+auditColumns+" FROM audit WHERE sequence > $1 ORDER BY sequence LIMIT $2", end.sequence, int64(maxPage))
		if err != nil {
			return entries, err
		}
		for _, row := range rows {
			if row.sequence != end.sequence+1 {
				// The sweep may have come in between.
				anchor, err := readAnchor(ctx, q)
				if err != nil {
					return entries, err
				}
				if anchor.sequence > end.sequence {
					end = anchor
				}
			}
			if err := end.verify(row); err != nil {
				return entries, err
			}
			entries++
		}
		if len(rows) < maxPage {
			return entries, nil
		}
	}
}

// verify checks that a row is the chain's next, and what is stored beside the
// entry against the entry.
func (c *chain) verify(r auditRow) error {
	if r.sequence != c.sequence+1 {
		return fmt.Errorf("%w: entry %d is missing", ErrAuditBroken, c.sequence+1)
	}
	c.link(r.at, []byte(r.entry))
	record, err := r.record()
	if err != nil || record.Hash != c.hash || micros(record.Entry.At) != r.at || objectKey(record.Entry.Object) != r.object {
		return fmt.Errorf("%w: entry %d was altered", ErrAuditBroken, r.sequence)
	}
	return nil
}
