package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Entry is one decision. Action, Actor and At are always set.
type Entry struct {
	At        time.Time      `json:"-"`
	Action    string         `json:"do"`            // noun.verb: "order.create", "certificate.issue"
	Actor     string         `json:"by"`            // "account:ID", "uid:0", "job:sweep"
	Peer      string         `json:"from,omitzero"` // address the request came from
	Directory string         `json:"dir,omitzero"`
	Object    string         `json:"on,omitzero"`      // the order, certificate … it was done to
	Denied    string         `json:"denied,omitzero"`  // why it was refused; "" means done
	Detail    map[string]any `json:"detail,omitempty"` // facts worth keeping; keys sorted by encoding/json
}

// wire adds the time to the fixed order of fields, in microseconds as
// everywhere in the database.
type wire struct {
	At int64 `json:"at"`
	Entry
}

// Canonical returns the bytes that are stored and hashed: JSON with fields in
// a fixed order, map keys sorted, times in unix microseconds.
func (e Entry) Canonical() []byte {
	b, err := json.Marshal(wire{e.At.UnixMicro(), e})
	if err != nil { // a Detail value that JSON can't carry: a bug, kept visible
		e.Detail = map[string]any{"unencodable": fmt.Sprint(e.Detail)}
		b, _ = json.Marshal(wire{e.At.UnixMicro(), e})
	}
	return b
}

// Parse reads what Canonical wrote.
func Parse(b []byte) (Entry, error) {
	var w wire
	if err := json.Unmarshal(b, &w); err != nil {
		return Entry{}, fmt.Errorf("audit entry: %w", err)
	}
	w.Entry.At = time.UnixMicro(w.At)
	return w.Entry, nil
}

// Hash is a link of the chain: SHA-256, the zero value before the first.
type Hash [sha256.Size]byte

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Link returns the hash of the entry with the given sequence number, which
// covers the hash before it: SHA-256(previous ‖ sequence ‖ canonical bytes).
func Link(previous Hash, sequence int64, canonical []byte) Hash {
	h := sha256.New()
	h.Write(previous[:])
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(sequence))
	h.Write(n[:])
	h.Write(canonical)
	return Hash(h.Sum(nil))
}
