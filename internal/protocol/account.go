package protocol

import "time"

// AccountStatus is the state of an account (RFC 8555 section 7.1.6).
type AccountStatus string

// The states of an account. Deactivated is the client's doing, revoked ours.
const (
	AccountValid       AccountStatus = "valid"
	AccountDeactivated AccountStatus = "deactivated"
	AccountRevoked     AccountStatus = "revoked"
)

// Account is a key that may ask for certificates in one directory (RFC 8555
// section 7.1.2).
type Account struct {
	ID         AccountID
	Directory  string
	Status     AccountStatus
	Thumbprint string    // RFC 7638, SHA-256, base64url: unique per directory
	Key        []byte    // the public key as canonical JWK (RFC 7638 form)
	Contact    []string  // URLs, as the client gave them
	TermsAt    time.Time // when the terms of service were agreed to; zero: never
	EABKey     EABKeyID  // the key that vouched for it; "" if none
	CreatedAt  time.Time
	KeepUntil  time.Time // the sweep leaves it alone before this
}

// EABKey lets its holders open accounts in one directory, and says what these
// may ask for (RFC 8555 section 7.3.4; DESIGN section 5).
type EABKey struct {
	ID          EABKeyID
	Directory   string
	Label       string   // what the operator calls it
	MACKey      []byte   // 32 random bytes; never logged
	Profiles    []string // profiles its accounts may use; none: all of the directory's
	Names       []string // names its accounts may have, in policy's patterns; none: all of the directory's
	PreApproved bool     // Names need no live challenge
	MaxAccounts int      // 0 means no bound
	Accounts    int      // opened so far
	CreatedAt   time.Time
	ExpiresAt   time.Time // zero: never
	RevokedAt   time.Time // zero: not revoked
}

// Usable reports whether the key may still vouch: neither revoked nor expired.
func (k EABKey) Usable(now time.Time) bool {
	return k.RevokedAt.IsZero() && (k.ExpiresAt.IsZero() || now.Before(k.ExpiresAt))
}
