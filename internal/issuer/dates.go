package issuer

import (
	"fmt"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

func badDates(format string, args ...any) error {
	return protocol.NewProblem(protocol.Malformed, format, args...)
}

func stamp(t time.Time) string { return t.Format(time.RFC3339) }

// dates fits the decided dates, in whole seconds of UTC (RFC 5280 section
// 4.1.2.5), into the issuing chain's: what the client didn't ask for is moved,
// what it did is refused.
func (a *authority) dates(r Request) (from, to time.Time, err error) {
	from, to = r.NotBefore.UTC().Truncate(time.Second), r.NotAfter.UTC().Truncate(time.Second)
	if from.Before(a.notBefore) {
		if r.ExactStart {
			return from, to, badDates("notBefore %s lies before the issuing certificate's own, %s", stamp(from), stamp(a.notBefore))
		}
		from = a.notBefore
	}
	if to.After(a.notAfter) {
		if r.ExactEnd {
			return from, to, badDates("notAfter %s lies after the issuing certificate's own, %s; ask for less", stamp(to), stamp(a.notAfter))
		}
		to = a.notAfter
	}
	if !from.Before(to) {
		err = fmt.Errorf("a certificate from %s to %s", stamp(from), stamp(to))
	}
	return from, to, err
}
