package acmeserver

import (
	"context"
	"encoding/base64"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// challengeObject is RFC 8555 section 8. Every challenge has a token, also
// those that need none: clients were seen to fail on one without.
type challengeObject struct {
	Type      protocol.ChallengeType   `json:"type"`
	URL       string                   `json:"url"`
	Status    protocol.ChallengeStatus `json:"status"`
	Validated string                   `json:"validated,omitempty"`
	Error     *problemObject           `json:"error,omitempty"`
	Token     string                   `json:"token"`

	// Of dns-persist-01 (draft-ietf-acme-dns-persist-02 section 3.1), and as
	// clients of its drafts -00 and -01 know it.
	IssuerDomainNames []string `json:"issuerDomainNames,omitempty"`
	IssuerNamesBefore []string `json:"issuer-domain-names,omitempty"`
	AccountURI        string   `json:"accounturi,omitempty"`

	// Of kubernetes-01 (DESIGN section 6): what a pod's token must be made
	// for. Clients know it from their own configuration; this is for people.
	Audiences []string `json:"audiences,omitempty"`

	// Of yubikey-01 and yubikey-02 (DESIGN section 6): what the key signs, with
	// more, in base64url.
	Challenge string `json:"challenge,omitempty"`
}

func (d *directory) challengeObject(z protocol.Authorization, t protocol.ChallengeType) challengeObject {
	object := challengeObject{Type: t, URL: d.challengeURL(z.ID, t), Status: protocol.ChallengeState(z, t), Token: z.Token}
	if z.Attempt.Type == t {
		object.Validated = timestamp(z.Attempt.ValidatedAt)
		// Also while it is still being tried (section 8.2).
		if object.Status != protocol.ChallengeValid {
			object.Error = renderProblem(z.Attempt.Error)
		}
	}
	switch t {
	case protocol.DNSPersist01:
		object.IssuerDomainNames, object.IssuerNamesBefore = d.meta.IssuerNames, d.meta.IssuerNames
		object.AccountURI = d.accountURL(z.Account)
	case protocol.Kubernetes01:
		object.Audiences = []string{d.prefix + "directory"}
	case protocol.YubiKey01, protocol.YubiKey02:
		object.Challenge = base64.RawURLEncoding.EncodeToString(yubikey.NewChallenge(string(t), z.Token))
	}
	return object
}

// challenge shows a challenge, for an empty payload, or begins its validation
// (section 7.5.1). The authority may hold the answer back until the outcome
// is there; if it isn't final, the answer says when to look again.
func challenge(ctx context.Context, q *request) (response, error) {
	id, err := protocol.ParseID[protocol.AuthorizationID](q.id)
	if err != nil {
		return response{}, noSuch("challenge")
	}
	t := protocol.ChallengeType(q.sub)
	var z protocol.Authorization
	if q.jws.IsPostAsGet() {
		z, err = q.Authority.Authorization(ctx, q.who(), id)
	} else {
		z, err = q.Authority.Respond(ctx, q.who(), id, t, q.jws.Payload)
	}
	if err != nil {
		return response{}, err
	}
	if !offered(z, t) {
		return response{}, noSuch("challenge")
	}
	object := q.dir.challengeObject(z, t)
	answer := response{body: object, links: []string{link(q.dir.authorizationURL(id), "up")}}
	switch {
	case object.Status == protocol.ChallengeProcessing:
		answer.retryAfter = untilNextTry(z)
	case object.Status == protocol.ChallengePending && !q.jws.IsPostAsGet():
		answer.retryAfter = leastRetry
	}
	return answer, nil
}
