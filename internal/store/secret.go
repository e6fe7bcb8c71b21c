package store

import "context"

// Secret returns a small value shared by the replicas, such as a key;
// ErrNotFound if there is none of that name.
func (q *queries) Secret(ctx context.Context, name string) ([]byte, error) {
	return one(ctx, q, scanBytes, "SELECT value FROM secrets WHERE name = $1", name)
}

// PutSecret stores a value, replacing what was there.
func (tx *Tx) PutSecret(name string, value []byte) error {
	_, err := tx.exec("INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value", name, notNil(value))
	return err
}

// RaiseNumber makes a number at least so great; one that is greater stays.
func (tx *Tx) RaiseNumber(name string, atLeast int64) error {
	_, err := tx.exec(`INSERT INTO numbers (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE numbers.value < excluded.value`, name, atLeast)
	return err
}

// NextNumber returns a number that is larger than any it returned for the
// name before, and at least atLeast: for CRLs, whose numbers must not go back
// (RFC 5280 section 5.2.3), not after a restore either.
func (tx *Tx) NextNumber(name string, atLeast int64) (int64, error) {
	return one(context.Background(), &tx.queries, scanInt, `INSERT INTO numbers (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = CASE WHEN numbers.value >= excluded.value THEN numbers.value + 1 ELSE excluded.value END
		RETURNING value`, name, atLeast)
}
