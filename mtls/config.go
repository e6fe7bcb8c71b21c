package mtls

import (
	"context"
	"crypto"
	"crypto/x509"
	"log/slog"
	"net/http"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
	"github.com/chancery-pki/chancery/mtls/internal/slot"
)

// Config says what an Identity is, who certifies it, and whom it trusts. The
// zero value takes everything from the environment (see the package comment).
// New copies it.
type Config struct {
	// CAs certify the identity, each a whole of its own: one that answers is
	// enough. At most 64. None: those of CHANCERY_DIRECTORY.
	CAs []CA
	// Pick says which of a tier's CAs is asked first. Default: PickRandom.
	Pick Pick
	// HedgeAfter is how long one CA may take before the next is asked beside
	// it; the first certificate wins. Default: 10 s; negative: never.
	HedgeAfter time.Duration

	// Names are the dns names and IP addresses of the certificates, at most
	// 100. None: those of CHANCERY_NAMES.
	Names []string
	// SNI, where it is set, is asked whether a server name that is not among
	// Names may be certified too; nil error means yes. Such certificates are
	// got at the first handshake that asks for the name, which waits for it,
	// at most ten seconds, and at most MaxSNI of them are kept, the least
	// used going first; one that nobody has asked for lately isn't renewed.
	// SNI is asked again before each renewal; it must not block. With it and
	// UsageServer Names may stay empty.
	SNI func(serverName string) error
	// MaxSNI bounds them, and how many new ones an hour may bring. Default: 256.
	MaxSNI int
	// Usage is what certificates are asked for. Default: UsageBoth.
	Usage Usage

	// Trust is whose certificates are believed. Nil: the roots of
	// CHANCERY_ROOTS, for servers and clients alike, without a look at
	// revocation.
	Trust *Trust

	// Proof is how names are proven. The zero value does what the environment
	// allows: kubernetes-01 where there is a token, else tls-alpn-01 on the
	// program's own listener.
	Proof Proof

	// NewKey makes the key of each new certificate, or returns one that lives
	// in an HSM or a YubiKey; it may be called for several certificates at
	// once. Nil: a new P-256 key in memory, erased a minute after it was
	// replaced (handshakes that began with it are through by then), and by
	// Close. Erasing is best effort: crypto/ecdsa keeps a copy, which goes
	// with the next garbage collections.
	NewKey func() (crypto.Signer, error)
	// Lifetime is asked of the CA. Default: what the CA gives.
	Lifetime time.Duration
	// RenewBefore is how long before its end a certificate is replaced, or up
	// to a twentieth of RenewBefore earlier; never in the first half of its
	// life. Default: when two thirds of its life are over, give or take a
	// twentieth of it, or when the CA says (RFC 9773), but at the latest when
	// a sixth of it is left.
	RenewBefore time.Duration
	// OneAccount keeps one ACME account per CA for the life of the identity.
	// Default: a throwaway account for each certificate. A CA with EAB has
	// one account either way; see CA.EAB.
	OneAccount bool

	// Cache, where it is set, keeps sealed certificates and keys, so that a
	// restart needs no CA; see [Cache]. Nil: memory only.
	Cache Cache

	// Logger tells what an operator should know. Nil: slog.Default.
	Logger *slog.Logger
	// Hooks are told what happens, for metrics.
	Hooks Hooks
	// UserAgent is put before our own in requests to CAs. Default: the
	// program's name and version.
	UserAgent string
	// Clock is the time by which certificates end and are renewed. What is
	// waited for on the network (answers, hedging, handshakes) goes by the
	// machine's. Nil: the machine's. For tests; see catest.
	Clock Clock

	// staple stands for the Trust's, for tests.
	staple func(ctx context.Context, chain []*x509.Certificate) ([]byte, time.Time, error)
}

