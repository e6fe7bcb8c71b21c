package operator

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// Grant makes an operator of who holds a certificate that this CA's issuer
// gave under this profile for this name.
type Grant struct {
	Issuer, Profile string
	Name            string // a dns name, or a person's
	Role            Role
}

// Gate tells operators by their certificates. What counts is the CA's own
// record of the certificate at the time of the call, so that a revoked one, or
// one of a lost device, ends at once, on connections that are open too. It is
// safe for concurrent use.
type Gate struct {
	db    *store.DB
	clock func() time.Time

	mu      sync.Mutex
	refused map[cert.Serial]time.Time // when a refusal was last audited
}

// NewGate makes a gate to a database. clock nil: time.Now.
func NewGate(db *store.DB, clock func() time.Time) *Gate {
	if clock == nil {
		clock = time.Now
	}
	return &Gate{db: db, clock: clock, refused: map[cert.Serial]time.Time{}}
}

// How often the refusal of one certificate is audited, since whoever holds any
// certificate of the CA could fill the log otherwise, and of how many
// certificates that is remembered.
const (
	refusalEvery   = time.Minute
	refusalsAtMost = 4096
)

// errStranger is all that who isn't an operator is told.
var errStranger = protocol.NewProblem(protocol.Unauthorized, "this certificate is not an operator's")

// Caller finds out who showed the certificate, with which the TLS handshake
// was made. Of several grants that fit, the first counts. The error is a
// Problem for whoever isn't an operator, which says nothing of why; the audit
// log does.
func (g *Gate) Caller(ctx context.Context, grants []Grant, shown *x509.Certificate, peer string) (Caller, error) {
	c, why, err := g.record(ctx, shown)
	if err != nil {
		return Caller{}, err
	}
	var grant Grant
	if why == "" {
		grant, why = match(grants, c)
	}
	if why == "" {
		why, err = g.device(ctx, grant, c)
	}
	if err != nil {
		return Caller{}, err
	}
	if why != "" {
		return Caller{}, g.Refuse(ctx, shown, peer, why)
	}
	return Caller{Name: grant.Issuer + "/" + grant.Profile + "/" + grant.Name, Role: grant.Role, Certificate: c.Serial, Peer: peer}, nil
}

// record finds the certificate; why says why it doesn't count.
func (g *Gate) record(ctx context.Context, shown *x509.Certificate) (c cert.Certificate, why string, err error) {
	c, err = g.db.Certificate(ctx, cert.SerialOf(shown.SerialNumber))
	if errors.Is(err, store.ErrNotFound) {
		return c, "this CA has no record of the certificate", nil
	}
	now := g.clock()
	switch {
	case err != nil:
		return c, "", err
	case c.State != cert.Issued || c.Format == cert.OpenSSH || !bytes.Equal(c.DER, shown.Raw):
		return c, "this CA's record of the serial number is of another certificate", nil
	case !c.Revoked.At.IsZero():
		return c, "the certificate is revoked", nil
	case now.Before(c.NotBefore) || now.After(c.NotAfter):
		return c, "the certificate is not valid now", nil
	}
	return c, "", nil
}

// match finds the first grant for the certificate.
func match(grants []Grant, c cert.Certificate) (Grant, string) {
	i := slices.IndexFunc(grants, func(g Grant) bool {
		return g.Issuer == c.Issuer && g.Profile == c.Profile && slices.ContainsFunc(c.Names, g.names)
	})
	if i < 0 {
		return Grant{}, fmt.Sprintf("no operator is configured for issuer %q, profile %q and names %q", c.Issuer, c.Profile, protocol.Values(c.Names))
	}
	return grants[i], ""
}

// device says why the proof that the certificate was issued on doesn't make an
// operator. The operator's name must be the device's own, today too: others in
// the certificate may have come without it, pre-approved by an EAB key. A retired
// device's certificates are good until they end or are revoked.
func (g *Gate) device(ctx context.Context, grant Grant, c cert.Certificate) (why string, err error) {
	id, proven := protocol.DeviceOf(c.Subject)
	if !proven {
		if grant.Role == Reporter {
			return "", nil
		}
		return "the certificate was not issued to a security key", nil
	}
	d, err := g.db.Device(ctx, id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return "the certificate's device is not enrolled", nil
	case err != nil:
		return "", err
	case d.State == protocol.DeviceLost:
		return "the certificate's device is lost", nil
	case !slices.ContainsFunc(c.Names, func(id protocol.Identifier) bool { return grant.names(id) && has(d, id) }):
		return fmt.Sprintf("%q is not a name of the certificate's device", grant.Name), nil
	}
	return "", nil
}

// names reports whether the identifier is the operator's.
func (g Grant) names(id protocol.Identifier) bool {
	return id.Type != protocol.IP && id.Value == strings.ToLower(g.Name)
}

// has reports whether a device may have the name, by whichever proof.
func has(d protocol.Device, id protocol.Identifier) bool {
	return d.MayHave(protocol.YubiKey01, id) || d.MayHave(protocol.YubiKey02, id)
}

// Refuse audits a refusal and returns what the caller is told.
func (g *Gate) Refuse(ctx context.Context, shown *x509.Certificate, peer, why string) error {
	serial := cert.SerialOf(shown.SerialNumber)
	if !g.due(serial) {
		return errStranger
	}
	err := g.db.Update(ctx, func(tx *store.Tx) error {
		return tx.Audit(audit.Entry{
			Action: "operator.identify", Actor: "certificate:" + string(serial), Peer: peer, Object: string(serial), Denied: why,
		})
	})
	if err != nil {
		return err
	}
	return errStranger
}

// due reports whether the refusal is to be audited.
func (g *Gate) due(serial cert.Serial) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.clock()
	if last, ok := g.refused[serial]; ok && now.Sub(last) < refusalEvery {
		return false
	}
	if len(g.refused) >= refusalsAtMost {
		clear(g.refused)
	}
	g.refused[serial] = now
	return true
}
