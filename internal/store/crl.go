package store

import (
	"context"
	"fmt"
	"time"

	"github.com/chancery-pki/chancery/internal/store/engine"
)

// CRL is the newest list of an issuing certificate: of one shard, or the full
// one, shard 0 (RFC 5280 section 5). Its bytes are CRLPart's.
type CRL struct {
	IssuerKeyID string
	Shard       int
	Number      int64 // RFC 5280 section 5.2.3
	Revision    int64 // the number "revoked/KEYID" as it was before the list was made
	ThisUpdate  time.Time
	NextUpdate  time.Time
	Entries     int64
	Size        int64 // of the whole, in bytes
	Parts       int
}

// CRLPartSize is how long each part of a list is, but for the last: no writer
// waits behind a list of 50 MB.
const CRLPartSize = 1 << 20

const crlColumns = "issuer_key_id, shard, number, revision, this_update, next_update, entries, size, parts"

func scanCRL(rows engine.Row, c *CRL) error {
	var thisUpdate, nextUpdate int64
	err := rows.Scan((*hexed)(&c.IssuerKeyID), &c.Shard, &c.Number, &c.Revision, &thisUpdate, &nextUpdate, &c.Entries, &c.Size, &c.Parts)
	c.ThisUpdate, c.NextUpdate = fromMicros(thisUpdate), fromMicros(nextUpdate)
	return err
}

// CRL returns what there is to know of a list; ErrNotFound if none was
// published yet.
func (q *queries) CRL(ctx context.Context, issuerKeyID string, shard int) (CRL, error) {
	return one(ctx, q, scanCRL, "SELECT "+crlColumns+" FROM crls WHERE issuer_key_id = $1 AND shard = $2", hexed(issuerKeyID), int64(shard))
}

// CRLs returns all lists, by issuing key and shard: some hundreds at most.
func (q *queries) CRLs(ctx context.Context) ([]CRL, error) {
	return many(ctx, q, scanCRL, "SELECT "+crlColumns+" FROM crls ORDER BY issuer_key_id, shard")
}

const crlPart = "SELECT body FROM crl_parts WHERE issuer_key_id = $1 AND shard = $2 AND number = $3 AND part = $4"

// CRLPart returns a part of the list's bytes, from 0. ErrNotFound: a newer
// list has taken its place.
func (q *queries) CRLPart(ctx context.Context, c CRL, part int) ([]byte, error) {
	found, err := many(ctx, q, scanBytes, crlPart, hexed(c.IssuerKeyID), int64(c.Shard), c.Number, int64(part))
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, ErrNotFound
	}
	return found[0], nil
}

// CRLBody returns the list's bytes, all of them. ErrNotFound: a newer list has
// taken its place.
func (q *queries) CRLBody(ctx context.Context, c CRL) ([]byte, error) {
	body := make([]byte, 0, c.Size)
	for part := range c.Parts {
		piece, err := q.CRLPart(ctx, c, part)
		if err != nil {
			return nil, err
		}
		body = append(body, piece...)
	}
	if int64(len(body)) != int64(c.Size) {
		return nil, fmt.Errorf("store: CRL number %d of %s, shard %d, has %d bytes and should have %d", c.Number, c.IssuerKeyID, c.Shard, len(body), c.Size)
	}
	return body, nil
}

// PutCRLPart stores a part of a list that is being made, at most CRLPartSize
// bytes, which nobody sees before the list is published. To be called in a
// transaction of its own for each.
func (tx *Tx) PutCRLPart(issuerKeyID string, shard int, number int64, part int, body []byte) error {
	if len(body) == 0 || len(body) > CRLPartSize {
		return fmt.Errorf("store: a part of a CRL has %d bytes; 1 to %d are allowed", len(body), CRLPartSize)
	}
	_, err := tx.exec(`INSERT INTO crl_parts (issuer_key_id, shard, number, part, body) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (issuer_key_id, shard, number, part) DO UPDATE SET body = excluded.body`,
		hexed(issuerKeyID), int64(shard), number, int64(part), body)
	return err
}

// PublishCRL makes a list the newest, once its parts are stored; it is an
// error if they aren't all there. False: the one there has the same number or
// a greater one.
func (tx *Tx) PublishCRL(c CRL) (bool, error) {
	type stored struct{ parts, size int64 }
	have, err := one(context.Background(), &tx.queries, func(rows engine.Row, s *stored) error { return rows.Scan(&s.parts, &s.size) },
		`SELECT count(*), coalesce(sum(length(body)), 0) FROM crl_parts WHERE issuer_key_id = $1 AND shard = $2 AND number = $3 AND part < $4`,
		hexed(c.IssuerKeyID), int64(c.Shard), c.Number, int64(c.Parts))
	if err != nil {
		return false, err
	}
	if c.Parts <= 0 || have.parts != int64(c.Parts) || have.size != c.Size {
		return false, fmt.Errorf("store: CRL number %d of %s, shard %d, has %d of %d parts and %d of %d bytes",
			c.Number, c.IssuerKeyID, c.Shard, have.parts, c.Parts, have.size, c.Size)
	}
	return tx.changed("INSERT INTO crls ("+crlColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (issuer_key_id, shard) DO UPDATE SET number = excluded.number, revision = excluded.revision, this_update = excluded.this_update,
			next_update = excluded.next_update, entries = excluded.entries, size = excluded.size, parts = excluded.parts
		WHERE crls.number < excluded.number`,
		hexed(c.IssuerKeyID), int64(c.Shard), c.Number, c.Revision, micros(c.ThisUpdate), micros(c.NextUpdate), c.Entries, c.Size, int64(c.Parts))
}

// SweepCRLParts deletes at most limit parts of lists with smaller numbers than
// the one to keep, and returns how many.
func (tx *Tx) SweepCRLParts(issuerKeyID string, shard int, keep int64, limit int) (int, error) {
	n, err := tx.exec(`DELETE FROM crl_parts WHERE (issuer_key_id, shard, number, part) IN (SELECT issuer_key_id, shard, number, part FROM crl_parts
		WHERE issuer_key_id = $1 AND shard = $2 AND number < $3 ORDER BY number, part LIMIT $4)`,
		hexed(issuerKeyID), int64(shard), keep, int64(limit))
	return int(n), err
}
