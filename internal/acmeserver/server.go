package acmeserver

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// Server serves the ACME directories of one authority. Its fields must not
// change after Handler was called.
type Server struct {
	Authority *ca.Authority
	Nonces    Nonces
	// BaseURL is where clients find us, "https://HOST" or "https://HOST:PORT"
	// without a path: the only source of the URLs we hand out.
	BaseURL     string
	Directories map[string]Meta   // by name, which is one path segment
	Logger      *slog.Logger      // nil: silent
	Observe     func(Observation) // nil: none; must not block
}

// Nonces makes and takes back anti-replay nonces (RFC 8555 section 6.5);
// store.Nonces is the real one. New does no I/O. Use reports whether the nonce
// was handed out, is recent and comes back for the first time on any replica;
// its error is the server's own trouble.
type Nonces interface {
	New() string
	Use(ctx context.Context, nonce string) (bool, error)
}

// Meta is what a directory says about itself (RFC 8555 section 7.1.1).
type Meta struct {
	TermsOfService          string   // a URL; "" means a small page of ours at /terms/NAME
	RequireTerms            bool     // refuse new accounts that don't agree (section 7.3)
	Website                 string   // a URL; "" leaves it out
	CAAIdentities           []string // names for CAA issue properties
	ExternalAccountRequired bool
	Profiles                []cert.Profile // each is described by a page of ours
	// IssuerNames are the issuer-domain-names shown in dns-persist-01
	// challenges (draft-ietf-acme-dns-persist section 4).
	IssuerNames []string
	// AccountHashPrefix begins the hashed account URIs of dns-persist-01
	// records (section 4.1 there); it must not change. "" leaves it out.
	AccountHashPrefix string
	SSH               *SSHMeta // nil: no profile gives SSH certificates
}

// SSHMeta is what hosts and people need to trust SSH certificates: keys as lines
// of authorized_keys, and where the KRL is, whose signature is at the same URL
// with ".sig" after it.
type SSHMeta struct {
	UserKeys []string `json:"userKeys"`
	HostKeys []string `json:"hostKeys"`
	KRL      string   `json:"krl"`
}

// Observation is one finished request, for metrics. Every field has few
// values, whatever clients send, but for the times.
type Observation struct {
	Directory string // "" if the path named none of ours
	Resource  string // "newOrder", "challenge" …; "unknown"
	Status    int
	Problem   protocol.ProblemType // "" for success
	Took      time.Duration
}

// handlerTimeout bounds the work on one request, so that a database that
// hangs gives an answer. A POST is held for a second at most (DESIGN section
// 4) and a healthy database answers in milliseconds.
const handlerTimeout = 20 * time.Second

// handler is a Server made ready: what doesn't change is rendered once.
type handler struct {
	Server
	base string // BaseURL without a slash at the end
	dirs map[string]*directory
}

// Handler returns the server's HTTP handler. It answers every path; nothing
// else need be mounted beside it.
func (s *Server) Handler() http.Handler {
	h := &handler{Server: *s, base: strings.TrimSuffix(s.BaseURL, "/"), dirs: make(map[string]*directory, len(s.Directories))}
	if h.Logger == nil {
		h.Logger = slog.New(slog.DiscardHandler)
	}
	for name, meta := range s.Directories {
		h.dirs[name] = newDirectory(h.base, name, meta)
	}
	return h
}

// signedBy says whose key signs requests to a resource (RFC 8555 section 6.2).
type signedBy int

const (
	byAccount       signedBy = iota // kid: an account of the directory
	byKey                           // jwk: a key without an account, at newAccount
	byAccountOrCert                 // kid, or jwk with a certificate's key, at revokeCert
)

// endpoint is one kind of resource and what may be done with it.
type endpoint struct {
	name   string // for logs and metrics
	get    action // unsigned; nil: not allowed
	post   action // signed as signer says; nil: not allowed
	signer signedBy
}

// action serves one request. What it puts into the response besides status
// and body (a Location, say) is sent along with an error too.
type action func(context.Context, *request) (response, error)

// asGet makes the action that a POST-as-GET asks for (RFC 8555 section 6.3).
func asGet(show action) action {
	return func(ctx context.Context, q *request) (response, error) {
		if err := q.wantPostAsGet(); err != nil {
			return response{}, err
		}
		return show(ctx, q)
	}
}

// allow is the Allow header's value.
func (e *endpoint) allow() string {
	switch {
	case e.post == nil:
		return "GET, HEAD, OPTIONS"
	case e.get == nil:
		return "POST, OPTIONS"
	}
	return "GET, HEAD, POST, OPTIONS"
}

// The resources of RFC 8555 section 7.1 and RFC 9773 section 4: single ones
// by their one word, others by the first of theirs. Constant.
var (
	singles = map[string]*endpoint{
		"directory":   {name: "directory", get: showDirectory, post: asGet(showDirectory)},
		"new-nonce":   {name: "newNonce", get: newNonce, post: asGet(newNonce)},
		"new-account": {name: "newAccount", post: newAccount, signer: byKey},
		"new-order":   {name: "newOrder", post: newOrder},
		"new-authz":   {name: "newAuthz", post: newAuthz},
		"key-change":  {name: "keyChange", post: keyChange},
		"revoke-cert": {name: "revokeCert", post: revokeCert, signer: byAccountOrCert},
	}
	items = map[string]*endpoint{
		"account":      {name: "account", post: account},
		"order":        {name: "order", post: asGet(showOrder)},
		"authz":        {name: "authorization", post: authorization},
		"certificate":  {name: "certificate", post: asGet(showCertificate)},
		"renewal-info": {name: "renewalInfo", get: renewalInfo},
		"profile":      {name: "profile", get: showProfile},
	}
	ordersEndpoint    = &endpoint{name: "orders", post: asGet(showOrders)}
	finalizeEndpoint  = &endpoint{name: "finalize", post: finalize}
	challengeEndpoint = &endpoint{name: "challenge", post: challenge}
	termsEndpoint     = &endpoint{name: "terms", get: showTerms}
	// unknown stands for paths that name nothing.
	unknown = &endpoint{name: "unknown"}
)

// subEndpoint finds the resource with a third word, nil for none.
func subEndpoint(resource, sub string) *endpoint {
	switch {
	case resource == "account" && sub == "orders":
		return ordersEndpoint
	case resource == "order" && sub == "finalize":
		return finalizeEndpoint
	case resource == "challenge":
		return challengeEndpoint
	case resource == "certificate" && sub != "":
		return items[resource]
	}
	return nil
}

// route finds what a path names: /acme/NAME/RESOURCE[/ID[/SUB]] or
// /terms/NAME. It takes the path as it was sent, so that a name written with
// percent signs, which no URL of ours has, isn't one.
func (h *handler) route(path string) (d *directory, e *endpoint, id, sub string) {
	if name, ok := strings.CutPrefix(path, "/terms/"); ok && h.dirs[name] != nil {
		return h.dirs[name], termsEndpoint, "", ""
	}
	rest, ok := strings.CutPrefix(path, "/acme/")
	if !ok {
		return nil, unknown, "", ""
	}
	name, rest, _ := strings.Cut(rest, "/")
	if d = h.dirs[name]; d == nil {
		return nil, unknown, "", ""
	}
	resource, rest, more := strings.Cut(rest, "/")
	if !more {
		return d, cmp.Or(singles[resource], unknown), "", ""
	}
	id, sub, more = strings.Cut(rest, "/")
	if more {
		e = subEndpoint(resource, sub)
	} else {
		e = items[resource]
	}
	return d, cmp.Or(e, unknown), id, sub
}
