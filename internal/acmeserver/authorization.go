package acmeserver

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// authorizationObject is RFC 8555 section 7.1.4.
type authorizationObject struct {
	Identifier protocol.Identifier          `json:"identifier"`
	Status     protocol.AuthorizationStatus `json:"status"`
	Expires    string                       `json:"expires,omitempty"`
	Challenges []challengeObject            `json:"challenges"`
	Wildcard   bool                         `json:"wildcard,omitempty"` // "MUST be absent" for others
}

// authorizationAnswer shows an authorization: while it is pending with all
// its challenges, afterwards with the one that was tried. While one is being
// tried it says when to look again.
func (d *directory) authorizationAnswer(z protocol.Authorization) response {
	object := authorizationObject{
		Identifier: z.Identifier, Status: z.Status, Expires: timestamp(z.ExpiresAt),
		Challenges: make([]challengeObject, 0, len(z.Offered)), Wildcard: z.Wildcard,
	}
	for _, t := range z.Offered {
		if z.Status == protocol.AuthorizationPending || z.Attempt.Type == "" || z.Attempt.Type == t {
			object.Challenges = append(object.Challenges, d.challengeObject(z, t))
		}
	}
	answer := response{body: object}
	if z.Attempt.Type != "" && protocol.ChallengeState(z, z.Attempt.Type) == protocol.ChallengeProcessing {
		answer.retryAfter = untilNextTry(z)
	}
	return answer
}

// mostRetry bounds what a client is told to wait: it would rather look once
// too often.
const mostRetry = 10 * time.Second

// untilNextTry is a time after the next validation (section 8.2).
func untilNextTry(z protocol.Authorization) time.Duration {
	return min(max(time.Until(z.Attempt.NextAt), leastRetry), mostRetry)
}

// newAuthzPayload is RFC 8555 section 7.4.1.
type newAuthzPayload struct {
	Identifier identifierObject `json:"identifier"`
}

// newAuthz makes an authorization ahead of an order. Wildcards are refused by
// the authority (section 7.4.1).
func newAuthz(ctx context.Context, q *request) (response, error) {
	var p newAuthzPayload
	if err := q.decode(&p); err != nil {
		return response{}, err
	}
	id, err := protocol.ParseIdentifier(p.Identifier.Type, p.Identifier.Value)
	if err != nil {
		return response{}, err
	}
	z, err := q.Authority.PreAuthorize(ctx, q.who(), id)
	if err != nil {
		return response{}, err
	}
	answer := q.dir.authorizationAnswer(z)
	answer.status, answer.location = http.StatusCreated, q.dir.authorizationURL(z.ID)
	return answer, nil
}

// authorizationPayload gives an authorization up (section 7.5.2).
type authorizationPayload struct {
	Status string `json:"status"`
}

// authorization shows an authorization to its account, or gives it up.
func authorization(ctx context.Context, q *request) (response, error) {
	id, err := protocol.ParseID[protocol.AuthorizationID](q.id)
	if err != nil {
		return response{}, noSuch("authorization")
	}
	show := q.Authority.Authorization
	if !q.jws.IsPostAsGet() {
		var p authorizationPayload
		if err := q.decode(&p); err != nil {
			return response{}, err
		}
		if p.Status != string(protocol.AuthorizationDeactivated) {
			return response{}, protocol.NewProblem(protocol.Malformed,
				"an authorization can be read, by an empty payload, or given up, by {\"status\": \"deactivated\"}; answer its challenges at their own URLs")
		}
		show = q.Authority.DeactivateAuthorization
	}
	z, err := show(ctx, q.who(), id)
	if err != nil {
		return response{}, err
	}
	return q.dir.authorizationAnswer(z), nil
}

// offered reports whether the authorization has a challenge of the type.
func offered(z protocol.Authorization, t protocol.ChallengeType) bool {
	return slices.Contains(z.Offered, t)
}
