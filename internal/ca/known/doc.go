// Package known remembers accounts, so that the five signed requests of an
// issuance read theirs from the database once. It serves where one process
// alone writes the database, and that process says when an account changes.
//
// It may import internal/protocol and internal/jws.
package known
