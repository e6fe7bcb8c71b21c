package acmeserver

import (
	"context"
)

// renewalInfoObject is RFC 9773 section 4.2.
type renewalInfoObject struct {
	SuggestedWindow struct {
		Start string `json:"start"`
		End   string `json:"end"`
	} `json:"suggestedWindow"`
	ExplanationURL string `json:"explanationURL,omitempty"`
}

// renewalInfo says when to renew a certificate. Anybody may ask, by GET (RFC
// 9773 section 4.1); Retry-After says when to ask again (section 4.3).
func renewalInfo(ctx context.Context, q *request) (response, error) {
	if len(q.id) > maxWordLength {
		return response{}, noSuch("certificate")
	}
	info, err := q.Authority.RenewalInfo(ctx, q.dir.name, q.id)
	if err != nil {
		return response{}, err
	}
	var object renewalInfoObject
	object.SuggestedWindow.Start, object.SuggestedWindow.End = timestamp(info.Start), timestamp(info.End)
	object.ExplanationURL = info.ExplanationURL
	return response{body: object, retryAfter: max(info.RetryAfter, leastRetry)}, nil
}
