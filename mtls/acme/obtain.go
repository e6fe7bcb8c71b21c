package acme

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Proof is one challenge about to be answered.
type Proof struct {
	Authorization    Authorization
	Challenge        Challenge
	KeyAuthorization string // RFC 8555 section 8.1; "" for a challenge without token
	AccountURL       string // for dns-account-01 and dns-persist-01
}

// Solver answers challenges of one type. Its methods are called from any
// goroutine, for many proofs at once.
type Solver interface {
	// Type is the challenge type, such as HTTP01.
	Type() string

	// Present gets everything ready for the server to look, waiting until it
	// can be seen from outside if that takes time. It returns the payload to
	// post to the challenge; nil means {}.
	Present(ctx context.Context, proof Proof) (payload any, err error)

	// CleanUp undoes Present. It is called once for each Present, failed ones
	// too, with a context of its own of half a minute.
	CleanUp(ctx context.Context, proof Proof) error
}

// ObtainRequest asks for a whole issuance.
type ObtainRequest struct {
	Order   OrderRequest
	Key     crypto.Signer // the certificate's, not the account's
	Solvers []Solver      // the preferred first

	// ExtKeyUsage is what the CSR asks for, so that a CA without profiles can
	// tell a client's certificate from a server's. None: nothing is said.
	ExtKeyUsage []x509.ExtKeyUsage
	// Processing, where it is set, is told each time the server says that the
	// order is still processing: it is at work, not silent.
	Processing func(Order)
}

// cleanUpTime bounds each CleanUp, which also runs when the caller's context
// has ended.
const cleanUpTime = 30 * time.Second

// Obtain does a whole issuance: order, a challenge for each authorization that
// isn't valid already, CSR, certificate. For each authorization the first of
// the solvers whose type is offered answers. All challenges are presented and
// accepted before any is waited for. The first certificate returned is for the
// request's key.
func (c *Client) Obtain(ctx context.Context, req ObtainRequest) (Chain, error) {
	csr, err := NewCSRFor(req.ExtKeyUsage, req.Key, req.Order.Identifiers...)
	if err != nil {
		return Chain{}, err
	}
	order, err := c.NewOrder(ctx, req.Order)
	if err != nil {
		return Chain{}, err
	}
	if order.Status == StatusPending {
		if err := c.authorize(ctx, order, req.Solvers); err != nil {
			return Chain{}, err
		}
		// Every authorization is valid, so the order is ready (RFC 8555
		// section 7.1.6) without a look at it.
		order.Status = StatusReady
	}
	if order, err = c.finalizeReady(ctx, order, csr, req.Processing); err != nil {
		return Chain{}, err
	}
	if order.Status != StatusValid || order.Certificate == "" {
		return Chain{}, fmt.Errorf("acme: the order is %s without a certificate", printable(order.Status))
	}
	chain, err := c.Certificate(ctx, order.Certificate)
	if err != nil {
		return Chain{}, err
	}
	return chain, checkLeaf(chain, req.Key.Public())
}

// finalizeReady finalizes and waits for the end. Servers that take a moment
// between a valid authorization and a ready order are met with a wait.
func (c *Client) finalizeReady(ctx context.Context, order Order, csr []byte, told func(Order)) (Order, error) {
	done, err := c.Finalize(ctx, order, csr)
	if HasType(err, ErrOrderNotReady) {
		order.Status = StatusPending
		if order, err = c.waitOrder(ctx, order, told); err != nil {
			return order, err
		}
		done, err = c.Finalize(ctx, order, csr)
	}
	if err != nil {
		return done, err
	}
	if done.Status == StatusReady { // its answer may still be the state before
		done.Status = StatusProcessing
	}
	return c.waitOrder(ctx, done, told)
}

// Authorize makes every authorization of an order valid, as Obtain does, for
// orders that are finalized otherwise (FinalizeWith). The order is ready then
// (RFC 8555 section 7.1.6); one that isn't pending is left as it is.
func (c *Client) Authorize(ctx context.Context, order Order, solvers ...Solver) error {
	if order.Status != StatusPending {
		return nil
	}
	return c.authorize(ctx, order, solvers)
}

