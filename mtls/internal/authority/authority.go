package authority

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/mtls/acme"
	"github.com/chancery-pki/chancery/mtls/internal/issued"
	"github.com/chancery-pki/chancery/mtls/internal/memkey"
)

const (
	// attemptTime bounds an attempt. A CA that says that the order is
	// processing is at work and gets it anew each time, up to maxProcessing:
	// who gives up loses its place in the CA's queue.
	attemptTime   = 2 * time.Minute
	maxProcessing = time.Hour
	// requestTime bounds one request, so that nobody trickles an answer.
	requestTime = 40 * time.Second
	// maxAlternates bounds the other chains that are taken.
	maxAlternates = 4
)

var errSlow = errors.New("the CA took too long")

// Settings are what an identity's CAs share.
type Settings struct {
	OneAccount bool // also without EAB
	UserAgent  string
	Lifetime   time.Duration // to ask for, zero: nothing is asked
	NewKey     func() (crypto.Signer, error)
	Now        func() time.Time
	Log        *slog.Logger
	// Roots returns today's roots for servers and for clients; the generation
	// changes when they do.
	Roots func() (servers, clients *x509.CertPool, generation uint64)
}

// CA is one ACME directory. Its methods may be called from many goroutines.
type CA struct {
	*Settings
	Directory     string
	Number        int            // among the identity's CAs
	Own           *x509.CertPool // roots beside those of Settings, nil: none
	EAB           *acme.ExternalAccount
	ServerProfile string
	ClientProfile string
	HTTPClient    *http.Client // nil: one of our own
	Solvers       []acme.Solver

	mu      sync.Mutex  // guards what follows, never held during a request
	key     *memkey.Key // of the account, where it is kept
	account string      // its URL, "" until it is known
	info    *renewal
}

// Request asks for one certificate.
type Request struct {
	Names  []string // dns names and IP addresses
	Client bool     // for clients, else for servers
	Both   bool     // the other usage is welcome too
	Old    *issued.Credential
}

// Obtain is one attempt: account, order, certificate, its other chains. It
// ends after two minutes in which the CA gave no sign of life.
func (a *CA) Obtain(ctx context.Context, req Request) (*issued.Credential, error) {
	ctx, alive, stop := limit(ctx)
	defer stop()
	key, err := a.newKey()
	if err != nil {
		return nil, fmt.Errorf("a new key: %w", err)
	}
	c, err := a.obtain(ctx, alive, req, key)
	if err == nil {
		return c, nil
	}
	EraseKey(key)
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return nil, fmt.Errorf("%s: %w", a.Directory, err)
}

// limit ends an attempt after attemptTime without a sign of life.
func limit(ctx context.Context) (_ context.Context, alive, stop func()) {
	ctx, cancel := context.WithTimeoutCause(ctx, attemptTime+maxProcessing, errSlow)
	ctx, giveUp := context.WithCancelCause(ctx)
	timer := time.AfterFunc(attemptTime, func() { giveUp(errSlow) })
	return ctx, func() { timer.Reset(attemptTime) }, func() {
		timer.Stop()
		giveUp(nil)
		cancel()
	}
}

func (a *CA) obtain(ctx context.Context, alive func(), req Request, key crypto.Signer) (*issued.Credential, error) {
	httpClient, done := a.httpClient()
	defer done()
	account, url, err := a.accountKey()
	if err != nil {
		return nil, err
	}
	if !a.keepsAccount() {
		defer account.Erase()
	}
	client := &acme.Client{DirectoryURL: a.Directory, HTTPClient: httpClient, Key: account, AccountURL: url, UserAgent: a.UserAgent, Logger: a.Log}
	order := acme.ObtainRequest{
		Order: acme.OrderRequest{Identifiers: acme.Identifiers(req.Names...), Profile: a.ServerProfile},
		Key:   key, Solvers: a.Solvers, ExtKeyUsage: a.usages(req), Processing: func(acme.Order) { alive() },
	}
	if req.Client {
		order.Order.Profile = a.ClientProfile
	}
	if a.Lifetime > 0 {
		order.Order.NotAfter = a.Now().Add(a.Lifetime)
	}
	chain, url, err := a.order(ctx, client, order, req.Old)
	if err != nil {
		return nil, err
	}
	chains := append([][][]byte{chain.DER}, a.alternates(ctx, client, chain)...)
	c, err := a.Check(req.Names, req.Client, chains, key)
	if err != nil {
		return nil, fmt.Errorf("the CA answered, but %w", err)
	}
	if a.keepsAccount() {
		c.Account = url
	}
	return c, nil
}

