package policy

import (
	"encoding/binary"
	"encoding/hex"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// Renewal says when a certificate is to be renewed (RFC 9773 section 4.2):
// around two thirds of its life, somewhere in the span over which renewals
// are spread ([RenewalSpan]), or at once when it was revoked. The answer is
// the same each time, on each replica.
func Renewal(c cert.Certificate, span time.Duration, now time.Time) protocol.RenewalInfo {
	life := c.NotAfter.Sub(c.NotBefore)
	info := protocol.RenewalInfo{RetryAfter: min(max(life/24, time.Minute), 6*time.Hour)}
	if !c.Revoked.At.IsZero() {
		info.Start, info.End = now.Add(-time.Hour), now.Add(-time.Minute)
		return info
	}
	info.Start, info.End = renewalWindow(c, span)
	return info
}

// RenewalSpan is over how long the renewals of so many certificates are
// spread, so that they take no more than half of what the keys can sign, rate
// a second, even if all were issued at once, as after a drain: from a twelfth
// of a certificate's life to a third. A rate of zero is one that isn't known.
func RenewalSpan(life time.Duration, alive int64, rate float64) time.Duration {
	if rate <= 0 {
		return life / 12
	}
	half := 2 * float64(alive) / rate // seconds
	return min(max(time.Duration(half*float64(time.Second)), life/12), life/3)
}

// renewalWindow is a twelfth of the certificate's life, somewhere in a span
// around two thirds of it. Where in the span is the certificate's own, drawn
// from its serial, so that those issued together renew apart, and no replica
// need remember it.
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
