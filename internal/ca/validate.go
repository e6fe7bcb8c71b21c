package ca

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/chancery-pki/chancery/internal/audit"
	"github.com/chancery-pki/chancery/internal/ca/device"
	"github.com/chancery-pki/chancery/internal/ca/job"
	"github.com/chancery-pki/chancery/internal/ca/proof"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// Bounds on validation. A job costs a goroutine and a socket, some 20 KiB, so
// thousands that hang on black holes are affordable, and all others wait in
// the database.
const (
	maxValidations  = 4096                        // running at once
	maxPerTarget    = 8                           // running at once for one name: instances of a service may share it
	maxPerPlatform  = 512                         // running at once of a private type, which all ask the same: a cluster, a registry of devices
	maxHeldPerPeer  = 64                          // POSTs of one address waiting for their result
	privateHold     = 12                          // times as long a POST waits for a private proof: see holding
	validationLease = proof.Most + 10*time.Second // after which another replica takes a recorded one over: a try's time and some
	busyDelay       = 5 * time.Second             // before a target that has enough to do is tried again
	maxResponse     = 16 << 10                    // a client's payload that is kept for a retry
)

// validations runs the validation jobs of this process, grouped by what they
// look at.
type validations struct {
	*job.Set[*protocol.Authorization] // as recorded; nil: it must be read

	delays []time.Duration // before the second try, the third …
	held   *job.Room       // POSTs that wait, by address
}

func newValidations(delays []time.Duration) *validations {
	if delays == nil {
		delays = []time.Duration{time.Second, 3 * time.Second}
	}
	return &validations{job.NewSet[*protocol.Authorization](maxValidations, maxPerTarget), delays, job.NewRoom(maxHeldPerPeer)}
}

// Authorization returns the account's own authorization; its Status is the
// one a client sees.
func (a *Authority) Authorization(ctx context.Context, who Requester, id protocol.AuthorizationID) (protocol.Authorization, error) {
	z, err := a.db.Authorization(ctx, id)
	if err := owned(err, z.Account, who, "authorization"); err != nil {
		return protocol.Authorization{}, err
	}
	z.Status = protocol.AuthorizationState(z, a.clock())
	return z, nil
}

// DeactivateAuthorization gives an authorization up (RFC 8555 section 7.5.2).
// A validation that runs meanwhile finds it gone and changes nothing.
func (a *Authority) DeactivateAuthorization(ctx context.Context, who Requester, id protocol.AuthorizationID) (protocol.Authorization, error) {
	z, err := a.Authorization(ctx, who, id)
	if err != nil {
		return z, err
	}
	switch z.Status {
	case protocol.AuthorizationDeactivated:
		return z, nil
	case protocol.AuthorizationPending, protocol.AuthorizationValid:
	default:
		return z, protocol.NewProblem(protocol.Malformed, "the authorization is %s; only a pending or valid one can be deactivated", z.Status)
	}
	err = a.db.Update(ctx, func(tx *store.Tx) error {
		for _, from := range []protocol.AuthorizationStatus{protocol.AuthorizationPending, protocol.AuthorizationValid} {
			ok, err := tx.EndAuthorization(id, from, protocol.AuthorizationDeactivated)
			if err != nil {
				return err
			}
			if ok {
				return tx.Audit(a.entry(who, "authorization.deactivate", string(id)))
			}
		}
		return nil
	})
	if err != nil {
		return z, err
	}
	return a.Authorization(ctx, who, id)
}