// attempt is an authorization on its way.
type attempt struct {
	authz  Authorization
	solver Solver
	proof  Proof
}

// maxAuthorizations bounds what an order can make us do; real orders have as
// many authorizations as names.
const maxAuthorizations = 1000

// authorize makes every authorization of an order valid.
func (c *Client) authorize(ctx context.Context, order Order, solvers []Solver) (err error) {
	attempts, err := c.attempts(ctx, order, solvers)
	if err != nil {
		return err
	}
	presented := 0
	defer func() {
		for i := range attempts[:presented] {
			failed := cleanUp(ctx, &attempts[i])
			if err != nil {
				err = errors.Join(err, failed)
			} else if failed != nil && c.Logger != nil { // no reason to stop an issuance that is proven
				c.Logger.WarnContext(ctx, "acme clean-up failed", "error", failed)
			}
		}
	}()
	payloads := make([]any, len(attempts))
	for i := range attempts {
		at := &attempts[i]
		presented++
		if payloads[i], err = at.solver.Present(ctx, at.proof); err != nil {
			return fmt.Errorf("acme: %s for %s: %w", at.solver.Type(), at.authz.Identifier, err)
		}
	}
	for i := range attempts {
		at := &attempts[i]
		ch, err := c.Accept(ctx, at.proof.Challenge, payloads[i])
		if err != nil {
			return err
		}
		at.authz.RetryAfter = ch.RetryAfter
		if ch.Status == StatusValid || ch.Status == StatusInvalid { // the authorization has followed (section 7.1.6)
			at.authz.Status, at.authz.Challenges = ch.Status, []Challenge{ch}
		}
	}
	for i := range attempts {
		if _, err := c.WaitAuthorization(ctx, attempts[i].authz); err != nil {
			return err
		}
	}
	return nil
}

// attempts fetches an order's authorizations and returns those to be proven.
func (c *Client) attempts(ctx context.Context, order Order, solvers []Solver) ([]attempt, error) {
	id, err := c.account()
	if err != nil {
		return nil, err
	}
	if len(order.Authorizations) > maxAuthorizations {
		return nil, fmt.Errorf("acme: the order has more than %d authorizations", maxAuthorizations)
	}
	var attempts []attempt
	for _, url := range order.Authorizations {
		authz, err := c.Authorization(ctx, url)
		if err != nil {
			return nil, err
		}
		if authz.Status != StatusPending {
			if _, err := c.WaitAuthorization(ctx, authz); err != nil { // says why it can't be used
				return nil, err
			}
			continue
		}
		at, err := choose(authz, solvers, id)
		if err != nil {
			return nil, err
		}
		attempts = append(attempts, at)
	}
	return attempts, nil
}

// choose picks the solver and the challenge for a pending authorization.
func choose(authz Authorization, solvers []Solver, id *identity) (attempt, error) {
	var offered []string
	for _, solver := range solvers {
		for _, ch := range authz.Challenges {
			if ch.Type != solver.Type() {
				continue
			}
			proof := Proof{Authorization: authz, Challenge: ch, AccountURL: id.kid}
			if ch.Token != "" || ch.Type == HTTP01 || ch.Type == TLSALPN01 {
				var err error
				if proof.KeyAuthorization, err = keyAuthorization(ch.Token, id.key.thumbprint); err != nil {
					return attempt{}, err
				}
			}
			return attempt{authz, solver, proof}, nil
		}
	}
	for _, ch := range authz.Challenges {
		offered = append(offered, ch.Type)
	}
	return attempt{}, fmt.Errorf("acme: no solver for %s: the server offers %s", authz.Identifier, printable(strings.Join(offered, ", ")))
}

func cleanUp(ctx context.Context, at *attempt) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	if err := at.solver.CleanUp(ctx, at.proof); err != nil {
		return fmt.Errorf("acme: cleaning up %s for %s: %w", at.solver.Type(), at.authz.Identifier, err)
	}
	return nil
}

