package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/store/engine"
)

// OCSPResponse is an answer about a certificate (RFC 6960), and whether one is
// wanted. One without an answer has no DER and no times.
type OCSPResponse struct {
	Serial      cert.Serial
	Hash        string // of the CertID that it answers: "sha1", "sha256"
	IssuerKeyID string
	DER         []byte
	ThisUpdate  time.Time
	NextUpdate  time.Time
	Revoked     bool      // what it says, or is going to say
	WantedAt    time.Time // zero: not wanted
}

// OCSPSubject is what an answer has to say about an issued certificate.
type OCSPSubject struct {
	IssuerKeyID string
	NotAfter    time.Time
	Revoked     cert.Revoked
}

// OCSP returns, in one trip, what is known of an issued certificate and the
// stored answer for that hash, a zero one if there is none and none is wanted.
// ErrNotFound: no such certificate was issued.
func (q *queries) OCSP(ctx context.Context, serial cert.Serial, hash string) (OCSPSubject, OCSPResponse, error) {
	type answer struct {
		subject  OCSPSubject
		response OCSPResponse
	}
	scan := func(rows engine.Row, a *answer) error {
		var notAfter, revokedAt, reason, thisUpdate, nextUpdate, wantedAt int64
		var found bool
		if err := rows.Scan((*hexed)(&a.subject.IssuerKeyID), &notAfter, &revokedAt, &reason,
			&found, &a.response.DER, &thisUpdate, &nextUpdate, &a.response.Revoked, &wantedAt); err != nil {
			return err
		}
		a.subject.NotAfter = fromMicros(notAfter)
		a.subject.Revoked = cert.Revoked{At: fromMicros(revokedAt), Reason: cert.Reason(reason)}
		if !found {
			a.response = OCSPResponse{}
			return nil
		}
		r := &a.response
		r.Serial, r.Hash, r.IssuerKeyID = serial, hash, a.subject.IssuerKeyID
		r.ThisUpdate, r.NextUpdate, r.WantedAt = fromMicros(thisUpdate), fromMicros(nextUpdate), fromMicros(wantedAt)
		if len(r.DER) == 0 {
			r.DER = nil
		}
		return nil
	}
	a, err := one(ctx, q, scan, `SELECT c.issuer_key_id, c.not_after, c.revoked_at, c.revoked_reason,
			o.serial IS NOT NULL, o.der, coalesce(o.this_update, 0), coalesce(o.next_update, 0), coalesce(o.revoked, FALSE), coalesce(o.wanted_at, 0)
		FROM certificates c LEFT JOIN ocsp_responses o ON o.serial = c.serial AND o.hash = $2
		WHERE c.serial = $1 AND c.state = 'issued'`, hexed(serial), hash)
	return a.subject, a.response, err
}

// WantOCSP asks the holder of the key for an answer. False: it is wanted
// already, or no such certificate was issued.
func (tx *Tx) WantOCSP(serial cert.Serial, hash, issuerKeyID string, at time.Time) (bool, error) {
	return tx.changed(`INSERT INTO ocsp_responses (serial, hash, issuer_key_id, der, this_update, next_update, revoked, wanted_at, claimed_until, ends)
		SELECT c.serial, $2, $3, $4, 0, 0, c.revoked_at > 0, $5, 0, c.not_after FROM certificates c WHERE c.serial = $1 AND c.state = 'issued'
		ON CONFLICT (serial, hash) DO UPDATE SET wanted_at = excluded.wanted_at, ends = excluded.ends WHERE ocsp_responses.wanted_at = 0`,
		hexed(serial), hash, hexed(issuerKeyID), []byte{}, micros(at))
}

// OCSPWanted reports whether ClaimOCSP would find anything.
func (q *queries) OCSPWanted(ctx context.Context, keyIDs []string, now time.Time) (bool, error) {
	for _, key := range keyIDs {
		found, err := q.exists(ctx, "SELECT 1 FROM ocsp_responses WHERE issuer_key_id = $1 AND wanted_at > 0 AND claimed_until < $2 AND ends > $2 LIMIT 1",
			hexed(key), micros(now))
		if found || err != nil {
			return found, err
		}
	}
	return false, nil
}

const ocspColumns = "serial, hash, issuer_key_id, der, this_update, next_update, revoked, wanted_at"

func scanOCSP(rows engine.Row, r *OCSPResponse) error {
	var thisUpdate, nextUpdate, wantedAt int64
	if err := rows.Scan((*hexed)(&r.Serial), &r.Hash, (*hexed)(&r.IssuerKeyID), &r.DER, &thisUpdate, &nextUpdate, &r.Revoked, &wantedAt); err != nil {
		return err
	}
	r.ThisUpdate, r.NextUpdate, r.WantedAt = fromMicros(thisUpdate), fromMicros(nextUpdate), fromMicros(wantedAt)
	if len(r.DER) == 0 {
		r.DER = nil
	}
	return nil
}

