// Package carry brings what was withdrawn in an old database, such as
// revocations and lost devices, into one that was restored from an older
// backup: else it would be good again.
//
// It may import internal/store, internal/store/engine for rows, and the words
// (protocol, cert, audit).
package carry
