package policy

import (
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// proven is an authorization as an account holds it.
func proven(name string, wildcard bool, by protocol.ChallengeType, left time.Duration) protocol.Authorization {
	return protocol.Authorization{
		Identifier: dns(name), Wildcard: wildcard, Status: protocol.AuthorizationValid, ExpiresAt: reusedAt.Add(left),
		Attempt: protocol.Attempt{Type: by},
	}
}

var reusedAt = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// RFC 8555 section 7.4: an order may rest on what was proven before; DESIGN
// section 6: a private proof serves one order only.
func TestReusable(t *testing.T) {
	const name = "a.prod.internal"
	for _, tt := range []struct {
		why      string
		held     protocol.Authorization
		id       protocol.Identifier
		profiles []cert.Profile
		want     bool
	}{
		{"the same name", proven(name, false, protocol.HTTP01, time.Hour), dns(name), []cert.Profile{serverProfile}, true},
		{"counts for one of the profiles", proven(name, false, protocol.HTTP01, time.Hour), dns(name), []cert.Profile{clientProfile, serverProfile}, true},
		{"a wildcard", proven(name, true, protocol.DNS01, time.Hour), dns("*." + name), []cert.Profile{serverProfile}, true},
		{"another name", proven("b.prod.internal", false, protocol.HTTP01, time.Hour), dns(name), []cert.Profile{serverProfile}, false},
		{"the wildcard above", proven("prod.internal", true, protocol.DNS01, time.Hour), dns(name), []cert.Profile{serverProfile}, false},
		{"a name for its wildcard", proven(name, false, protocol.DNS01, time.Hour), dns("*." + name), []cert.Profile{serverProfile}, false},
		{"a wildcard for its name", proven(name, true, protocol.DNS01, time.Hour), dns(name), []cert.Profile{serverProfile}, false},
		{"another profile", proven(name, false, protocol.HTTP01, time.Hour), dns(name), []cert.Profile{clientProfile}, false},
		{"ends soon", proven(name, false, protocol.HTTP01, time.Minute), dns(name), []cert.Profile{serverProfile}, false},
		{"an operator's approval", proven(name, false, protocol.PreApproved, time.Hour), dns(name), []cert.Profile{serverProfile}, false},
		{"nothing", protocol.Authorization{}, dns(name), []cert.Profile{serverProfile}, false},
	} {
		other := proven("other.prod.internal", false, protocol.HTTP01, time.Hour)
		got, ok := Reusable([]protocol.Authorization{other, tt.held}, tt.id, tt.profiles, reusedAt)
		if ok != tt.want || ok && got.Identifier != tt.held.Identifier {
			t.Errorf("%s: %v, %v", tt.why, got.Identifier, ok)
		}
	}
}

// RFC 8555 section 7.6: authorizations for all of the certificate's names.
func TestHoldsAll(t *testing.T) {
	a, b := proven("a.prod.internal", false, protocol.HTTP01, time.Minute), proven("prod.internal", true, protocol.DNS01, time.Hour)
	names := []protocol.Identifier{dns("a.prod.internal"), dns("*.prod.internal")}
	for why, tt := range map[string]struct {
		held []protocol.Authorization
		p    cert.Profile
		want bool
	}{
		"all":                           {[]protocol.Authorization{b, a}, serverProfile, true},
		"one missing":                   {[]protocol.Authorization{a}, serverProfile, false},
		"none":                          {nil, serverProfile, false},
		"one that doesn't count for it": {[]protocol.Authorization{a, b}, bothProfile, false}, // by DNS only
		"an operator's approval":        {[]protocol.Authorization{proven("a.prod.internal", false, protocol.PreApproved, time.Hour), b}, serverProfile, true},
		"the bare name of the wildcard": {[]protocol.Authorization{a, proven("prod.internal", false, protocol.DNS01, time.Hour)}, serverProfile, false},
	} {
		if got := HoldsAll(tt.held, names, tt.p); got != tt.want {
			t.Errorf("%s: %v", why, got)
		}
	}
}
