package sweep

import (
	"cmp"
	"context"
	"time"

	"github.com/chancery-pki/chancery/internal/store"
)

// Lease is how long a replica that sweeps is believed to be alive.
const Lease = 3 * time.Minute

const (
	auditLease = 5 * time.Second // taken anew every second; after a crash another replica goes on
	most       = 500             // rows a transaction, so that nobody waits long behind it
)

// Keep says how long what has ended stays in the database.
type Keep struct {
	Orders       time.Duration // after their end; 24 hours
	Certificates time.Duration // after their notAfter; 24 hours
	Audit        time.Duration // 400 days
}

// WithDefaults fills in what was left out.
func (k Keep) WithDefaults() Keep {
	const day = 24 * time.Hour
	k.Orders = cmp.Or(k.Orders, day)
	k.Certificates = cmp.Or(k.Certificates, day)
	k.Audit = cmp.Or(k.Audit, 400*day)
	return k
}

// Sweeper deletes what has ended and keeps the audit log's sequence. All fields
// are needed, and don't change.
type Sweeper struct {
	DB      *store.DB
	Replica string // names this process in leases
	Keep    Keep
	Clock   func() time.Time
	Swept   func(what string, rows int) // told what was deleted, after it was
}

// SequenceAudit puts new audit entries into the chain where the store doesn't
// do so in the same transaction.
func (s *Sweeper) SequenceAudit(ctx context.Context) error {
	if !s.DB.AuditNeedsSequencing() {
		return nil
	}
	return s.DB.Update(ctx, func(tx *store.Tx) error {
		if ok, err := tx.Lease("audit", s.Replica, tx.Now().Add(auditLease)); err != nil || !ok {
			return err
		}
		_, err := tx.SequenceAudit(tx.Now(), s.Replica, most)
		return err
	})
}

// LeaveAudit lets another replica go on with the chain at once.
func (s *Sweeper) LeaveAudit(ctx context.Context) error {
	if !s.DB.AuditNeedsSequencing() {
		return nil
	}
	return s.DB.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.Lease("audit", s.Replica, tx.Now())
		return err
	})
}

// Sweep deletes what has ended, in small batches, unless another replica is
// at it: idle accounts, ended orders and authorizations, expired
// certificates, old audit entries (DESIGN section 5). What must be done before
// is first's.
func (s *Sweeper) Sweep(ctx context.Context, first func(context.Context) error) error {
	mine := false
	err := s.DB.Update(ctx, func(tx *store.Tx) (err error) {
		mine, err = tx.Lease("sweep", s.Replica, tx.Now().Add(Lease))
		return err
	})
	if err != nil || !mine {
		return err
	}
	if err := first(ctx); err != nil {
		return err
	}
	now := s.Clock()
	for _, t := range []struct {
		what  string
		batch func(*store.Tx) (int, error)
	}{
		{"orders", func(tx *store.Tx) (int, error) { return tx.SweepOrders(now.Add(-s.Keep.Orders), most) }},
		{"authorizations", func(tx *store.Tx) (int, error) { return tx.SweepAuthorizations(now.Add(-s.Keep.Orders), most) }},
		{"certificates", func(tx *store.Tx) (int, error) {
			return tx.SweepCertificates(now.Add(-s.Keep.Certificates), most)
		}},
		{"accounts", func(tx *store.Tx) (int, error) { return tx.SweepAccounts(now, most) }},
		{"audit", func(tx *store.Tx) (int, error) { return tx.SweepAudit(now.Add(-s.Keep.Audit), most) }},
		{"limits", func(tx *store.Tx) (int, error) { return tx.SweepLimits(now, most) }},
	} {
		if err := s.sweep(ctx, t.what, t.batch); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sweeper) sweep(ctx context.Context, what string, batch func(*store.Tx) (int, error)) error {
	total := 0
	defer func() {
		if total > 0 {
			s.Swept(what, total)
		}
	}()
	for ctx.Err() == nil {
		n := 0
		err := s.DB.Update(ctx, func(tx *store.Tx) error {
			mine, err := tx.Lease("sweep", s.Replica, tx.Now().Add(Lease))
			if err != nil || !mine { // another replica took it for dead
				n = 0
				return err
			}
			n, err = batch(tx)
			return err
		})
		if err != nil {
			return err
		}
		if total += n; n < most {
			return nil
		}
	}
	return ctx.Err()
}
