package challenge

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// DNS01 looks for the digest of the key authorization in a TXT record at
// _acme-challenge (RFC 8555 section 8.4).
type DNS01 struct {
	Resolver *Resolver
}

// Validate looks the record up; any one of several values will do, since a
// name and its wildcard, or several clients, share the place. It blocks for
// at most the resolver's timeout. That the value isn't there may be tried
// again, whatever else is: an old set lives on in caches for a while.
func (d DNS01) Validate(ctx context.Context, v protocol.Validation) (protocol.Evidence, error) {
	return validateTXT(ctx, d.Resolver, protocol.DNS01, "_acme-challenge."+v.Identifier.Value, v)
}

func validateTXT(ctx context.Context, r *Resolver, t protocol.ChallengeType, name string, v protocol.Validation) (protocol.Evidence, error) {
	if v.Identifier.Type != protocol.DNS {
		return protocol.Evidence{}, no(protocol.Malformed, false, "%s can't prove an address; use http-01 or tls-alpn-01", t)
	}
	values, err := r.TXT(ctx, name)
	if err != nil {
		return protocol.Evidence{}, outcome(ctx, err)
	}
	digest := sha256.Sum256([]byte(v.KeyAuthorization()))
	want := []byte(base64.RawURLEncoding.EncodeToString(digest[:]))
	for _, value := range values {
		if subtle.ConstantTimeCompare([]byte(value), want) == 1 {
			return protocol.Evidence{Type: t, Target: name, SeenAt: time.Now()}, nil
		}
	}
	if len(values) == 0 {
		return protocol.Evidence{}, no(protocol.Unauthorized, true, "there is no TXT record at %s; it should be %s", name, want)
	}
	return protocol.Evidence{}, no(protocol.Unauthorized, true, "none of the %d TXT records at %s is %s, the digest of this challenge's key authorization", len(values), name, want)
}
