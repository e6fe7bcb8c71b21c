package policy

import (
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// CheckDates decides at newOrder whether the dates that the client asked for
// (RFC 8555 section 7.4) are within at least one of the profiles the order
// may end under. Error: malformed, which says what the bounds are;
// invalidProfile for no profiles.
func CheckDates(profiles []cert.Profile, o protocol.Order) error {
	err := noProfile()
	for _, p := range profiles {
		if _, _, err = Dates(p, o, o.CreatedAt); err == nil {
			return nil
		}
	}
	return err
}

// Dates returns the validity of a certificate that is made now for the order,
// in whole seconds of UTC. Both ends belong to it (RFC 5280 section 4.1.2.5),
// so that one of 24 hours ends a second before its 24th hour is over. What the
// client didn't ask for is the profile's choice: from Backdate ago, for
// Lifetime. A notAfter
// alone takes from the backdating what the longest lifetime can't hold. What
// it did ask for is kept exactly or refused (RFC 8555 section 7.4), judged by
// the time of the order so that a slow validation doesn't undo it: at most
// MaxLifetime long, nothing before the order and nothing beyond MaxLifetime
// after it, give or take Backdate for a clock that goes wrong. So nobody
// collects certificates for a future in which it no longer holds the name.
//
// A year-1 date means not given; step CLI sends it so.
func Dates(p cert.Profile, o protocol.Order, now time.Time) (from, to time.Time, err error) {
	from, to = second(o.NotBefore), second(o.NotAfter)
	freeStart, freeEnd := !given(o.NotBefore), !given(o.NotAfter)
	if freeStart {
		from = second(now.Add(-p.Backdate))
	}
	switch {
	case freeEnd:
		to = second(from.Add(p.Lifetime - time.Second))
	case freeStart && to.Sub(from) > p.MaxLifetime:
		from = to.Add(-p.MaxLifetime)
	}
	earliest, latest := second(o.CreatedAt.Add(-p.Backdate)), o.CreatedAt.Add(p.MaxLifetime+p.Backdate)
	switch {
	case !to.After(now):
		err = protocol.NewProblem(protocol.Malformed, "the certificate would have ended already; ask for later dates, or for none")
	case !to.After(from):
		err = protocol.NewProblem(protocol.Malformed, "notAfter must be later than notBefore")
	case !freeStart && from.Before(earliest):
		err = protocol.NewProblem(protocol.Malformed,
			"notBefore lies in the past; ask for %s or later, or leave it out", stamp(o.CreatedAt))
	case !(freeStart && freeEnd) && to.After(latest):
		err = protocol.NewProblem(protocol.Malformed,
			"the certificate would end too late for profile %q; ask for %s at the latest", p.Name, stamp(o.CreatedAt.Add(p.MaxLifetime)))
	case to.Sub(from) > p.MaxLifetime:
		err = protocol.NewProblem(protocol.Malformed,
			"notBefore and notAfter lie further apart than profile %q allows, which is %s", p.Name, p.MaxLifetime)
	}
	if err != nil {
		return time.Time{}, time.Time{}, err
	}
	return from, to, nil
}

func given(t time.Time) bool { return t.UTC().Year() > 1 }

func second(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