// Respond takes the client's word that a challenge is ready (RFC 8555 section
// 7.5.1) and validates it. It waits a bounded moment, so that a validation
// that takes milliseconds is answered with its result; a slower one is
// recorded as processing and goes on in the background.
func (a *Authority) Respond(ctx context.Context, who Requester, id protocol.AuthorizationID, t protocol.ChallengeType, payload []byte) (protocol.Authorization, error) {
	z, err := a.Authorization(ctx, who, id)
	if err != nil {
		return z, err
	}
	if !slices.Contains(z.Offered, t) {
		return z, errNoSuch("challenge")
	}
	running, _ := a.validations.Find(string(id)) // not recorded while it is quick
	tried := cmp.Or(z.Attempt.Type, protocol.ChallengeType(running))
	switch {
	case tried != "" && tried != t:
		return z, protocol.NewProblem(protocol.Malformed, "the authorization is being proven by %s already; make a new order to try another challenge", tried)
	case z.Attempt.Processing || z.Status != protocol.AuthorizationPending:
		return z, nil // asked for twice: the answer is how it stands
	case len(payload) > maxResponse:
		return z, protocol.NewProblem(protocol.Malformed, "the challenge response is longer than %d bytes", maxResponse)
	}
	d, err := a.directory(who.Directory)
	if err != nil {
		return z, err
	}
	z.Attempt = protocol.Attempt{Type: t, Response: payload}
	check := a.validation(d, who, z)
	if t.Private() { // a secret: only the job has it
		z.Attempt.Response = nil
	}
	j := a.startValidation(ctx, d, z, check)
	switch ended := j != nil && a.ended(ctx, who, j, z); {
	case j == nil && t.Private():
		err = protocol.NewProblem(protocol.ServerInternal, "too many proofs are being looked at; try again in %v", busyDelay).WithStatus(503).After(busyDelay)
	case !ended:
		err = a.recordProcessing(ctx, who, z, j == nil)
	case j.Err != nil:
		err = j.Err // nothing was recorded, so the client must ask again
	case j.Made != nil:
		return *j.Made, nil
	}
	if err != nil {
		return z, err
	}
	// The client may have hung up; the answer is for those that haven't.
	return a.Authorization(context.WithoutCancel(ctx), who, id)
}

// holdFor waits for the job on behalf of one POST, and says whether it ended;
// it doesn't wait when that address holds enough POSTs already.
func (a *Authority) holdFor(ctx context.Context, who Requester, j *job.Job[*protocol.Authorization], most time.Duration) bool {
	if !a.validations.held.Enter(who.peer()) {
		return false
	}
	defer a.validations.held.Leave(who.peer())
	return j.Wait(ctx, most)
}

// holding is how long a POST waits for a validation. A private proof's is
// waited for until a platform that hangs is given up, after ten seconds unless
// the directory says otherwise: then the client, who alone keeps the response,
// is told to come back, and the authorization stays as it is. Retries in the
// background would soon end it.
func (a *Authority) holding(t protocol.ChallengeType) time.Duration {
	if t.Private() {
		return privateHold * a.hold
	}
	return a.hold
}

// ended waits for the job, and says whether that has its result; false: it has
// promised to go on.
func (a *Authority) ended(ctx context.Context, who Requester, j *job.Job[*protocol.Authorization], z protocol.Authorization) bool {
	if a.holdFor(ctx, who, j, a.holding(z.Attempt.Type)) {
		return true
	}
	// Ending just now, if it can't promise: that takes no time.
	return !a.validations.Promise(string(z.ID)) && j.Wait(context.WithoutCancel(ctx), a.hold)
}

// recordProcessing makes durable that the challenge was asked for, so that
// the validation goes on after a restart, before the client is told so.
// Where no job could be started, it is due at once for the sweep.
func (a *Authority) recordProcessing(ctx context.Context, who Requester, z protocol.Authorization, due bool) error {
	at := z.Attempt
	at.Processing, at.NextAt = true, a.clock()
	claimed := a.clock().Add(validationLease)
	if due {
		claimed = time.Time{}
	}
	// The client may have hung up: what it asked for is recorded all the same.
	ctx = context.WithoutCancel(ctx)
	return a.db.Update(ctx, func(tx *store.Tx) error {
		if current, err := tx.Authorization(ctx, z.ID); err != nil || current.Attempt.Processing {
			return err // the job was quicker and says when the next try is due
		}
		ok, err := tx.RecordAttempt(z.ID, at, claimed)
		if err != nil || !ok {
			return err // it ended meanwhile
		}
		return tx.Audit(a.entry(who, "challenge.respond", string(z.ID)))
	})
}

