package proof

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// says is a validator that answers so.
type says struct{ err error }

func (s says) Validate(context.Context, protocol.Validation) (protocol.Evidence, error) {
	return protocol.Evidence{}, s.err
}
func (s says) Recheck(context.Context, protocol.Identifier, string) error { return s.err }

// once is one that can't be asked again, finds one that knows addresses.
type once struct{ Validator }
type finds struct{ says }

func (f finds) Whois(_ context.Context, peer netip.AddrPort) (string, error) {
	return "at " + peer.Addr().String(), f.err
}

var (
	no   = &protocol.ValidationError{Problem: protocol.NewProblem(protocol.Unauthorized, "no"), Retryable: true}
	away = &protocol.ValidationError{Problem: protocol.NewProblem(protocol.ServerInternal, "away").After(time.Minute), Retryable: true}
)

// Before the key signs: a no is final, no answer is none, until the order ends.
func TestRecheck(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	private := protocol.Authorization{
		Identifier: protocol.Identifier{Type: protocol.DNS, Value: "a.example"}, Subject: "pod", ExpiresAt: now,
		Attempt: protocol.Attempt{Type: protocol.Kubernetes01},
	}
	classic, fresh := private, private
	classic.Attempt.Type, classic.Subject = protocol.HTTP01, ""
	fresh.ExpiresAt = now.Add(time.Second)
	for _, tt := range []struct {
		why     string
		v       Validator
		z       protocol.Authorization
		ended   bool                 // the order
		problem protocol.ProblemType // "": none
		again   bool                 // an error that is no problem
	}{
		{"still so", says{}, private, false, "", false},
		{"still so, and the order's end is past", says{}, private, true, "", false},
		{"no", says{no}, private, false, protocol.Unauthorized, false},
		{"away", says{away}, private, false, "", true},
		{"trouble of its own", says{errors.New("secret")}, private, false, "", true},
		{"given up", says{context.Canceled}, private, false, "", true},
		{"away until the end", says{away}, private, true, protocol.ServerInternal, false},
		{"taken out", nil, private, false, protocol.Unauthorized, false},
		{"can't be asked again, fresh", once{says{no}}, fresh, false, "", false},
		{"can't be asked again, stale", once{says{}}, private, false, protocol.Unauthorized, false},
		{"classic proofs aren't asked about", says{no}, classic, false, "", false},
		{"an operator's approval neither", says{no}, protocol.Authorization{Attempt: protocol.Attempt{Type: protocol.PreApproved}}, false, "", false},
	} {
		all := Validators{protocol.HTTP01: tt.v}
		if tt.v != nil {
			all[protocol.Kubernetes01] = tt.v
		}
		o := protocol.Order{ExpiresAt: now.Add(time.Second)}
		if tt.ended {
			o.ExpiresAt = now
		}
		err := Recheck(t.Context(), all, o, []protocol.Authorization{classic, tt.z}, func() time.Time { return now })
		p, isProblem := errors.AsType[*protocol.Problem](err)
		switch {
		case tt.again && (err == nil || isProblem), tt.problem == "" && !tt.again && err != nil, tt.problem != "" && (!isProblem || p.Type != tt.problem || p.Identifier == nil):
			t.Errorf("%s: %v", tt.why, err)
		}
	}
}

// A client comes back where there is no answer, and only there.
func TestUnanswered(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		after  time.Duration
	}{
		{away, 503, time.Minute},
		{errors.New("secret"), 503, retry},
		{context.DeadlineExceeded, 503, retry},
		{protocol.NewProblem(protocol.ServerInternal, "full").WithStatus(500), 500, retry},
	} {
		if p := Unanswered(tt.err); p == nil || p.HTTPStatus() != tt.status || p.RetryAfter != tt.after || p.Detail == "secret" {
			t.Errorf("%v: %+v", tt.err, p)
		}
	}
	if p := Unanswered(no); p != nil {
		t.Errorf("a no: %v", p)
	}
}

// Whatever a validator does, it ends, and the server goes on.
func TestAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		err := Ask(t.Context(), protocol.Kubernetes01, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != Most {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		if err := Ask(t.Context(), protocol.Kubernetes01, func(context.Context) error { panic("secret") }); err == nil || Unanswered(err) == nil {
			t.Errorf("a panic: %v", err)
		}
	})
}

// Only one that says so takes addresses for proofs.
func TestLocating(t *testing.T) {
	peer := netip.MustParseAddrPort("10.1.0.1:1")
	if typ, l := Locating(Validators{protocol.HTTP01: says{}, protocol.Kubernetes01: says{}}); l != nil {
		t.Errorf("%s tells who is where", typ)
	}
	typ, l := Locating(Validators{protocol.HTTP01: says{}, protocol.Kubernetes01: finds{}})
	if typ != protocol.Kubernetes01 || l == nil {
		t.Fatal(typ, l)
	}
	if s, err := Whois(t.Context(), typ, l, peer); s != "at 10.1.0.1" || err != nil {
		t.Error(s, err)
	}
	if _, err := Whois(t.Context(), typ, finds{says{no}}, peer); !errors.Is(err, no) {
		t.Error(err)
	}
}
