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
		{"a pod's", proven(name, false, protocol.Kubernetes01, time.Hour), dns(name), []cert.Profile{{Challenges: []protocol.ChallengeType{protocol.Kubernetes01}}}, false},
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

// DESIGN section 6: an order rests on one device or one pod.
func TestOneSubject(t *testing.T) {
	by := func(typ protocol.ChallengeType, subject string) protocol.Authorization {
		z := proven(subject+".prod.internal", false, typ, time.Hour)
		z.Subject = subject
		return z
	}
	pod1, pod2 := by(protocol.Kubernetes01, "pod-1"), by(protocol.Kubernetes01, "pod-2")
	classic, approved := by(protocol.HTTP01, ""), by(protocol.PreApproved, "")
	for why, tt := range map[string]struct {
		list []protocol.Authorization
		want bool
	}{
		"nothing":                 {nil, true},
		"classic ones":            {[]protocol.Authorization{classic, classic, approved}, true},
		"one pod":                 {[]protocol.Authorization{pod1, pod1, pod1}, true},
		"one pod, among others":   {[]protocol.Authorization{classic, pod1, approved, pod1}, true},
		"two pods":                {[]protocol.Authorization{pod1, pod2}, false},
		"two pods, among others":  {[]protocol.Authorization{pod1, classic, pod1, approved, pod2}, false},
		"two types, one subject":  {[]protocol.Authorization{pod1, by("later-01", "pod-1")}, true},
		"two types, two subjects": {[]protocol.Authorization{pod1, by("later-01", "device-1")}, false},
		"a pod that nobody knows": {[]protocol.Authorization{by(protocol.Kubernetes01, "")}, false},
		"one known and one not":   {[]protocol.Authorization{pod1, by(protocol.Kubernetes01, "")}, false},
	} {
		if err := OneSubject(tt.list); (err == nil) != tt.want || err != nil && protocol.AsProblem(err).Type != protocol.Unauthorized {
			t.Errorf("%s: %v", why, err)
		}
	}
	if got := Subjects([]protocol.Authorization{classic, pod1, pod2, pod1}); len(got) != 2 || got[0] != "pod-1" || got[1] != "pod-2" {
		t.Error(got)
	}
}

// DESIGN section 6: never pre-authorized.
func TestOfferedAhead(t *testing.T) {
	for why, tt := range map[string]struct {
		offered []protocol.ChallengeType
		status  protocol.AuthorizationStatus
		want    int // -1: refused
	}{
		"classic ones":          {[]protocol.ChallengeType{protocol.HTTP01, protocol.DNS01}, protocol.AuthorizationPending, 2},
		"both kinds":            {[]protocol.ChallengeType{protocol.Kubernetes01, protocol.DNS01, "later-01"}, protocol.AuthorizationPending, 1},
		"private ones":          {[]protocol.ChallengeType{protocol.Kubernetes01, "later-01"}, protocol.AuthorizationPending, -1},
		"an EAB key's approval": {nil, protocol.AuthorizationValid, 0},
	} {
		z := protocol.Authorization{Identifier: dns("a.prod.internal"), Offered: tt.offered, Status: tt.status}
		first := append([]protocol.ChallengeType(nil), tt.offered...)
		got, err := OfferedAhead(z)
		if (err != nil) != (tt.want < 0) || err == nil && len(got) != tt.want || err != nil && protocol.AsProblem(err).Type != protocol.Unauthorized {
			t.Errorf("%s: %v, %v", why, got, err)
		}
		for i := range first {
			if z.Offered[i] != first[i] {
				t.Errorf("%s: the list given was changed to %v", why, z.Offered)
			}
		}
	}
}

// A pod proves its names and its addresses, never a wildcard.
func TestOfferedToPods(t *testing.T) {
	d := Directory{Challenges: []protocol.ChallengeType{protocol.DNS01, protocol.Kubernetes01}}
	p := []cert.Profile{{Challenges: d.Challenges}}
	for id, want := range map[protocol.Identifier]int{
		dns("a.prod.internal"): 2, dns("*.prod.internal"): 1, {Type: protocol.IP, Value: "10.1.2.3"}: 1,
	} {
		if got := d.Offered(p, id); len(got) != want {
			t.Errorf("%s: %v", id, got)
		}
	}
}
