// Package store keeps the authority's state: accounts, external account
// binding keys, orders, authorizations, certificates, the audit chain, rate
// limits, leases and nonces, in SQLite (one file, one process) or PostgreSQL
// (several replicas).
//
// It is one concrete [DB] with hand-written SQL, one file per noun. The
// statements are the same text for both engines; only the tables are declared
// twice, in migrations/sqlite and migrations/postgres. Rows are the words of
// internal/protocol, internal/cert and internal/audit. The store decides
// nothing: it reads, and it moves states by compare-and-swap, so that of two
// who try, one wins.
//
// Durable before visible: [DB.Update] returns when the change is on disk.
// SQLite has one writer, which commits for all callers that wait meanwhile, so
// that they share one fsync. PostgreSQL has a transaction per call.
//
// Times are stored as unix microseconds, the zero time as 0, and come back in
// UTC. IDs are 26 characters, as [protocol.NewID] makes them.
//
// It may import internal/protocol, internal/cert, internal/audit, the standard
// library, golang.org/x/sys and the two drivers (modernc.org/sqlite,
// github.com/jackc/pgx/v5). Sources: RFC 8555 section 7.1 (the resources),
// section 6.5 (nonces), RFC 9773 section 5 (replaces).
package store
