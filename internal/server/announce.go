package server

import (
	"context"
	"crypto/x509"
	"time"
)

// announce tells about issuing certificates that near their end.
func (s *Server) announce(p *parts) {
	for i, a := range p.authorities {
		s.announceOne(a.Certificate, p.names[i], "issuing certificate", "make another beside it: chanceryd ca rotate")
		if a.OCSP != nil && a.OCSP.Delegate != nil {
			s.announceOne(a.OCSP.Delegate.Certificate, "", "OCSP responder's certificate", "make another: chanceryd ca create --ocsp-responder")
		}
	}
}

// announceDaily tells it again each day until ctx ends.
func (s *Server) announceDaily(ctx context.Context) {
	tick := time.NewTicker(24 * time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.announce(s.parts.Load())
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) announceOne(c *x509.Certificate, issuer, what, then string) {
	left := time.Until(c.NotAfter)
	s.metrics.issuerEnds.WithLabelValues(keyID(c), c.Subject.String()).Set(float64(c.NotAfter.Unix()))
	about := []any{"subject", c.Subject.String(), "key_id", keyID(c), "not_after", c.NotAfter}
	switch {
	case left <= 0:
		s.log.Error("the "+what+" has ended; "+then, about...)
	case left < s.config.Load().Notice(issuer, c.NotAfter.Sub(c.NotBefore)):
		s.log.Warn("the "+what+" nears its end; "+then, append(about, "days_left", int(left/(24*time.Hour)))...)
	}
}
