// Package nonce hands out the nonces of RFC 8555 section 6.5 and takes each
// back once: of one process, which remembers in memory what was used, or of
// several replicas, which do so in two tables of PostgreSQL's that its other
// commits don't wait for (internal/store's migrations declare them). Nothing
// here survives a crash, and nothing needs to: a client that is refused gets a
// fresh nonce with the refusal.
//
// It may import internal/store/engine and the standard library.
package nonce
