package store

import "time"

// Lease takes or extends the lease of that name. False: another holder has
// it, and it hasn't ended.
func (tx *Tx) Lease(name, holder string, until time.Time) (bool, error) {
	return tx.changed(`INSERT INTO leases (name, holder, ends) VALUES ($1, $2, $3)
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, ends = excluded.ends
		WHERE leases.holder = excluded.holder OR leases.ends < $4`, name, holder, micros(until), micros(tx.now))
}
