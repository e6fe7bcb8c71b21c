package acl_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/mtls/acl"
)

// tenThousand are rules of all kinds, a tenth of them denying.
func tenThousand() string {
	var b strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&b, "allow host%d.prod.internal\n", i)
		fmt.Fprintf(&b, "allow *.team%d.batch.internal GET,POST /reports/*\n", i)
		fmt.Fprintf(&b, "allow spiffe://prod.internal/ns/ns%d/sa/* /pkg.Service/*\n", i)
		fmt.Fprintf(&b, "allow 10.%d.%d.0/24\n", i/256, i%256)
		if i%2 == 0 {
			fmt.Fprintf(&b, "deny old%d.prod.internal\n", i)
		} else {
			fmt.Fprintf(&b, "allow reader.prod.internal GET /reports/r%d/*\n", i)
		}
	}
	return b.String()
}

// decisions are those that are measured: all are allowed but the last.
var decisions = []struct {
	name  string
	names []string
	r     acl.Request
}{
	{"exact", []string{"host1234.prod.internal"}, acl.Request{Method: "GET", Path: "/"}},
	{"case", []string{"HOST1234.Prod.internal"}, acl.Request{Method: "GET", Path: "/"}},
	{"suffix", []string{"a.b.c.team777.batch.internal"}, acl.Request{Method: "GET", Path: "/reports/2026/07/31"}},
	{"spiffe", []string{"uri:spiffe://prod.internal/ns/ns1999/sa/web"}, acl.Request{Method: "POST", Path: "/pkg.Service/Get"}},
	{"address", []string{"ip:10.7.200.9"}, acl.Request{Method: "GET", Path: "/"}},
	{"four", []string{"a.other.internal", "b.other.internal", "host3.prod.internal", "ip:10.7.200.9"}, acl.Request{Method: "GET", Path: "/"}},
	{"paths", []string{"reader.prod.internal"}, acl.Request{Method: "GET", Path: "/reports/r1999/caf%C3%A9"}},
}

// Allowing allocates nothing, with rules from a file too.
func TestAllowingAllocatesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "rules.acl")
		write(t, path, tenThousand())
		file, err := acl.Open(path, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		file.Rules() // settled
		policies := []acl.Policy{mustParse(t, tenThousand()), acl.Anyone(), file}
		if !exactStamps {
			policies = policies[:2]
		}
		for _, policy := range policies {
			for _, d := range decisions {
				p := peer(t, d.names...)
				allocs := testing.AllocsPerRun(100, func() {
					if err := policy.Allow(p); err != nil {
						t.Error(err)
					}
					if err := policy.AllowRequest(p, d.r); err != nil {
						t.Error(err)
					}
				})
				if allocs != 0 {
					t.Errorf("%T, %s: %v allocations", policy, d.name, allocs)
				}
			}
		}
	})
}

func BenchmarkAllowRequest(b *testing.B) {
	rules, err := acl.Parse("rules.acl", []byte(tenThousand()))
	if err != nil {
		b.Fatal(err)
	}
	for _, d := range decisions {
		b.Run(d.name, func(b *testing.B) {
			p := peer(b, d.names...)
			b.ReportAllocs()
			for b.Loop() {
				if err := rules.AllowRequest(p, d.r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What following the file costs, beside the same rules without one.
func BenchmarkFile(b *testing.B) {
	path := filepath.Join(b.TempDir(), "rules.acl")
	if err := os.WriteFile(path, []byte(tenThousand()), 0o600); err != nil {
		b.Fatal(err)
	}
	file, err := acl.Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // the file must settle
	p := peer(b, decisions[0].names...)
	for name, policy := range map[string]acl.Policy{"rules": file.Rules(), "file": file} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := policy.Allow(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A denial, its text made as well.
func BenchmarkDenied(b *testing.B) {
	rules, err := acl.Parse("rules.acl", []byte(tenThousand()))
	if err != nil {
		b.Fatal(err)
	}
	p := peer(b, "x.dev.internal")
	for name, use := range map[string]func(error) string{"error": func(error) string { return "" }, "text": error.Error} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				use(rules.Allow(p))
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	text := []byte(tenThousand())
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := acl.Parse("rules.acl", text); err != nil {
			b.Fatal(err)
		}
	}
}
