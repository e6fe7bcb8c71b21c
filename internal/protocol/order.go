package protocol

import "time"

// OrderStatus is the state of an order (RFC 8555 section 7.1.6).
type OrderStatus string

// The states of an order. The database holds pending, processing, valid and
// invalid; ready, and invalid by a lost authorization, are derived from the
// authorizations by [OrderState] so that they can't disagree with them.
const (
	OrderPending    OrderStatus = "pending"
	OrderReady      OrderStatus = "ready"
	OrderProcessing OrderStatus = "processing"
	OrderValid      OrderStatus = "valid"
	OrderInvalid    OrderStatus = "invalid"
)

// Order is a request for one certificate (RFC 8555 section 7.1.3).
type Order struct {
	ID             OrderID
	Account        AccountID
	Directory      string
	Status         OrderStatus // as stored; see OrderState
	Identifiers    []Identifier
	Authorizations []AuthorizationID
	Profile        string    // "" until finalize where eku_from_csr selects it
	NotBefore      time.Time // as asked for; zero: the profile's choice
	NotAfter       time.Time
	Replaces       string // a certificate's identifier as sent (RFC 9773 section 4.1)
	Error          *Problem
	Certificate    string // serial, once planned
	CreatedAt      time.Time
	ExpiresAt      time.Time
}

// OrderState derives the status a client sees from what is stored of the
// order and of its authorizations (RFC 8555 section 7.1.6): a pending order
// whose authorizations are all valid is ready; one with an authorization that
// can't become valid any more, or past its end, is invalid.
func OrderState(o Order, authorizations []Authorization, now time.Time) OrderStatus {
	if o.Status != OrderPending {
		return o.Status
	}
	if !now.Before(o.ExpiresAt) {
		return OrderInvalid
	}
	state := OrderReady
	for _, a := range authorizations {
		switch AuthorizationState(a, now) {
		case AuthorizationValid:
		case AuthorizationPending:
			state = OrderPending
		default:
			return OrderInvalid
		}
	}
	if len(authorizations) < len(o.Authorizations) {
		return OrderInvalid // one was swept away: it had ended
	}
	return state
}

// CheckReady refuses to finalize an order in another state than ready (RFC
// 8555 section 7.4). Error: orderNotReady, which says what is missing.
func CheckReady(state OrderStatus) error {
	switch state {
	case OrderReady:
		return nil
	case OrderPending:
		return NewProblem(OrderNotReady, "the order is pending: complete a challenge of each of its authorizations first")
	case OrderInvalid:
		return NewProblem(OrderNotReady, "the order is invalid; make a new one")
	}
	return NewProblem(OrderNotReady, "the order is %s: it was finalized already; fetch the order to see its certificate", state)
}

// LostAuthorization explains an order that is invalid because of its
// authorizations, or of the lack of time (RFC 8555 section 7.1.6).
func LostAuthorization(authorizations []Authorization, now time.Time) *Problem {
	var problems []*Problem
	for _, z := range authorizations {
		switch state := AuthorizationState(z, now); {
		case state == AuthorizationValid || state == AuthorizationPending:
		case z.Attempt.Error != nil:
			problems = append(problems, z.Attempt.Error.For(z.Identifier))
		default:
			problems = append(problems, NewProblem(Unauthorized,
				"the authorization for %q is %s", z.Identifier.Value, state).For(z.Identifier))
		}
	}
	if p := Join(Unauthorized, problems); p != nil {
		return p
	}
	return NewProblem(Malformed, "the order was not finalized in time; make a new one")
}

// AuthorizationStatus is the state of an authorization (section 7.1.6).
type AuthorizationStatus string

// The states of an authorization.
const (
	AuthorizationPending     AuthorizationStatus = "pending"
	AuthorizationValid       AuthorizationStatus = "valid"
	AuthorizationInvalid     AuthorizationStatus = "invalid"
	AuthorizationDeactivated AuthorizationStatus = "deactivated"
	AuthorizationExpired     AuthorizationStatus = "expired"
	AuthorizationRevoked     AuthorizationStatus = "revoked"
)

// Authorization is one account's standing for one identifier (RFC 8555
// section 7.1.4), with its challenges: they share one token, and only one of
// them is ever tried, so the authorization remembers which and how it went.
type Authorization struct {
	ID         AuthorizationID
	Account    AccountID
	Directory  string
	Identifier Identifier // never with "*."
	Wildcard   bool
	Status     AuthorizationStatus // as stored; see AuthorizationState
	ExpiresAt  time.Time
	Token      string          // base64url, 256 random bits (section 8.1)
	Offered    []ChallengeType // in the order shown
	BoundTo    string          // the pod that the order came from, where its address is the proof; "" for none
	Subject    string          // the pod or device that the private proof rests on; "" without one
	Attempt    Attempt
	CreatedAt  time.Time
}

// Attempt is what became of the one challenge that the client chose.
type Attempt struct {
	Type        ChallengeType // "" until the client asks
	Processing  bool          // being validated, and recorded so that a restart goes on
	Tries       int           // validations done so far
	NextAt      time.Time     // when a retry is due (section 8.2)
	Error       *Problem      // why it failed, or why the last try did
	ValidatedAt time.Time
	Response    []byte // the client's payload, kept for a retry; never a private type's
}

// AuthorizationState is the status a client sees: the stored one, or expired.
func AuthorizationState(a Authorization, now time.Time) AuthorizationStatus {
	if (a.Status == AuthorizationPending || a.Status == AuthorizationValid) && !now.Before(a.ExpiresAt) {
		return AuthorizationExpired
	}
	return a.Status
}

// ChallengeStatus is the state of a challenge (section 7.1.6).
type ChallengeStatus string

// The states of a challenge.
const (
	ChallengePending    ChallengeStatus = "pending"
	ChallengeProcessing ChallengeStatus = "processing"
	ChallengeValid      ChallengeStatus = "valid"
	ChallengeInvalid    ChallengeStatus = "invalid"
)

// ChallengeState derives one challenge's status from its authorization: what
// the tried one became, and pending for those never tried.
func ChallengeState(a Authorization, t ChallengeType) ChallengeStatus {
	switch {
	case a.Attempt.Type != t:
		return ChallengePending
	case !a.Attempt.ValidatedAt.IsZero():
		return ChallengeValid
	case a.Status == AuthorizationInvalid:
		return ChallengeInvalid
	case a.Attempt.Processing:
		return ChallengeProcessing
	}
	return ChallengePending
}
