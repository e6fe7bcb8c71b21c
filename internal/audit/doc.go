// Package audit is the record of one decision: who did what to which object,
// and how it ended. The store appends an entry in the same transaction as the
// change it records, and chains the entries by hash, so that none can be
// taken out or altered unnoticed. Pure; standard library only.
package audit
