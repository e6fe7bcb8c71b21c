package server

import (
	"time"

	"github.com/chancery-pki/chancery/internal/responder"
)

// An issuing certificate is announced when it has less than this left, or less
// than a fifth of its life: a new key, its ceremony and its roll-out take time.
const announceBefore = 60 * 24 * time.Hour

// announce tells about issuing certificates that near their end.
func (s *Server) announce(p *parts) {
	now := time.Now()
	for _, a := range p.authorities {
		c := a.Certificate
		left := c.NotAfter.Sub(now)
		s.metrics.issuerEnds.WithLabelValues(keyID(c), c.Subject.String()).Set(float64(c.NotAfter.Unix()))
		if !nearEnd(a, now) {
			continue
		}
		if left <= 0 {
			s.log.Error("an issuing certificate has ended", "subject", c.Subject.String(), "key_id", keyID(c), "not_after", c.NotAfter)
			continue
		}
		s.log.Warn("an issuing certificate nears its end; make another beside it: chanceryd ca rotate",
			"subject", c.Subject.String(), "key_id", keyID(c), "not_after", c.NotAfter, "days_left", int(left/(24*time.Hour)))
	}
}

func nearEnd(a responder.Authority, now time.Time) bool {
	c := a.Certificate
	return c.NotAfter.Sub(now) < max(min(announceBefore, c.NotAfter.Sub(c.NotBefore)/5), 0)
}
