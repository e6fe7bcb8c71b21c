package api

import (
	"encoding/json"
	"time"
)

// Page bounds a listing: at most MaxLimit rows, DefaultLimit unless told.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// Problem is an error (RFC 7807). It implements error.
type Problem struct {
	Type   string `json:"type"`
	Detail string `json:"detail"`
	Status int    `json:"status"`
}

// Error returns the detail, which says what to do.
func (p *Problem) Error() string { return p.Detail }

// Status describes the server.
type Status struct {
	Version     string   `json:"version"`
	Replica     string   `json:"replica"`
	Engine      string   `json:"engine"` // "sqlite" or "postgres"
	Directories []string `json:"directories"`
	Validations int      `json:"validations"` // running now
	Issuances   int      `json:"issuances"`   // running now
	Commits     int64    `json:"commits"`     // durable commits since the start
	Updates     int64    `json:"updates"`     // changes that shared them
}

// NewEABKey asks for an external account key (RFC 8555 section 7.3.4).
type NewEABKey struct {
	Directory   string    `json:"directory"`
	Label       string    `json:"label,omitzero"`
	Profiles    []string  `json:"profiles,omitempty"` // none: all of the directory's
	Names       []string  `json:"names,omitempty"`    // none: all of the directory's
	PreApproved bool      `json:"pre_approved,omitzero"`
	Accounts    *int      `json:"accounts,omitempty"` // how many it may open; nil: one, 0: no bound
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
}

// EABKey is an external account key. HMACKey is set only in the answer to its
// creation: it is shown once.
type EABKey struct {
	ID          string    `json:"kid"`
	HMACKey     string    `json:"hmac_key,omitzero"`
	Directory   string    `json:"directory"`
	Label       string    `json:"label,omitzero"`
	Profiles    []string  `json:"profiles,omitempty"`
	Names       []string  `json:"names,omitempty"`
	PreApproved bool      `json:"pre_approved,omitzero"`
	MaxAccounts int       `json:"max_accounts"`
	Accounts    int       `json:"accounts"`
	CreatedAt   time.Time `json:"created_at"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
	RevokedAt   time.Time `json:"revoked_at,omitzero"`
}

// Account is an ACME account.
type Account struct {
	ID        string    `json:"id"`
	Directory string    `json:"directory"`
	Status    string    `json:"status"`
	Key       string    `json:"key"` // RFC 7638 thumbprint
	Contact   []string  `json:"contact,omitempty"`
	EABKey    string    `json:"eab_key,omitzero"`
	CreatedAt time.Time `json:"created_at"`
	KeepUntil time.Time `json:"keep_until"`
}

// Certificate is the record of a certificate; Chain is set where one is shown
// by itself, or the listing is full.
type Certificate struct {
	Serial     string    `json:"serial"`
	Format     string    `json:"format"` // "x509" or "ssh"
	State      string    `json:"state"`
	Names      []string  `json:"names"`
	Directory  string    `json:"directory"`
	Profile    string    `json:"profile"`
	Issuer     string    `json:"issuer"`
	Account    string    `json:"account"`
	Order      string    `json:"order"`
	Key        string    `json:"key"` // hex SHA-256 of the SubjectPublicKeyInfo
	NotBefore  time.Time `json:"not_before"`
	NotAfter   time.Time `json:"not_after"`
	RevokedAt  time.Time `json:"revoked_at,omitzero"`
	Reason     *int      `json:"reason,omitempty"` // RFC 5280 section 5.3.1
	ReplacedBy string    `json:"replaced_by,omitzero"`
	Subject    string    `json:"subject,omitzero"` // the device or pod that it rests on, as in "device:ID"
	Owner      string    `json:"owner,omitzero"`   // the person whose device it is
	Chain      string    `json:"chain,omitzero"`   // PEM, leaf first; of an SSH certificate its line
}

// Revocation asks to revoke a certificate.
type Revocation struct {
	Reason int `json:"reason"`
}

// AuditEntry is one line of the audit log with its place in the chain.
type AuditEntry struct {
	Sequence  int64          `json:"sequence"`
	Hash      string         `json:"hash"`
	At        time.Time      `json:"at"`
	Action    string         `json:"action"`
	Actor     string         `json:"actor"`
	Peer      string         `json:"peer,omitzero"`
	Directory string         `json:"directory,omitzero"`
	Object    string         `json:"object,omitzero"`
	Denied    string         `json:"denied,omitzero"`
	Detail    map[string]any `json:"detail,omitempty"`
}

// AuditCheck is the result of walking the chain.
type AuditCheck struct {
	Entries int64  `json:"entries"`
	Fault   string `json:"fault,omitzero"` // names the first entry that doesn't fit
}

// List is a page of rows. Next is what to send as after for the next page, ""
// at the end.
type List[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitzero"`
}

// MarshalJSON writes an empty list as [], not null.
func (l List[T]) MarshalJSON() ([]byte, error) {
	type plain List[T]
	if l.Items == nil {
		l.Items = []T{}
	}
	return json.Marshal(plain(l))
}
