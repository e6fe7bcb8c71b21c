package protocol

import (
	"strings"
	"testing"
)

func TestParseOwner(t *testing.T) {
	for in, want := range map[string]string{
		"alice": "alice", "Alice": "alice", "alice@example.com": "alice@example.com", "a": "a", "7of9": "7of9", "a._-+@": "a._-+@",
		strings.Repeat("a", 64): strings.Repeat("a", 64),
	} {
		if got, err := ParseOwner(in); got != want || err != nil {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", " ", "a b", ".a", "-a", "@", "a/b", "ä", "a\x00", "a\n", "*", "12345678", "0", strings.Repeat("a", 65), "a\xff"} {
		if got, err := ParseOwner(in); err == nil {
			t.Errorf("%q was taken as %q", in, got)
		}
	}
}

// A person and a serial number can't be mistaken for each other.
func TestParsePermanentIdentifier(t *testing.T) {
	for in, want := range map[string]string{"Alice": "alice", "12345678": "12345678", "1": "1", "4294967295": "4294967295", "7of9": "7of9"} {
		id, err := ParseIdentifier("permanent-identifier", in)
		if err != nil || id != (Identifier{PermanentIdentifier, want}) {
			t.Errorf("%q: %v, %v", in, id, err)
		}
	}
	for _, in := range []string{"", "0", "012", "4294967296", "99999999999999999999999", "a b", "*.example.com", "-1", "1 2", strings.Repeat("1", 1000)} {
		id, err := ParseIdentifier("permanent-identifier", in)
		if p := AsProblem(err); err == nil || p.Type != Malformed || p.Identifier == nil || len(p.Detail) > 400 {
			t.Errorf("%q: %v, %v", in, id, err)
		}
	}
}

func TestMayHave(t *testing.T) {
	d := Device{Owner: "alice", Serial: 4711, Identities: Identities{
		Names: []string{"alice.people.example"}, OtherNames: []string{"alice.laptops.example"}, Principals: []string{"root"},
	}}
	dns := func(name string) Identifier { return Identifier{DNS, name} }
	person := func(name string) Identifier { return Identifier{PermanentIdentifier, name} }
	for _, tt := range []struct {
		t    ChallengeType
		id   Identifier
		good bool
	}{
		{YubiKey01, dns("alice.people.example"), true},
		{YubiKey02, dns("alice.people.example"), false},
		{DeviceAttest01, dns("alice.people.example"), true},
		{YubiKey01, dns("alice.laptops.example"), false},
		{YubiKey02, dns("alice.laptops.example"), true},
		{DeviceAttest01, dns("alice.laptops.example"), false},
		{YubiKey01, dns("bob.people.example"), false},
		{YubiKey01, dns("root"), false},
		{YubiKey01, dns("alice"), false},
		{YubiKey01, dns("*.alice.people.example"), false},
		{YubiKey01, person("alice"), true},
		{YubiKey02, person("alice"), true},
		{DeviceAttest01, person("alice"), true},
		{YubiKey01, person("bob"), false},
		{DeviceAttest01, person("4711"), true},
		{YubiKey01, person("4711"), false},
		{YubiKey02, person("4711"), false},
		{DeviceAttest01, person("4712"), false},
		{YubiKey01, person("alice.people.example"), false},
		{YubiKey01, Identifier{IP, "192.0.2.1"}, false},
		{HTTP01, dns("alice.people.example"), false},
		{Kubernetes01, person("alice"), false},
	} {
		if got := d.MayHave(tt.t, tt.id); got != tt.good {
			t.Errorf("%s %s: %v", tt.t, tt.id, got)
		}
	}
}
