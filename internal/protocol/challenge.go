package protocol

import (
	"crypto/rand"
	"encoding/base64"
	"net/netip"
	"time"
)

// ChallengeType names a way to prove an identifier (RFC 8555 section 9.7.8).
type ChallengeType string

// The challenge types. The classic ones prove a server's name; the private
// ones prove a device or what a platform says of a workload.
const (
	HTTP01       ChallengeType = "http-01"        // RFC 8555 section 8.3
	DNS01        ChallengeType = "dns-01"         // RFC 8555 section 8.4
	TLSALPN01    ChallengeType = "tls-alpn-01"    // RFC 8737
	DNSAccount01 ChallengeType = "dns-account-01" // draft-ietf-acme-dns-account-label
	DNSPersist01 ChallengeType = "dns-persist-01" // draft-ietf-acme-dns-persist
	Kubernetes01 ChallengeType = "kubernetes-01"

	// Proofs by an enrolled device (DESIGN section 6): yubikey-01 certifies
	// the device's own key, yubikey-02 another one that it vouches for,
	// device-attest-01 (draft-ietf-acme-device-attest) an attested one.
	YubiKey01      ChallengeType = "yubikey-01"
	YubiKey02      ChallengeType = "yubikey-02"
	DeviceAttest01 ChallengeType = "device-attest-01"
)

// PreApproved is the pseudo challenge recorded in an authorization that an
// EAB key's pre-approved names made valid without a live proof.
const PreApproved ChallengeType = "eab-pre-approved"

// Classic reports whether the type is one of the public ones, which prove a
// server's name and never who may act as a client.
func (t ChallengeType) Classic() bool {
	switch t {
	case HTTP01, DNS01, TLSALPN01, DNSAccount01, DNSPersist01:
		return true
	}
	return false
}

// PrivateLife is the longest that a private proof may wait for its order to be
// finalized.
const PrivateLife = 10 * time.Minute

// Private reports whether the type proves a device or a platform's word and not
// a name: every type that isn't classic. Such a proof rests on one subject
// ([Evidence]), serves one order, lasts no longer than PrivateLife and is never
// made ahead of an order.
func (t ChallengeType) Private() bool { return t != "" && t != PreApproved && !t.Classic() }

// Proves reports whether the type can prove such an identifier at all:
// wildcards only by DNS (RFC 8555 section 7.1.3), addresses only by
// connecting to them (RFC 8738 section 7), people and devices only by devices.
func (t ChallengeType) Proves(typ IdentifierType, wildcard bool) bool {
	switch t {
	case DNS01, DNSAccount01, DNSPersist01:
		return typ == DNS
	case YubiKey01, YubiKey02, DeviceAttest01:
		return !wildcard && typ != IP
	}
	return !wildcard && typ != PermanentIdentifier
}

// Device reports whether the type proves an enrolled device.
func (t ChallengeType) Device() bool {
	return t == YubiKey01 || t == YubiKey02 || t == DeviceAttest01
}

// NewToken returns 256 random bits in base64url (RFC 8555 section 8.1 asks
// for 128).
func NewToken() string {
	var b [32]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Validation is all that a validator is told: what to look for and where.
type Validation struct {
	Type       ChallengeType
	Identifier Identifier // without "*."
	Wildcard   bool
	Token      string
	URL        string         // of the challenge
	CreatedAt  time.Time      // when the challenge was made
	Thumbprint string         // of the account key (RFC 7638)
	AccountURL string         // for dns-account-01 and dns-persist-01
	Response   []byte         // the client's payload; a private type's may be a secret
	Peer       netip.AddrPort // the client that asked
}

// KeyAuthorization is token ‖ "." ‖ thumbprint (RFC 8555 section 8.1).
func (v Validation) KeyAuthorization() string { return v.Token + "." + v.Thumbprint }

// Evidence is what a validator saw; it goes into the audit log. Subject is what
// pod or device the proof rests on, opaque, compared for equality.
type Evidence struct {
	Type    ChallengeType `json:"type"`
	Target  string        `json:"target,omitempty"` // the address, record or device that answered
	Detail  string        `json:"detail,omitempty"`
	Subject string        `json:"subject,omitempty"`
	SeenAt  time.Time     `json:"-"`
	// ValidUntil is when what was seen stops proving anything; zero: it
	// doesn't say. No authorization lasts longer.
	ValidUntil time.Time `json:"-"`
	// Faults are what a device's proof says otherwise than the registry, also
	// where the proof failed: each gets an audit entry of its own, and the
	// client hears of none that it may not know.
	Faults []Fault `json:"-"`
}

// Fault is one thing that isn't as it should be: a field of an attestation,
// what it should say and what it says.
type Fault struct {
	Field string `json:"field"`
	Want  string `json:"want,omitempty"`
	Got   string `json:"got,omitempty"`
}

// ValidationError is a validator's no. Retryable says that the target may
// simply not be ready, so that RFC 8555 section 8.2's retries make sense: a
// refused connection is, a wrong answer isn't. A problem of type
// serverInternal says neither yes nor no: what had to be asked didn't answer.
type ValidationError struct {
	Problem   *Problem
	Retryable bool
}

// Error returns the problem's text.
func (e *ValidationError) Error() string { return e.Problem.Error() }

// Unwrap returns the problem.
func (e *ValidationError) Unwrap() error { return e.Problem }
