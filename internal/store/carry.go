package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store/engine"
)

// Withdrawals counts what [DB.CarryWithdrawals] brought over.
type Withdrawals struct {
	Certificates   int // revoked
	BlockedKeys    int // of certificates, compromised
	Accounts       int // deactivated or revoked
	AccountKeys    int // replaced by another
	RetiredKeys    int // of accounts that ended
	EABKeys        int // revoked
	Authorizations int // deactivated or revoked
}

// Total is the sum of all.
func (w Withdrawals) Total() int {
	return w.Certificates + w.BlockedKeys + w.Accounts + w.AccountKeys + w.RetiredKeys + w.EABKeys + w.Authorizations
}

// CarryWithdrawals brings over from the old database what was withdrawn after
// this one's backup was made, and would otherwise be good again, all or
// nothing. A revoked certificate that is not known here at all is added,
// without its order, since a CRL has to name it. Numbers, such as those of
// CRLs, go on from the larger one. Each thing is recorded as done by the
// actor. It is for a restore, before the server runs; it blocks for as long as
// reading the old database takes.
func (db *DB) CarryWithdrawals(ctx context.Context, actor string, old *DB) (Withdrawals, error) {
	var done Withdrawals
	err := old.engine.Snapshot(ctx, func(on engine.Runner) error {
		return db.Update(ctx, func(tx *Tx) error {
			c := &carrier{ctx: ctx, tx: tx, old: on, actor: actor, reissue: make(map[string]bool)}
			for _, step := range []func() error{c.numbers, c.certificates, c.blockedKeys, c.accounts, c.retiredKeys, c.eabKeys, c.authorizations} {
				if err := step(); err != nil {
					return err
				}
			}
			done = c.done
			return nil
		})
	})
	if err != nil {
		return Withdrawals{}, fmt.Errorf("store: carrying withdrawals over: %w", err)
	}
	return done, nil
}

// carrier carries from the old database into a transaction of the new one.
type carrier struct {
	ctx     context.Context
	tx      *Tx
	old     engine.Runner
	actor   string
	reissue map[string]bool // names of the numbers by which CRLs are seen to be out of date
	done    Withdrawals
}

// each calls do for the rows of the old database, one by one.
func each[T any](c *carrier, scan func(engine.Row, *T) error, text string, do func(T) error) error {
	return c.old.Search(c.ctx, text, nil, func(row engine.Row) error {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		var v T
		if err := scan(row, &v); err != nil {
			return err
		}
		return do(v)
	})
}

// carried counts and records one thing, if it changed anything here.
func (c *carrier) carried(changed bool, err error, count *int, object, directory string, detail map[string]any) error {
	if err != nil || !changed {
		return err
	}
	*count++
	return c.tx.Audit(audit.Entry{Action: "restore.carry", Actor: c.actor, Directory: directory, Object: object, Detail: detail})
}

func (c *carrier) numbers() error {
	type number struct {
		name  string
		value int64
	}
	scan := func(row engine.Row, n *number) error { return row.Scan(&n.name, &n.value) }
	return each(c, scan, "SELECT name, value FROM numbers", func(n number) error {
		return c.tx.RaiseNumber(n.name, n.value)
	})
}

func (c *carrier) certificates() error {
	err := each(c, scanCertificate, "SELECT "+certificateColumns+" FROM certificates WHERE revoked_at > 0", func(old cert.Certificate) error {
		changed, err := c.revoke(old)
		if changed {
			c.reissue[RevisionName(old.IssuerKeyID, 0)] = true
			c.reissue[RevisionName(old.IssuerKeyID, old.CRLShard)] = true
		}
		return c.carried(changed, err, &c.done.Certificates, string(old.Serial), old.Directory, map[string]any{
			"revoked": old.Revoked.At.Unix(), "reason": int(old.Revoked.Reason),
		})
	})
	for revision := range c.reissue {
		if err == nil {
			_, err = c.tx.NextNumber(revision, 1)
		}
	}
	return err
}

func (c *carrier) revoke(old cert.Certificate) (bool, error) {
	changed, err := c.tx.RevokeCertificate(old.Serial, old.Revoked)
	if err != nil || changed || old.State != cert.Issued {
		return changed, err
	}
	_, err = c.tx.Certificate(c.ctx, old.Serial)
	if !errors.Is(err, ErrNotFound) {
		return false, err // it was revoked here too
	}
	old.Order = "" // which isn't here either
	return true, c.tx.InsertCertificate(old, time.Time{})
}

