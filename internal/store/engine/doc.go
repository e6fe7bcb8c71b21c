// Package engine brings statements to SQLite and to PostgreSQL: it opens the
// database, applies migrations, runs write transactions so that they are on
// disk when Update returns, and tells the failures that may pass from those
// that won't. It knows no table but its own list of migrations; what is stored
// is internal/store's.
//
// On SQLite one connection writes, and one of the callers commits for all that
// came meanwhile, so that they share one sync (writer.go); short reads go by
// the same connection, and nobody is shown what isn't on disk (reading.go). On PostgreSQL each call has its own transaction, READ COMMITTED, which
// runs again when the server ended it in favour of another. Notices go by LISTEN
// and NOTIFY there (listen.go).
//
// It may import the standard library and the two drivers.
package engine
