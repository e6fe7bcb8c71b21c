package acme

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// OrderRequest asks for a certificate (RFC 8555 section 7.4).
type OrderRequest struct {
	Identifiers []Identifier `json:"identifiers"`
	Profile     string       `json:"profile,omitempty"`  // one of Meta.Profiles
	Replaces    string       `json:"replaces,omitempty"` // CertID of the certificate to replace (RFC 9773 section 5)
	NotBefore   time.Time    `json:"notBefore,omitzero"` // zero leaves it to the server
	NotAfter    time.Time    `json:"notAfter,omitzero"`  // zero leaves it to the server
}

// NewOrder makes an order.
func (c *Client) NewOrder(ctx context.Context, req OrderRequest) (Order, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return Order{}, err
	}
	// Whole seconds, since some servers read no fractions; the zero time
	// stays zero.
	req.NotBefore, req.NotAfter = req.NotBefore.UTC().Truncate(time.Second), req.NotAfter.UTC().Truncate(time.Second)
	var order Order
	a, err := c.send(ctx, dir.NewOrder, req, &order)
	if err != nil {
		return Order{}, err
	}
	order.RetryAfter = a.retryAfter()
	order.URL, err = a.location()
	return order, err
}

// Order fetches an order.
func (c *Client) Order(ctx context.Context, url string) (Order, error) {
	order := Order{URL: url}
	a, err := c.fetch(ctx, url, &order)
	if err != nil {
		return Order{}, err
	}
	order.RetryAfter = a.retryAfter()
	return order, nil
}

// PreAuthorize asks for an authorization before any order (RFC 8555 section
// 7.4.1). It fails where the directory has no newAuthz.
func (c *Client) PreAuthorize(ctx context.Context, id Identifier) (Authorization, error) {
	url, err := c.resource(ctx, "newAuthz", func(d *Directory) string { return d.NewAuthz })
	if err != nil {
		return Authorization{}, err
	}
	var authz Authorization
	a, err := c.send(ctx, url, map[string]Identifier{"identifier": id}, &authz)
	if err != nil {
		return Authorization{}, err
	}
	authz.RetryAfter = a.retryAfter()
	authz.URL, err = a.location()
	return authz, err
}

// Authorization fetches an authorization (RFC 8555 section 7.5).
func (c *Client) Authorization(ctx context.Context, url string) (Authorization, error) {
	authz := Authorization{URL: url}
	a, err := c.fetch(ctx, url, &authz)
	if err != nil {
		return Authorization{}, err
	}
	authz.RetryAfter = a.retryAfter()
	return authz, nil
}

// DeactivateAuthorization gives an authorization up (RFC 8555 section 7.5.2).
func (c *Client) DeactivateAuthorization(ctx context.Context, url string) (Authorization, error) {
	authz := Authorization{URL: url}
	_, err := c.send(ctx, url, statusChange{StatusDeactivated}, &authz)
	return authz, err
}

// Challenge fetches a challenge.
func (c *Client) Challenge(ctx context.Context, url string) (Challenge, error) {
	var ch Challenge
	a, err := c.fetch(ctx, url, &ch)
	if err != nil {
		return Challenge{}, err
	}
	ch.RetryAfter = a.retryAfter()
	return ch, nil
}

// Accept tells the server that the challenge can be tried (RFC 8555 section
// 7.5.1) and returns it as the server then sees it, maybe valid already. The
// payload is what the challenge type asks for, as JSON; nil means {}, which
// all of RFC 8555's take.
func (c *Client) Accept(ctx context.Context, ch Challenge, payload any) (Challenge, error) {
	if payload == nil {
		payload = struct{}{}
	}
	var got Challenge
	a, err := c.send(ctx, ch.URL, payload, &got)
	if err != nil {
		return Challenge{}, err
	}
	got.RetryAfter = a.retryAfter()
	return got, nil
}

// Finalize asks for the certificate with a PKCS#10 request in DER (RFC 8555
// section 7.4). The order it returns may be valid already, else WaitOrder.
func (c *Client) Finalize(ctx context.Context, order Order, csr []byte) (Order, error) {
	return c.FinalizeWith(ctx, order, map[string]string{"csr": b64.EncodeToString(csr)})
}

