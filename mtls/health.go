package mtls

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/chancery-pki/chancery/mtls/internal/issued"
	"github.com/chancery-pki/chancery/mtls/internal/slot"
)

// Health says how long the identity can go on. Certificates on demand count
// only from their first on.
func (id *Identity) Health() Health {
	now := id.clock.Now()
	h := Health{OK: true, Able: true}
	ends := map[Usage]time.Time{} // of the first
	for _, s := range id.slots() {
		c := s.Current.Load()
		if c == nil && s.OnDemand() {
			continue
		}
		one, end := id.certificateHealth(s, c), id.life.began
		if c != nil {
			end = one.NotAfter
		}
		if c == nil || now.After(end) {
			h.OK, h.Able = false, false
		} else if c.Late(id.cfg.RenewBefore, now) {
			h.OK = false
		}
		if len(ends) == 0 || end.Before(h.DarkAt) {
			h.DarkAt, h.Dark = end, s.String()
		}
		if first, ok := ends[usageOf(s)]; !ok || end.Before(first) {
			ends[usageOf(s)] = end
		}
		h.Certificates = append(h.Certificates, one)
	}
	left := func(ca int) (least time.Duration) { // of what it could replace
		first := true
		for usage, end := range ends {
			if left := end.Sub(now); id.cfg.CAs[ca].Usage.covers(usage) && (first || left < least) {
				least, first = left, false
			}
		}
		return least
	}
	for i, st := range id.rota.States(now, left) {
		usage := id.cfg.CAs[i].Usage
		if id.cfg.Usage != UsageBoth && !usage.covers(id.cfg.Usage) {
			continue // never asked
		}
		one := CAHealth{Directory: id.cas[i].Directory, Usage: usage.String(), Tier: st.Tier, Score: st.Score, Latency: st.Latency, RetryAt: st.RetryAt}
		if st.Err != nil {
			one.Error = st.Err.Error()
		}
		h.CAs = append(h.CAs, one)
	}
	return h
}

func (id *Identity) certificateHealth(s *slot.Slot, c *issued.Credential) CertificateHealth {
	next, err := s.Status(id.cfg.RenewBefore)
	one := CertificateHealth{Usage: s.Usage(), Names: s.Names, RenewAt: next}
	if err != nil {
		one.Error = err.Error()
	}
	if c != nil {
		one.NotAfter, one.Issuer = c.Leaf().NotAfter, c.Leaf().Issuer.String()
	}
	return one
}

// HealthHandler answers with [Health] in JSON. The status is 200 as long as
// every certificate is there and valid, else 503: a probe that takes a program
// out of service while it works helps nobody. Alert on "ok", which turns false
// before that, or on "dark_at".
func (id *Identity) HealthHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := id.Health()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if !h.Able {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(h) // who asked went away
	})
}
