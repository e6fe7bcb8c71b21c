package store

import (
	"context"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store/engine"
)

const authorizationColumns = `id, account, directory, identifier, wildcard, status, expires_at, token, offered, created_at,
	attempt_type, processing, tries, next_at, problem, validated_at, response, bound_to, subject`

func scanAuthorization(rows engine.Row, a *protocol.Authorization) (err error) {
	var identifier, offered, problem string
	var expiresAt, createdAt, nextAt, validatedAt int64
	t := &a.Attempt
	if err := rows.Scan((*string)(&a.ID), (*string)(&a.Account), &a.Directory, &identifier, &a.Wildcard, (*string)(&a.Status),
		&expiresAt, &a.Token, &offered, &createdAt,
		(*string)(&t.Type), &t.Processing, &t.Tries, &nextAt, &problem, &validatedAt, &t.Response, &a.BoundTo, &a.Subject); err != nil {
		return err
	}
	a.ExpiresAt, a.CreatedAt = fromMicros(expiresAt), fromMicros(createdAt)
	t.NextAt, t.ValidatedAt = fromMicros(nextAt), fromMicros(validatedAt)
	if len(t.Response) == 0 {
		t.Response = nil
	}
	for typ := range strings.FieldsSeq(offered) {
		a.Offered = append(a.Offered, protocol.ChallengeType(typ))
	}
	if t.Error, err = decodeProblem(problem); err != nil {
		return err
	}
	a.Identifier, err = decodeIdentifier(identifier)
	return err
}

func encodeOffered(types []protocol.ChallengeType) string {
	var b strings.Builder
	for i, t := range types {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(string(t))
	}
	return b.String()
}

// Authorization returns the authorization, ErrNotFound if there is none.
func (q *queries) Authorization(ctx context.Context, id protocol.AuthorizationID) (protocol.Authorization, error) {
	return one(ctx, q, scanAuthorization, "SELECT "+authorizationColumns+" FROM authorizations WHERE id = $1", string(id))
}

// Authorizations returns those of the authorizations that exist, in the order
// of the ids.
func (q *queries) Authorizations(ctx context.Context, ids []protocol.AuthorizationID) ([]protocol.Authorization, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	if len(ids) == 1 {
		return all(ctx, q, scanAuthorization, "SELECT "+authorizationColumns+" FROM authorizations WHERE id = $1", string(ids[0]))
	}
	list, count := placeholders(1, len(ids))
	args := make([]any, count)
	place := make(map[protocol.AuthorizationID]int, len(ids))
	for i := range args {
		id := ids[min(i, len(ids)-1)] // the last one fills what is left
		args[i] = string(id)
		place[id] = min(i, len(ids)-1)
	}
	found, err := all(ctx, q, scanAuthorization, "SELECT "+authorizationColumns+" FROM authorizations WHERE id IN ("+list+")", args...)
	if err != nil {
		return nil, err
	}
	sorted := make([]protocol.Authorization, 0, len(found))
	at := make([]int, len(ids)) // index into found, plus one
	for i, a := range found {
		at[place[a.ID]] = i + 1
	}
	for _, i := range at {
		if i > 0 {
			sorted = append(sorted, found[i-1])
		}
	}
	return sorted, nil
}

// ReusableAuthorizations returns the account's valid, unexpired
// authorizations for the identifiers, which are written as in an order: one
// with "*." asks for a wildcard authorization. For each identifier in turn it
// returns at most eight, those that last longest first, since a caller may not
// like every one's challenge type.
func (q *queries) ReusableAuthorizations(ctx context.Context, account protocol.AccountID, ids []protocol.Identifier, now time.Time) ([]protocol.Authorization, error) {
	var list []protocol.Authorization
	for _, id := range ids {
		// The LIMIT is written out: SQLite compiles a statement anew for
		// every value that is bound there.
		found, err := all(ctx, q, scanAuthorization, "SELECT "+authorizationColumns+` FROM authorizations
			WHERE account = $1 AND identifier = $2 AND wildcard = $3 AND status = 'valid' AND expires_at > $4
			ORDER BY expires_at DESC LIMIT 8`,
			string(account), id.Base().String(), id.IsWildcard(), micros(now))
		if err != nil {
			return nil, err
		}
		if list == nil {
			list = found
		} else {
			list = append(list, found...)
		}
	}
	return list, nil
}

