package cert

import (
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// State is where a certificate stands.
type State string

// A certificate is planned (its to-be-signed bytes are on disk, nothing has
// left), then issued; revocation is a fact beside the state.
const (
	Planned State = "planned"
	Issued  State = "issued"
)

// Format is how a certificate is encoded.
type Format string

// The formats.
const (
	X509    Format = "x509"
	OpenSSH Format = "ssh"
)

// Certificate is the record of one certificate.
type Certificate struct {
	Serial      Serial
	Format      Format
	State       State
	Order       protocol.OrderID
	Account     protocol.AccountID
	Directory   string
	Profile     string
	Issuer      string // the issuer's name in the configuration
	IssuerKeyID string // hex of the issuing certificate's SubjectKeyId: which chain
	CRLShard    int    // the part of the issuer's CRL that it points to, from 1; 0: the full list
	Names       []protocol.Identifier
	Subject     string // the device or pod that its proof rested on; "" for none
	DER         []byte // planned: what is to be signed; issued: the certificate, in its format's binary form
	KeyHash     string // hex SHA-256 of the SubjectPublicKeyInfo
	NotBefore   time.Time
	NotAfter    time.Time
	PlannedAt   time.Time
	Revoked     Revoked
	ReplacedBy  protocol.OrderID // RFC 9773 section 5; "" if none
	Client      string           // planned: who waits for it, so that keys are shared fairly; issued: ""
}

// Revoked says when and why; zero At means it is not.
type Revoked struct {
	At     time.Time
	Reason Reason
}

// Reason is a CRLReason (RFC 5280 section 5.3.1).
type Reason int

// The reasons a client or an operator may give.
const (
	Unspecified          Reason = 0
	KeyCompromise        Reason = 1
	AffiliationChanged   Reason = 3
	Superseded           Reason = 4
	CessationOfOperation Reason = 5
	PrivilegeWithdrawn   Reason = 9
)

// Valid reports whether the reason is one that may be given: not the CA's own
// (cACompromise, aACompromise), not a hold, which a short life makes
// pointless, and not the unused 7.
func (r Reason) Valid() bool {
	switch r {
	case Unspecified, KeyCompromise, AffiliationChanged, Superseded, CessationOfOperation, PrivilegeWithdrawn:
		return true
	}
	return false
}
