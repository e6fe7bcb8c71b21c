package protocol

import (
	"slices"
	"testing"
	"time"
)

const day = 24 * time.Hour

// RFC 8555 section 7.1.6, the state diagrams of orders and authorizations.
func TestOrderState(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	authorization := func(status AuthorizationStatus, life time.Duration) Authorization {
		return Authorization{Status: status, ExpiresAt: now.Add(life)}
	}
	valid, pending := authorization(AuthorizationValid, time.Hour), authorization(AuthorizationPending, time.Hour)
	for _, tt := range []struct {
		why    string
		stored OrderStatus
		life   time.Duration
		auths  []Authorization
		want   OrderStatus
	}{
		{"nothing proven", OrderPending, time.Hour, []Authorization{pending, pending}, OrderPending},
		{"one of two proven", OrderPending, time.Hour, []Authorization{valid, pending}, OrderPending},
		{"all proven", OrderPending, time.Hour, []Authorization{valid, valid}, OrderReady},
		{"one failed", OrderPending, time.Hour, []Authorization{valid, authorization(AuthorizationInvalid, time.Hour)}, OrderInvalid},
		{"one failed, one pending", OrderPending, time.Hour, []Authorization{authorization(AuthorizationInvalid, time.Hour), pending}, OrderInvalid},
		{"one given up", OrderPending, time.Hour, []Authorization{valid, authorization(AuthorizationDeactivated, time.Hour)}, OrderInvalid},
		{"one revoked", OrderPending, time.Hour, []Authorization{authorization(AuthorizationRevoked, time.Hour)}, OrderInvalid},
		{"one past its end", OrderPending, time.Hour, []Authorization{authorization(AuthorizationValid, 0)}, OrderInvalid},
		{"pending past its end", OrderPending, time.Hour, []Authorization{authorization(AuthorizationPending, 0)}, OrderInvalid},
		{"order past its end", OrderPending, 0, []Authorization{valid}, OrderInvalid},
		{"processing stays", OrderProcessing, 0, []Authorization{authorization(AuthorizationInvalid, 0)}, OrderProcessing},
		{"valid stays", OrderValid, 0, nil, OrderValid},
		{"invalid stays", OrderInvalid, time.Hour, []Authorization{valid}, OrderInvalid},
	} {
		o := Order{Status: tt.stored, ExpiresAt: now.Add(tt.life), Authorizations: make([]AuthorizationID, len(tt.auths))}
		if got := OrderState(o, tt.auths, now); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.why, got, tt.want)
		}
	}
	swept := Order{Status: OrderPending, ExpiresAt: now.Add(time.Hour), Authorizations: make([]AuthorizationID, 2)}
	if got := OrderState(swept, []Authorization{valid}, now); got != OrderInvalid {
		t.Errorf("an order that lost an authorization is %s", got)
	}
}

// RFC 8555 section 7.4: an order that isn't ready is refused with
// orderNotReady, status 403.
func TestCheckReady(t *testing.T) {
	for _, state := range []OrderStatus{OrderPending, OrderProcessing, OrderValid, OrderInvalid} {
		if p := AsProblem(CheckReady(state)); p.Type != OrderNotReady || p.HTTPStatus() != 403 {
			t.Errorf("%s: %v, status %d", state, p, p.HTTPStatus())
		}
	}
	if err := CheckReady(OrderReady); err != nil {
		t.Error(err)
	}
}

// RFC 8555 section 6.7.1: one subproblem for each identifier that failed.
func TestLostAuthorization(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	one := func(name string, status AuthorizationStatus, life time.Duration, why *Problem) Authorization {
		return Authorization{Identifier: Identifier{DNS, name}, Status: status, ExpiresAt: now.Add(life), Attempt: Attempt{Error: why}}
	}
	pending := one("pending.example", AuthorizationPending, time.Hour, nil)
	// One whose last try failed isn't lost while another is due.
	retried := one("retried.example", AuthorizationPending, time.Hour, NewProblem(ConnectionFailed, "refused"))
	valid := one("valid.example", AuthorizationValid, time.Hour, nil)
	failed := one("failed.example", AuthorizationInvalid, time.Hour, NewProblem(DNSFailed, "no such name"))
	expired := one("expired.example", AuthorizationPending, 0, nil)
	ended := one("ended.example", AuthorizationDeactivated, time.Hour, nil)
	for _, tt := range []struct {
		why   string
		auths []Authorization
		typ   ProblemType
		about []string
	}{
		{"none", nil, Malformed, nil},
		{"time", []Authorization{pending, retried, valid}, Malformed, nil},
		{"a failure", []Authorization{valid, failed}, DNSFailed, []string{"failed.example"}},
		{"time for a proof", []Authorization{expired, pending}, Unauthorized, []string{"expired.example"}},
		{"two of one type", []Authorization{expired, valid, ended}, Unauthorized, []string{"expired.example", "ended.example"}},
		{"two of two types", []Authorization{failed, ended}, Compound, []string{"failed.example", "ended.example"}},
	} {
		p := LostAuthorization(tt.auths, now)
		var about []string
		if p.Identifier != nil {
			about = append(about, p.Identifier.Value)
		}
		for _, sub := range p.Sub {
			about = append(about, sub.Identifier.Value)
		}
		if p.Type != tt.typ || !slices.Equal(about, tt.about) {
			t.Errorf("%s: %v about %v; want %s about %v", tt.why, p, about, tt.typ, tt.about)
		}
	}
}

