package sshca_test

import (
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/sshca"
)

func TestKeyID(t *testing.T) {
	for want, in := range map[string][2]string{
		"alice@example.com/yubikey-1234":    {"alice@example.com", "yubikey-1234"},
		"web.example.com":                   {"web.example.com", ""},
		"a%2Fb/c%2Fd":                       {"a/b", "c/d"},
		"alice%20%28serial%201%29%20CA%20x": {"alice (serial 1) CA x", ""},
		"a%0AAccepted%22":                   {"a\nAccepted\"", ""},
		"100%25":                            {"100%", ""},
		"J%C3%BCrgen":                       {"Jürgen", ""},
		"%00%FF":                            {"\x00\xff", ""},
	} {
		got, err := sshca.KeyID(in[0], in[1])
		if err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range [][2]string{{"", ""}, {"", "yubikey-1"}, {strings.Repeat("a", 257), ""}, {strings.Repeat(" ", 86), ""}} {
		if got, err := sshca.KeyID(in[0], in[1]); err == nil {
			t.Errorf("%.20q: got %q", in, got)
		}
	}
	for _, bad := range []string{"", "/", "/x", "a/", "a/b/c", "a b", "%2f", "%41", "%", "%zz", "a\n"} {
		if person, device, err := sshca.ParseKeyID(bad); err == nil {
			t.Errorf("%q is read as %q on %q", bad, person, device)
		}
	}
}

func FuzzKeyID(f *testing.F) {
	f.Add("alice@example.com", "yubikey-1234/9a")
	f.Add("a%/\n ", "\xff")
	ca := newEd25519()
	key := public(newEd25519())
	f.Fuzz(func(t *testing.T, person, device string) {
		id, err := sshca.KeyID(person, device)
		if err != nil {
			return
		}
		if p, d, err := sshca.ParseKeyID(id); err != nil || p != person || d != device {
			t.Fatalf("%q on %q comes back as %q on %q, %v", person, device, p, d, err)
		}
		if strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"'()\,`, r) }) {
			t.Fatalf("%q could forge a log line", id)
		}
		r := request(key)
		r.KeyID = id
		if _, err := authority(ca).Prepare(r); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSerials(t *testing.T) {
	seen := map[uint64]bool{}
	for range 1000 {
		n := sshca.NewSerial()
		if n == 0 || n>>63 != 0 || seen[n] {
			t.Fatalf("serial %d", n)
		}
		seen[n] = true
	}
	for _, n := range []uint64{1, 7, 1<<64 - 1} {
		r := request(public(newEd25519()))
		r.Serial = n
		p := must(authority(newEd25519()).Prepare(r))
		if got, err := sshca.ParseSerial(p.Serial); err != nil || got != n {
			t.Errorf("%d is written %s and read %d, %v", n, p.Serial, got, err)
		}
		if s, err := cert.ParseSerial(string(p.Serial)); err != nil || s != p.Serial {
			t.Errorf("%s is no serial to the rest of the product", p.Serial)
		}
	}
	for _, bad := range []cert.Serial{"", "7", "0000000000000000", "000000000000000G", "00000000000000AB", "00000000000000007", cert.NewSerial()} {
		if n, err := sshca.ParseSerial(bad); err == nil {
			t.Errorf("%q is read as %d", bad, n)
		}
	}
}

// What sshd's addr_match_cidr_list takes (and refuses: one bad network spoils
// the list).
func TestParseSourceAddress(t *testing.T) {
	got := must(sshca.ParseSourceAddress("192.0.2.0/24,2001:db8::/32,198.51.100.7,::1"))
	want := []string{"192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32", "::1/128"}
	for i := range want {
		if got[i].String() != want[i] {
			t.Errorf("%v: want %s", got[i], want[i])
		}
	}
	for _, bad := range []string{"", ",", "192.0.2.0/24,", " 192.0.2.1", "192.0.2.1/24", "192.0.2.0/33", "192.0.2.*", "!192.0.2.1", "web.example.com", "fe80::1%eth0", "::ffff:192.0.2.1", "192.0.2.0/024", "192.0.2.1\n"} {
		if got, err := sshca.ParseSourceAddress(bad); err == nil {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
}