// CA is an ACME directory that certifies us.
type CA struct {
	// Directory is its https URL. Required.
	Directory string
	// Usage is what it is asked for. Default: UsageBoth. With one directory
	// for servers and another for clients, as "chanceryd init" makes them,
	// name both here, each for its own; their order and their failures are
	// then no matter to each other's certificates.
	Usage Usage
	// Tier is when it is asked: a CA of a higher tier is a last resort, asked
	// when all of the lower ones have failed, or take their time while a
	// certificate is about to end. Default: 0, the first.
	Tier int
	// Roots check the directory's own certificate. Nil: the roots for servers
	// of the Trust. A chain that the CA issues to us must lead to one of
	// them, or to a root of the Trust for servers or for clients.
	Roots *x509.CertPool
	// EAB binds the account to a key that the CA's operator gave (RFC 8555
	// section 7.3.4). Its names may be approved already: then it is the
	// proof. Operators count accounts, so there is one: its key is derived
	// from the MAC key (HKDF), and a restart finds the account again.
	EAB *acme.ExternalAccount
	// TokenFile is the projected service account token for this CA alone,
	// its audience what the CA's operator says. "": Proof.TokenFile.
	TokenFile string
	// ServerProfile and ClientProfile are the profiles to ask for. "": none
	// is named, and the CSR's Extended Key Usage tells.
	ServerProfile, ClientProfile string
	// HTTPClient speaks to the directory; its connections stay its own
	// business. Nil: one of our own, which checks the directory with Roots
	// and keeps no connection open.
	HTTPClient *http.Client
}

// Pick is an order among the CAs of a tier. Those that failed lately come
// last whatever it says.
type Pick int

// The orders.
const (
	PickRandom  Pick = iota // spreads the load
	PickOrdered             // as listed
	PickNearest             // by the measured time of their last answers
)

// Usage is what an identity's certificates are for.
type Usage int

// The usages. With UsageBoth the identity has two certificates, unless a CA
// gives one for both.
const (
	UsageBoth Usage = iota
	UsageServer
	UsageClient
)

func (u Usage) known() bool { return u >= UsageBoth && u <= UsageClient }

// covers reports whether v, UsageServer or UsageClient, is among it.
func (u Usage) covers(v Usage) bool { return u == UsageBoth || u == v }

// usageOf is what a slot's certificate is for.
func usageOf(s *slot.Slot) Usage {
	if s.Client {
		return UsageClient
	}
	return UsageServer
}

// String is "server", "client" or "both".
func (u Usage) String() string {
	switch u {
	case UsageServer:
		return "server"
	case UsageClient:
		return "client"
	}
	return "both"
}

// Proof is how an identity proves its names. Of several ways the first that
// the CA offers is taken, in the order of the fields; where none of them fits
// and there is no token, kubernetes-01 is tried by the source address alone.
type Proof struct {
	// Solvers answer challenges, in this order.
	Solvers []acme.Solver
	// TokenFile is a projected service account token, read anew for each
	// proof (kubernetes-01). It goes to the CAs of this Config only, and of
	// several CAs only to those whose directory URL is among the token's
	// audiences: a CA must not get what another would believe. "":
	// CHANCERY_TOKEN.
	TokenFile string
	// ListenALPN is an address, ":443" say, where the identity itself listens
	// for tls-alpn-01 while [New] waits for the first certificates and the
	// program's own listener isn't there yet. "": it doesn't.
	ListenALPN string
	// NoALPN keeps tls-alpn-01 off the program's own listeners.
	NoALPN bool
}

// Clock is the time and a way to wait for it; catest has one that tests turn.
// Its methods are called from many goroutines.
type Clock interface {
	Now() time.Time
	// After sends the time once, when d has passed.
	After(d time.Duration) <-chan time.Time
}

// Cache keeps certificates and keys beyond the process, sealed by whoever
// implements it: what it is given holds private keys in clear ([SealedFile]
// seals). Its methods may block; they are called one at a time, never by a
// handshake. What it returns is checked as if a CA had sent it.
type Cache interface {
	// Load returns what Store kept last under the name, nil if nothing.
	Load(name string) ([]byte, error)
	// Store replaces what is kept under the name. Nil data removes it.
	Store(name string, data []byte) error
}
