package acmeserver

import (
	"context"
	"net/http"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// finalizePayload is RFC 8555 section 7.4.
type finalizePayload struct {
	CSR string `json:"csr"`
}

// finalize asks for the certificate. The answer has the order's Location,
// which the RFC asks for at newOrder only and clients want here too.
func finalize(ctx context.Context, q *request) (response, error) {
	id, err := protocol.ParseID[protocol.OrderID](q.id)
	if err != nil {
		return response{}, noSuch("order")
	}
	var p finalizePayload
	if err := q.decode(&p); err != nil {
		return response{}, err
	}
	csr, err := decodeBinary("csr", p.CSR)
	if err != nil {
		return response{}, err
	}
	v, err := q.Authority.Finalize(ctx, q.who(), id, csr)
	if err != nil {
		return response{}, err
	}
	return q.dir.orderAnswer(http.StatusOK, v), nil
}
