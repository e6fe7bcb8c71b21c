package store

import (
	"context"
	"time"
)

// The sweeps each delete at most limit rows and return how many; a caller
// goes on, with a pause for other writers, until one returns less. Freed pages
// are used again, so that the database stays as large as what is alive.

// SweepAccounts deletes accounts that needn't be kept any more and that no
// EAB key vouches for. Their orders and authorizations end by themselves.
func (tx *Tx) SweepAccounts(now time.Time, limit int) (int, error) {
	return tx.sweep("DELETE FROM accounts WHERE id IN (SELECT id FROM accounts WHERE keep_until < $1 AND eab_key = '' ORDER BY keep_until LIMIT $2)", now, limit)
}

// SweepOrders deletes orders that expired before the time; one whose
// certificate is still being made is left alone.
func (tx *Tx) SweepOrders(before time.Time, limit int) (int, error) {
	return tx.sweep("DELETE FROM orders WHERE id IN (SELECT id FROM orders WHERE expires_at < $1 AND status <> 'processing' ORDER BY expires_at LIMIT $2)", before, limit)
}

// SweepAuthorizations deletes authorizations that expired before the time.
func (tx *Tx) SweepAuthorizations(before time.Time, limit int) (int, error) {
	return tx.sweep("DELETE FROM authorizations WHERE id IN (SELECT id FROM authorizations WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)", before, limit)
}

// SweepLimits deletes rate limits that have nothing left to remember.
func (tx *Tx) SweepLimits(now time.Time, limit int) (int, error) {
	return tx.sweep("DELETE FROM limits WHERE key IN (SELECT key FROM limits WHERE tat < $1 ORDER BY tat LIMIT $2)", now, limit)
}

func (tx *Tx) sweep(text string, before time.Time, limit int) (int, error) {
	n, err := tx.exec(text, micros(before), int64(limit))
	return int(n), err
}

// SweepCertificates deletes certificates that ended before the time, but for SSH
// certificates revoked as compromised: the KRL names their keys for good, which
// may stand in some host's authorized_keys.
func (tx *Tx) SweepCertificates(before time.Time, limit int) (int, error) {
	gone, err := all(context.Background(), &tx.queries, scanNamed,
		`DELETE FROM certificates WHERE serial IN (SELECT serial FROM certificates WHERE not_after < $1
			AND NOT (format = 'ssh' AND revoked_at > 0 AND revoked_reason = 1) ORDER BY not_after LIMIT $2)
		RETURNING serial, names, not_after`, micros(before), int64(limit))
	if err != nil {
		return 0, err
	}
	for _, c := range gone {
		if err := tx.deleteNames(c); err != nil {
			return 0, err
		}
	}
	return len(gone), nil
}

// SweepAudit deletes entries from before the time, oldest first and only
// those before which none is left, and keeps the hash of the last one deleted
// as the anchor by which the rest is verified.
func (tx *Tx) SweepAudit(before time.Time, limit int) (int, error) {
	oldest, err := all(context.Background(), &tx.queries, scanChain,
		"SELECT sequence, hash, at FROM audit ORDER BY sequence LIMIT $1", int64(limit))
	if err != nil {
		return 0, err
	}
	n := 0
	for n < len(oldest) && oldest[n].newest < micros(before) {
		n++
	}
	if n == 0 {
		return 0, nil
	}
	anchor := oldest[n-1]
	if _, err := tx.exec("DELETE FROM audit WHERE sequence <= $1", anchor.sequence); err != nil {
		return 0, err
	}
	return n, tx.putAnchor(anchor)
}
