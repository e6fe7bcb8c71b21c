package protocol

import (
	"strings"
	"testing"
)

func TestParseIdentifier(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, tt := range []struct {
		why, typ, value string
		want            string      // canonical value, "" when refused
		problem         ProblemType // when refused
	}{
		{"plain", "dns", "www.example.com", "www.example.com", ""},
		{"single label, for private names", "dns", "db", "db", ""},
		{"case is not significant (RFC 4343)", "dns", "WWW.Example.COM", "www.example.com", ""},
		{"wildcard (RFC 8555 section 7.1.3)", "dns", "*.example.com", "*.example.com", ""},
		{"digits first (RFC 1123 section 2.1)", "dns", "3com.example", "3com.example", ""},
		{"A-label", "dns", "xn--bcher-kva.example", "xn--bcher-kva.example", ""},
		{"longest label", "dns", long + ".example", long + ".example", ""},
		{"longest name", "dns", long + "." + long + "." + long + "." + long[:61], long + "." + long + "." + long + "." + long[:61], ""},

		{"empty", "dns", "", "", Malformed},
		{"empty after the wildcard", "dns", "*.", "", Malformed},
		{"bare wildcard", "dns", "*", "", Malformed},
		{"empty label", "dns", "a..example", "", Malformed},
		{"leading dot", "dns", ".example", "", Malformed},
		{"trailing dot", "dns", "a.example.", "", Malformed},
		{"label too long", "dns", long + "a.example", "", Malformed},
		{"name too long", "dns", long + "." + long + "." + long + "." + long, "", Malformed},
		{"leading hyphen", "dns", "-a.example", "", Malformed},
		{"trailing hyphen", "dns", "a-.example", "", Malformed},
		{"underscore", "dns", "_dmarc.example", "", Malformed},
		{"space", "dns", "a b.example", "", Malformed},
		{"NUL", "dns", "a.example\x00.evil", "", Malformed},
		{"newline", "dns", "a.example\n", "", Malformed},
		{"slash", "dns", "a.example/x", "", Malformed},
		{"port", "dns", "a.example:80", "", Malformed},
		{"U-label", "dns", "bücher.example", "", Malformed},
		{"invalid UTF-8", "dns", "a\xff.example", "", Malformed},
		{"broken Punycode", "dns", "xn--a-ecp.\u00adru", "", Malformed},
		{"xn-- of nothing", "dns", "xn--.example", "", Malformed},
		{"reserved hyphens", "dns", "ab--cd.example", "", Malformed},
		{"inner wildcard", "dns", "a.*.example", "", Malformed},
		{"partial wildcard", "dns", "a*.example", "", Malformed},
		{"two wildcards", "dns", "*.*.example", "", Malformed},
		{"IPv4 as dns", "dns", "10.0.0.1", "", Malformed},
		{"IPv6 as dns", "dns", "::1", "", Malformed},
		{"short IPv4 as dns", "dns", "127.1", "", Malformed},
		{"decimal IPv4 as dns", "dns", "2130706433", "", Malformed},
		{"hexadecimal IPv4 as dns", "dns", "0x7f000001", "", Malformed},
		{"wildcard over an address", "dns", "*.10.0.0.1", "", Malformed},

		{"IPv4", "ip", "192.0.2.1", "192.0.2.1", ""},
		{"IPv6 (RFC 5952)", "ip", "2001:DB8:0:0::1", "2001:db8::1", ""},
		{"name as ip", "ip", "example.com", "", Malformed},
		{"IPv4 with leading zeros", "ip", "010.0.0.1", "", Malformed},
		{"prefix", "ip", "10.0.0.0/8", "", Malformed},
		{"zone", "ip", "fe80::1%eth0", "", Malformed},
		{"IPv4-mapped", "ip", "::ffff:192.0.2.1", "", Malformed},
		{"empty ip", "ip", "", "", Malformed},

		{"unknown type", "email", "a@example.com", "", UnsupportedIdentifier},
		{"type in capitals", "DNS", "example.com", "", UnsupportedIdentifier},
	} {
		t.Run(tt.why, func(t *testing.T) {
			got, err := ParseIdentifier(tt.typ, tt.value)
			if tt.want != "" {
				if err != nil || got.Value != tt.want || string(got.Type) != tt.typ {
					t.Fatalf("got %v, %v; want %s", got, err, tt.want)
				}
				return
			}
			if err == nil {
				t.Fatalf("taken as %v", got)
			}
			if p := AsProblem(err); p.Type != tt.problem || p.Detail == "" {
				t.Fatalf("got %v, want a %s", err, tt.problem)
			}
		})
	}
}

// What is taken is canonical: parsing it again changes nothing, and it has
// nothing that could break out of a log line, a URL or a DNS query.
func FuzzParseIdentifier(f *testing.F) {
	for _, s := range []string{"example.com", "*.example.com", "10.0.0.1", "::1", "xn--bcher-kva.de", "a..b", "\x00", "::ffff:1.2.3.4"} {
		f.Add("dns", s)
		f.Add("ip", s)
	}
	f.Fuzz(func(t *testing.T, typ, value string) {
		id, err := ParseIdentifier(typ, value)
		if err != nil {
			if p := AsProblem(err); p.Type == ServerInternal || len(p.Detail) > 400 {
				t.Fatalf("not a problem a client can act on: %v", err)
			}
			return
		}
		again, err := ParseIdentifier(string(id.Type), id.Value)
		if err != nil || again != id {
			t.Fatalf("%v parses again as %v, %v", id, again, err)
		}
		if strings.ContainsAny(id.Value, " \t\r\n\x00\"'<>/\\") || len(id.Value) > maxNameLength {
			t.Fatalf("taken: %q", id.Value)
		}
	})
}
