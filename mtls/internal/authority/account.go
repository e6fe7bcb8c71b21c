package authority

import (
	"context"
	"crypto/x509"
	"errors"

	"github.com/chancery-pki/chancery/mtls/acme"
	"github.com/chancery-pki/chancery/mtls/internal/memkey"
)

// keepsAccount reports whether there is one account for all certificates. With
// EAB there is: operators count the accounts of a key (RFC 8555 section 7.3.4).
func (a *CA) keepsAccount() bool { return a.OneAccount || a.EAB != nil }

// accountKey returns the key of the account to use, and the account's URL
// where that is known. An account under EAB has a key derived from the MAC
// key, so that a restart finds it again with nothing on disk.
func (a *CA) accountKey() (*memkey.Key, string, error) {
	if !a.keepsAccount() {
		key, err := memkey.New()
		return key, "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var err error
	switch {
	case a.key != nil:
	case a.EAB != nil:
		a.key, err = memkey.Derive(a.EAB.MACKey, "chancery mtls account "+a.EAB.KeyID+" at "+a.Directory)
	default:
		a.key, err = memkey.New()
	}
	return a.key, a.account, err
}

func (a *CA) rememberAccount(url string) {
	if a.keepsAccount() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.account = url
	}
}

// Erase erases the account's key. Nothing else may run any more.
func (a *CA) Erase() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.key != nil {
		a.key.Erase()
	}
}

// renewal asks for renewal information, for which no account is needed. It is
// kept with the directory, so that asking again is one request.
type renewal struct {
	client     *acme.Client
	done       func()
	generation uint64 // of the roots
}

// ErrNoInfo says that the CA gives no renewal information to anybody.
var ErrNoInfo = errors.New("the CA gives no renewal information")

// RenewalInfo asks when to renew a certificate of this CA's (RFC 9773 section
// 4).
func (a *CA) RenewalInfo(ctx context.Context, leaf *x509.Certificate) (acme.RenewalInfo, error) {
	_, _, generation := a.Roots()
	a.mu.Lock()
	r := a.info
	a.mu.Unlock()
	if r == nil || r.generation != generation {
		httpClient, done := a.httpClient()
		r = &renewal{&acme.Client{DirectoryURL: a.Directory, HTTPClient: httpClient, UserAgent: a.UserAgent, Logger: a.Log}, done, generation}
	}
	defer r.done()
	dir, err := r.client.Discovered(ctx)
	if err != nil {
		return acme.RenewalInfo{}, err
	}
	if dir.RenewalInfo == "" {
		return acme.RenewalInfo{}, ErrNoInfo
	}
	info, err := r.client.RenewalInfo(ctx, leaf)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.info = r; err != nil {
		a.info = nil // the directory may have changed
	}
	return info, err
}
