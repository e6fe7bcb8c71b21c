package policy

import (
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// RFC 8555 section 7.4: notBefore and notAfter are kept or refused.
func TestDates(t *testing.T) {
	made := time.Date(2027, 3, 1, 12, 0, 0, 500, time.UTC)
	whole := made.Truncate(time.Second)
	at := func(d time.Duration) time.Time { return whole.Add(d) }
	p := cert.Profile{Name: "server", Lifetime: day, MaxLifetime: 2 * day, Backdate: time.Minute}
	var none time.Time
	yearOne := time.Date(1, 1, 1, 0, 0, 0, 0, time.FixedZone("east", 3600)) // year 0 in UTC
	for _, c := range []struct {
		name              string
		notBefore, notAft time.Time
		later             time.Duration // finalized so long after the order
		from, to          time.Time     // zero: refused
	}{
		{"nothing asked", none, none, 0, at(-time.Minute), at(day - time.Minute - time.Second)},
		{"nothing asked, finalized hours later", none, none, 30 * time.Hour, at(30*time.Hour - time.Minute), at(54*time.Hour - time.Minute - time.Second)},
		{"year 1 is nothing (step CLI)", time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), yearOne, 0, at(-time.Minute), at(day - time.Minute - time.Second)},
		{"shorter", none, at(time.Hour), 0, at(-time.Minute), at(time.Hour)},
		{"longest from now takes the backdating", none, at(2 * day), 0, at(0), at(2 * day)},
		{"longest by a clock that is ahead", none, at(2*day + 30*time.Second), 0, at(30 * time.Second), at(2*day + 30*time.Second)},
		{"too long", none, at(2*day + 2*time.Minute), 0, none, none},
		{"any length", none, at(3650 * day), 0, none, none},
		{"year 9999", none, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), 0, none, none},
		{"over already", none, at(-time.Second), 0, none, none},
		{"over at finalize", none, at(time.Hour), 2 * time.Hour, none, none},
		{"both", at(time.Hour), at(3 * time.Hour), 0, at(time.Hour), at(3 * time.Hour)},
		{"both, to the nanosecond", at(time.Hour + 7), at(3*time.Hour + 9), 0, at(time.Hour), at(3 * time.Hour)},
		{"both, finalized later", at(0), at(3 * time.Hour), time.Hour, at(0), at(3 * time.Hour)},
		{"start only", at(time.Hour), none, 0, at(time.Hour), at(25*time.Hour - time.Second)},
		{"start by a slow clock", at(-30 * time.Second), none, 0, at(-30 * time.Second), at(day - 31*time.Second)},
		{"start in the past", at(-time.Hour), none, 0, none, none},
		{"start in the far future", at(300 * day), none, 0, none, none},
		{"both in the far future", at(300 * day), at(301 * day), 0, none, none},
		{"end before start", at(3 * time.Hour), at(time.Hour), 0, none, none},
		{"end at start", at(time.Hour), at(time.Hour), 0, none, none},
		{"longer than allowed between the two", at(-30 * time.Second), at(2 * day), 0, none, none},
	} {
		o := protocol.Order{CreatedAt: made, NotBefore: c.notBefore, NotAfter: c.notAft}
		from, to, err := Dates(p, o, made.Add(c.later))
		switch {
		case c.to.IsZero() && (err == nil || protocol.AsProblem(err).Type != protocol.Malformed):
			t.Errorf("%s: %v to %v, %v; want malformed", c.name, from, to, err)
		case !c.to.IsZero() && (err != nil || !from.Equal(c.from) || !to.Equal(c.to)):
			t.Errorf("%s: %v to %v, %v; want %v to %v", c.name, from, to, err, c.from, c.to)
		}
		if got := CheckDates([]cert.Profile{p}, o); c.later == 0 && (got == nil) != (err == nil) {
			t.Errorf("%s: CheckDates says %v, Dates %v", c.name, got, err)
		}
	}
}

func TestCheckDatesOfSeveralProfiles(t *testing.T) {
	now := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	o := protocol.Order{CreatedAt: now, NotAfter: now.Add(5 * day)}
	if err := CheckDates([]cert.Profile{clientProfile, serverProfile}, o); err != nil {
		t.Error(err) // server's seven days hold it
	}
	if CheckDates([]cert.Profile{clientProfile}, o) == nil || CheckDates(nil, o) == nil {
		t.Error("too long for the only profile, or for none")
	}
}
