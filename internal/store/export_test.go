package store

import (
	"context"
	"slices"

	"github.com/chancery-pki/chancery/internal/store/engine"
)

// Statements returns every constant statement that a SQLite database has run
// so far.
func (db *DB) Statements() []string {
	texts := db.engine.(*engine.SQLite).Statements()
	slices.Sort(texts)
	return slices.Compact(texts)
}

// Texts of searches, which Statements doesn't list.
const (
	RevokedOfShard   = revokedOfShard
	RevokedOfAll     = revokedOfAll
	LiveStatement    = liveCertificates
	CRLPartStatement = crlPart
)

// OnWriter runs a statement on the connection that writes.
func (db *DB) OnWriter(text string) error {
	return db.Update(context.Background(), func(tx *Tx) error {
		_, err := tx.exec(text)
		return err
	})
}

func scanText(rows engine.Row, s *string) error { return rows.Scan(s) }

// Pragma asks the connection that writes for a setting.
func (db *DB) Pragma(name string) (value string, err error) {
	err = db.Update(context.Background(), func(tx *Tx) error {
		value, err = one(context.Background(), &tx.queries, scanText, "SELECT CAST("+name+" AS TEXT) FROM pragma_"+name)
		return err
	})
	return value, err
}