func (c *carrier) blockedKeys() error {
	type key struct {
		hash hexed
		why  string
		at   int64
	}
	scan := func(row engine.Row, k *key) error { return row.Scan(&k.hash, &k.why, &k.at) }
	return each(c, scan, "SELECT key_hash, why, blocked_at FROM blocked_keys", func(k key) error {
		changed, err := c.tx.changed("INSERT INTO blocked_keys (key_hash, why, blocked_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", k.hash, k.why, k.at)
		return c.carried(changed, err, &c.done.BlockedKeys, string(k.hash), "", map[string]any{"blocked": k.why})
	})
}

// accounts ends those that have ended, and gives those that have another key
// that one: the one before may have been lost.
func (c *carrier) accounts() error {
	return each(c, scanAccount, "SELECT "+accountColumns+" FROM accounts", func(old protocol.Account) error {
		here, err := c.tx.Account(c.ctx, old.ID)
		if errors.Is(err, ErrNotFound) || err == nil && here.Status != protocol.AccountValid {
			return nil
		}
		if err != nil {
			return err
		}
		if old.Status == protocol.AccountValid && old.Thumbprint == here.Thumbprint {
			return nil
		}
		if old.Status == protocol.AccountValid {
			changed, err := c.tx.ReplaceKey(old.ID, here.Thumbprint, old.Thumbprint, old.Key)
			if !errors.Is(err, ErrConflict) {
				return c.carried(changed, err, &c.done.AccountKeys, string(old.ID), old.Directory, map[string]any{"key": old.Thumbprint})
			}
			// Another account has that key here. What is sure is that this
			// one's key is not to be trusted.
			old.Status = protocol.AccountRevoked
		}
		changed, err := c.tx.EndAccount(old.ID, old.Status)
		return c.carried(changed, err, &c.done.Accounts, string(old.ID), old.Directory, map[string]any{"status": string(old.Status)})
	})
}

// retiredKeys comes after accounts, and ends those that were swept away over
// there after they had ended.
func (c *carrier) retiredKeys() error {
	type key struct {
		directory, thumbprint string
		at                    int64
	}
	scan := func(row engine.Row, k *key) error { return row.Scan(&k.directory, &k.thumbprint, &k.at) }
	return each(c, scan, "SELECT directory, thumbprint, retired_at FROM retired_keys", func(k key) error {
		account, err := c.tx.AccountByKey(c.ctx, k.directory, k.thumbprint)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err == nil && account.Status == protocol.AccountValid {
			changed, err := c.tx.EndAccount(account.ID, protocol.AccountRevoked)
			err = c.carried(changed, err, &c.done.Accounts, string(account.ID), k.directory, map[string]any{"status": string(protocol.AccountRevoked)})
			if err != nil {
				return err
			}
		}
		changed, err := c.tx.changed("INSERT INTO retired_keys (directory, thumbprint, retired_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", k.directory, k.thumbprint, k.at)
		return c.carried(changed, err, &c.done.RetiredKeys, "key:"+k.thumbprint, k.directory, nil)
	})
}

func (c *carrier) eabKeys() error {
	return each(c, scanEABKey, "SELECT "+eabColumns+" FROM eab_keys WHERE revoked_at > 0", func(old protocol.EABKey) error {
		changed, err := c.tx.changed("UPDATE eab_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at = 0", string(old.ID), micros(old.RevokedAt))
		return c.carried(changed, err, &c.done.EABKeys, string(old.ID), old.Directory, map[string]any{"revoked": old.RevokedAt.Unix()})
	})
}

func (c *carrier) authorizations() error {
	const text = "SELECT " + authorizationColumns + " FROM authorizations WHERE status IN ('deactivated', 'revoked')"
	return each(c, scanAuthorization, text, func(old protocol.Authorization) error {
		changed, err := c.tx.changed("UPDATE authorizations SET status = $2, processing = FALSE, claimed_until = 0 WHERE id = $1 AND status IN ('pending', 'valid')",
			string(old.ID), string(old.Status))
		return c.carried(changed, err, &c.done.Authorizations, string(old.ID), old.Directory, map[string]any{"status": string(old.Status)})
	})
}
