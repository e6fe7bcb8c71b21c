package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store/engine"
)

const orderColumns = "id, account, directory, status, identifiers, authorizations, profile, not_before, not_after, replaces, problem, certificate, created_at, expires_at"

func scanOrder(rows engine.Row, o *protocol.Order) (err error) {
	var identifiers, authorizations, problem string
	var notBefore, notAfter, createdAt, expiresAt int64
	if err := rows.Scan((*string)(&o.ID), (*string)(&o.Account), &o.Directory, (*string)(&o.Status), &identifiers, &authorizations,
		&o.Profile, &notBefore, &notAfter, &o.Replaces, &problem, &o.Certificate, &createdAt, &expiresAt); err != nil {
		return err
	}
	o.NotBefore, o.NotAfter = fromMicros(notBefore), fromMicros(notAfter)
	o.CreatedAt, o.ExpiresAt = fromMicros(createdAt), fromMicros(expiresAt)
	o.Authorizations = splitIDs(authorizations)
	if o.Error, err = decodeProblem(problem); err != nil {
		return err
	}
	o.Identifiers, err = decodeIdentifiers(identifiers)
	return err
}

// idLength is the length of every id (protocol.NewID). An order holds the ids
// of its authorizations side by side, so that SQL can take them apart.
const idLength = 26

func joinIDs(ids []protocol.AuthorizationID) (string, error) {
	var b strings.Builder
	b.Grow(idLength * len(ids))
	for _, id := range ids {
		if len(id) != idLength {
			return "", fmt.Errorf("store: authorization id %q: %w", id, protocol.ErrNotAnID)
		}
		b.WriteString(string(id))
	}
	return b.String(), nil
}

func splitIDs(s string) []protocol.AuthorizationID {
	if s == "" {
		return nil
	}
	ids := make([]protocol.AuthorizationID, 0, len(s)/idLength)
	for ; len(s) >= idLength; s = s[idLength:] {
		ids = append(ids, protocol.AuthorizationID(s[:idLength]))
	}
	return ids
}

// Order returns the order, ErrNotFound if there is none.
func (q *queries) Order(ctx context.Context, id protocol.OrderID) (protocol.Order, error) {
	return one(ctx, q, scanOrder, "SELECT "+orderColumns+" FROM orders WHERE id = $1", string(id))
}

// OrderWithAuthorizations returns the order and those of its authorizations
// that still exist, in the order's order; ErrNotFound if there is no order.
func (q *queries) OrderWithAuthorizations(ctx context.Context, id protocol.OrderID) (protocol.Order, []protocol.Authorization, error) {
	o, err := q.Order(ctx, id)
	if err != nil {
		return o, nil, err
	}
	list, err := q.Authorizations(ctx, o.Authorizations)
	return o, list, err
}

// OrdersOf returns a page of the ids of an account's orders, oldest first
// (RFC 8555 section 7.1.2.1).
func (q *queries) OrdersOf(ctx context.Context, account protocol.AccountID, after protocol.OrderID, limit int) ([]protocol.OrderID, error) {
	return all(ctx, q, scanIDs[protocol.OrderID], "SELECT id FROM orders WHERE account = $1 AND id > $2 ORDER BY id LIMIT $3",
		string(account), string(after), int64(bound(limit)))
}

// InsertOrder adds an order; ErrConflict when there is one with this id.
func (tx *Tx) InsertOrder(o protocol.Order) error {
	problem, err := encodeProblem(o.Error)
	if err != nil {
		return err
	}
	authorizations, err := joinIDs(o.Authorizations)
	if err != nil {
		return err
	}
	return tx.insert("INSERT INTO orders ("+orderColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT DO NOTHING",
		string(o.ID), string(o.Account), o.Directory, string(o.Status), encodeIdentifiers(o.Identifiers), authorizations, o.Profile,
		micros(o.NotBefore), micros(o.NotAfter), o.Replaces, problem, o.Certificate, micros(o.CreatedAt), micros(o.ExpiresAt))
}