// FinalizeWith is Finalize with any payload, for orders of things that a CSR
// can't ask for.
func (c *Client) FinalizeWith(ctx context.Context, order Order, payload any) (Order, error) {
	got := Order{URL: order.URL}
	a, err := c.send(ctx, order.Finalize, payload, &got)
	if err != nil {
		return Order{}, err
	}
	got.RetryAfter = a.retryAfter()
	return got, nil
}

const (
	// minPoll and maxPoll bound the pause before a look at something that
	// isn't final yet: no server is asked faster, and none makes us sleep
	// through what it has finished.
	minPoll = 100 * time.Millisecond
	maxPoll = time.Minute
	// growPoll ends the growth of the pauses where the server names none.
	growPoll = 5 * time.Second
	// maxWait ends a wait whose context has no deadline.
	maxWait = 10 * time.Minute
)

// poll calls look until it says done. Each pause is what the last look, or
// retryAfter at first, asked for, else grows.
func poll(ctx context.Context, retryAfter time.Duration, look func(context.Context) (done bool, next time.Duration, err error)) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, maxWait, fmt.Errorf("acme: not finished after %v", maxWait))
		defer cancel()
	}
	for own := minPoll; ; own = min(2*own, growPoll) {
		pause := own
		if retryAfter > 0 {
			pause = min(max(retryAfter, minPoll), maxPoll)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("acme: waiting for the server: %w", context.Cause(ctx))
		}
		done, next, err := look(ctx)
		if done || err != nil {
			return err
		}
		retryAfter = next
	}
}

// WaitAuthorization waits until the authorization is no longer pending and
// returns it; one that isn't valid comes with an error that wraps its failed
// challenge's Problem. It looks when authz.RetryAfter, and the server's later
// Retry-After, say (at most a minute), until the context ends or, where it has
// no deadline, for ten minutes. One that is final already costs nothing.
func (c *Client) WaitAuthorization(ctx context.Context, authz Authorization) (Authorization, error) {
	if authz.Status == StatusPending {
		err := poll(ctx, authz.RetryAfter, func(ctx context.Context) (bool, time.Duration, error) {
			got, err := c.Authorization(ctx, authz.URL)
			if err != nil {
				return false, 0, err
			}
			authz = got
			return authz.Status != StatusPending, authz.RetryAfter, nil
		})
		if err != nil {
			return authz, err
		}
	}
	if authz.Status == StatusValid {
		return authz, nil
	}
	for _, ch := range authz.Challenges {
		if ch.Error != nil {
			return authz, fmt.Errorf("acme: %s by %s: %w", authz.Identifier, ch.Type, ch.Error)
		}
	}
	return authz, fmt.Errorf("acme: the authorization for %s is %q", authz.Identifier, printable(authz.Status))
}

// WaitOrder waits until the order is ready, valid or invalid and returns it;
// an invalid one comes with an error that wraps its Problem. It looks as
// WaitAuthorization does. One that is in such a state already costs nothing.
func (c *Client) WaitOrder(ctx context.Context, order Order) (Order, error) {
	return c.waitOrder(ctx, order, nil)
}

// waitOrder is WaitOrder that tells of each look at a processing order.
func (c *Client) waitOrder(ctx context.Context, order Order, told func(Order)) (Order, error) {
	unfinished := func() bool {
		if told != nil && order.Status == StatusProcessing {
			told(order)
		}
		return order.Status == StatusPending || order.Status == StatusProcessing
	}
	if unfinished() {
		err := poll(ctx, order.RetryAfter, func(ctx context.Context) (bool, time.Duration, error) {
			got, err := c.Order(ctx, order.URL)
			if err != nil {
				return false, 0, err
			}
			order = got
			return !unfinished(), order.RetryAfter, nil
		})
		if err != nil {
			return order, err
		}
	}
	switch {
	case order.Status == StatusReady || order.Status == StatusValid:
		return order, nil
	case order.Error != nil:
		return order, fmt.Errorf("acme: the order is %s: %w", printable(order.Status), order.Error)
	}
	return order, fmt.Errorf("acme: the order is %q", printable(order.Status))
}

// Chain is what a certificate URL holds (RFC 8555 section 7.4.2).
type Chain struct {
	URL         string
	ContentType string   // application/pem-certificate-chain, or what the server calls another kind
	PEM         []byte   // the body as it came
	DER         [][]byte // the leaf first; nil for other content types
	Alternates  []string // URLs of other chains for the same leaf
}

// pemChain is the content type of RFC 8555 section 9.1.
const pemChain = "application/pem-certificate-chain"