// checkLeaf makes sure that the certificate is for our key.
func checkLeaf(chain Chain, pub crypto.PublicKey) error {
	if len(chain.DER) == 0 {
		return fmt.Errorf("acme: %s: expected a certificate, got %q", chain.URL, printable(chain.ContentType))
	}
	leaf, err := x509.ParseCertificate(chain.DER[0])
	if err != nil {
		return fmt.Errorf("acme: %s: %w", chain.URL, err)
	}
	if key, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !key.Equal(pub) {
		return fmt.Errorf("acme: %s: the certificate is for another key than the request's", chain.URL)
	}
	return nil
}

// HTTP01Solver answers http-01 as an http.Handler, to be reached at port 80 of
// the names in question. Its zero value is ready; it must not be copied.
type HTTP01Solver struct {
	pending sync.Map // token → key authorization
}

// Type returns HTTP01.
func (s *HTTP01Solver) Type() string { return HTTP01 }

// Present serves the key authorization from now on.
func (s *HTTP01Solver) Present(_ context.Context, proof Proof) (any, error) {
	s.pending.Store(proof.Challenge.Token, proof.KeyAuthorization)
	return nil, nil
}

// CleanUp stops serving it.
func (s *HTTP01Solver) CleanUp(_ context.Context, proof Proof) error {
	s.pending.Delete(proof.Challenge.Token)
	return nil
}

// ServeHTTP answers requests for pending tokens, and 404 to all else.
func (s *HTTP01Solver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if token, ok := strings.CutPrefix(r.URL.Path, http01Prefix); ok && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		if keyAuth, ok := s.pending.Load(token); ok {
			w.Header()["Content-Type"] = []string{"application/octet-stream"}
			io.WriteString(w, keyAuth.(string))
			return
		}
	}
	http.NotFound(w, r)
}

// TLSALPN01Solver answers tls-alpn-01 in TLS handshakes, to be reached at port
// 443 of the names in question. Its zero value is ready; it must not be copied.
// A name has one proof pending at a time, the latest.
type TLSALPN01Solver struct {
	pending sync.Map // server name → *alpnProof
}

type alpnProof struct {
	keyAuth string
	cert    *tls.Certificate
}

// Type returns TLSALPN01.
func (s *TLSALPN01Solver) Type() string { return TLSALPN01 }

// Present makes the challenge certificate and offers it from now on.
func (s *TLSALPN01Solver) Present(_ context.Context, proof Proof) (any, error) {
	id := proof.Authorization.Identifier
	name, err := TLSALPN01ServerName(id)
	if err != nil {
		return nil, err
	}
	cert, err := TLSALPN01Certificate(id, proof.KeyAuthorization)
	if err != nil {
		return nil, err
	}
	s.pending.Store(name, &alpnProof{proof.KeyAuthorization, cert})
	return nil, nil
}

// CleanUp withdraws the certificate, unless another proof has taken its place.
func (s *TLSALPN01Solver) CleanUp(_ context.Context, proof Proof) error {
	name, err := TLSALPN01ServerName(proof.Authorization.Identifier)
	if err != nil {
		return err
	}
	if p, ok := s.pending.Load(name); ok && p.(*alpnProof).keyAuth == proof.KeyAuthorization {
		s.pending.CompareAndDelete(name, p)
	}
	return nil
}

// GetCertificate is for a tls.Config. It returns nil, and so leaves the
// handshake to the rest of the configuration, unless the client offers exactly
// acme-tls/1 for a name that has a proof pending (RFC 8737 section 3). The
// configuration must list ALPNProto in NextProtos.
func (s *TLSALPN01Solver) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if len(hello.SupportedProtos) != 1 || hello.SupportedProtos[0] != ALPNProto {
		return nil, nil
	}
	if p, ok := s.pending.Load(strings.ToLower(hello.ServerName)); ok {
		return p.(*alpnProof).cert, nil
	}
	return nil, nil
}

// TLSConfig returns a configuration for a listener that does nothing but
// answer challenges.
func (s *TLSALPN01Solver) TLSConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{ALPNProto}, GetCertificate: s.GetCertificate, SessionTicketsDisabled: true}
}
