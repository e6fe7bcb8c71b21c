package challenge

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// DNSAccount01 is dns-01 at a place of the account's own, so that several
// providers can each have the challenge delegated to them
// (draft-ietf-acme-dns-account-label-02).
type DNSAccount01 struct {
	Resolver *Resolver
}

// Validate looks for the digest of the key authorization in a TXT record at
// the account's label; otherwise it is as [DNS01.Validate].
func (d DNSAccount01) Validate(ctx context.Context, v protocol.Validation) (protocol.Evidence, error) {
	return validateTXT(ctx, d.Resolver, protocol.DNSAccount01, AccountLabel(v.AccountURL)+"._acme-challenge."+v.Identifier.Value, v)
}

// AccountLabel is the label of an account: an underscore and the first ten
// bytes of the SHA-256 of its URL in lower-case base32 (section 3.2).
func AccountLabel(accountURL string) string {
	digest := sha256.Sum256([]byte(accountURL))
	return "_" + strings.ToLower(base32.StdEncoding.EncodeToString(digest[:10]))
}
