// Package postgres is the engine for PostgreSQL, in a package of its own so
// that only those programs carry the driver which want it: the composition
// root hands [Open] to store.Options.
//
// Each call of Update has its own transaction, READ COMMITTED, which runs again
// when the server ended it in favour of another. No statement outlives its
// caller's patience, and a server that goes silent costs it once (pool.go).
// Notices go by LISTEN and NOTIFY (listen.go).
//
// It may import internal/store/engine, the standard library and pgx.
package postgres
