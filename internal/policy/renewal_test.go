package policy

import (
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
)

// RFC 9773 section 4.2: a window around two thirds of the life; in the past
// for what was revoked.
func TestRenewal(t *testing.T) {
	issued := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, life := range []time.Duration{10 * time.Minute, day, 90 * day} {
		c := cert.Certificate{Serial: cert.NewSerial(), NotBefore: issued, NotAfter: issued.Add(life)}
		info := Renewal(c, life/12, issued)
		if two := issued.Add(life * 2 / 3); !info.Start.Before(two) || !info.End.After(two) || info.End.Sub(info.Start) != life/12 {
			t.Errorf("%v: %v to %v", life, info.Start, info.End)
		}
		if info.RetryAfter < time.Minute || info.RetryAfter > 6*time.Hour {
			t.Errorf("%v: ask again after %v", life, info.RetryAfter)
		}
		if again := Renewal(c, life/12, issued.Add(life/2)); again != info {
			t.Errorf("%v: another window for the same certificate", life)
		}
		c.Revoked.At = issued.Add(time.Second)
		now := issued.Add(time.Minute)
		if info = Renewal(c, life/12, now); !info.End.Before(now) || !info.Start.Before(info.End) {
			t.Errorf("%v, revoked: %v to %v", life, info.Start, info.End)
		}
	}
}

// Renewals of certificates that were issued together are spread so that they
// take half of what the keys can sign, never later than the certificates allow.
func TestRenewalsSpread(t *testing.T) {
	issued := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		alive    int64
		rate     float64
		from, to float64 // of the life, within which all windows must lie
		least    float64 // of the life, over which they spread at least
	}{
		"plenty of budget": {40_000, 5000, 0.60, 0.71, 0},
		// 40,000 renewals at 2.5 a second take 4 h 26 m.
		"one key of five a second": {40_000, 5, 0.50, 0.72, 0.17},
		"too much for the key":     {1_000_000, 5, 0.40, 0.76, 0.30},
		"unknown rate":             {40_000, 0, 0.60, 0.71, 0},
	} {
		first, last := 1.0, 0.0
		perHour := map[int]int{}
		for range 2000 {
			c := cert.Certificate{Serial: cert.NewSerial(), NotBefore: issued, NotAfter: issued.Add(day)}
			info := Renewal(c, RenewalSpan(day, tt.alive, tt.rate), issued)
			if info.End.Sub(info.Start) != day/12 {
				t.Fatalf("%s: a window of %v", name, info.End.Sub(info.Start))
			}
			from, to := float64(info.Start.Sub(issued))/float64(day), float64(info.End.Sub(issued))/float64(day)
			first, last = min(first, from), max(last, to)
			perHour[int((from+to)/2*24)]++
		}
		if first < tt.from || last > tt.to || last-first < tt.least {
			t.Errorf("%s: windows from %.3f to %.3f of the life; want within %.2f to %.2f, spread over %.2f", name, first, last, tt.from, tt.to, tt.least)
		}
		for hour, n := range perHour {
			if tt.least >= 0.3 && n > 2000/4 {
				t.Errorf("%s: %d of 2000 in hour %d", name, n, hour)
			}
		}
	}
}

// A serial that others made may be short; it has a window too.
func TestRenewalOfShortSerial(t *testing.T) {
	issued := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, serial := range []cert.Serial{"", "01", "0123456"} {
		info := Renewal(cert.Certificate{Serial: serial, NotBefore: issued, NotAfter: issued.Add(day)}, day/3, issued)
		if info.Start.Before(issued) || info.End.After(issued.Add(day)) {
			t.Errorf("%q: %v to %v", serial, info.Start, info.End)
		}
	}
}
