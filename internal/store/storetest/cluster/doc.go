// Package cluster is a PostgreSQL server for tests, run by PostgreSQL's own
// programs (Debian's package postgresql-15). It imports the standard library
// and the driver pgx; only tests and benchmarks import it, most of them by
// internal/store/storetest.
package cluster
