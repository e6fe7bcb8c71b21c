package issuer

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// TestDates: RFC 5280 section 4.1.2.5, whole seconds of UTC; what policy
// decided isn't changed.
func TestDates(t *testing.T) {
	l := newPKI(t, cert.P256, CA{}).local(t)
	r := request(t)
	east := time.FixedZone("east", 7200)
	r.NotBefore, r.NotAfter = now.Add(-time.Hour).In(east), now.Add(time.Hour).In(east)
	c := issue(t, l, r)
	if !c.NotBefore.Equal(r.NotBefore.Truncate(time.Second)) || !c.NotAfter.Equal(r.NotAfter.Truncate(time.Second)) {
		t.Errorf("%v to %v, want %v to %v", c.NotBefore, c.NotAfter, r.NotBefore, r.NotAfter)
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
	r.NotAfter, r.ExactEnd = p.ca.NotAfter, true
	if c = issue(t, l, r); !c.NotAfter.Equal(p.ca.NotAfter) {
		t.Errorf("asked for the issuer's end: %v", c.NotAfter)
	}
	r.NotAfter = p.ca.NotAfter.Add(time.Second)
	wantProblem(t, l, r, protocol.Malformed, "after the issuing certificate's own")
	r.NotAfter, r.ExactEnd = p.ca.NotAfter.Add(time.Hour), false
	r.NotBefore, r.ExactStart = p.ca.NotBefore.Add(-time.Second), true
	wantProblem(t, l, r, protocol.Malformed, "before the issuing certificate's own")
	r.ExactStart, r.Now = false, p.ca.NotBefore.Add(time.Second)
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
