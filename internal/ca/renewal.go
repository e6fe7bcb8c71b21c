package ca

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/policy"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// certificateByID finds an issued certificate of the directory by its ARI
// identifier; the answer is the same for all that can't be found.
func (a *Authority) certificateByID(ctx context.Context, directory, id string) (cert.Certificate, error) {
	keyID, serial, err := cert.ParseCertID(id)
	if err != nil {
		return cert.Certificate{}, err
	}
	c, err := a.db.Certificate(ctx, serial)
	if errors.Is(err, store.ErrNotFound) || err == nil &&
		(c.State != cert.Issued || c.Directory != directory || c.IssuerKeyID != keyID || c.Format == cert.OpenSSH) { // RFC 9773's identifiers are X.509's
		return c, errNoSuch("certificate")
	}
	return c, err
}

// RenewalInfo suggests when to renew. Anybody may ask (RFC 9773 section 4.1).
func (a *Authority) RenewalInfo(ctx context.Context, directory, certID string) (protocol.RenewalInfo, error) {
	c, err := a.certificateByID(ctx, directory, certID)
	if err != nil {
		return protocol.RenewalInfo{}, err
	}
	return policy.Renewal(c, a.spread(c), a.clock()), nil
}

// spread is over how long the renewals of the issuer's certificates are
// spread, so that its keys can follow.
func (a *Authority) spread(c cert.Certificate) time.Duration {
	alive, rate := int64(0), 0.
	by, _ := a.issuer(c.Issuer)
	rated, ok := by.(interface{ Rate() float64 }) // not upstream CAs, nor one that was taken out of the configuration
	if live := a.live.Load(); ok && live != nil {
		rate = rated.Rate()
		for keyID, l := range *live {
			if _, _, err := by.Chain(keyID, 0); err == nil {
				alive += l.Count
			}
		}
	}
	return policy.RenewalSpan(c.NotAfter.Sub(c.NotBefore), alive, rate)
}

// Live counts the certificates alive by issuing key ID (hex of the
// SubjectKeyId). With a million it takes some tenths of a second.
func (a *Authority) Live(ctx context.Context) (map[string]store.Live, error) {
	if err := a.countLive(ctx); err != nil {
		return nil, err
	}
	return *a.live.Load(), nil
}

// countLive counts the certificates alive, by issuing key.
func (a *Authority) countLive(ctx context.Context) error {
	live, err := a.db.LiveCertificates(ctx, a.clock())
	if err == nil {
		a.live.Store(&live)
	}
	return err
}

// replaceable looks at the certificate that an order says it replaces, and
// refuses as RFC 9773 section 5 asks: it must be the same account's, share a
// name with the order, and not have been replaced already.
func (a *Authority) replaceable(ctx context.Context, who Requester, r OrderRequest) error {
	c, err := a.certificateByID(ctx, who.Directory, r.Replaces)
	switch {
	case err != nil:
		return err
	case c.Account != who.Account.ID:
		return errNoSuch("certificate")
	case c.ReplacedBy != "":
		return protocol.NewProblem(protocol.AlreadyReplaced,
			"another order has replaced this certificate already; order without \"replaces\"")
	case !slices.ContainsFunc(c.Names, func(id protocol.Identifier) bool { return slices.Contains(r.Identifiers, id) }):
		return protocol.NewProblem(protocol.Malformed, "the order shares no identifier with the certificate it says it replaces")
	}
	return nil
}
