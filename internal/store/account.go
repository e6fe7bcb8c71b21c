package store

import (
	"context"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store/engine"
)

const accountColumns = "id, directory, status, thumbprint, jwk, contact, terms_at, eab_key, created_at, keep_until"

func scanAccount(rows engine.Row, a *protocol.Account) (err error) {
	var contact string
	var termsAt, createdAt, keepUntil int64
	if err := rows.Scan((*string)(&a.ID), &a.Directory, (*string)(&a.Status), &a.Thumbprint, &a.Key,
		&contact, &termsAt, (*string)(&a.EABKey), &createdAt, &keepUntil); err != nil {
		return err
	}
	a.TermsAt, a.CreatedAt, a.KeepUntil = fromMicros(termsAt), fromMicros(createdAt), fromMicros(keepUntil)
	a.Contact, err = decodeStrings(contact)
	return err
}

// Account returns the account, ErrNotFound if there is none.
func (q *queries) Account(ctx context.Context, id protocol.AccountID) (protocol.Account, error) {
	return one(ctx, q, scanAccount, "SELECT "+accountColumns+" FROM accounts WHERE id = $1", string(id))
}

// AccountByKey returns the directory's account with this key, whatever its
// status, ErrNotFound if there is none.
func (q *queries) AccountByKey(ctx context.Context, directory, thumbprint string) (protocol.Account, error) {
	return one(ctx, q, scanAccount,
		"SELECT "+accountColumns+" FROM accounts WHERE directory = $1 AND thumbprint = $2", directory, thumbprint)
}

// KeyRetired reports whether the key was ever that of an account of this
// directory which was deactivated or revoked. It stays so after the account
// itself was swept away.
func (q *queries) KeyRetired(ctx context.Context, directory, thumbprint string) (bool, error) {
	return q.exists(ctx, "SELECT 1 FROM retired_keys WHERE directory = $1 AND thumbprint = $2", directory, thumbprint)
}

// AccountFilter narrows Accounts; a zero field matches everything.
type AccountFilter struct {
	Directory string
	EABKey    protocol.EABKeyID
	Status    protocol.AccountStatus
	After     protocol.AccountID // the last one of the page before
	Limit     int                // 0: 100; at most 1000
}

// Accounts returns a page of accounts in the order of their ids.
func (q *queries) Accounts(ctx context.Context, f AccountFilter) ([]protocol.Account, error) {
	var where filter
	where.and("id > $", string(f.After))
	if f.Directory != "" {
		where.and("directory = $", f.Directory)
	}
	if f.EABKey != "" {
		where.glue("eab_key <> ''") // lets the partial index serve
		where.and("eab_key = $", string(f.EABKey))
	}
	if f.Status != "" {
		where.and("status = $", string(f.Status))
	}
	return page(ctx, q, scanAccount, "SELECT "+accountColumns+" FROM accounts", &where, "id", f.Limit)
}

// InsertAccount adds an account; ErrConflict when its directory has one with
// the same key already.
func (tx *Tx) InsertAccount(a protocol.Account) error {
	return tx.insert("INSERT INTO accounts ("+accountColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
		string(a.ID), a.Directory, string(a.Status), a.Thumbprint, notNil(a.Key), encodeStrings(a.Contact),
		micros(a.TermsAt), string(a.EABKey), micros(a.CreatedAt), micros(a.KeepUntil))
}

// UpdateAccount sets what a client may change; ErrNotFound if there is no
// such account.
func (tx *Tx) UpdateAccount(id protocol.AccountID, contact []string, termsAt time.Time) error {
	found, err := tx.changed("UPDATE accounts SET contact = $2, terms_at = $3 WHERE id = $1",
		string(id), encodeStrings(contact), micros(termsAt))
	if err == nil && !found {
		return ErrNotFound
	}
	return err
}

// EndAccount makes a valid account deactivated or revoked and retires its
// key. False: it wasn't valid any more.
func (tx *Tx) EndAccount(id protocol.AccountID, status protocol.AccountStatus) (bool, error) {
	ended, err := tx.changed("UPDATE accounts SET status = $2 WHERE id = $1 AND status = 'valid'", string(id), string(status))
	if err != nil || !ended {
		return false, err
	}
	_, err = tx.exec("INSERT INTO retired_keys (directory, thumbprint, retired_at) SELECT directory, thumbprint, $2 FROM accounts WHERE id = $1 ON CONFLICT DO NOTHING",
		string(id), micros(tx.now))
	return err == nil, err
}

// ReplaceKey gives a valid account another key (RFC 8555 section 7.3.5).
// False: its key isn't the old one any more, or it isn't valid. ErrConflict:
// the new key is another account's.
func (tx *Tx) ReplaceKey(id protocol.AccountID, oldThumbprint, newThumbprint string, newJWK []byte) (bool, error) {
	// The other account is looked for first: running into the unique index
	// would end a transaction on PostgreSQL, which is left to real races.
	taken, err := tx.exists(context.Background(),
		"SELECT 1 FROM accounts a JOIN accounts b ON b.directory = a.directory AND b.thumbprint = $2 WHERE a.id = $1 AND b.id <> $1", string(id), newThumbprint)
	if err != nil {
		return false, err
	}
	if taken {
		return false, ErrConflict
	}
	return tx.changed("UPDATE accounts SET thumbprint = $3, jwk = $4 WHERE id = $1 AND thumbprint = $2 AND status = 'valid'",
		string(id), oldThumbprint, newThumbprint, notNil(newJWK))
}

// KeepAccount makes the sweep leave the account alone until then, rounded up
// to the next hour, so that an account which orders all day writes its row
// once an hour. An account kept longer already is left as it is.
func (tx *Tx) KeepAccount(id protocol.AccountID, until time.Time) error {
	_, err := tx.exec("UPDATE accounts SET keep_until = $2 WHERE id = $1 AND keep_until < $3",
		string(id), micros(until.Add(time.Hour-1).Truncate(time.Hour)), micros(until))
	return err
}

// notNil turns nil bytes, which a driver takes for NULL, into empty ones.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
