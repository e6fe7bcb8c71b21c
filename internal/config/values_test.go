package config

import (
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "24h": 24 * time.Hour, "7d": 7 * day, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute, "0s": 0, "36500d": 36500 * day,
	} {
		got, err := ParseDuration(in)
		if err != nil || time.Duration(got) != want {
			t.Errorf("ParseDuration(%q) = %v, %v", in, got, err)
		}
		if again, err := ParseDuration(got.String()); err != nil || again != got {
			t.Errorf("%q is written %q, which is read as %v, %v", in, got, again, err)
		}
	}
	for _, in := range []string{"", "d", "7", "-1d", "+1h", "1d-1h", "1.5d", "7 d", "1d1d", "99999999d", "36501d", "36500d1s", "9999999h", "1w", "7D", "1d "} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) = %v", in, got)
		}
	}
	for in, want := range map[string]string{"24h": "1d", "400d": "400d", "90m": "1h30m", "60m": "1h", "36h": "36h", "10s": "10s", "10m": "10m", "20h": "20h"} {
		if d, _ := ParseDuration(in); d.String() != want {
			t.Errorf("%q is written %q, want %q", in, d, want)
		}
	}
}

func TestLimit(t *testing.T) {
	for in, want := range map[string]Limit{
		"off": {Off: true}, "300 per 3h": {Count: 300, Per: 3 * time.Hour}, "1 per 7d": {Count: 1, Per: 7 * day},
	} {
		var l Limit
		if err := l.UnmarshalText([]byte(in)); err != nil || l != want || l.String() != in {
			t.Errorf("%q: %+v, %v, written %q", in, l, err, l)
		}
	}
	for _, in := range []string{"", "5", "0 per 1h", "-1 per 1h", "5 per", "5 per 0s", "5 per h", "5/1h", "many per 1h", "99999999999 per 1h", "Off"} {
		var l Limit
		if err := l.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q: %+v", in, l)
		}
	}
}

func TestResolver(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.53":                           "10.0.0.53:53",
		"10.0.0.53:5353":                      "10.0.0.53:5353",
		"2001:db8::53":                        "[2001:db8::53]:53",
		"[2001:db8::53]":                      "[2001:db8::53]:53",
		"[2001:db8::53]:5353":                 "[2001:db8::53]:5353",
		"tls://10.0.0.53":                     "tls://10.0.0.53:853",
		"tls://10.0.0.53#DNS.internal":        "tls://10.0.0.53:853#dns.internal",
		"tls://[2001:db8::1]:853#dns.example": "tls://[2001:db8::1]:853#dns.example",
	} {
		var r Resolver
		if err := r.UnmarshalText([]byte(in)); err != nil || r.String() != want {
			t.Errorf("%q: %q, %v; want %q", in, r, err, want)
		}
	}
	for _, in := range []string{"", "dns.internal", "10.0.0.53:0", "10.0.0.53:99999", "10.0.0.53#dns.internal", "tls://10.0.0.53#", "tls://10.0.0.53#*.internal", "https://10.0.0.53", "10.0.0.0/8"} {
		var r Resolver
		if err := r.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q: %q", in, r)
		}
	}
}