// maxChain bounds a chain; real ones have two to four certificates.
const maxChain = 16

// Certificate fetches a certificate and its chain, or whatever other kind of
// credential the order was for (see Chain.ContentType).
func (c *Client) Certificate(ctx context.Context, url string) (Chain, error) {
	id, err := c.account()
	if err != nil {
		return Chain{}, err
	}
	a, err := c.post(ctx, id, url, nil)
	if err != nil {
		return Chain{}, err
	}
	chain := Chain{URL: url, ContentType: a.mediaType(), PEM: a.body, Alternates: a.links("alternate")}
	if chain.ContentType == pemChain {
		chain.DER, err = parseChain(a.body)
	} else if chain.ContentType == "" || len(a.body) == 0 {
		err = errors.New("the answer is empty or has no content type")
	}
	if err != nil {
		return Chain{}, fmt.Errorf("acme: %s: %w", url, err)
	}
	return chain, nil
}

// parseChain takes certificates and nothing else: chains are written into
// files where another block, a key say, would be taken seriously (RFC 8555
// section 11.4).
func parseChain(data []byte) ([][]byte, error) {
	var der [][]byte
	for rest := bytes.TrimSpace(data); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		if len(der) == maxChain {
			return nil, fmt.Errorf("the chain has more than %d certificates", maxChain)
		}
		if !bytes.HasPrefix(rest, []byte("-----BEGIN CERTIFICATE-----")) {
			return nil, errors.New("the chain has something other than certificates in it")
		}
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			return nil, errors.New("the chain is not PEM certificates")
		}
		der = append(der, block.Bytes)
	}
	if len(der) == 0 {
		return nil, errors.New("the chain is empty")
	}
	return der, nil
}

// Reasons for revocation (RFC 5280 section 5.3.1).
const (
	ReasonUnspecified          = 0
	ReasonKeyCompromise        = 1
	ReasonAffiliationChanged   = 3
	ReasonSuperseded           = 4
	ReasonCessationOfOperation = 5
	ReasonPrivilegeWithdrawn   = 9
)

// Revoke revokes a certificate, given in DER (RFC 8555 section 7.6). With a
// key, the certificate's own, the request is signed by that and needs no
// account; with nil by the account.
func (c *Client) Revoke(ctx context.Context, cert []byte, reason int, key crypto.Signer) error {
	url, err := c.resource(ctx, "revokeCert", func(d *Directory) string { return d.RevokeCert })
	if err != nil {
		return err
	}
	var id *identity
	if key != nil {
		certKey, err := newJWSKey(key)
		if err != nil {
			return err
		}
		id = certKey.byKey()
	} else if id, err = c.account(); err != nil {
		return err
	}
	payload, err := json.Marshal(struct {
		Certificate string `json:"certificate"`
		Reason      int    `json:"reason,omitempty"`
	}{b64.EncodeToString(cert), reason})
	if err != nil {
		return err
	}
	_, err = c.post(ctx, id, url, payload)
	return err
}

// The bounds of RenewalInfo.RetryAfter (RFC 9773 section 4.3.2 and 4.3.3).
const (
	minRenewalInfo     = time.Minute
	defaultRenewalInfo = 6 * time.Hour
)

// RenewalInfo asks when a certificate should be renewed (RFC 9773 section
// 4.1). It needs no account. It fails where the directory has no renewalInfo,
// the certificate no authority key identifier, or the window ends before it
// starts.
func (c *Client) RenewalInfo(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
	url, err := c.resource(ctx, "renewalInfo", func(d *Directory) string { return d.RenewalInfo })
	if err != nil {
		return RenewalInfo{}, err
	}
	id, err := CertID(leaf)
	if err != nil {
		return RenewalInfo{}, err
	}
	a, err := c.get(ctx, url+"/"+id)
	if err != nil {
		return RenewalInfo{}, err
	}
	var info RenewalInfo
	if err := a.decode(&info); err != nil {
		return RenewalInfo{}, err
	}
	w := info.SuggestedWindow
	if w.Start.IsZero() || !w.End.After(w.Start) { // RFC 9773 section 4.2: as if there were none
		return RenewalInfo{}, fmt.Errorf("acme: %s: the suggested window ends before it starts", a.url)
	}
	info.RetryAfter = defaultRenewalInfo
	if a.header.Get("Retry-After") != "" {
		info.RetryAfter = max(a.retryAfter(), minRenewalInfo)
	}
	return info, nil
}
