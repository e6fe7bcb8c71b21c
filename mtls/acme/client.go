package acme

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"sync"
)

// Client is one account's view of one directory. Fill in the fields, then
// call Register, unless AccountURL is known. The fields must not change after
// the first call; the methods may be called from many goroutines at once. A
// Client must not be copied.
//
// Every method blocks on the network until its context ends; one request takes
// at most HTTPClient.Timeout, or a minute where that is zero. A returned error
// wraps a *Problem where the server said what is wrong. Nothing but badNonce
// is retried: when to try again is the caller's decision (Problem.RetryAfter).
type Client struct {
	DirectoryURL string        // https
	HTTPClient   *http.Client  // roots, timeouts, proxies; nil means the system's roots
	Key          crypto.Signer // the account key: ECDSA on P-256, P-384 or P-521, Ed25519, RSA from 2048 bits
	AccountURL   string        // of an account that exists, in place of Register
	Logger       *slog.Logger  // one debug record per request; nil discards
	UserAgent    string        // put before our own

	setup sync.Once
	http  http.Client // made of HTTPClient by setup

	mu     sync.Mutex // guards what follows, never held during a request
	dir    *Directory
	key    *jwsKey   // of Key, until RolloverKey replaces it
	id     *identity // who signs; nil before Register where AccountURL is empty
	nonces []string  // unused, newest last
}

// ErrNoAccount says that a method needs an account: call Register or set
// AccountURL.
var ErrNoAccount = errors.New("acme: no account yet; call Register or set AccountURL")

