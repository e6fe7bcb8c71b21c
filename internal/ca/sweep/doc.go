// Package sweep is housekeeping that one replica does for all: it deletes what
// has ended, so that the database stays as large as what is alive, and puts the
// entries of the audit log into their sequence where the store doesn't do so by
// itself.
//
// It may import store.
package sweep
