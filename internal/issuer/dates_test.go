package issuer

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// TestDates: RFC 5280 section 4.1.2.5 (both ends included, whole seconds), RFC
// 8555 section 7.4 (what was asked for, or an error).
func TestDates(t *testing.T) {
	at := time.Date(2026, 11, 21, 12, 30, 15, 0, time.UTC) // now without its nanoseconds
	p := profile()                                         // 24 h, at most 7 d, one minute back
	const day = 24 * time.Hour
	for name, tt := range map[string]struct {
		notBefore, notAfter time.Time
		from, to            time.Time
		says                string
	}{
		"nothing asked":             {from: at.Add(-time.Minute), to: at.Add(day - time.Minute - time.Second)},
		"year 1, as step CLI sends": {notBefore: time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), notAfter: time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), from: at.Add(-time.Minute), to: at.Add(day - time.Minute - time.Second)},
		"an end":                    {notAfter: at.Add(time.Hour), from: at.Add(-time.Minute), to: at.Add(time.Hour)},
		"an end with fractions":     {notAfter: at.Add(time.Hour + 900*time.Millisecond), from: at.Add(-time.Minute), to: at.Add(time.Hour)},
		"the longest":               {notAfter: at.Add(7 * day), from: at, to: at.Add(7 * day)},
		"nearly the longest":        {notAfter: at.Add(7*day - 10*time.Second), from: at.Add(-10 * time.Second), to: at.Add(7*day - 10*time.Second)},
		"too long":                  {notAfter: at.Add(7*day + time.Second), says: "at most 168h"},
		"a beginning":               {notBefore: at.Add(-time.Hour), from: at.Add(-time.Hour), to: at.Add(23*time.Hour - time.Second)},
		"a beginning to come":       {notBefore: at.Add(time.Hour), from: at.Add(time.Hour), to: at.Add(25*time.Hour - time.Second)},
		"far in the future":         {notBefore: at.Add(6*day + time.Hour), says: "at most 168h"},
		"a day ago":                 {notBefore: at.Add(-day), notAfter: at.Add(time.Hour), from: at.Add(-day), to: at.Add(time.Hour)},
		"more than a day ago":       {notBefore: at.Add(-day - time.Second), notAfter: at.Add(time.Hour), says: "more than 24h"},
		"a day ago, default end":    {notBefore: at.Add(-day), says: "not in the future"},
		"both":                      {notBefore: at, notAfter: at.Add(2 * day), from: at, to: at.Add(2 * day)},
		"both, in another zone":     {notBefore: at.In(time.FixedZone("x", 7200)), notAfter: at.Add(day).In(time.FixedZone("y", -7200)), from: at, to: at.Add(day)},
		"exactly the longest":       {notBefore: at, notAfter: at.Add(7 * day), from: at, to: at.Add(7 * day)},
		"longer from the past":      {notBefore: at.Add(-time.Hour), notAfter: at.Add(7 * day), says: "at most 168h"},
		"ended":                     {notAfter: at.Add(-time.Hour), says: "not in the future"},
		"ends now":                  {notAfter: at, says: "not in the future"},
		"ends before it begins":     {notBefore: at.Add(2 * time.Hour), notAfter: at.Add(time.Hour), says: "before notBefore"},
		"year 9999":                 {notAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), says: "at most 168h"},
		"year 10000":                {notAfter: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), says: "at most 168h"},
		"year 0":                    {notBefore: time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), notAfter: at.Add(time.Hour), says: "more than 24h"},
	} {
		from, to, err := Dates(p, tt.notBefore, tt.notAfter, now)
		if tt.says == "" && (err != nil || !from.Equal(tt.from) || !to.Equal(tt.to)) {
			t.Errorf("%s: %v to %v (%v), want %v to %v", name, from, to, err, tt.from, tt.to)
		}
		if tt.says != "" && (err == nil || protocol.AsProblem(err).Type != protocol.Malformed || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: %v to %v, err = %v, want malformed with %q", name, from, to, err, tt.says)
		}
	}
}

// TestDatesWithinIssuer: a leaf never outlives its issuers.
func TestDatesWithinIssuer(t *testing.T) {
	p := newPKI(t, cert.P256, CA{Lifetime: 3*time.Hour + caBackdate})
	l := p.local(t)
	r := request(t)

	c := issue(t, l, r)
	if !c.NotAfter.Equal(p.ca.NotAfter) {
		t.Errorf("it ends %v, the issuer %v", c.NotAfter, p.ca.NotAfter)
	}
	r.NotAfter = p.ca.NotAfter
	if c = issue(t, l, r); !c.NotAfter.Equal(p.ca.NotAfter) {
		t.Errorf("asked for the issuer's end: %v", c.NotAfter)
	}
	r.NotAfter = p.ca.NotAfter.Add(time.Second)
	wantProblem(t, l, r, protocol.Malformed, "after the issuing certificate's own")
	r.NotAfter, r.NotBefore = time.Time{}, p.ca.NotBefore.Add(-time.Second)
	wantProblem(t, l, r, protocol.Malformed, "before the issuing certificate's own")
	r.NotBefore, r.Now = time.Time{}, p.ca.NotBefore.Add(time.Second)
	if c = issue(t, l, r); !c.NotBefore.Equal(p.ca.NotBefore) {
		t.Errorf("it begins %v, the issuer %v", c.NotBefore, p.ca.NotBefore)
	}

	for _, when := range []time.Time{p.ca.NotBefore.Add(-time.Second), p.ca.NotAfter, p.ca.NotAfter.Add(time.Hour)} {
		r.Now = when
		if _, err := l.Prepare(t.Context(), r); err == nil || !strings.Contains(err.Error(), ErrExpired.Error()) {
			t.Errorf("at %v: err = %v, want ErrExpired", when, err)
		}
	}

	// A root that ends sooner counts too.
	root := *p.root
	root.NotAfter = now.Add(time.Hour)
	a := authority{chains: [][]*x509.Certificate{{p.ca, &root}}}
	if a.limits(); !a.notAfter.Equal(root.NotAfter) {
		t.Errorf("the limit is %v, not the root's end", a.notAfter)
	}
}
