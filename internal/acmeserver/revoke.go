package acmeserver

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// revokePayload is RFC 8555 section 7.6.
type revokePayload struct {
	Certificate string          `json:"certificate"`
	Reason      json.RawMessage `json:"reason"`
}

// revokeCert revokes a certificate for an account, or for who holds its key.
func revokeCert(ctx context.Context, q *request) (response, error) {
	var p revokePayload
	if err := q.decode(&p); err != nil {
		return response{}, err
	}
	der, err := decodeBinary("certificate", p.Certificate)
	if err != nil {
		return response{}, err
	}
	reason, err := parseReason(p.Reason)
	if err != nil {
		return response{}, err
	}
	if q.jws.JWK != nil {
		holder := ca.KeyHolder{Directory: q.dir.name, Key: q.jws.JWK, Peer: q.peer}
		return response{}, q.Authority.RevokeByKey(ctx, holder, der, reason)
	}
	return response{}, q.Authority.Revoke(ctx, q.who(), der, reason)
}

// parseReason reads the reason code, nil for none. Which codes are allowed is
// the authority's word.
func parseReason(raw json.RawMessage) (*int, error) {
	if text := string(raw); text != "" && text != "null" {
		code, err := strconv.Atoi(text)
		if err != nil {
			return nil, protocol.NewProblem(protocol.BadRevocationReason, "reason must be one of the numbers of RFC 5280 section 5.3.1, or left out")
		}
		return &code, nil
	}
	return nil, nil
}
