package login

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh/agent"

	"github.com/chancery-pki/chancery/internal/login/place"
	"github.com/chancery-pki/chancery/internal/settings"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// Standing says how a certificate stands.
type Standing struct {
	Held
	Trouble string // why it can't be used; "": it can
}

// Look says how everything stands that logins got.
func (s State) Look() ([]Standing, error) {
	all, err := s.Held()
	if err != nil {
		return nil, err
	}
	var standing []Standing
	for _, h := range all {
		st := Standing{Held: h}
		if !h.NotAfter.After(time.Now()) {
			st.Trouble = "expired: log in again"
		}
		for _, p := range h.Placed {
			if st.Trouble == "" {
				st.Trouble = missing(p)
			}
		}
		standing = append(standing, st)
	}
	return standing, nil
}

// missing says what isn't where it was put, "" for nothing.
func missing(p place.Placed) string {
	if p.Target == inAgent {
		gone := "gone from the ssh-agent: log in again"
		if !agentThere() {
			return gone
		}
		err := withAgent(func(c agent.ExtendedAgent) error {
			for _, text := range p.Where {
				if k, err := inAgentNow(c, text); err != nil || k == nil {
					return errors.Join(err, errors.New("it isn't there"))
				}
			}
			return nil
		})
		if err != nil {
			return gone
		}
		return ""
	}
	for _, name := range p.Where {
		if filepath.IsAbs(name) {
			if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
				return name + " is gone: log in again"
			}
		}
	}
	return ""
}

// Logout takes everything away that logins left.
type Logout struct {
	State  State
	Places place.Options // as Login's
	Cards  *yubikey.Cards
	PIN    func(ctx context.Context, prompt string) ([]byte, error) // for a slot whose management key lies under it
	Revoke bool                                                     // tell the CAs, too
	Tell   func(line string)                                        // what can't be revoked, and why
}

// Run does it. What it can't take away stays noted for the next time. Where
// nothing is left it does nothing.
func (l Logout) Run(ctx context.Context) (gone []Held, err error) {
	unlock, err := l.State.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	all, err := l.State.Held()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	var left []Held
	var errs []error
	for _, h := range all {
		if l.Revoke {
			if err := h.revoke(ctx); err != nil {
				l.Tell(fmt.Sprintf("%s is not revoked (%s); it ends at %s by itself, and an operator can revoke it: chancery admin certs revoke %s", h.Name, oneLine(err), clock(h.NotAfter), h.Serial))
			}
		}
		var still []place.Placed
		for _, p := range h.Placed {
			if err := l.places(p).remove(ctx, p); err != nil {
				errs = append(errs, fmt.Errorf("%s in %s: %w", h.Name, p.Target, err))
				still = append(still, p)
			}
		}
		if len(still) > 0 {
			h.Placed = still
			left = append(left, h)
			continue
		}
		gone = append(gone, h)
	}
	return gone, errors.Join(append(errs, l.State.save(left))...)
}

// places finds the places of what was put somewhere.
func (l Logout) places(p place.Placed) places {
	slot := place.Slot{Cards: l.Cards, Set: yubikey.SetOptions{PIN: func(ctx context.Context) ([]byte, error) {
		return l.PIN(ctx, "PIN of the YubiKey, to take the certificate out of its slot")
	}}}
	if len(p.Where) > 0 {
		slot.URI = p.Where[0]
	}
	return places{l.Places, slot}
}

// revoke has the account that got the certificate revoke it (RFC 8555 section
// 7.6). One that has ended needs none.
func (h Held) revoke(ctx context.Context) error {
	if !h.NotAfter.After(time.Now()) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, defaultPatience)
	defer cancel()
	roots, err := settings.Roots(h.CA.Roots)
	if err != nil {
		return err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(h.Account.Key)
	if err != nil {
		return err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("its account's key is a %T", parsed)
	}
	c := newClient(h.CA.Directory, key, roots, defaultPatience)
	c.AccountURL = h.Account.URL
	err = c.Revoke(ctx, h.Certificate, acme.ReasonCessationOfOperation, crypto.Signer(nil))
	if acme.HasType(err, acme.ErrAlreadyRevoked) {
		return nil
	}
	return err
}

// Where says in a few words where a certificate is.
func (h Held) Where() string {
	var all []string
	for _, p := range h.Placed {
		switch {
		case p.Target == inAgent:
			all = append(all, "ssh-agent")
		case p.Target == inOurs:
			all = append(all, "chancery ssh agent")
		case p.Target != "nss" && len(p.Where) > 0 && filepath.IsAbs(p.Where[0]):
			all = append(all, p.Where[0])
		default:
			all = append(all, p.Target)
		}
	}
	return strings.Join(all, ", ")
}