// InsertAuthorization adds an authorization; ErrConflict when there is one
// with this id.
func (tx *Tx) InsertAuthorization(a protocol.Authorization) error {
	problem, err := encodeProblem(a.Attempt.Error)
	if err != nil {
		return err
	}
	t := &a.Attempt
	return tx.insert("INSERT INTO authorizations ("+authorizationColumns+`, claimed_until)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, 0) ON CONFLICT DO NOTHING`,
		string(a.ID), string(a.Account), a.Directory, a.Identifier.String(), a.Wildcard, string(a.Status), micros(a.ExpiresAt),
		a.Token, encodeOffered(a.Offered), micros(a.CreatedAt),
		string(t.Type), t.Processing, int64(t.Tries), micros(t.NextAt), problem, micros(t.ValidatedAt), notNil(t.Response), a.BoundTo, a.Subject)
}

// RecordAttempt stores how the validation of a pending authorization stands:
// that it began, or that it is to be tried again. The caller does the work
// itself until claimedUntil (zero: whoever claims it). False: the
// authorization isn't pending, or another challenge was chosen before.
func (tx *Tx) RecordAttempt(id protocol.AuthorizationID, a protocol.Attempt, claimedUntil time.Time) (bool, error) {
	problem, err := encodeProblem(a.Error)
	if err != nil {
		return false, err
	}
	return tx.changed(`UPDATE authorizations SET attempt_type = $2, processing = $3, tries = $4, next_at = $5, problem = $6,
		validated_at = $7, response = $8, claimed_until = $9
		WHERE id = $1 AND status = 'pending' AND (attempt_type = '' OR attempt_type = $2)`,
		string(id), string(a.Type), a.Processing, int64(a.Tries), micros(a.NextAt), problem, micros(a.ValidatedAt), notNil(a.Response),
		micros(claimedUntil))
}

// FinishValidation makes a pending authorization what z says of its status,
// attempt, subject and end: valid, or invalid. False: it wasn't pending any
// more.
func (tx *Tx) FinishValidation(z protocol.Authorization) (bool, error) {
	t := &z.Attempt
	problem, err := encodeProblem(t.Error)
	if err != nil {
		return false, err
	}
	return tx.changed(`UPDATE authorizations SET status = $2, attempt_type = $3, processing = FALSE, tries = $4, next_at = 0, problem = $5,
		validated_at = $6, response = $7, claimed_until = 0, expires_at = $8, bound_to = $9, subject = $10
		WHERE id = $1 AND status = 'pending'`,
		string(z.ID), string(z.Status), string(t.Type), int64(t.Tries), problem, micros(t.ValidatedAt), notNil(t.Response), micros(z.ExpiresAt), z.BoundTo, z.Subject)
}

// EndAuthorization moves an authorization from one status to another, such
// as deactivated, stops its validation and forgets the client's payload.
// False: it wasn't in the first.
func (tx *Tx) EndAuthorization(id protocol.AuthorizationID, from, to protocol.AuthorizationStatus) (bool, error) {
	return tx.changed("UPDATE authorizations SET status = $3, processing = FALSE, claimed_until = 0, response = $4 WHERE id = $1 AND status = $2",
		string(id), string(from), string(to), []byte{})
}

// ProvenBy reports whether the account holds, or held a while ago, a valid
// authorization that rests on the subject.
func (q *queries) ProvenBy(ctx context.Context, account protocol.AccountID, subject string) (bool, error) {
	return q.exists(ctx, "SELECT 1 FROM authorizations WHERE account = $1 AND status = 'valid' AND subject = $2 LIMIT 1", string(account), subject)
}

// ClaimValidations takes validations that are due and that nobody works on,
// for as long as the lease; whoever else asks meanwhile gets others.
func (tx *Tx) ClaimValidations(now time.Time, lease time.Duration, limit int) ([]protocol.Authorization, error) {
	// The outer conditions repeat the inner ones: PostgreSQL looks at them
	// again when it has waited for another's claim of the same row.
	return all(context.Background(), &tx.queries, scanAuthorization, `UPDATE authorizations SET claimed_until = $1
		WHERE id IN (SELECT id FROM authorizations WHERE processing AND next_at <= $2 AND claimed_until < $2 AND status = 'pending' ORDER BY next_at LIMIT $3)
		AND processing AND claimed_until < $2 AND status = 'pending' RETURNING `+authorizationColumns,
		micros(now.Add(lease)), micros(now), int64(bound(limit)))
}
