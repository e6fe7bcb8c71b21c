package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/protocol"
)

const day = 24 * time.Hour

// maxDuration bounds durations: no root lives longer, and sums of a few can't
// overflow.
const maxDuration = 36500 * day

// Duration is a span of time: "90s", "24h", "7d", "1d12h". A day is 24 hours.
type Duration time.Duration

// ParseDuration reads a Duration; negative ones, and ones over a hundred
// years, are errors.
func ParseDuration(s string) (Duration, error) {
	wrong := fmt.Errorf("%q is not a duration; write it as in \"90s\", \"24h\" or \"7d\"", s)
	var total time.Duration
	rest := s
	if days, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 32)
		if err != nil || n > uint64(maxDuration/day) {
			return 0, wrong
		}
		total, rest = time.Duration(n)*day, after
		if rest == "" {
			return Duration(total), nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || strings.HasPrefix(rest, "+") || d > maxDuration-total {
		return 0, wrong
	}
	return Duration(total + d), nil
}

// UnmarshalText reads a Duration as ParseDuration does. It refuses zero, which
// here means that the default holds and would surprise who wrote it.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := ParseDuration(string(text))
	if err == nil && parsed == 0 {
		err = errors.New("this must be longer than zero; leave it out for the default")
	}
	*d = parsed
	return err
}

// String writes the duration as ParseDuration reads it, in days where it is
// whole days.
func (d Duration) String() string {
	if t := time.Duration(d); t >= day && t%day == 0 {
		return strconv.FormatInt(int64(t/day), 10) + "d"
	}
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Limit is a number of events per time, or off. The zero value means that
// nothing was said.
type Limit struct {
	Count int
	Per   time.Duration
	Off   bool
}

// UnmarshalText reads "300 per 3h" or "off".
func (l *Limit) UnmarshalText(text []byte) error {
	if string(text) == "off" {
		*l = Limit{Off: true}
		return nil
	}
	wrong := fmt.Errorf("%q is not a limit; write it as in \"300 per 3h\", or off", text)
	number, per, ok := strings.Cut(string(text), " per ")
	count, err := strconv.ParseUint(number, 10, 31)
	if !ok || err != nil || count == 0 {
		return wrong
	}
	d, err := ParseDuration(per)
	if err != nil || d == 0 {
		return wrong
	}
	*l = Limit{Count: int(count), Per: time.Duration(d)}
	return nil
}

// String writes the limit as UnmarshalText reads it, "" for the zero value.
func (l Limit) String() string {
	switch {
	case l.Off:
		return "off"
	case l.Count == 0:
		return ""
	}
	return fmt.Sprintf("%d per %s", l.Count, Duration(l.Per))
}

// Share is a part of the whole, from 0 to 1, written as in "35%".
type Share float64

// UnmarshalText reads "35%" or "0.5%"; nothing, and more than the whole, are
// errors.
func (s *Share) UnmarshalText(text []byte) error {
	number, ok := strings.CutSuffix(string(text), "%")
	percent, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || strings.Trim(number, "0123456789.") != "" {
		return fmt.Errorf("%q is not a share; write it as in \"35%%\"", text)
	}
	if percent < 0.1 || percent >= 100 {
		return fmt.Errorf("%q is not between 0.1%% and less than 100%%; leave it out for the default", text)
	}
	*s = Share(percent / 100)
	return nil
}

// String writes the share as UnmarshalText reads it.
func (s Share) String() string {
	return strconv.FormatFloat(float64(s)*100, 'g', 6, 64) + "%"
}

// Resolver is one DNS server.
type Resolver struct {
	Addr       netip.AddrPort
	TLS        bool   // DNS over TLS (RFC 7858)
	ServerName string // in its certificate; "": its address
}

// UnmarshalText reads an address, an address and port, or either after tls://
// and with the server's name after a #.
func (r *Resolver) UnmarshalText(text []byte) error {
	rest, overTLS := strings.CutPrefix(string(text), "tls://")
	rest, name, named := strings.Cut(rest, "#")
	wrong := fmt.Errorf("%q is not a resolver; write it as in \"10.0.0.53\", \"10.0.0.53:5353\" or \"tls://10.0.0.53#dns.internal\"", text)
	if named && !overTLS {
		return wrong
	}
	port := uint16(53)
	if overTLS {
		port = 853
	}
	addr, err := netip.ParseAddrPort(rest)
	if err != nil {
		only, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(rest, "["), "]"))
		if err != nil {
			return wrong
		}
		addr = netip.AddrPortFrom(only, port)
	}
	if addr.Port() == 0 {
		return wrong
	}
	if named {
		id, err := protocol.ParseIdentifier("dns", name)
		if err != nil || id.IsWildcard() {
			return wrong
		}
		name = id.Value
	}
	*r = Resolver{Addr: addr, TLS: overTLS, ServerName: name}
	return nil
}

// String writes the resolver as UnmarshalText reads it.
func (r Resolver) String() string {
	switch {
	case r.TLS && r.ServerName != "":
		return "tls://" + r.Addr.String() + "#" + r.ServerName
	case r.TLS:
		return "tls://" + r.Addr.String()
	}
	return r.Addr.String()
}

// parseNetwork reads "10.0.0.0/8" or one address.
func parseNetwork(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" && !addr.Is4In6() {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q is not a network; write it as in \"10.0.0.0/8\"", s)
	case p.Addr().Is4In6():
		return netip.Prefix{}, errors.New("write IPv4-mapped networks as the IPv4 networks they are")
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%q has bits set beyond its length; write %q", s, p.Masked())
	}
	return p, nil
}
