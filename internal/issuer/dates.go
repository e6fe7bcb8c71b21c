package issuer

import (
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// maxPast is how far back a client may ask notBefore to lie: an order may be a
// day old when it is finalized, and its dates were right when it was made.
const maxPast = 24 * time.Hour

// Dates decides a certificate's validity from what the client asked for (zero
// times: nothing) and the profile. Both ends belong to the validity (RFC 5280
// section 4.1.2.5), so a certificate of 24 hours ends one second before its
// 24th hour is over.
//
// Asked for nothing, it begins profile.Backdate before now and lasts
// profile.Lifetime. A client that asks gets exactly what it asked for or a
// malformed problem (RFC 8555 section 7.4): an end in the past, or before the
// beginning; a beginning more than a day ago; more than profile.MaxLifetime
// between the two, or between now and the end. Who asks only for an end
// MaxLifetime away gets it, at the cost of backdating.
func Dates(profile cert.Profile, notBefore, notAfter, now time.Time) (from, to time.Time, err error) {
	now = now.UTC().Truncate(time.Second)
	notBefore, notAfter = notBefore.UTC().Truncate(time.Second), notAfter.UTC().Truncate(time.Second)
	from, to = notBefore, notAfter
	if from.IsZero() {
		from = now.Add(-profile.Backdate)
		if earliest := to.Add(-profile.MaxLifetime); !to.IsZero() && from.Before(earliest) && !earliest.After(now) {
			from = earliest
		}
	}
	if to.IsZero() {
		to = from.Add(profile.Lifetime - time.Second)
	}
	from, to = from.Truncate(time.Second), to.Truncate(time.Second)
	switch {
	case !to.After(now):
		err = badDates("notAfter %s is not in the future", stamp(to))
	case to.Before(from):
		err = badDates("notAfter %s lies before notBefore %s", stamp(to), stamp(from))
	case from.Before(now.Add(-maxPast)) && !notBefore.IsZero():
		err = badDates("notBefore %s is more than %v ago", stamp(from), maxPast)
	case to.Sub(from) > profile.MaxLifetime || to.Sub(now) > profile.MaxLifetime:
		err = badDates("profile %q allows certificates of at most %v, until %s at the latest; ask for less",
			profile.Name, profile.MaxLifetime, stamp(now.Add(profile.MaxLifetime)))
	}
	return from, to, err
}

func badDates(format string, args ...any) error {
	return protocol.NewProblem(protocol.Malformed, format, args...)
}

func stamp(t time.Time) string { return t.Format(time.RFC3339) }

// datesWithin fits the dates into the issuing chain's: what the client didn't
// ask for is moved, what it did is refused.
func (a *authority) datesWithin(from, to time.Time, asked Request) (time.Time, time.Time, error) {
	if from.Before(a.notBefore) {
		if !asked.NotBefore.IsZero() {
			return from, to, badDates("notBefore %s lies before the issuing certificate's own, %s", stamp(from), stamp(a.notBefore))
		}
		from = a.notBefore
	}
	if to.After(a.notAfter) {
		if !asked.NotAfter.IsZero() {
			return from, to, badDates("notAfter %s lies after the issuing certificate's own, %s; ask for less", stamp(to), stamp(a.notAfter))
		}
		to = a.notAfter
	}
	return from, to, nil
}
