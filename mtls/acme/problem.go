package acme

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// The error types of RFC 8555 section 6.7, RFC 9773 section 7.4 and
// draft-ietf-acme-profiles section 6.
const (
	ErrAccountDoesNotExist     = "urn:ietf:params:acme:error:accountDoesNotExist"
	ErrAlreadyReplaced         = "urn:ietf:params:acme:error:alreadyReplaced"
	ErrAlreadyRevoked          = "urn:ietf:params:acme:error:alreadyRevoked"
	ErrBadCSR                  = "urn:ietf:params:acme:error:badCSR"
	ErrBadNonce                = "urn:ietf:params:acme:error:badNonce"
	ErrBadPublicKey            = "urn:ietf:params:acme:error:badPublicKey"
	ErrBadRevocationReason     = "urn:ietf:params:acme:error:badRevocationReason"
	ErrBadSignatureAlgorithm   = "urn:ietf:params:acme:error:badSignatureAlgorithm"
	ErrCAA                     = "urn:ietf:params:acme:error:caa"
	ErrCompound                = "urn:ietf:params:acme:error:compound"
	ErrConnection              = "urn:ietf:params:acme:error:connection"
	ErrDNS                     = "urn:ietf:params:acme:error:dns"
	ErrExternalAccountRequired = "urn:ietf:params:acme:error:externalAccountRequired"
	ErrIncorrectResponse       = "urn:ietf:params:acme:error:incorrectResponse"
	ErrInvalidContact          = "urn:ietf:params:acme:error:invalidContact"
	ErrInvalidProfile          = "urn:ietf:params:acme:error:invalidProfile"
	ErrMalformed               = "urn:ietf:params:acme:error:malformed"
	ErrOrderNotReady           = "urn:ietf:params:acme:error:orderNotReady"
	ErrRateLimited             = "urn:ietf:params:acme:error:rateLimited"
	ErrRejectedIdentifier      = "urn:ietf:params:acme:error:rejectedIdentifier"
	ErrServerInternal          = "urn:ietf:params:acme:error:serverInternal"
	ErrTLS                     = "urn:ietf:params:acme:error:tls"
	ErrUnauthorized            = "urn:ietf:params:acme:error:unauthorized"
	ErrUnsupportedContact      = "urn:ietf:params:acme:error:unsupportedContact"
	ErrUnsupportedIdentifier   = "urn:ietf:params:acme:error:unsupportedIdentifier"
	ErrUserActionRequired      = "urn:ietf:params:acme:error:userActionRequired"
)

// Problem is an error which the server reports (RFC 8555 section 6.7, RFC
// 7807). An answer that should have carried one and didn't becomes a Problem
// of type "about:blank" with the HTTP status.
type Problem struct {
	Type        string      `json:"type"`
	Title       string      `json:"title,omitempty"`
	Detail      string      `json:"detail,omitempty"`
	Status      int         `json:"status,omitempty"`      // the HTTP status
	Instance    string      `json:"instance,omitempty"`    // for userActionRequired: a URL for a person (section 7.3.3)
	Identifier  *Identifier `json:"identifier,omitempty"`  // what a subproblem is about (section 6.7.1)
	Subproblems []Problem   `json:"subproblems,omitempty"` // one per identifier (section 6.7.1)
	Algorithms  []string    `json:"algorithms,omitempty"`  // for badSignatureAlgorithm (section 6.2)

	// RetryAfter is when to try again (section 6.6), at most a day; 0 if the
	// server didn't say.
	RetryAfter time.Duration `json:"-"`
}

// An error text is for one line of a log: so much of a server's words is shown.
const (
	maxShownText        = 1000
	maxShownSubproblems = 5
)

// Error returns type, detail and the first subproblems on one line, bounded,
// without control characters (a server must not write to a terminal).
func (p *Problem) Error() string {
	var b strings.Builder
	p.write(&b)
	for i := range p.Subproblems {
		if i == maxShownSubproblems {
			fmt.Fprintf(&b, "; and %d more", len(p.Subproblems)-i)
			break
		}
		b.WriteString("; ")
		if id := p.Subproblems[i].Identifier; id != nil {
			b.WriteString(printable(id.Value) + ": ")
		}
		p.Subproblems[i].write(&b)
	}
	if p.Instance != "" {
		b.WriteString(" (see " + printable(p.Instance) + ")")
	}
	return b.String()
}

func (p *Problem) write(b *strings.Builder) {
	b.WriteString(printable(strings.TrimPrefix(p.Type, "urn:ietf:params:acme:error:")))
	if text := p.Detail + p.Title; text != "" {
		if p.Detail != "" {
			text = p.Detail
		}
		b.WriteString(": " + printable(text))
	}
	if len(p.Algorithms) > 0 {
		b.WriteString(" (supported: " + printable(strings.Join(p.Algorithms, ", ")) + ")")
	}
}

// LogValue shows the problem as a group in structured logs.
func (p *Problem) LogValue() slog.Value {
	attrs := []slog.Attr{
		slog.String("type", printable(p.Type)),
		slog.Int("status", p.Status),
		slog.String("detail", printable(p.Detail)),
	}
	if len(p.Subproblems) > 0 {
		attrs = append(attrs, slog.Int("subproblems", len(p.Subproblems)))
	}
	if p.RetryAfter > 0 {
		attrs = append(attrs, slog.Duration("retryAfter", p.RetryAfter))
	}
	return slog.GroupValue(attrs...)
}

// HasType reports whether err is, or wraps, a Problem of the given type, one
// of the Err constants.
func HasType(err error, typ string) bool {
	p, ok := errors.AsType[*Problem](err)
	return ok && p.Type == typ
}

// printable makes a server's text fit for one line of a person's terminal.
func printable(s string) string {
	cut := len(s) > maxShownText
	if cut {
		s = s[:maxShownText]
	}
	s = strings.Map(func(r rune) rune {
		// C0, C1 (a terminal takes U+009B for ESC [) and the characters
		// that turn the direction of what follows.
		if r < 0x20 || 0x7f <= r && r < 0xa0 || 0x202a <= r && r <= 0x202e || 0x2066 <= r && r <= 0x2069 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if cut {
		s += "…"
	}
	return s
}
