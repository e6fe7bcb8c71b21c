package revocation

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"time"
)

// oidDelta is deltaCRLIndicator, RFC 5280 section 5.2.4.
var oidDelta = asn1.ObjectIdentifier{2, 5, 29, 27}

// CRLNumber reads a CRL (DER) that was made elsewhere, such as a root's, and
// returns its number and its dates. It fails when the list isn't the issuer's,
// isn't signed by it, isn't a complete list, or lacks what RFC 5280 demands.
// Whether it is still valid is for the caller to see. It takes several times
// the list's memory; the caller bounds what it reads.
func CRLNumber(der []byte, issuer *x509.Certificate) (number int64, thisUpdate, nextUpdate time.Time, err error) {
	bad := func(format string, args ...any) (int64, time.Time, time.Time, error) {
		return 0, time.Time{}, time.Time{}, fmt.Errorf("CRL for %q: "+format, append([]any{issuer.Subject}, args...)...)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return bad("not a CRL in DER: %w", err)
	}
	if string(list.RawIssuer) != string(issuer.RawSubject) {
		return bad("it was made by %q", list.Issuer)
	}
	if err := list.CheckSignatureFrom(issuer); err != nil {
		return bad("its signature: %w", err)
	}
	for _, e := range list.Extensions {
		if e.Id.Equal(oidDelta) {
			return bad("a delta CRL; give the complete one")
		}
	}
	switch {
	case list.NextUpdate.IsZero():
		return bad("it doesn't say when the next one comes (nextUpdate)")
	case list.Number == nil:
		return bad("it has no number (with openssl ca: set crlnumber in its configuration)")
	case list.Number.Sign() < 0 || !list.Number.IsInt64():
		return bad("its number %v isn't within 0 to 2^63-1", list.Number)
	}
	return list.Number.Int64(), list.ThisUpdate, list.NextUpdate, nil
}
