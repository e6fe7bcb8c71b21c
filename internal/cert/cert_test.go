package cert

import (
	"math/big"
	"testing"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// RFC 5280 section 4.1.2.2: positive, at most 20 octets.
func TestNewSerial(t *testing.T) {
	seen := map[Serial]bool{}
	for range 1000 {
		s := NewSerial()
		n := s.Big()
		if n.Sign() <= 0 || n.BitLen() > 128 || len(s) != 32 || seen[s] {
			t.Fatalf("serial %s", s)
		}
		seen[s] = true
		if SerialOf(n) != s {
			t.Fatalf("%s comes back as %s", s, SerialOf(n))
		}
	}
}

func TestParseSerial(t *testing.T) {
	for _, bad := range []string{"", "0", "abc", "AB", "zz", "../..", "0x12", string(make([]byte, 42))} {
		if _, err := ParseSerial(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if SerialOf(big.NewInt(-5)) != "" || SerialOf(nil) != "" || SerialOf(new(big.Int)) != "" {
		t.Error("a serial that isn't positive was taken")
	}
}

// DESIGN: classic challenges prove for a profile only where it lists them.
func TestProfileAllows(t *testing.T) {
	servers := Profile{Challenges: []protocol.ChallengeType{protocol.HTTP01}}
	clients := Profile{}
	if !servers.Allows(protocol.HTTP01) || servers.Allows(protocol.DNS01) || clients.Allows(protocol.HTTP01) {
		t.Error("a profile allows what it doesn't list")
	}
	if !clients.Allows(protocol.PreApproved) || clients.Allows("") {
		t.Error("an operator's approval needs no listing; nothing at all proves nothing")
	}
}

func TestReasons(t *testing.T) {
	for r := range Reason(12) { // RFC 5280 section 5.3.1
		want := r != 2 && r != 6 && r != 7 && r != 8 && r != 10 && r != 11
		if r.Valid() != want {
			t.Errorf("reason %d: %v", r, r.Valid())
		}
	}
	if Reason(-1).Valid() {
		t.Error("reason -1")
	}
}
