package store

import (
	"context"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// CountLostDevices is how many devices were lost. It never falls.
func (q *queries) CountLostDevices(ctx context.Context) (int64, error) {
	return one(ctx, q, scanInt, "SELECT count(*) FROM devices WHERE state = $1", string(protocol.DeviceLost))
}

// CompromisedCertificates returns the bodies of the issuing key's certificates
// that were revoked because their key is known to others; those of SSH stay for
// good.
func (q *queries) CompromisedCertificates(ctx context.Context, issuerKeyID string) ([][]byte, error) {
	return many(ctx, q, scanBytes, "SELECT der FROM certificates WHERE issuer_key_id = $1 AND revoked_at > 0 AND revoked_reason = $2 AND state = 'issued' ORDER BY serial",
		hexed(issuerKeyID), int64(cert.KeyCompromise))
}