// Discover fetches the directory (RFC 8555 section 7.1.1) and keeps it; the
// other methods do so at their first need.
func (c *Client) Discover(ctx context.Context) (Directory, error) {
	a, err := c.get(ctx, c.DirectoryURL)
	if err != nil {
		return Directory{}, err
	}
	var dir Directory
	if err := a.decode(&dir); err != nil {
		return Directory{}, err
	}
	for name, u := range map[string]string{"newNonce": dir.NewNonce, "newAccount": dir.NewAccount, "newOrder": dir.NewOrder} {
		if err := checkURL(u); err != nil {
			return Directory{}, fmt.Errorf("acme: %s is not an ACME directory: %s: %w", c.DirectoryURL, name, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dir = &dir
	return dir, nil
}

// Discovered returns the directory that is kept, or fetches it.
func (c *Client) Discovered(ctx context.Context) (Directory, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return Directory{}, err
	}
	return *dir, nil
}

// directory returns the kept directory. Two first callers may both fetch it:
// cheaper than holding one up behind the other's network.
func (c *Client) directory(ctx context.Context) (*Directory, error) {
	c.mu.Lock()
	dir := c.dir
	c.mu.Unlock()
	if dir != nil {
		return dir, nil
	}
	d, err := c.Discover(ctx)
	return &d, err
}

// resource returns the URL of a resource that a directory may lack.
func (c *Client) resource(ctx context.Context, name string, of func(*Directory) string) (string, error) {
	dir, err := c.directory(ctx)
	if err != nil {
		return "", err
	}
	u := of(dir)
	if u == "" {
		return "", fmt.Errorf("acme: the directory %s offers no %s", c.DirectoryURL, name)
	}
	return u, nil
}

// signer returns the account key.
func (c *Client) signer() (*jwsKey, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.signerLocked()
}

func (c *Client) signerLocked() (*jwsKey, error) {
	if c.key == nil {
		key, err := newJWSKey(c.Key)
		if err != nil {
			return nil, err
		}
		c.key = key
	}
	return c.key, nil
}

// account returns who signs for the account.
func (c *Client) account() (*identity, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id != nil {
		return c.id, nil
	}
	if c.AccountURL == "" {
		return nil, ErrNoAccount
	}
	if err := checkURL(c.AccountURL); err != nil {
		return nil, err
	}
	key, err := c.signerLocked()
	if err != nil {
		return nil, err
	}
	c.id = key.byAccount(c.AccountURL)
	return c.id, nil
}

// KeyAuthorization returns the key authorization of a challenge's token under
// this client's account key (RFC 8555 section 8.1).
func (c *Client) KeyAuthorization(token string) (string, error) {
	key, err := c.signer()
	if err != nil {
		return "", err
	}
	return keyAuthorization(token, key.thumbprint)
}

// Registration asks for an account (RFC 8555 section 7.3).
type Registration struct {
	Contact            []string         // URLs: "mailto:ops@example.com"
	TermsAgreed        bool             // agreement to Meta.TermsOfService
	EAB                *ExternalAccount // where Meta.ExternalAccountRequired
	OnlyReturnExisting bool             // find the key's account, make none (section 7.3.1)
}

// Register makes an account for the client's key, or finds the one it has, and
// uses it from then on.
func (c *Client) Register(ctx context.Context, reg Registration) (Account, error) {
	key, err := c.signer()
	if err != nil {
		return Account{}, err
	}
	dir, err := c.directory(ctx)
	if err != nil {
		return Account{}, err
	}
	wire := struct {
		Contact     []string        `json:"contact,omitempty"`
		TermsAgreed bool            `json:"termsOfServiceAgreed,omitempty"`
		OnlyReturn  bool            `json:"onlyReturnExisting,omitempty"`
		EAB         json.RawMessage `json:"externalAccountBinding,omitempty"`
	}{reg.Contact, reg.TermsAgreed, reg.OnlyReturnExisting, nil}
	if reg.EAB != nil {
		if wire.EAB, err = reg.EAB.seal(dir.NewAccount, key); err != nil {
			return Account{}, err
		}
	}
	payload, err := json.Marshal(wire)
	if err != nil {
		return Account{}, fmt.Errorf("acme: registration: %w", err)
	}
	a, err := c.post(ctx, key.byKey(), dir.NewAccount, payload)
	if err != nil {
		return Account{}, err
	}
	acct := Account{Created: a.status == http.StatusCreated}
	if acct.URL, err = a.location(); err != nil {
		return Account{}, err
	}
	if err := a.decode(&acct); err != nil {
		return Account{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.id = key.byAccount(acct.URL)
	return acct, nil
}

// Account fetches the account as the server has it.
func (c *Client) Account(ctx context.Context) (Account, error) {
	return c.onAccount(func(url string, acct *Account) error {
		_, err := c.fetch(ctx, url, acct)
		return err
	})
}

// AccountUpdate changes an account (RFC 8555 section 7.3.2).
type AccountUpdate struct {
	Contact     []string `json:"contact,omitzero"`               // nil leaves it, empty removes all
	TermsAgreed bool     `json:"termsOfServiceAgreed,omitempty"` // after a change of the terms (section 7.3.3)
}

// UpdateAccount changes contacts or agrees to new terms.
func (c *Client) UpdateAccount(ctx context.Context, update AccountUpdate) (Account, error) {
	return c.onAccount(func(url string, acct *Account) error {
		_, err := c.send(ctx, url, update, acct)
		return err
	})
}

// DeactivateAccount ends the account for good (RFC 8555 section 7.3.6). Its
// certificates stay valid.
func (c *Client) DeactivateAccount(ctx context.Context) (Account, error) {
	return c.onAccount(func(url string, acct *Account) error {
		_, err := c.send(ctx, url, statusChange{StatusDeactivated}, acct)
		return err
	})
}

type statusChange struct {
	Status string `json:"status"`
}

func (c *Client) onAccount(request func(url string, acct *Account) error) (Account, error) {
	id, err := c.account()
	if err != nil {
		return Account{}, err
	}
	var acct Account
	err = request(id.kid, &acct)
	acct.URL = id.kid
	return acct, err
}

// RolloverKey replaces the account's key (RFC 8555 section 7.3.5). The client
// signs with newKey as soon as the server agrees; requests in flight at that
// moment may fail. After an error that wraps no *Problem it is unknown which
// key holds: ask by Register with OnlyReturnExisting, with either key.
func (c *Client) RolloverKey(ctx context.Context, newKey crypto.Signer) error {
	id, err := c.account()
	if err != nil {
		return err
	}
	next, err := newJWSKey(newKey)
	if err != nil {
		return err
	}
	url, err := c.resource(ctx, "keyChange", func(d *Directory) string { return d.KeyChange })
	if err != nil {
		return err
	}
	if err := checkURL(url); err != nil {
		return err
	}
	inner, err := json.Marshal(map[string]any{"account": id.kid, "oldKey": json.RawMessage(id.key.jwk)})
	if err != nil {
		return err
	}
	payload, err := next.byKey().seal("", url, inner)
	if err != nil {
		return err
	}
	if _, err := c.post(ctx, id, url, payload); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.key, c.id = next, next.byAccount(id.kid)
	return nil
}

// maxPages ends the walk through an orders list whose pages never end.
const maxPages = 10_000

// Orders walks through the URLs of the account's orders (RFC 8555 section
// 7.1.2.1), fetching page after page as they are needed. It ends after an
// error.
func (c *Client) Orders(ctx context.Context, acct Account) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		next := acct.Orders
		if next == "" {
			yield("", errors.New("acme: the server offers no orders list"))
			return
		}
		for range maxPages {
			var page struct {
				Orders []string `json:"orders"`
			}
			a, err := c.fetch(ctx, next, &page)
			if err != nil {
				yield("", err)
				return
			}
			for _, url := range page.Orders {
				if !yield(url, nil) {
					return
				}
			}
			links := a.links("next")
			if len(links) == 0 {
				return
			}
			if links[0] == next {
				yield("", fmt.Errorf("acme: the orders list %s names itself as its next page", next))
				return
			}
			next = links[0]
		}
		yield("", fmt.Errorf("acme: the orders list has more than %d pages", maxPages))
	}
}