func (a *Authority) validation(d *Directory, who Requester, z protocol.Authorization) protocol.Validation {
	return protocol.Validation{
		Type: z.Attempt.Type, Identifier: z.Identifier, Wildcard: z.Wildcard, Token: z.Token, CreatedAt: z.CreatedAt,
		Thumbprint: who.Account.Thumbprint, AccountURL: d.AccountURL(who.Account.ID),
		URL: d.challengeURL(z.ID, z.Attempt.Type), Response: z.Attempt.Response, Peer: who.Peer,
	}
}

// startValidation runs the job that owns the validation, or joins the one
// that runs. It returns nil when this process, or the target, has enough to
// do.
func (a *Authority) startValidation(ctx context.Context, d *Directory, z protocol.Authorization, check protocol.Validation) *job.Job[*protocol.Authorization] {
	target, t := z.Directory+"/"+z.Identifier.String(), job.Task{About: string(check.Type)}
	if check.Type.Private() {
		target, t.Most = z.Directory+" "+string(check.Type), maxPerPlatform
	}
	return a.validations.Start(ctx, string(z.ID), target, t, func(ctx context.Context) (*protocol.Authorization, error) {
		return a.validate(ctx, d, z, check)
	})
}

// validate tries once and records how it went: valid, invalid, or, where RFC
// 8555 section 8.2 makes sense of it, processing until the next try. It returns
// the authorization as it ended, nil where another was quicker or it goes on.
// With an error nothing was recorded: the database's, or, for a private type,
// the problem that what must be asked doesn't answer.
func (a *Authority) validate(ctx context.Context, d *Directory, z protocol.Authorization, check protocol.Validation) (*protocol.Authorization, error) {
	// Another job may have ended just before this one began.
	current, err := a.db.Authorization(ctx, z.ID)
	if err != nil || current.Status != protocol.AuthorizationPending || current.Attempt.Tries != z.Attempt.Tries {
		return nil, err
	}
	told := check
	if _, ok := d.Validators[check.Type].(proof.Locator); !ok {
		z.BoundTo = "" // which is about another type
	} else if z.BoundTo == "" {
		told.Peer = netip.AddrPort{} // the order came from elsewhere
	}
	begun := a.clock()
	evidence, failure := look(ctx, d, told)
	now := a.clock()
	if _, ok := errors.AsType[*protocol.Problem](failure); failure != nil && !ok {
		a.log.Error("validator failed", "type", check.Type, "authorization", z.ID, "error", failure)
	}
	a.observe.Validated(z.Directory, check.Type, now.Sub(begun), failure)
	z = protocol.Tried(z, evidence, failure, d.Lifetimes.Authorization, a.validations.delays, now)
	switch {
	case !z.Attempt.Processing:
		return a.recordEnd(ctx, d, z, check, evidence)
	case check.Type.Private():
		return a.insist(ctx, z, check)
	}
	return nil, a.again(ctx, z, time.Time{})
}

// insist is how a job goes on with a private proof after a try that makes sense
// to repeat. What the client sent is a secret that isn't stored, so that no
// other job can: this one waits itself. Where nobody was told yet that it
// would, and only what must be asked is away, the client asks again instead.
func (a *Authority) insist(ctx context.Context, z protocol.Authorization, check protocol.Validation) (*protocol.Authorization, error) {
	if p := z.Attempt.Error; p.Type == protocol.ServerInternal && a.validations.GiveUp(string(z.ID)) {
		return nil, a.unanswered(check.Type, p)
	}
	if err := a.again(ctx, z, z.Attempt.NextAt.Add(validationLease)); err != nil {
		return nil, err
	}
	time.Sleep(z.Attempt.NextAt.Sub(a.clock()))
	d, err := a.directory(z.Directory) // a reload closes the validators of the one before
	if err != nil {
		return nil, err
	}
	return a.validate(ctx, d, z, check)
}

