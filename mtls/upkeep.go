package mtls

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-pki/chancery/mtls/internal/authority"
	"github.com/chancery-pki/chancery/mtls/internal/issued"
	"github.com/chancery-pki/chancery/mtls/internal/slot"
)

const (
	// stapleRetry is between tries to get an OCSP response, stapleTime bounds
	// the look for the first one.
	stapleRetry = 5 * time.Minute
	stapleTime  = 3 * time.Second
	// upkeepTime bounds one question about a certificate that is there.
	upkeepTime = 30 * time.Second
)

// askRenewal asks the CA that gave the certificate when to renew it (RFC 9773
// section 4). That it fails never matters.
func (id *Identity) askRenewal(s *slot.Slot) {
	ctx, cancel := context.WithTimeout(id.life.ctx, upkeepTime)
	defer cancel()
	c := s.Current.Load()
	info, err := id.cas[c.CA].RenewalInfo(ctx, c.Leaf())
	now := id.clock.Now()
	s.Plan(func(p *slot.Plan) {
		switch {
		case errors.Is(err, authority.ErrNoInfo):
			p.AskAt = time.Time{}
		case err != nil:
			id.log.DebugContext(ctx, "mtls: no renewal information", "certificate", s.String(), "error", err)
			p.AskAt = now.Add(max(time.Minute, min(c.Leaf().NotAfter.Sub(now)/12, 6*time.Hour)))
		default:
			p.Window, p.AskAt = info.SuggestedWindow, now.Add(info.RetryAfter)
		}
	})
}

// halfway is when to get the next OCSP response: well before the old one ends.
func halfway(now, end time.Time) time.Time {
	if end.IsZero() {
		return now.Add(stapleRetry)
	}
	return now.Add(max(end.Sub(now)/2, time.Minute))
}

// firstStaple looks for an OCSP response before the certificate is used, but
// not for long.
func (id *Identity) firstStaple(ctx context.Context, c *issued.Credential) (*issued.Credential, time.Time) {
	if len(c.Leaf().OCSPServer) == 0 {
		return c, time.Time{}
	}
	ctx, cancel := context.WithTimeout(ctx, stapleTime)
	defer cancel()
	stapled, until, err := id.staple(ctx, c)
	if err != nil {
		id.log.DebugContext(ctx, "mtls: no OCSP response yet", "error", err)
		return c, time.Time{}
	}
	return stapled, until
}

// staple gets an OCSP response for a credential's certificate and returns the
// credential with it, and when the response ends.
func (id *Identity) staple(ctx context.Context, c *issued.Credential) (*issued.Credential, time.Time, error) {
	var chain []*x509.Certificate
	for i, der := range c.Chains[0].Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("certificate %d: %w", i, err)
		}
		chain = append(chain, cert)
	}
	response, end, err := id.cfg.staple(ctx, chain)
	if err != nil {
		return nil, time.Time{}, err
	}
	return c.Stapled(response), end, nil
}

// renewStaple gets the next OCSP response. One that has ended isn't served.
func (id *Identity) renewStaple(s *slot.Slot) {
	ctx, cancel := context.WithTimeout(id.life.ctx, upkeepTime)
	defer cancel()
	old := s.Current.Load()
	c, end, err := id.staple(ctx, old)
	now := id.clock.Now()
	s.Plan(func(p *slot.Plan) {
		if err == nil {
			p.StapleAt, p.StapleEnd = halfway(now, end), end
			return
		}
		id.log.DebugContext(ctx, "mtls: no new OCSP response for our certificate", "certificate", s.String(), "error", err, "until", p.StapleEnd)
		p.StapleAt = now.Add(stapleRetry)
		switch end := p.StapleEnd; {
		case end.IsZero():
		case !now.Before(end):
			id.log.WarnContext(ctx, "mtls: the OCSP response for our certificate has ended, and there is no new one", "certificate", s.String(), "error", err)
			p.StapleEnd, c = time.Time{}, old.Stapled(nil)
		case end.Before(p.StapleAt):
			p.StapleAt = end
		}
	})
	if c == nil {
		return
	}
	s.Current.Store(c)
	if s == id.server && id.client != nil {
		id.client.Current.CompareAndSwap(old, c)
	}
}
