package plan

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/schedule"
)

// classNames are the classes in words.
var classNames = [schedule.Classes]string{"new certificates", "renewals", "OCSP answers", "revocation lists"}

// count writes a number with its thousands apart: 40,000.
func count[N int | float64](n N) string {
	s := strconv.FormatFloat(float64(n), 'f', 0, 64)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// about writes a number with four digits that count.
func about(n int) string {
	unit := 1
	for n/unit >= 10_000 {
		unit *= 10
	}
	return count((n + unit/2) / unit * unit)
}

// rough writes a number with two digits that count, as befits a forecast.
func rough(n float64) string {
	unit := 1.0
	for n/unit >= 100 {
		unit *= 10
	}
	return count(float64(int(n/unit)) * unit)
}

// several writes a number of things.
func several(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return count(n) + " " + thing + "s"
}

// percent writes a part.
func percent(part float64) string {
	switch p := 100 * part; {
	case p == 0:
		return "0 %"
	case p < .1:
		return "<0.1 %"
	case p < 10:
		return strconv.FormatFloat(p, 'f', 1, 64) + " %"
	default:
		return strconv.FormatFloat(p, 'f', 0, 64) + " %"
	}
}

// howLong writes a time with as many digits as one wants to read: 0.25 s, 4m 58s,
// 1h 12m, 2d 4h.
func howLong(d time.Duration) string {
	two := func(big, small time.Duration, bigName, smallName string) string {
		d := d.Round(small)
		if rest := d % big / small; rest != 0 {
			return fmt.Sprintf("%d%s %d%s", d/big, bigName, rest, smallName)
		}
		return fmt.Sprintf("%d%s", d/big, bigName)
	}
	const day = 24 * time.Hour
	switch {
	case d == Forever:
		return "for ever"
	case d < 0:
		return "-" + howLong(-d)
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.3g ms", float64(d)/float64(time.Millisecond))
	case d < 10*time.Second-50*time.Millisecond:
		return strings.TrimSuffix(strconv.FormatFloat(d.Seconds(), 'f', 1, 64), ".0") + " s"
	case d < time.Minute-500*time.Millisecond:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < time.Hour-500*time.Millisecond:
		return two(time.Minute, time.Second, "m", "s")
	case d < 3*day:
		return two(time.Hour, time.Minute, "h", "m")
	}
	return two(day, time.Hour, "d", "h")
}

// within writes a bound on waits: that no bound was seen is said as such.
func within(d time.Duration) string {
	if d == Forever {
		return "never"
	}
	return howLong(d)
}

// keysInWords is what signs: 4 keys of 200 ms and 1 of 50 ms, 8 at once.
func keysInWords(keys []Key) string {
	type kind struct {
		signature time.Duration
		parallel  int
	}
	var order []kind
	counts := map[kind]int{}
	for _, k := range keys {
		g := kind{k.Signature, k.Parallel}
		if counts[g] == 0 {
			order = append(order, g)
		}
		counts[g]++
	}
	if len(order) > 3 {
		return several(len(keys), "key")
	}
	var parts []string
	for i, g := range order {
		s := count(counts[g])
		if i == 0 {
			s = several(counts[g], "key")
		}
		s += " of " + signatureTime(g.signature) + " a signature"
		if g.parallel > 1 {
			s += fmt.Sprintf(", %d at once", g.parallel)
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, " and ")
}

func signatureTime(d time.Duration) string {
	if d >= time.Millisecond && d < time.Second {
		return fmt.Sprintf("%.3g ms", float64(d)/float64(time.Millisecond))
	}
	return howLong(d)
}

// rate writes signatures per second.
func rate(r float64) string {
	switch {
	case r == 0:
		return "0"
	case r < .01:
		return "<0.01"
	case r < 99.95:
		digits := 1
		if r < 9.995 {
			digits = 2
		}
		return strings.TrimRight(strings.TrimRight(strconv.FormatFloat(r, 'f', digits, 64), "0"), ".")
	}
	return count(r)
}
