package cert

import (
	"net/netip"
	"slices"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// Usage is what a certificate may be used for.
type Usage string

// The usages. Those of SSH stand alone in a profile.
const (
	Server  Usage = "server"   // id-kp-serverAuth
	Client  Usage = "client"   // id-kp-clientAuth
	SSHUser Usage = "ssh-user" // an SSH user certificate
	SSHHost Usage = "ssh-host" // an SSH host certificate
)

// SSH reports whether the usage is one of SSH's.
func (u Usage) SSH() bool { return u == SSHUser || u == SSHHost }

// KeyType names a kind of public key that a profile may certify.
type KeyType string

// The key types (DESIGN section 5).
const (
	P256    KeyType = "P-256"
	P384    KeyType = "P-384"
	P521    KeyType = "P-521"
	Ed25519 KeyType = "Ed25519"
	RSA2048 KeyType = "RSA-2048"
	RSA3072 KeyType = "RSA-3072"
	RSA4096 KeyType = "RSA-4096"
	MLDSA44 KeyType = "ML-DSA-44"
	MLDSA65 KeyType = "ML-DSA-65"
	MLDSA87 KeyType = "ML-DSA-87"
)

// Revocation says how relying parties learn that a certificate was withdrawn.
type Revocation string

// RevocationNone is for certificates that live too short to bother: they
// carry no pointers and bear noRevAvail (RFC 9608). The others point to the
// issuer's CRL, to its OCSP responder, or to both. RevocationKRL is that of SSH
// certificates, all of which are on one list that hosts fetch (PROTOCOL.krl).
const (
	RevocationNone Revocation = "none"
	RevocationCRL  Revocation = "crl"
	RevocationOCSP Revocation = "ocsp"
	RevocationBoth Revocation = "crl+ocsp"
	RevocationKRL  Revocation = "krl"
)

// CRL reports whether certificates point to a CRL.
func (r Revocation) CRL() bool { return r == RevocationCRL || r == RevocationBoth }

// OCSP reports whether certificates point to an OCSP responder.
func (r Revocation) OCSP() bool { return r == RevocationOCSP || r == RevocationBoth }

// Profile is a kind of certificate that a directory offers.
type Profile struct {
	Name        string
	Description string
	Usages      []Usage
	Challenges  []protocol.ChallengeType // which proofs count for it
	Lifetime    time.Duration            // when the client asks for none
	MaxLifetime time.Duration            // the longest it may ask for
	Backdate    time.Duration            // notBefore lies so far back; inside the lifetime
	KeyTypes    []KeyType
	Revocation  Revocation
	CommonName  bool   // put the first dns name into the subject's CN too
	Issuer      string // who signs it
	SSH         SSH    // of profiles with an SSH usage
}

// SSH is what an SSH user certificate grants and restricts; host certificates
// have none of it.
type SSH struct {
	Extensions      []string // what sshd would else deny, as in "permit-pty"
	OtherExtensions []string // names beyond OpenSSH's among them
	ForceCommand    string   // runs in place of what the user asks for; "": none
	SourceAddress   []netip.Prefix
	VerifyRequired  bool // a FIDO token must ask for PIN or finger
}

// Format is the kind of certificate that the profile gives.
func (p Profile) Format() Format {
	if slices.ContainsFunc(p.Usages, Usage.SSH) {
		return OpenSSH
	}
	return X509
}

// Allows reports whether the challenge type may prove for the profile. A name
// that an operator approved beforehand with an EAB key needs no listing.
func (p Profile) Allows(t protocol.ChallengeType) bool {
	return t == protocol.PreApproved || slices.Contains(p.Challenges, t)
}
