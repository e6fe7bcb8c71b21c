package acmeserver

import (
	"context"
	"net/http"

	"github.com/chancery-pki/chancery/internal/ca"
	"github.com/chancery-pki/chancery/internal/ca/sshorder"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// finalizePayload is RFC 8555 section 7.4, or what stands in the place of a CSR
// for an SSH certificate: a plain key, as one line of authorized_keys, and an
// SSHSIG over the order's URL. Where the certificate's key is the device's that
// proved the order, both may be left out.
type finalizePayload struct {
	CSR          *string `json:"csr"`
	SSHPublicKey string  `json:"sshPublicKey"`
	Possession   string  `json:"possession"`
}

// maxPossession bounds an SSHSIG in its armor: one by RSA of 4096 bits takes 2 KiB.
const maxPossession = 8 << 10

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
	r := ca.FinalizeRequest{SSH: sshorder.Request{Key: p.SSHPublicKey, Possession: p.Possession, OrderURL: q.dir.orderURL(id)}}
	if p.CSR != nil {
		if r.CSR, err = decodeBinary("csr", *p.CSR); err != nil {
			return response{}, err
		}
	}
	if len(p.Possession) > maxPossession {
		return response{}, protocol.NewProblem(protocol.BadCSR, "possession is longer than %d KiB; it is one SSHSIG in its armor", maxPossession>>10)
	}
	v, err := q.Authority.Finalize(ctx, q.who(), id, r)
	if err != nil {
		return response{}, err
	}
	return q.dir.orderAnswer(http.StatusOK, v), nil
}