// PlanOrder makes a pending order processing, with the certificate planned
// for it and the profile it was planned by. False: it wasn't pending any more.
func (tx *Tx) PlanOrder(id protocol.OrderID, serial cert.Serial, profile string) (bool, error) {
	return tx.changed("UPDATE orders SET status = 'processing', certificate = $2, profile = $3 WHERE id = $1 AND status = 'pending'",
		string(id), string(serial), profile)
}

// CompleteOrder makes a processing order valid. False: it wasn't processing.
func (tx *Tx) CompleteOrder(id protocol.OrderID) (bool, error) {
	return tx.changed("UPDATE orders SET status = 'valid' WHERE id = $1 AND status = 'processing'", string(id))
}

// FailOrder makes a pending or processing order invalid, p saying why, and
// takes the planned certificate's serial from it. False: it was neither.
func (tx *Tx) FailOrder(id protocol.OrderID, p *protocol.Problem) (bool, error) {
	problem, err := encodeProblem(p)
	if err != nil {
		return false, err
	}
	return tx.changed("UPDATE orders SET status = 'invalid', problem = $2, certificate = '' WHERE id = $1 AND status IN ('pending', 'processing')",
		string(id), problem)
}

// Standing is what StillStands found out about an order.
type Standing struct {
	Order          protocol.OrderStatus   // as stored
	Account        protocol.AccountStatus // "" when it is gone
	EABKey         protocol.EABKeyID      // "" if the account has none
	EABKeyUsable   bool                   // neither revoked nor expired; true if there is none
	Authorizations int                    // how many the order names
	Private        int                    // of these: proven by a pod or device, which must be asked again
	Lost           int                    // of these: missing, no longer valid, expired and not private, or by a device that has ended
}

// OK reports whether a certificate may still be signed for the order.
func (s Standing) OK() bool {
	return s.Order == protocol.OrderProcessing && s.Account == protocol.AccountValid && s.EABKeyUsable &&
		s.Authorizations > 0 && s.Lost == 0
}

// stillStands takes the order's authorization ids apart by recursion, since
// neither engine can split text in a way that the other knows.
const stillStands = `WITH RECURSIVE part(rest) AS (
	SELECT authorizations FROM orders WHERE id = $1
	UNION ALL SELECT substr(rest, 27) FROM part WHERE length(rest) > 26)
SELECT o.status, length(o.authorizations), a.status, a.eab_key, k.revoked_at, k.expires_at,
	(SELECT count(*) FROM part JOIN authorizations z ON z.id = substr(part.rest, 1, 26) WHERE z.status = 'valid' AND (z.expires_at > $2 OR z.subject <> '')
		AND (substr(z.subject, 1, 7) <> 'device:' OR EXISTS (SELECT 1 FROM devices d WHERE d.id = substr(z.subject, 8) AND d.state = 'active'))),
	(SELECT count(*) FROM part JOIN authorizations z ON z.id = substr(part.rest, 1, 26) WHERE z.subject <> '')
FROM orders o LEFT JOIN accounts a ON a.id = o.account LEFT JOIN eab_keys k ON k.id = a.eab_key
WHERE o.id = $1`

// StillStands looks, in one statement and so in one state of the database,
// at all that an order rests on; ErrNotFound if there is no such order. A
// private proof has a few minutes to be finalized in, and is looked at again
// before the key is used, so that its end no longer matters here.
func (q *queries) StillStands(ctx context.Context, order protocol.OrderID, now time.Time) (Standing, error) {
	return one(ctx, q, func(rows engine.Row, s *Standing) error {
		var account, eabKey sql.Null[string]
		var revokedAt, expiresAt sql.Null[int64]
		var length, good int
		if err := rows.Scan((*string)(&s.Order), &length, &account, &eabKey, &revokedAt, &expiresAt, &good, &s.Private); err != nil {
			return err
		}
		s.Account, s.EABKey = protocol.AccountStatus(account.V), protocol.EABKeyID(eabKey.V)
		s.Authorizations = length / idLength
		s.Lost = s.Authorizations - good
		key := protocol.EABKey{RevokedAt: fromMicros(revokedAt.V), ExpiresAt: fromMicros(expiresAt.V)}
		s.EABKeyUsable = s.EABKey == "" || revokedAt.Valid && key.Usable(now)
		return nil
	}, stillStands, string(order), micros(now))
}
