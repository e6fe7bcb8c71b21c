package carry

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
	"github.com/chancery-pki/chancery/internal/store/engine"
)

// Withdrawals counts what [Over] brought over.
type Withdrawals struct {
	Certificates   int // revoked
	Held           int // certificates of devices, which can be revoked only where they are known
	BlockedKeys    int // of certificates, compromised
	Accounts       int // deactivated or revoked
	AccountKeys    int // replaced by another
	RetiredKeys    int // of accounts that ended
	EABKeys        int // revoked
	Authorizations int // deactivated or revoked
	Devices        int // retired or lost
	Identities     int // of devices that may have less
	Advisories     int // firmware refused
	WatchedKeys    int // whose use is an alarm
}

// Total is the sum of all.
func (w Withdrawals) Total() int {
	return w.Certificates + w.Held + w.BlockedKeys + w.Accounts + w.AccountKeys + w.RetiredKeys + w.EABKeys + w.Authorizations + w.Devices +
		w.Identities + w.Advisories + w.WatchedKeys
}

// Over brings over from the old database what was withdrawn after the new
// one's backup was made, and would otherwise be good again, all or nothing. A
// revoked certificate that is not known here at all is added, without its
// order, since a CRL has to name it. Numbers, such as those of CRLs, go on from
// the larger one. Each thing is recorded as done by the actor. It is for a
// restore, before the server runs; it blocks for as long as reading the old
// database takes.
func Over(ctx context.Context, actor string, old, restored *store.DB) (Withdrawals, error) {
	var done Withdrawals
	err := old.Snapshot(ctx, func(from *store.Snapshot) error {
		return restored.Update(ctx, func(tx *store.Tx) error {
			c := &carrier{ctx: ctx, tx: tx, old: from, actor: actor, reissue: make(map[string]bool)}
			for _, step := range []func() error{c.numbers, c.certificates, c.held, c.blockedKeys, c.accounts, c.retiredKeys, c.eabKeys, c.authorizations,
				c.devices, c.deviceNames, c.advisories, c.watchedKeys} {
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
	tx      *store.Tx
	old     *store.Snapshot
	actor   string
	reissue map[string]bool // names of the numbers by which CRLs are seen to be out of date
	done    Withdrawals
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
	return c.old.Rows(c.ctx, "SELECT name, value FROM numbers", func(row engine.Row) error {
		var name string
		var value int64
		if err := row.Scan(&name, &value); err != nil {
			return err
		}
		return c.tx.RaiseNumber(name, value)
	})
}

func (c *carrier) certificates() error {
	err := c.old.Revoked(c.ctx, func(old cert.Certificate) error {
		changed, err := c.revoke(old)
		if changed {
			c.reissue[store.RevisionName(old.IssuerKeyID, 0)] = true
			c.reissue[store.RevisionName(old.IssuerKeyID, old.CRLShard)] = true
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
	if !errors.Is(err, store.ErrNotFound) {
		return false, err // it was revoked here too
	}
	old.Order = "" // which isn't here either
	return true, c.tx.InsertCertificate(old, time.Time{})
}

// held adds what was issued to devices after the backup: should one be lost, it is
// to be revoked.
func (c *carrier) held() error {
	return c.old.Held(c.ctx, c.tx.Now(), func(old cert.Certificate) error {
		_, err := c.tx.Certificate(c.ctx, old.Serial)
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		old.Order = "" // which isn't here either
		return c.carried(true, c.tx.InsertCertificate(old, time.Time{}), &c.done.Held, string(old.Serial), old.Directory, map[string]any{"subject": old.Subject})
	})
}

func (c *carrier) blockedKeys() error {
	return c.old.Rows(c.ctx, "SELECT key_hash, why, blocked_at FROM blocked_keys", func(row engine.Row) error {
		var hash []byte
		var why string
		var at int64
		if err := row.Scan(&hash, &why, &at); err != nil {
			return err
		}
		changed, err := c.tx.Changed("INSERT INTO blocked_keys (key_hash, why, blocked_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", hash, why, at)
		return c.carried(changed, err, &c.done.BlockedKeys, hex.EncodeToString(hash), "", map[string]any{"blocked": why})
	})
}

// accounts ends those that have ended, and gives those that have another key
// that one: the one before may have been lost.
func (c *carrier) accounts() error {
	return c.old.Accounts(c.ctx, func(old protocol.Account) error {
		here, err := c.tx.Account(c.ctx, old.ID)
		if errors.Is(err, store.ErrNotFound) || err == nil && here.Status != protocol.AccountValid {
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
			if !errors.Is(err, store.ErrConflict) {
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
	return c.old.Rows(c.ctx, "SELECT directory, thumbprint, retired_at FROM retired_keys", func(row engine.Row) error {
		var directory, thumbprint string
		var at int64
		if err := row.Scan(&directory, &thumbprint, &at); err != nil {
			return err
		}
		account, err := c.tx.AccountByKey(c.ctx, directory, thumbprint)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err == nil && account.Status == protocol.AccountValid {
			changed, err := c.tx.EndAccount(account.ID, protocol.AccountRevoked)
			err = c.carried(changed, err, &c.done.Accounts, string(account.ID), directory, map[string]any{"status": string(protocol.AccountRevoked)})
			if err != nil {
				return err
			}
		}
		changed, err := c.tx.Changed("INSERT INTO retired_keys (directory, thumbprint, retired_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", directory, thumbprint, at)
		return c.carried(changed, err, &c.done.RetiredKeys, "key:"+thumbprint, directory, nil)
	})
}

func (c *carrier) eabKeys() error {
	return c.old.Rows(c.ctx, "SELECT id, directory, revoked_at FROM eab_keys WHERE revoked_at > 0", func(row engine.Row) error {
		var id, directory string
		var at int64
		if err := row.Scan(&id, &directory, &at); err != nil {
			return err
		}
		changed, err := c.tx.Changed("UPDATE eab_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at = 0", id, at)
		return c.carried(changed, err, &c.done.EABKeys, id, directory, map[string]any{"revoked": at / 1e6})
	})
}

func (c *carrier) authorizations() error {
	const text = "SELECT id, directory, status FROM authorizations WHERE status IN ('deactivated', 'revoked')"
	return c.old.Rows(c.ctx, text, func(row engine.Row) error {
		var id, directory, status string
		if err := row.Scan(&id, &directory, &status); err != nil {
			return err
		}
		changed, err := c.tx.Changed("UPDATE authorizations SET status = $2, processing = FALSE, claimed_until = 0 WHERE id = $1 AND status IN ('pending', 'valid')",
			id, status)
		return c.carried(changed, err, &c.done.Authorizations, id, directory, map[string]any{"status": status})
	})
}

// devices ends those that have ended, and takes from the others what was taken
// over there. One that has ended and isn't known here is added, since its key must
// never be enrolled again.
func (c *carrier) devices() error {
	return c.old.Devices(c.ctx, func(old protocol.Device) error {
		if old.State == protocol.DeviceActive {
			return c.identities(old)
		}
		changed, err := c.tx.EndDevice(old.ID, old.State)
		if err == nil && !changed {
			if err = c.tx.InsertDevice(old); errors.Is(err, store.ErrConflict) {
				return nil // it has ended here too
			}
			changed = true
		}
		return c.carried(changed, err, &c.done.Devices, string(old.ID), "", map[string]any{"state": string(old.State)})
	})
}

// identities leaves a device what both databases give it. What only the old one
// does is an operator's to give again.
func (c *carrier) identities(old protocol.Device) error {
	here, err := c.tx.Device(c.ctx, old.ID)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	both := func(here, old []string) []string {
		return slices.DeleteFunc(slices.Clone(here), func(name string) bool { return !slices.Contains(old, name) })
	}
	left := protocol.Identities{
		Names: both(here.Names, old.Names), OtherNames: both(here.OtherNames, old.OtherNames), Principals: both(here.Principals, old.Principals),
		MaxLifetime: here.MaxLifetime,
	}
	if old.MaxLifetime > 0 && (left.MaxLifetime == 0 || old.MaxLifetime < left.MaxLifetime) {
		left.MaxLifetime = old.MaxLifetime
	}
	if len(left.Names) == len(here.Names) && len(left.OtherNames) == len(here.OtherNames) && len(left.Principals) == len(here.Principals) &&
		left.MaxLifetime == here.MaxLifetime {
		return nil
	}
	changed, err := c.tx.SetIdentities(old.ID, left)
	return c.carried(changed, err, &c.done.Identities, string(old.ID), "", map[string]any{
		"names": left.Names, "other_names": left.OtherNames, "principals": left.Principals, "max_lifetime": left.MaxLifetime.String(),
	})
}

// deviceNames keeps names theirs to whom they were given.
func (c *carrier) deviceNames() error {
	return c.old.Rows(c.ctx, "SELECT name, owner, proof FROM device_names", func(row engine.Row) error {
		var name, owner, proof string
		if err := row.Scan(&name, &owner, &proof); err != nil {
			return err
		}
		_, _, err := c.tx.TakeName(name, owner, proof)
		return err
	})
}

// watchedKeys keeps the alarms.
func (c *carrier) watchedKeys() error {
	return c.old.WatchedKeys(c.ctx, func(k protocol.WatchedKey) error {
		err := c.tx.InsertWatchedKey(k)
		if errors.Is(err, store.ErrConflict) {
			return nil
		}
		return c.carried(true, err, &c.done.WatchedKeys, k.Fingerprint, "", map[string]any{"label": k.Label})
	})
}

func (c *carrier) advisories() error {
	return c.old.Rows(c.ctx, "SELECT id, first, last, created_at FROM advisories", func(row engine.Row) error {
		var a protocol.Advisory
		var at int64
		if err := row.Scan(&a.ID, &a.First, &a.Last, &at); err != nil {
			return err
		}
		a.CreatedAt = time.UnixMicro(at)
		err := c.tx.InsertAdvisory(a)
		if errors.Is(err, store.ErrConflict) {
			return nil
		}
		return c.carried(true, err, &c.done.Advisories, a.ID, "", map[string]any{"first": a.First, "last": a.Last})
	})
}