// order registers where that is needed and obtains. It returns the account's
// URL too.
func (a *CA) order(ctx context.Context, client *acme.Client, req acme.ObtainRequest, old *issued.Credential) (acme.Chain, string, error) {
	account := client.AccountURL
	for try := 1; ; try++ {
		if account == "" {
			registered, err := client.Register(ctx, acme.Registration{TermsAgreed: true, EAB: a.EAB})
			if err != nil {
				return acme.Chain{}, "", err
			}
			account = registered.URL
		}
		// Another account's certificate can't be replaced (RFC 9773 section
		// 5), so throwaway accounts replace nothing.
		if old != nil && old.CA == a.Number && old.Account == account {
			req.Order.Replaces, _ = acme.CertID(old.Leaf())
		}
		chain, err := client.Obtain(ctx, req)
		if req.Order.Replaces != "" && refusedOrder(err) {
			req.Order.Replaces = ""
			chain, err = client.Obtain(ctx, req)
		}
		if acme.HasType(err, acme.ErrAccountDoesNotExist) && client.AccountURL != "" && try == 1 { // the server forgot it
			account = ""
			continue
		}
		if err == nil {
			a.rememberAccount(account)
		}
		return chain, account, err
	}
}

// refusedOrder reports whether an order may be welcome without "replaces".
func refusedOrder(err error) bool {
	for _, typ := range []string{acme.ErrAlreadyReplaced, acme.ErrMalformed, acme.ErrUnauthorized} {
		if acme.HasType(err, typ) {
			return true
		}
	}
	return false
}

// alternates fetches the certificate's other chains, as far as they come.
func (a *CA) alternates(ctx context.Context, client *acme.Client, chain acme.Chain) (chains [][][]byte) {
	for _, url := range chain.Alternates[:min(len(chain.Alternates), maxAlternates)] {
		other, err := client.Certificate(ctx, url)
		if err != nil {
			a.Log.DebugContext(ctx, "mtls: another chain could not be fetched", "directory", a.Directory, "error", err)
			continue
		}
		chains = append(chains, other.DER)
	}
	return chains
}

// Check holds chains, wherever they come from, against what is wanted, and
// makes a credential of those that are good; the first of them is the default.
func (a *CA) Check(names []string, client bool, chains [][][]byte, key crypto.Signer) (*issued.Credential, error) {
	if len(chains) > maxAlternates+1 {
		return nil, fmt.Errorf("there are %d chains, more than %d", len(chains), maxAlternates+1)
	}
	servers, clients, _ := a.Roots()
	wanted := issued.Wanted{Names: names, Usages: a.usages(Request{Client: client}), Key: key.Public(), Now: a.Now(), Roots: []*x509.CertPool{servers, clients}}
	if a.Own != nil {
		wanted.Roots = append(wanted.Roots, a.Own)
	}
	c := &issued.Credential{Key: key, CA: a.Number, Obtained: wanted.Now, Place: rand.Float64()}
	var first error
	for _, der := range chains {
		certs, err := wanted.Check(der)
		if err == nil && len(c.Chains) > 0 && !certs[0].Equal(c.Leaf()) {
			err = errors.New("another chain has another leaf")
		}
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		c.Add(certs)
	}
	if len(c.Chains) == 0 {
		return nil, first
	}
	return c, nil
}

// usages are what to ask for: the one that is wanted, and both where one
// profile gives both.
func (a *CA) usages(req Request) []x509.ExtKeyUsage {
	switch {
	case req.Both && a.ServerProfile != "" && a.ServerProfile == a.ClientProfile:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	case req.Client:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
}

func (a *CA) newKey() (crypto.Signer, error) {
	if a.NewKey == nil {
		return memkey.New()
	}
	key, err := a.NewKey()
	if err == nil && key == nil {
		err = errors.New("Config.NewKey returned neither a key nor an error")
	}
	return key, err
}

// EraseKey erases a key of ours; others are their owner's business.
func EraseKey(key crypto.Signer) {
	if k, ok := key.(*memkey.Key); ok {
		k.Erase()
	}
}

// httpClient returns what speaks to the CA, and a function that closes its
// connections.
func (a *CA) httpClient() (*http.Client, func()) {
	if a.HTTPClient != nil {
		return a.HTTPClient, func() {}
	}
	roots := a.Own
	if roots == nil {
		roots, _, _ = a.Roots()
	}
	if roots == nil { // not the system's by accident
		roots = x509.NewCertPool()
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Time: a.Now},
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     time.Minute,
		MaxIdleConns:        2,
		ForceAttemptHTTP2:   true,
	}
	return &http.Client{Transport: transport, Timeout: requestTime}, transport.CloseIdleConnections
}

// RetryAfter is a CA's wish in an error, zero for none.
func RetryAfter(err error) time.Duration {
	if p, ok := errors.AsType[*acme.Problem](err); ok {
		return p.RetryAfter
	}
	return 0
}

// Refused reports whether a CA's error is about the names, not about the CA.
func Refused(err error) bool {
	p, ok := errors.AsType[*acme.Problem](err)
	if !ok || p.Status >= 500 || p.Status == http.StatusTooManyRequests {
		return false
	}
	switch p.Type {
	case acme.ErrRateLimited, acme.ErrServerInternal, acme.ErrBadNonce, "about:blank":
		return false
	}
	return true
}
