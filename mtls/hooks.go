package mtls

import "time"

// Hooks are told what happens as it happens, each on the goroutine where it
// does: they must not block. Nil fields are skipped. Package mtlsprom makes
// Prometheus metrics of them.
type Hooks struct {
	Attempted func(Attempt)
	Shaken    func(Handshake)
}

// Attempt is one attempt to get one certificate from one CA.
type Attempt struct {
	Directory string
	Usage     Usage
	Took      time.Duration
	Err       error // nil: it succeeded
}

// Handshake is a TLS handshake that came as far as the peer's certificate.
type Handshake struct {
	Server  bool   // we are the server
	Peer    string // its first name, "" if it showed no certificate
	Resumed bool
	Err     error // nil: allowed
}

// Health says how long an identity can go on.
type Health struct {
	// DarkAt is when the first certificate ends if no CA answers from now on.
	// Where one is missing already, it is when the identity was made.
	DarkAt time.Time `json:"dark_at"`
	// Dark names it: its usage and names.
	Dark string `json:"dark"`
	// OK: every certificate is there, valid, and not overdue: of the time
	// between its planned renewal and its end a third is left at least.
	OK bool `json:"ok"`
	// Able: every certificate is there and valid, overdue or not.
	Able         bool                `json:"able"`
	Certificates []CertificateHealth `json:"certificates"`
	CAs          []CAHealth          `json:"cas"`
}

// CertificateHealth is one certificate's part of Health.
type CertificateHealth struct {
	Usage    string    `json:"usage"` // "server", "client"
	Names    []string  `json:"names"`
	Issuer   string    `json:"issuer"`             // the issuing CA certificate's subject
	NotAfter time.Time `json:"not_after,omitzero"` // zero: it isn't there yet
	RenewAt  time.Time `json:"renew_at,omitzero"`  // or the next try
	Error    string    `json:"error,omitempty"`    // of the last attempt, if that failed
}

// CAHealth is one CA's part of Health.
type CAHealth struct {
	Directory string        `json:"directory"`
	Usage     string        `json:"usage"` // "server", "client", "both": what it is asked for
	Tier      int           `json:"tier"`
	Score     float64       `json:"score"` // 1: answers well; 0: failed lately, again and again
	Latency   time.Duration `json:"latency"`
	RetryAt   time.Time     `json:"retry_at,omitzero"` // not asked before this, unless nobody else is left
	Error     string        `json:"error,omitempty"`
}
