package acmeserver

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/chancery-pki/chancery/internal/jws"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// problemObject is a problem document (RFC 7807, RFC 8555 section 6.7).
type problemObject struct {
	Type        string               `json:"type"`
	Detail      string               `json:"detail,omitempty"`
	Status      int                  `json:"status,omitempty"`
	Identifier  *protocol.Identifier `json:"identifier,omitempty"`  // in subproblems only (section 6.7.1)
	Subproblems []problemObject      `json:"subproblems,omitempty"` // section 6.7.1
	Algorithms  []string             `json:"algorithms,omitempty"`  // section 6.2
	Instance    string               `json:"instance,omitempty"`    // section 7.3.3
}

// renderProblem makes the document, for an answer or inside an order or a
// challenge; nil gives nil.
func renderProblem(p *protocol.Problem) *problemObject {
	if p == nil {
		return nil
	}
	o := problemOf(p)
	o.Status = p.HTTPStatus()
	// "The identifier field MUST NOT be present at the top level."
	o.Identifier = nil
	return &o
}

func problemOf(p *protocol.Problem) problemObject {
	o := problemObject{
		Type: protocol.ProblemPrefix + string(p.Type), Detail: p.Detail,
		Identifier: p.Identifier, Algorithms: p.Algorithms, Instance: p.Instance,
	}
	for i := range p.Sub {
		o.Subproblems = append(o.Subproblems, problemOf(&p.Sub[i]))
	}
	return o
}

// retryUnavailable is when to come back while the database is away or full:
// long enough to let it come back, short enough to be waited for.
const retryUnavailable = 5 * time.Second

// asProblem turns any error into the problem that the client is shown. What
// isn't a *protocol.Problem is the server's own trouble and says nothing.
func asProblem(err error) *protocol.Problem {
	if p, ok := errors.AsType[*protocol.Problem](err); ok {
		return p
	}
	if errors.Is(err, store.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return protocol.NewProblem(protocol.ServerInternal, "the server can't serve requests at the moment; try again in a few seconds").
			WithStatus(http.StatusServiceUnavailable).After(retryUnavailable)
	}
	return protocol.AsProblem(err)
}

// signatureProblem maps what jws found. A signature that doesn't verify is
// malformed: RFC 8555 names no type for it, Boulder, Pebble and step-ca say
// malformed, and clients take unauthorized for an account that has ended.
func signatureProblem(err error) error {
	e, ok := errors.AsType[*jws.Error](err)
	if !ok {
		return err
	}
	types := map[jws.Kind]protocol.ProblemType{
		jws.BadSignatureAlgorithm: protocol.BadSignatureAlgorithm,
		jws.BadPublicKey:          protocol.BadPublicKey,
	}
	t, ok := types[e.Kind]
	if !ok {
		t = protocol.Malformed
	}
	return &protocol.Problem{Type: t, Detail: e.Detail, Algorithms: e.Algorithms}
}
