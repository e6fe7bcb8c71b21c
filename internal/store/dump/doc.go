// Package dump writes what is in a database as text and fills another with it,
// whichever engines the two have: for backups, and to move from SQLite to
// PostgreSQL. It knows the tables that internal/store's migrations declare, and
// nothing of what their rows mean, but for the audit chain's end.
//
// It may import internal/store/engine and the standard library.
package dump
