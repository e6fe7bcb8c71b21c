package protocol

import (
	"errors"
	"testing"
	"time"
)

// RFC 8555 sections 7.1.6 (status changes) and 8.2 (retries); what was seen
// may say how long it is good (draft-ietf-acme-dns-persist).
func TestTried(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	final := &ValidationError{Problem: NewProblem(IncorrectResponse, "not what it should be")}
	notYet := &ValidationError{Problem: NewProblem(ConnectionFailed, "refused"), Retryable: true}
	for _, tt := range []struct {
		why        string
		tries      int           // before this one
		left       time.Duration // of the authorization's life
		validUntil time.Duration // by the evidence; 0: it doesn't say
		failure    error
		status     AuthorizationStatus
		lasts      time.Duration // from now
		problem    ProblemType
		again      time.Duration // 0: this was the last try
	}{
		{"proven", 0, day, 0, nil, AuthorizationValid, time.Hour, "", 0},
		{"proven by the last try", 2, day, 0, nil, AuthorizationValid, time.Hour, "", 0},
		{"proven by what ends soon", 0, day, time.Minute, nil, AuthorizationValid, time.Minute, "", 0},
		{"proven by what lasts longer than a proof", 0, day, day, nil, AuthorizationValid, time.Hour, "", 0},
		{"proven by what is over", 0, day, -time.Second, nil, AuthorizationInvalid, day, Unauthorized, 0},
		{"proven too late", 0, 0, 0, nil, AuthorizationInvalid, 0, Unauthorized, 0},
		{"wrong", 0, day, 0, final, AuthorizationInvalid, day, IncorrectResponse, 0},
		{"wrong, with evidence", 0, day, -time.Second, final, AuthorizationInvalid, day, IncorrectResponse, 0},
		{"not yet", 0, day, 0, notYet, AuthorizationPending, day, ConnectionFailed, time.Second},
		{"not yet, again", 1, day, 0, notYet, AuthorizationPending, day, ConnectionFailed, time.Minute},
		{"not yet, for the last time", 2, day, 0, notYet, AuthorizationInvalid, day, ConnectionFailed, 0},
		{"not yet, and too late", 0, -time.Second, 0, notYet, AuthorizationInvalid, -time.Second, Unauthorized, 0},
		{"the validator's own trouble", 0, day, 0, errors.New("secret"), AuthorizationPending, day, ServerInternal, time.Second},
		{"the validator's own trouble, for the last time", 2, day, 0, errors.New("secret"), AuthorizationInvalid, day, ServerInternal, 0},
	} {
		z := Authorization{
			Status: AuthorizationPending, ExpiresAt: now.Add(tt.left),
			Attempt: Attempt{Type: HTTP01, Processing: true, Tries: tt.tries, Error: notYet.Problem, Response: []byte("{}")},
		}
		var seen Evidence
		if tt.validUntil != 0 {
			seen.ValidUntil = now.Add(tt.validUntil)
		}
		got := Tried(z, seen, tt.failure, time.Hour, []time.Duration{time.Second, time.Minute}, now)
		at := got.Attempt
		if got.Status != tt.status || !got.ExpiresAt.Equal(now.Add(tt.lasts)) || at.Tries != tt.tries+1 || at.Type != HTTP01 {
			t.Errorf("%s: %s until %v, %+v", tt.why, got.Status, got.ExpiresAt, at)
		}
		if at.Processing != (tt.again != 0) || at.Processing && !at.NextAt.Equal(now.Add(tt.again)) || (at.Response != nil) != at.Processing {
			t.Errorf("%s: processing %v, again at %v, response %q", tt.why, at.Processing, at.NextAt, at.Response)
		}
		if valid := tt.status == AuthorizationValid; valid != (at.Error == nil) || valid != at.ValidatedAt.Equal(now) || !valid && at.Error.Type != tt.problem {
			t.Errorf("%s: %v, validated at %v", tt.why, at.Error, at.ValidatedAt)
		}
		if at.Error != nil && at.Error.Detail == "secret" {
			t.Errorf("%s: the client is told", tt.why)
		}
	}
}

// DESIGN section 6: a private proof rests on one pod or device, which is known,
// lasts ten minutes, and is of the pod that an order is bound to.
func TestTriedPrivate(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, tt := range []struct {
		why     string
		t       ChallengeType
		bound   string
		subject string
		life    time.Duration
		lasts   time.Duration // 0: refused
	}{
		{"by a pod", Kubernetes01, "", "pod 1", day, PrivateLife},
		{"in a directory of shorter proofs", Kubernetes01, "", "pod 1", time.Minute, time.Minute},
		{"by the pod that the order came from", Kubernetes01, "pod 1", "pod 1", day, PrivateLife},
		{"by another pod", Kubernetes01, "pod 1", "pod 2", day, 0},
		{"by nobody", Kubernetes01, "", "", day, 0},
		{"by a type that isn't known here", "later-01", "", "device 7", day, PrivateLife},
		{"by a classic one", HTTP01, "", "", day, day},
		{"by a classic one, of a bound order", HTTP01, "pod 1", "", day, day},
	} {
		z := Authorization{Status: AuthorizationPending, ExpiresAt: now.Add(day), BoundTo: tt.bound, Attempt: Attempt{Type: tt.t}}
		got := Tried(z, Evidence{Subject: tt.subject}, nil, tt.life, nil, now)
		if tt.lasts == 0 {
			if got.Status != AuthorizationInvalid || got.Attempt.Error.Type != Unauthorized || got.Subject != "" {
				t.Errorf("%s: %+v", tt.why, got)
			}
		} else if got.Status != AuthorizationValid || !got.ExpiresAt.Equal(now.Add(tt.lasts)) || got.Subject != tt.subject {
			t.Errorf("%s: %s for %v, resting on %q", tt.why, got.Status, got.ExpiresAt.Sub(now), got.Subject)
		}
	}
}

// What isn't classic is private, unless it is no proof at all.
func TestPrivate(t *testing.T) {
	for typ, want := range map[ChallengeType]bool{
		HTTP01: false, DNS01: false, TLSALPN01: false, DNSAccount01: false, DNSPersist01: false, PreApproved: false, "": false,
		Kubernetes01: true, "later-01": true,
	} {
		if typ.Private() != want {
			t.Errorf("%q is private: %v", typ, !want)
		}
	}
}
