package store

import (
	"context"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store/engine"
)

const eabColumns = "id, directory, label, mac_key, profiles, names, pre_approved, max_accounts, accounts, created_at, expires_at, revoked_at"

func scanEABKey(rows engine.Row, k *protocol.EABKey) (err error) {
	var profiles, names string
	var createdAt, expiresAt, revokedAt int64
	if err := rows.Scan((*string)(&k.ID), &k.Directory, &k.Label, &k.MACKey, &profiles, &names,
		&k.PreApproved, &k.MaxAccounts, &k.Accounts, &createdAt, &expiresAt, &revokedAt); err != nil {
		return err
	}
	k.CreatedAt, k.ExpiresAt, k.RevokedAt = fromMicros(createdAt), fromMicros(expiresAt), fromMicros(revokedAt)
	if k.Profiles, err = decodeStrings(profiles); err != nil {
		return err
	}
	k.Names, err = decodeStrings(names)
	return err
}

// EABKey returns the key, ErrNotFound if there is none.
func (q *queries) EABKey(ctx context.Context, id protocol.EABKeyID) (protocol.EABKey, error) {
	return one(ctx, q, scanEABKey, "SELECT "+eabColumns+" FROM eab_keys WHERE id = $1", string(id))
}

// EABKeys returns a page of a directory's keys ("": of all) in the order of
// their ids, after the given one.
func (q *queries) EABKeys(ctx context.Context, directory string, after protocol.EABKeyID, limit int) ([]protocol.EABKey, error) {
	var where filter
	where.and("id > $", string(after))
	if directory != "" {
		where.and("directory = $", directory)
	}
	return page(ctx, q, scanEABKey, "SELECT "+eabColumns+" FROM eab_keys", &where, "id", limit)
}

// InsertEABKey adds a key; ErrConflict when there is one with this id.
func (tx *Tx) InsertEABKey(k protocol.EABKey) error {
	return tx.insert("INSERT INTO eab_keys ("+eabColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING",
		string(k.ID), k.Directory, k.Label, notNil(k.MACKey), encodeStrings(k.Profiles), encodeStrings(k.Names), k.PreApproved,
		int64(k.MaxAccounts), int64(k.Accounts), micros(k.CreatedAt), micros(k.ExpiresAt), micros(k.RevokedAt))
}

// RevokeEABKey revokes the key. False: it was revoked already, or isn't there.
func (tx *Tx) RevokeEABKey(id protocol.EABKeyID) (bool, error) {
	return tx.changed("UPDATE eab_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at = 0", string(id), micros(tx.now))
}

// TakeEABAccount counts one more account for the key. False: the key is
// revoked, expired, used up, or isn't there.
func (tx *Tx) TakeEABAccount(id protocol.EABKeyID) (bool, error) {
	return tx.changed(`UPDATE eab_keys SET accounts = accounts + 1 WHERE id = $1 AND revoked_at = 0
		AND (expires_at = 0 OR expires_at > $2) AND (max_accounts = 0 OR accounts < max_accounts)`, string(id), micros(tx.now))
}
