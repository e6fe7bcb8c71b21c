package ca

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/store"
)

// RenewalInfo is when a client is asked to renew a certificate (RFC 9773
// section 4.2).
type RenewalInfo struct {
	Start, End     time.Time
	ExplanationURL string
	RetryAfter     time.Duration // when to ask again
}

// parseCertID takes apart base64url(AKI) "." base64url(serial) (RFC 9773
// section 4.1).
func parseCertID(id string) (keyID string, serial cert.Serial, err error) {
	malformed := protocol.NewProblem(protocol.Malformed,
		"not a certificate identifier: want base64url(authority key identifier) \".\" base64url(serial number) without padding (RFC 9773 section 4.1)")
	first, second, ok := strings.Cut(id, ".")
	if !ok || len(id) > 128 || strings.ContainsAny(id, "\r\n") { // which the decoder would leave out
		return "", "", malformed
	}
	strict := base64.RawURLEncoding.Strict()
	aki, err1 := strict.DecodeString(first)
	number, err2 := strict.DecodeString(second)
	if err1 != nil || err2 != nil || len(aki) == 0 || len(number) == 0 {
		return "", "", malformed
	}
	if len(number) > 1 && number[0] == 0 && number[1]&0x80 != 0 { // DER's sign octet
		number = number[1:]
	}
	return hex.EncodeToString(aki), cert.Serial(hex.EncodeToString(number)), nil
}

// certificateByID finds an issued certificate of the directory by its ARI
// identifier; the answer is the same for all that can't be found.
func (a *Authority) certificateByID(ctx context.Context, directory, id string) (cert.Certificate, error) {
	keyID, serial, err := parseCertID(id)
	if err != nil {
		return cert.Certificate{}, err
	}
	c, err := a.db.Certificate(ctx, serial)
	if errors.Is(err, store.ErrNotFound) || err == nil &&
		(c.State != cert.Issued || c.Directory != directory || c.IssuerKeyID != keyID) {
		return c, errNoSuch("certificate")
	}
	return c, err
}

// RenewalInfo suggests when to renew: around two thirds of the certificate's
// life, spread so that the keys can follow, or at once when it was revoked. Anybody may ask (RFC 9773 section 4.1).
func (a *Authority) RenewalInfo(ctx context.Context, directory, certID string) (RenewalInfo, error) {
	c, err := a.certificateByID(ctx, directory, certID)
	if err != nil {
		return RenewalInfo{}, err
	}
	now := a.clock()
	life := c.NotAfter.Sub(c.NotBefore)
	info := RenewalInfo{RetryAfter: min(max(life/24, time.Minute), 6*time.Hour)}
	if !c.Revoked.At.IsZero() {
		info.Start, info.End = now.Add(-time.Hour), now.Add(-time.Minute)
		return info, nil
	}
	info.Start, info.End = renewalWindow(c, a.spread(c, life))
	return info, nil
}

// renewalWindow is a twelfth of the certificate's life, somewhere in a span
// around two thirds of it. Where in the span is the certificate's own, drawn
// from its serial, so that those issued together renew apart, each answer is
// the same, and no replica need remember it.
func renewalWindow(c cert.Certificate, span time.Duration) (start, end time.Time) {
	life := c.NotAfter.Sub(c.NotBefore)
	width := life / 12
	// Three quarters of the span lie before the two thirds: late is worse.
	first := c.NotBefore.Add(life/3*2 - span/4*3)
	if room := span - width; room > 0 {
		place := float64(binary.BigEndian.Uint32(serialBytes(c.Serial))) / (1 << 32)
		first = first.Add(time.Duration(place * float64(room)))
	} else {
		first = c.NotBefore.Add(life/3*2 - width/2)
	}
	return first, first.Add(width)
}

// serialBytes are the serial's last four octets, which are random.
func serialBytes(s cert.Serial) []byte {
	var last [4]byte
	if len(s) >= 8 {
		_, _ = hex.Decode(last[:], []byte(s[len(s)-8:])) // a serial is hexadecimal
	}
	return last[:]
}

// spread is over how long renewals are spread, so that they take no more than
// half of what the keys can sign even if all certificates were issued at once,
// as after a drain: from a twelfth of a certificate's life to a third.
func (a *Authority) spread(c cert.Certificate, life time.Duration) time.Duration {
	live := a.live.Load()
	by, err := a.issuer(c.Issuer)
	if live == nil || err != nil {
		return life / 12
	}
	rated, ok := by.(interface{ Rate() float64 }) // upstream CAs have none
	if !ok || rated.Rate() <= 0 {
		return life / 12
	}
	alive := int64(0)
	for keyID, l := range *live {
		if _, _, err := by.Chain(keyID, 0); err == nil {
			alive += l.Count
		}
	}
	half := 2 * float64(alive) / rated.Rate() // seconds
	return min(max(time.Duration(half*float64(time.Second)), life/12), life/3)
}

// countLive counts the certificates alive, by issuing key.
func (a *Authority) countLive(ctx context.Context) error {
	live, err := a.db.LiveCertificates(ctx, a.clock())
	if err == nil {
		a.live.Store(&live)
	}
	return err
}

// replaceable looks at the certificate that an order says it replaces, and
// refuses as RFC 9773 section 5 asks: it must be the same account's, share a
// name with the order, and not have been replaced already.
func (a *Authority) replaceable(ctx context.Context, who Requester, r OrderRequest) error {
	c, err := a.certificateByID(ctx, who.Directory, r.Replaces)
	switch {
	case err != nil:
		return err
	case c.Account != who.Account.ID:
		return errNoSuch("certificate")
	case c.ReplacedBy != "":
		return protocol.NewProblem(protocol.AlreadyReplaced,
			"another order has replaced this certificate already; order without \"replaces\"")
	case !slices.ContainsFunc(c.Names, func(id protocol.Identifier) bool { return slices.Contains(r.Identifiers, id) }):
		return protocol.NewProblem(protocol.Malformed, "the order shares no identifier with the certificate it says it replaces")
	}
	return nil
}

// replacedSerial is the serial of the certificate that an order replaces, ""
// for none.
func replacedSerial(o protocol.Order) cert.Serial {
	if o.Replaces == "" {
		return ""
	}
	_, serial, err := parseCertID(o.Replaces)
	if err != nil { // it was parsed when the order was made
		return ""
	}
	return serial
}
