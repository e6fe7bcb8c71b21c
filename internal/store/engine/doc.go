// Package engine brings statements to a database: the words that SQLite and
// PostgreSQL share, and SQLite's engine; the other one is engine/postgres. It opens the
// database, applies migrations, runs write transactions so that they are on
// disk when Update returns, and tells the failures that may pass from those
// that won't. It knows no table but its own list of migrations; what is stored
// is internal/store's.
//
// On SQLite one connection writes, and one of the callers commits for all that
// came meanwhile, so that they share one sync (writer.go); short reads go by
// the same connection, and nobody is shown what isn't on disk (reading.go).
//
// It may import the standard library and SQLite's two drivers.
package engine
