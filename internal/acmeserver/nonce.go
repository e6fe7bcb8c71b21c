package acmeserver

import (
	"context"
	"net/http"
)

// newNonce answers HEAD with 200 and GET with 204 (RFC 8555 section 7.2). The
// nonce itself is in the header of this answer as in that of any other.
func newNonce(_ context.Context, q *request) (response, error) {
	if q.http.Method == http.MethodHead {
		return response{}, nil
	}
	return response{status: http.StatusNoContent}, nil
}
