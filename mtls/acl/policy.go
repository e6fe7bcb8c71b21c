package acl

import (
	"fmt"
	"strconv"
)

// Policy says who may talk to us. Its methods are called for every handshake
// and every request, by many goroutines at once: they should be quick, and
// not wait for the network. [*Rules], [*File] and [Func] are policies.
type Policy interface {
	// Allow says whether the peer may connect. Nil is yes; an error, a
	// [*Denied] as a rule, is no.
	Allow(p *Peer) error
	// AllowRequest says whether it may make the request. Nil is yes.
	AllowRequest(p *Peer, r Request) error
}

// Request is what a peer asks for.
type Request struct {
	// Method is HTTP's; for gRPC it is "POST".
	Method string
	// Path is the URL's in its encoded form, url.URL.EscapedPath() of what
	// came, before anything was stripped or cleaned: the decoded URL.Path
	// hides an encoded slash. For gRPC it is the full method's name,
	// "/pkg.Service/Method".
	Path string
}

// String shows the request as rules show theirs, as in `GET "/reports/a"`.
func (r Request) String() string {
	method := r.Method
	if methodFault(method) != "" {
		method = strconv.QuoteToASCII(shortened(method))
	}
	return method + " " + strconv.QuoteToASCII(shortened(r.Path))
}

// Denied is the error of a peer that may not. Its text is for the operator's
// log; the peer should not be told.
type Denied struct {
	Peer    *Peer
	Request *Request // nil: it was the connection
	// Rule is the deny rule, as in "rules.acl:4: deny old.batch.internal".
	// "": no rule allowed it.
	Rule string
	// Reason is set where no rule was to blame.
	Reason string

	rules *Rules // for the text: who comes nearest
}

// Error says who was denied what, and which rule was missing or forbade it.
func (d *Denied) Error() string {
	who := d.Peer.String()
	if d.Request != nil {
		who += " " + d.Request.String()
	}
	switch {
	case d.Reason != "":
		return fmt.Sprintf("%s is not allowed: %s", who, d.Reason)
	case d.Rule != "":
		return fmt.Sprintf("%s is denied by %s", who, d.Rule)
	}
	return fmt.Sprintf("no rule allows %s%s", who, d.rules.nearest(d.Peer, d.Request))
}

// Func is a policy made of a function: true is yes. It is asked for the
// connection and again for each request, with certificates without names too,
// but never with nil.
type Func func(p *Peer) bool

// Allow asks the function.
func (f Func) Allow(p *Peer) error {
	if f != nil && p != nil && f(p) {
		return nil
	}
	return &Denied{Peer: p, Reason: "the program's own function says no"}
}

// AllowRequest asks the function too; the request doesn't matter.
func (f Func) AllowRequest(p *Peer, r Request) error {
	if f != nil && p != nil && f(p) {
		return nil
	}
	denied := r // r itself must not escape: that would cost the allowed an allocation
	return &Denied{Peer: p, Request: &denied, Reason: "the program's own function says no"}
}

// Anyone lets in everyone whose certificate has been verified, whatever its
// names, and without any: all that the CA ever certified.
func Anyone() Policy { return Func(func(*Peer) bool { return true }) }
