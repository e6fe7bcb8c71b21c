package protocol

import (
	"errors"
	"time"
)

// Tried returns the authorization as one look at its challenge, which Attempt
// names, leaves it: valid for life, or as long as what was seen is good, and
// resting on its subject; invalid by the failure; or, where RFC 8555 section 8.2 makes sense of it,
// still pending and Attempt.Processing, to be tried again at NextAt. A failure
// makes sense to repeat if it is a ValidationError that says so or the
// validator's own trouble, and as long as delays, which lie before the second
// try, the third …, has one more.
func Tried(z Authorization, seen Evidence, failure error, life time.Duration, delays []time.Duration, now time.Time) Authorization {
	until, failure := lasts(z, seen, failure, life, now)
	at := z.Attempt
	at.Tries++
	at.Processing = false
	if failure == nil {
		at.ValidatedAt, at.Error, at.Response = now, nil, nil
		z.Attempt, z.Status, z.ExpiresAt, z.Subject = at, AuthorizationValid, until, seen.Subject
		return z
	}
	at.Error = AsProblem(failure)
	why, ok := errors.AsType[*ValidationError](failure)
	if (!ok || why.Retryable) && at.Tries <= len(delays) {
		at.Processing, at.NextAt = true, now.Add(delays[at.Tries-1])
		z.Attempt = at
		return z
	}
	at.Response = nil
	z.Attempt, z.Status = at, AuthorizationInvalid
	return z
}

// lasts says until when a proof is good: for life, and not beyond what the
// evidence itself says; a private one for PrivateLife, if it is of the pod
// that the authorization is bound to. A proof that came after the authorization's
// end is none (RFC 8555 section 7.1.6: expired is final).
func lasts(z Authorization, seen Evidence, failure error, life time.Duration, now time.Time) (time.Time, error) {
	private := z.Attempt.Type.Private()
	if private {
		life = min(life, PrivateLife)
	}
	until := now.Add(life)
	no := func(format string, args ...any) (time.Time, error) {
		return time.Time{}, &ValidationError{Problem: NewProblem(Unauthorized, format, args...)}
	}
	switch {
	case !now.Before(z.ExpiresAt):
		return no("the authorization expired before it was proven; make a new order")
	case failure != nil:
		return time.Time{}, failure
	case private && seen.Subject == "": // a validator's mistake
		return no("the proof says of no pod or device that it is its own")
	case private && z.BoundTo != "" && seen.Subject != z.BoundTo:
		return no("the order came from another pod than the one that answered the challenge; do all of it from one")
	case !seen.ValidUntil.IsZero() && !seen.ValidUntil.After(now):
		return no("what proves %q was good until %s only; renew it", z.Identifier.Value, seen.ValidUntil.UTC().Format(time.RFC3339))
	case !seen.ValidUntil.IsZero() && seen.ValidUntil.Before(until):
		return seen.ValidUntil, nil
	}
	return until, nil
}
