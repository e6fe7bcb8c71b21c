package proof

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// Most is the longest that one call of a validator may take, whatever the
// directory says.
const Most = 30 * time.Second

// retry is when a client comes back while what must be asked doesn't answer,
// where that doesn't say.
const retry = 5 * time.Second

// Validator looks whether a challenge is met and reports what it saw; it
// changes nothing. A no is a *protocol.ValidationError, whose type is
// serverInternal where what must be asked doesn't answer. It must end soon
// after ctx does.
type Validator interface {
	Validate(ctx context.Context, v protocol.Validation) (protocol.Evidence, error)
}

// Rechecker is a Validator of a private type that can be asked again whether
// the subject may still have the name. Its errors are as Validate's.
type Rechecker interface {
	Recheck(ctx context.Context, id protocol.Identifier, subject string) error
}

// Locator is a Validator to which the client's own address is a proof: it
// tells the subject at that address. An order from there is bound to it, and
// is proven and finalized by that one alone; to prove one that isn't bound,
// Validate is told no address. Its errors are as Validate's.
type Locator interface {
	Whois(ctx context.Context, peer netip.AddrPort) (subject string, err error)
}

// Validators are a directory's, by the type that each looks at.
type Validators = map[protocol.ChallengeType]Validator

// Ask calls a validator's method, never longer than Most, and survives a panic
// of its.
func Ask(ctx context.Context, t protocol.ChallengeType, method func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, Most)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("validator %s panicked: %v", t, r)
		}
	}()
	return method(ctx)
}

// Unanswered is the problem for a client that must wait until what a validator
// asks answers again: serverInternal, 503 and when to come back, unless err says
// otherwise. nil: err is a no, which is final.
func Unanswered(err error) *protocol.Problem {
	p := protocol.AsProblem(err)
	if p.Type != protocol.ServerInternal {
		return nil
	}
	return p.WithStatus(cmp.Or(p.Status, 503)).After(cmp.Or(p.RetryAfter, retry))
}

// Locating finds the type whose proof may be the client's address, and who
// tells; nil for none.
func Locating(all Validators) (protocol.ChallengeType, Locator) {
	for t, v := range all {
		if l, ok := v.(Locator); ok {
			return t, l
		}
	}
	return "", nil
}

// Whois asks a locator who is at an address.
func Whois(ctx context.Context, t protocol.ChallengeType, l Locator, peer netip.AddrPort) (subject string, err error) {
	err = Ask(ctx, t, func(ctx context.Context) error {
		subject, err = l.Whois(ctx, peer)
		return err
	})
	return subject, err
}

// Recheck asks again about the private proofs among an order's authorizations,
// whose certificate is about to be signed. A no is a problem. Where there is no
// answer the order waits for one until its end: before that, the error is no
// problem.
func Recheck(ctx context.Context, all Validators, o protocol.Order, authorizations []protocol.Authorization, clock func() time.Time) error {
	for _, z := range authorizations {
		if !z.Attempt.Type.Private() {
			continue
		}
		err := recheck(ctx, all, z, clock())
		switch {
		case err == nil:
		case protocol.AsProblem(err).Type != protocol.ServerInternal:
			return protocol.AsProblem(err).For(z.Identifier)
		case clock().Before(o.ExpiresAt):
			return fmt.Errorf("%s can't look at %q again: %v", z.Attempt.Type, z.Identifier.Value, err)
		default:
			return protocol.NewProblem(protocol.ServerInternal,
				"what proves %q could not be looked at again before the order's end; make a new order", z.Identifier.Value).For(z.Identifier)
		}
	}
	return nil
}

func recheck(ctx context.Context, all Validators, z protocol.Authorization, now time.Time) error {
	v, ok := all[z.Attempt.Type]
	if !ok { // by a change of the configuration
		return protocol.NewProblem(protocol.Unauthorized, "%s is not offered here any more", z.Attempt.Type)
	}
	if r, ok := v.(Rechecker); ok {
		return Ask(ctx, z.Attempt.Type, func(ctx context.Context) error { return r.Recheck(ctx, z.Identifier, z.Subject) })
	}
	if !now.Before(z.ExpiresAt) { // what can't be looked at again must be fresh
		return protocol.NewProblem(protocol.Unauthorized, "the proof of %q expired before the certificate was signed", z.Identifier.Value)
	}
	return nil
}