// abandoned ends a recorded validation of a private type whose job died with
// its process, and with it what the client had sent.
func (a *Authority) abandoned(ctx context.Context, d *Directory, z protocol.Authorization, check protocol.Validation) error {
	z.Status, z.Attempt.Processing = protocol.AuthorizationInvalid, false
	z.Attempt.Error = protocol.NewProblem(protocol.ServerInternal, "the server was stopped while it looked at the proof; make a new order")
	_, err := a.recordEnd(ctx, d, z, check, protocol.Evidence{})
	return err
}

// recordEnd makes the end of a validation durable and returns it; nil where
// the authorization was deactivated, or validated by another replica, meanwhile.
func (a *Authority) recordEnd(ctx context.Context, d *Directory, z protocol.Authorization, check protocol.Validation, seen protocol.Evidence) (*protocol.Authorization, error) {
	var ended *protocol.Authorization
	err := a.db.Update(ctx, func(tx *store.Tx) (err error) {
		ended, err = a.finishValidation(ctx, tx, d, z, check, seen)
		return err
	})
	if err != nil {
		a.log.Error("validation result not recorded", "authorization", z.ID, "error", err)
		return nil, err
	}
	return ended, nil
}

func (a *Authority) finishValidation(ctx context.Context, tx *store.Tx, d *Directory, z protocol.Authorization, check protocol.Validation, seen protocol.Evidence) (*protocol.Authorization, error) {
	e := audit.Entry{
		Action: "authorization.valid", Actor: "account:" + string(z.Account), Peer: protocol.Address(check.Peer), Directory: z.Directory,
		Object: string(z.ID), Detail: map[string]any{"name": z.Identifier.Value, "type": check.Type},
	}
	if seen.Type != "" {
		e.Detail["seen"] = seen
	}
	err := countSubject(ctx, tx, d.Limits.AccountsPerSubject, z)
	if p, ok := errors.AsType[*protocol.Problem](err); ok {
		z.Status, z.Attempt.Error, z.Attempt.ValidatedAt = protocol.AuthorizationInvalid, p, time.Time{}
	} else if err != nil {
		return nil, err
	}
	failed := z.Attempt.Error != nil
	if failed {
		e.Action, e.Denied = "authorization.invalid", z.Attempt.Error.Error()
	}
	if ok, err := tx.FinishValidation(z); err != nil || !ok {
		return nil, err
	}
	if l := d.Limits.FailuresPerAccount; failed && l.Count > 0 {
		if _, err := tx.Take(failuresKey(z.Account), l); err != nil {
			return nil, err
		}
	}
	for _, mismatch := range device.Mismatches(e, seen) {
		if err := tx.Audit(mismatch); err != nil {
			return nil, err
		}
	}
	return &z, tx.Audit(e)
}

// again records a retryable failure and when the next try is due. The caller
// does that itself until claimed; zero: the sweep, on whichever replica.
func (a *Authority) again(ctx context.Context, z protocol.Authorization, claimed time.Time) error {
	err := a.db.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.RecordAttempt(z.ID, z.Attempt, claimed)
		return err
	})
	if err != nil {
		a.log.Error("validation try not recorded", "authorization", z.ID, "error", err)
	}
	return err
}

// look asks the validator, and CAA where the directory has it on.
func look(ctx context.Context, d *Directory, check protocol.Validation) (e protocol.Evidence, err error) {
	validator, ok := d.Validators[check.Type]
	if !ok { // offered before a change of the configuration
		return e, &protocol.ValidationError{Problem: protocol.NewProblem(protocol.Unauthorized, "%s is not offered here any more", check.Type)}
	}
	err = proof.Ask(ctx, check.Type, func(ctx context.Context) error {
		if e, err = validator.Validate(ctx, check); err != nil || d.CAA == nil {
			return err
		}
		return d.CAA.Check(ctx, check.Identifier, check.Wildcard, check.AccountURL, check.Type)
	})
	return e, err
}
