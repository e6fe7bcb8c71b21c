package protocol

import "time"

// RenewalInfo is when a client is asked to renew a certificate (RFC 9773
// section 4.2).
type RenewalInfo struct {
	Start, End     time.Time
	ExplanationURL string
	RetryAfter     time.Duration // when to ask again (section 4.3)
}
