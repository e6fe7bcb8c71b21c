package store

import (
	"context"
	"slices"
	"time"

	"github.com/chancery-pki/chancery/internal/store/engine"
)

// Statements returns every constant statement that a SQLite database has run
// so far.
func (db *DB) Statements() []string {
	texts := db.engine.(*engine.SQLite).Statements()
	slices.Sort(texts)
	return slices.Compact(texts)
}

// OnWriter runs a statement on the connection that writes.
func (db *DB) OnWriter(text string) error {
	return db.Update(context.Background(), func(tx *Tx) error {
		_, err := tx.exec(text)
		return err
	})
}

// HandOut pretends that so many more nonces were handed out.
func (n *Nonces) HandOut(more uint64) {
	e := (*n.epochs.Load())[0]
	for range more >> segmentBits {
		n.memory.handedOut(e.next.Add(1<<segmentBits) &^ (1<<segmentBits - 1))
	}
}

// NonceMemory is how many bytes the used nonces take.
func (n *Nonces) NonceMemory() int {
	n.memory.mu.Lock()
	defer n.memory.mu.Unlock()
	return len(n.memory.segments) << segmentBits / 8
}

// EpochLife is how long PostgreSQL's replicas hand out nonces of one epoch.
const EpochLife time.Duration = nonceEpoch

// Pragma asks the connection that writes for a setting.
func (db *DB) Pragma(name string) (value string, err error) {
	err = db.Update(context.Background(), func(tx *Tx) error {
		value, err = one(context.Background(), &tx.queries, scanText, "SELECT CAST("+name+" AS TEXT) FROM pragma_"+name)
		return err
	})
	return value, err
}