// ClaimOCSP takes wanted answers that nobody works on, for as long as the
// lease: at most limit of each of the keys, those of revoked certificates
// first, then in the order in which they were wanted.
func (tx *Tx) ClaimOCSP(keyIDs []string, now time.Time, lease time.Duration, limit int) ([]OCSPResponse, error) {
	var list []OCSPResponse
	for _, key := range keyIDs {
		// The outer conditions repeat the inner ones, as in ClaimValidations.
		claimed, err := all(context.Background(), &tx.queries, scanOCSP, `UPDATE ocsp_responses SET claimed_until = $1
			WHERE (serial, hash) IN (SELECT serial, hash FROM ocsp_responses WHERE issuer_key_id = $2 AND wanted_at > 0 AND claimed_until < $3 AND ends > $3
				ORDER BY revoked DESC, wanted_at LIMIT $4)
			AND wanted_at > 0 AND claimed_until < $3 RETURNING `+ocspColumns,
			micros(now.Add(lease)), hexed(key), micros(now), int64(bound(limit)))
		if err != nil {
			return nil, err
		}
		slices.SortFunc(claimed, func(a, b OCSPResponse) int {
			if a.Revoked != b.Revoked {
				if a.Revoked {
					return -1
				}
				return 1
			}
			return a.WantedAt.Compare(b.WantedAt)
		})
		list = append(list, claimed...)
	}
	return list, nil
}

// ReturnOCSP gives back a claim that ends then: the answer may be claimed at
// once. False: it is no longer wanted, or claimed anew.
func (tx *Tx) ReturnOCSP(r OCSPResponse, until time.Time) (bool, error) {
	return tx.changed("UPDATE ocsp_responses SET claimed_until = 0 WHERE serial = $1 AND hash = $2 AND wanted_at > 0 AND claimed_until = $3",
		hexed(r.Serial), r.Hash, micros(until))
}

// PutOCSP stores an answer and ends the want. False, and nothing is stored:
// the certificate's revocation isn't what the answer says, or there is a newer
// answer.
func (tx *Tx) PutOCSP(r OCSPResponse) (bool, error) {
	// The certificate's row stays as it is until the commit, so that a
	// revocation comes either before this look, or after the answer is there
	// for it to delete.
	revoked, err := one(context.Background(), &tx.queries, scanInt,
		"SELECT revoked_at FROM certificates WHERE serial = $1 AND state = 'issued'"+tx.locking(), hexed(r.Serial))
	if errors.Is(err, ErrNotFound) || err == nil && (revoked > 0) != r.Revoked {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return tx.changed(`INSERT INTO ocsp_responses (serial, hash, issuer_key_id, der, this_update, next_update, revoked, wanted_at, claimed_until, ends)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, $6)
		ON CONFLICT (serial, hash) DO UPDATE SET der = excluded.der, this_update = excluded.this_update, next_update = excluded.next_update,
			revoked = excluded.revoked, wanted_at = 0, claimed_until = 0, ends = excluded.ends
		WHERE ocsp_responses.this_update <= excluded.this_update`,
		hexed(r.Serial), r.Hash, hexed(r.IssuerKeyID), notNil(r.DER), micros(r.ThisUpdate), micros(r.NextUpdate), r.Revoked)
}

// locking ends a SELECT whose rows nobody may change before the commit. On
// SQLite one transaction writes at a time.
func (tx *Tx) locking() string {
	if tx.chain == nil {
		return " FOR SHARE"
	}
	return ""
}

// withdrawOCSP deletes what was good, and wants the contrary first of all.
func (tx *Tx) withdrawOCSP(serial cert.Serial) error {
	_, err := tx.exec(`UPDATE ocsp_responses SET der = $2, this_update = 0, next_update = 0, revoked = TRUE,
			wanted_at = CASE WHEN wanted_at > 0 THEN wanted_at ELSE $3 END, ends = (SELECT c.not_after FROM certificates c WHERE c.serial = $1)
		WHERE serial = $1 AND NOT revoked`, hexed(serial), []byte{}, micros(tx.now))
	return err
}

// SweepOCSP deletes answers that have ended and that nobody wants anew, and
// wants whose certificate has ended.
func (tx *Tx) SweepOCSP(now time.Time, limit int) (int, error) {
	return tx.sweep("DELETE FROM ocsp_responses WHERE (serial, hash) IN (SELECT serial, hash FROM ocsp_responses WHERE ends < $1 ORDER BY ends LIMIT $2)", now, limit)
}
