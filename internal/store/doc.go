// Package store keeps the authority's state: accounts, external account
// binding keys, orders, authorizations, certificates, OCSP answers, CRLs, the
// audit chain, rate limits, leases, nonces and what replicas say of their keys,
// in SQLite (one file, one process) or PostgreSQL (several replicas).
//
// It is one concrete [DB] with hand-written SQL, one file per noun. The
// statements are the same text for both engines; only the tables are declared
// twice, in migrations/sqlite and migrations/postgres. Rows are the words of
// internal/protocol, internal/cert and internal/audit. The store decides
// nothing: it reads, and it moves states by compare-and-swap, so that of two
// who try, one wins.
//
// Durable before visible: [DB.Update] returns when the change is on disk, and
// [DB.Listen] tells all replicas of what they must know. How statements reach
// the two engines, and how writers share a commit, is internal/store/engine's,
// and engine/postgres's, which only who wants it carries (Options.Postgres);
// nonces are internal/store/nonce's, backups internal/store/dump's, and what a
// restore must not forget internal/store/carry's; storetest has the suite that
// both engines pass.
//
// Times are stored as unix microseconds, the zero time as 0, and come back in
// UTC. IDs are 26 characters, as [protocol.NewID] makes them; serials, key
// hashes and key ids are hexadecimal, and stored as the bytes they stand for.
//
// It may import internal/protocol, internal/cert, internal/audit, the packages
// below it (engine, not engine/postgres; nonce, dump) and the standard library. Sources: RFC 8555
// section 7.1 (the resources) and 6.5 (nonces), RFC 9773 section 5 (replaces),
// RFC 6960 section 2.4 (an answer's times), RFC 5280 section 5.2 (a CRL's
// number and parts).
package store
