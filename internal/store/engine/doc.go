// Package engine brings statements to SQLite and to PostgreSQL: it opens the
// database, applies migrations, runs write transactions so that they are on
// disk when Update returns, and tells the failures that may pass from those
// that won't. It knows no table but its own list of migrations; what is stored
// is internal/store's.
//
// On SQLite one goroutine writes, and commits for all callers that wait
// meanwhile, so that they share one fsync; reads go by connections of their
// own. On PostgreSQL each call has its own transaction, READ COMMITTED, which
// runs again when the server ended it in favour of another.
//
// It may import the standard library and the two drivers.
package engine
