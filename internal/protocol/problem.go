package protocol

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// ProblemType is an ACME error type without its URN prefix (RFC 8555
// section 6.7).
type ProblemType string

// ProblemPrefix stands before a ProblemType on the wire.
const ProblemPrefix = "urn:ietf:params:acme:error:"

// The problem types of RFC 8555 section 6.7, RFC 9773 section 7.4,
// draft-ietf-acme-profiles section 6.3 and draft-ietf-acme-device-attest.
const (
	AccountDoesNotExist     ProblemType = "accountDoesNotExist"
	AlreadyReplaced         ProblemType = "alreadyReplaced"
	AlreadyRevoked          ProblemType = "alreadyRevoked"
	BadAttestationStatement ProblemType = "badAttestationStatement"
	BadCSR                  ProblemType = "badCSR"
	BadNonce                ProblemType = "badNonce"
	BadPublicKey            ProblemType = "badPublicKey"
	BadRevocationReason     ProblemType = "badRevocationReason"
	BadSignatureAlgorithm   ProblemType = "badSignatureAlgorithm"
	CAAForbids              ProblemType = "caa"
	Compound                ProblemType = "compound"
	ConnectionFailed        ProblemType = "connection"
	DNSFailed               ProblemType = "dns"
	ExternalAccountRequired ProblemType = "externalAccountRequired"
	IncorrectResponse       ProblemType = "incorrectResponse"
	InvalidContact          ProblemType = "invalidContact"
	InvalidProfile          ProblemType = "invalidProfile"
	Malformed               ProblemType = "malformed"
	OrderNotReady           ProblemType = "orderNotReady"
	RateLimited             ProblemType = "rateLimited"
	RejectedIdentifier      ProblemType = "rejectedIdentifier"
	ServerInternal          ProblemType = "serverInternal"
	TLSFailed               ProblemType = "tls"
	Unauthorized            ProblemType = "unauthorized"
	UnsupportedContact      ProblemType = "unsupportedContact"
	UnsupportedIdentifier   ProblemType = "unsupportedIdentifier"
	UserActionRequired      ProblemType = "userActionRequired"
)

// status is the HTTP status each type is answered with unless a problem
// carries its own. RFC 8555 fixes few of them (rateLimited 429 in section
// 6.6, accountDoesNotExist 400 in 7.3.1, alreadyReplaced 409 in RFC 9773,
// orderNotReady 403 in 7.4); unauthorized is 403 as in section 7.4 and the
// rest are the client's fault, 400.
func (t ProblemType) status() int {
	switch t {
	case Unauthorized, OrderNotReady, CAAForbids, UserActionRequired, ExternalAccountRequired:
		return http.StatusForbidden
	case AlreadyReplaced:
		return http.StatusConflict
	case RateLimited:
		return http.StatusTooManyRequests
	case ServerInternal:
		return http.StatusInternalServerError
	}
	return http.StatusBadRequest
}

// Problem is what the client did wrong, or what kept us from serving it, in
// the form the client is told (RFC 8555 section 6.7, RFC 7807). It is the one
// error type that crosses the edge: any other error is shown as
// serverInternal with nothing inside.
type Problem struct {
	Type       ProblemType
	Detail     string      // for a person; says what to do
	Status     int         // HTTP status; 0 means the type's own
	Identifier *Identifier // the name it is about, in a subproblem
	Sub        []Problem   // one per identifier (section 6.7.1)
	Algorithms []string    // for badSignatureAlgorithm (section 6.2)
	Instance   string      // for userActionRequired (section 7.3.3): a URL
	RetryAfter time.Duration
}

// NewProblem makes a problem whose detail is formatted as by fmt.Sprintf.
func NewProblem(t ProblemType, format string, args ...any) *Problem {
	return &Problem{Type: t, Detail: fmt.Sprintf(format, args...)}
}

// Error returns "type: detail".
func (p *Problem) Error() string { return string(p.Type) + ": " + p.Detail }

// HTTPStatus is the status of the answer that carries the problem.
func (p *Problem) HTTPStatus() int {
	if p.Status != 0 {
		return p.Status
	}
	return p.Type.status()
}

// For returns a copy that names the identifier the problem is about.
func (p *Problem) For(id Identifier) *Problem {
	q := *p
	q.Identifier = &id
	return &q
}

// After returns a copy that asks the client to wait d before it tries again.
func (p *Problem) After(d time.Duration) *Problem {
	q := *p
	q.RetryAfter = d
	return &q
}

// WithStatus returns a copy answered with another HTTP status.
func (p *Problem) WithStatus(code int) *Problem {
	q := *p
	q.Status = code
	return &q
}

// AsProblem finds the problem inside err, or makes the serverInternal one
// that tells a stranger nothing.
func AsProblem(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	return NewProblem(ServerInternal, "the server could not do this just now; please try again").After(5 * time.Second)
}

// Join makes one problem of several: the only one itself, else one of type t
// with a subproblem each (section 6.7.1). It returns nil for none.
func Join(t ProblemType, problems []*Problem) *Problem {
	switch len(problems) {
	case 0:
		return nil
	case 1:
		return problems[0]
	}
	all := NewProblem(t, "%d identifiers have a problem; see the subproblems", len(problems))
	for _, p := range problems {
		if p.Type != t {
			all.Type = Compound
		}
		all.Sub = append(all.Sub, *p)
	}
	return all
}