func TestChallengeState(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, tt := range []struct {
		why  string
		auth Authorization
		want ChallengeStatus
	}{
		{"not asked for", Authorization{Status: AuthorizationPending}, ChallengePending},
		{"another one was tried", Authorization{Status: AuthorizationValid, Attempt: Attempt{Type: DNS01, ValidatedAt: now}}, ChallengePending},
		{"under way", Authorization{Status: AuthorizationPending, Attempt: Attempt{Type: HTTP01, Processing: true}}, ChallengeProcessing},
		{"proven", Authorization{Status: AuthorizationValid, Attempt: Attempt{Type: HTTP01, ValidatedAt: now}}, ChallengeValid},
		{"proven, then given up", Authorization{Status: AuthorizationDeactivated, Attempt: Attempt{Type: HTTP01, ValidatedAt: now}}, ChallengeValid},
		{"failed", Authorization{Status: AuthorizationInvalid, Attempt: Attempt{Type: HTTP01}}, ChallengeInvalid},
	} {
		if got := ChallengeState(tt.auth, HTTP01); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.why, got, tt.want)
		}
	}
}

// RFC 8555 section 7.1.3: wildcards by DNS only; RFC 8738 section 7:
// addresses never by DNS.
func TestProves(t *testing.T) {
	for _, tt := range []struct {
		challenge ChallengeType
		typ       IdentifierType
		wildcard  bool
		want      bool
	}{
		{HTTP01, DNS, false, true}, {HTTP01, DNS, true, false}, {HTTP01, IP, false, true},
		{TLSALPN01, DNS, false, true}, {TLSALPN01, DNS, true, false}, {TLSALPN01, IP, false, true},
		{DNS01, DNS, false, true}, {DNS01, DNS, true, true}, {DNS01, IP, false, false},
		{DNSAccount01, DNS, true, true}, {DNSAccount01, IP, false, false},
		{DNSPersist01, DNS, true, true}, {DNSPersist01, IP, false, false},
		{Kubernetes01, DNS, false, true}, {Kubernetes01, DNS, true, false}, {Kubernetes01, IP, false, true},
	} {
		if got := tt.challenge.Proves(tt.typ, tt.wildcard); got != tt.want {
			t.Errorf("%s for %s, wildcard %v: %v", tt.challenge, tt.typ, tt.wildcard, got)
		}
	}
}

func TestIDs(t *testing.T) {
	early, late := NewID[OrderID](time.UnixMilli(1_800_000_000_000)), NewID[OrderID](time.UnixMilli(1_800_000_000_001))
	if early >= late {
		t.Errorf("%s, made later, sorts before %s", late, early)
	}
	if _, err := ParseID[OrderID](string(early)); err != nil {
		t.Errorf("%s: %v", early, err)
	}
	for _, bad := range []string{"", "short", string(early) + "0", string(early[:25]) + "w", string(early[:25]) + "A", string(early[:25]) + "/"} {
		if _, err := ParseID[OrderID](bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestJoin(t *testing.T) {
	if Join(Malformed, nil) != nil {
		t.Error("a problem of nothing")
	}
	a, b := NewProblem(CAAForbids, "a"), NewProblem(CAAForbids, "b")
	if got := Join(CAAForbids, []*Problem{a, b}); got.Type != CAAForbids || len(got.Sub) != 2 {
		t.Errorf("got %v", got)
	}
	if got := Join(CAAForbids, []*Problem{a, NewProblem(DNSFailed, "c")}); got.Type != Compound {
		t.Errorf("problems of two types are %s (RFC 8555 section 6.7)", got.Type)
	}
}
