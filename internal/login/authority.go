package login

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/settings"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// authority is one CA, and an account there that lives for this login.
type authority struct {
	settings.CA
	client     *acme.Client
	roots      *x509.CertPool // nil: the system's
	prefix     string         // of all the directory's URLs
	thumbprint string         // of the account's key
	opened     sync.Once
	closed     error // why it can't be used
	users      []ssh.PublicKey
	account    string
}

func newAuthority(ca settings.CA, patience time.Duration) (*authority, error) {
	prefix, err := prefixOf(ca.Directory)
	if err != nil {
		return nil, err
	}
	if ca.Name == "" {
		u, _ := url.Parse(ca.Directory) // prefixOf has parsed it
		ca.Name = u.Host
	}
	roots, err := settings.Roots(ca.Roots)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	thumbprint, err := acme.Thumbprint(key.Public())
	if err != nil {
		return nil, err
	}
	a := &authority{CA: ca, roots: roots, prefix: prefix, thumbprint: thumbprint}
	a.client = newClient(ca.Directory, key, roots, patience)
	return a, nil
}

func newClient(directory string, key *ecdsa.PrivateKey, roots *x509.CertPool, patience time.Duration) *acme.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	transport.MaxResponseHeaderBytes = 64 << 10
	return &acme.Client{
		DirectoryURL: directory, Key: key, UserAgent: "chancery-login/1",
		HTTPClient: &http.Client{Transport: transport, Timeout: patience},
	}
}

// prefixOf is what all URLs of a directory begin with: the directory's own up
// to its last slash.
func prefixOf(directory string) (string, error) {
	u, err := url.Parse(directory)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || !strings.Contains(u.Path, "/") {
		return "", fmt.Errorf("directory %q: want a URL as in https://ca.internal/acme/people/directory", directory)
	}
	return directory[:strings.LastIndexByte(directory, '/')+1], nil
}

// open finds the directory's resources and makes the account, once. All
// certificates of a login share it.
func (a *authority) open(ctx context.Context) error {
	a.opened.Do(func() { a.closed = a.register(ctx) })
	return a.closed
}

func (a *authority) register(ctx context.Context) error {
	dir, err := a.client.Discover(ctx)
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
		return fmt.Errorf("%w: its root is to be named as roots in the settings, or as --roots", err)
	}
	if err != nil {
		return err
	}
	if dir.Meta.SSH != nil {
		for _, line := range dir.Meta.SSH.UserKeys {
			key, err := sshca.ParseKey(line)
			if err != nil {
				return fmt.Errorf("its SSH CA keys: %w", err)
			}
			a.users = append(a.users, key)
		}
	}
	account, err := a.client.Register(ctx, acme.Registration{TermsAgreed: true})
	a.account = account.URL
	return err
}

// prepare makes an order, and of its challenges what the device is to sign.
// Whatever else the server wants signed is refused here.
func (a *authority) prepare(ctx context.Context, w *want) (*attempt, error) {
	if err := a.open(ctx); err != nil {
		return nil, err
	}
	if w.Kind == settings.SSH && len(a.users) == 0 {
		return nil, errors.New("its directory names no SSH CA key")
	}
	order, err := a.order(ctx, w)
	if err != nil {
		return nil, err
	}
	if err := a.ours(order.URL); err != nil {
		return nil, fmt.Errorf("its order: %w", err)
	}
	at := &attempt{want: w, ca: a, order: order}
	if at.proofs, err = a.proofs(ctx, w, order); err != nil {
		return nil, err
	}
	if !w.owned() {
		at.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	return at, err
}

// proofs are what is to be signed for an order: a challenge for each name, and
// for none that wasn't asked for.
func (a *authority) proofs(ctx context.Context, w *want, order acme.Order) ([]proof, error) {
	if len(order.Authorizations) != len(w.ids) {
		return nil, fmt.Errorf("its order has %d authorizations for %d names", len(order.Authorizations), len(w.ids))
	}
	open := map[acme.Identifier]bool{}
	for _, id := range w.ids {
		open[id] = true
	}
	var all []proof
	for _, u := range order.Authorizations {
		authz, err := a.client.Authorization(ctx, u)
		if err != nil {
			return nil, err
		}
		if !open[authz.Identifier] || authz.Wildcard {
			return nil, errors.New("its order authorizes other names than those asked for")
		}
		delete(open, authz.Identifier)
		if authz.Status == acme.StatusValid {
			continue
		}
		p, err := a.proof(authz, string(w.Challenge))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", authz.Identifier, err)
		}
		all = append(all, p)
	}
	return all, nil
}

// order makes the order. Where nobody asked for this very lifetime and it is
// too long for the CA, the profile's own will do.
func (a *authority) order(ctx context.Context, w *want) (acme.Order, error) {
	req := acme.OrderRequest{Identifiers: w.ids, Profile: w.Profile, NotAfter: time.Now().Add(w.life)}
	order, err := a.client.NewOrder(ctx, req)
	if acme.HasType(err, acme.ErrMalformed) && !w.asked {
		req.NotAfter = time.Time{}
		if again, err := a.client.NewOrder(ctx, req); err == nil {
			return again, nil
		}
	}
	return order, err
}

// proof takes the challenge of the wanted type, and refuses one that isn't as
// it must be.
func (a *authority) proof(authz acme.Authorization, typ string) (proof, error) {
	if authz.Status != acme.StatusPending {
		return proof{}, errors.New("its authorization can't be proven any more")
	}
	var offered []string
	for _, ch := range authz.Challenges {
		if ch.Type != typ {
			offered = append(offered, ch.Type)
			continue
		}
		message, err := a.message(ch)
		if err != nil {
			return proof{}, fmt.Errorf("the CA wants something signed that is no challenge of its own, which was refused: %w", err)
		}
		return proof{authz: authz, challenge: ch, message: message}, nil
	}
	return proof{}, fmt.Errorf("it offers no %s here, but %q: is the profile right?", typ, offered)
}

// message is what the device signs for a challenge.
func (a *authority) message(ch acme.Challenge) ([]byte, error) {
	if err := a.ours(ch.URL); err != nil {
		return nil, err
	}
	var text string
	if err := json.Unmarshal(ch.Extra["challenge"], &text); err != nil {
		return nil, errors.New("the challenge is not a text")
	}
	challenge, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errors.New("the challenge is not base64url")
	}
	return yubikey.ResponseMessage(challenge, a.thumbprint, ch.Type, ch.URL)
}

// ours refuses a URL that isn't below the directory's own prefix.
func (a *authority) ours(link string) error {
	u, err := url.Parse(link)
	if err != nil || !strings.HasPrefix(link, a.prefix) || u.User != nil || path.Clean(u.Path) != u.Path || u.RawPath != "" {
		return fmt.Errorf("%.200q is not below %s", link, a.prefix)
	}
	return nil
}
