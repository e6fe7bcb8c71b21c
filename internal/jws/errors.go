package jws

import (
	"fmt"
	"strings"
)

// Kind says which problem type of RFC 8555 section 6.7 a fault belongs to.
type Kind int

// The kinds of fault.
const (
	// Malformed: the message isn't an ACME request.
	Malformed Kind = iota + 1
	// BadSignatureAlgorithm: alg isn't one we take, or doesn't fit the key.
	BadSignatureAlgorithm
	// BadPublicKey: a key of a kind, size or form that we don't take.
	BadPublicKey
	// Unauthorized: all is well formed, but the signature or MAC is wrong.
	Unauthorized
)

// String gives the kind as the last part of its ACME error URN.
func (k Kind) String() string {
	switch k {
	case Malformed:
		return "malformed"
	case BadSignatureAlgorithm:
		return "badSignatureAlgorithm"
	case BadPublicKey:
		return "badPublicKey"
	case Unauthorized:
		return "unauthorized"
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// Error is a fault of the client's. The client may see all of it.
type Error struct {
	Kind Kind
	// Detail says what is wrong and what to do, in one line of bounded length.
	Detail string
	// Algorithms lists what alg may be; set for BadSignatureAlgorithm only. It
	// is the "algorithms" member of the problem document (RFC 8555 section 6.2).
	Algorithms []string
}

func (e *Error) Error() string { return e.Kind.String() + ": " + e.Detail }

// What the client sent goes into details only by %.40q: short, and quoted.

func malformed(format string, args ...any) error {
	return &Error{Kind: Malformed, Detail: fmt.Sprintf(format, args...)}
}

func badKey(format string, args ...any) error {
	return &Error{Kind: BadPublicKey, Detail: fmt.Sprintf(format, args...)}
}

func badAlgorithm(supported []string, format string, args ...any) error {
	return &Error{
		Kind:       BadSignatureAlgorithm,
		Detail:     fmt.Sprintf(format, args...) + "; supported: " + strings.Join(supported, ", "),
		Algorithms: supported,
	}
}
