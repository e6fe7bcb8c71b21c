package cert

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// The example of RFC 9773 section 4.1.
func TestParseCertID(t *testing.T) {
	keyID, serial, err := ParseCertID("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE")
	if err != nil || keyID != "69885b6b87464041e1b37b847ba0ae2cde01c8d4" || serial != "87654321" {
		t.Errorf("%s, %s, %v", keyID, serial, err)
	}
	for _, bad := range []string{"", ".", "a", "aYhb.", ".AIdlQyE", "aYhb.AIdlQyE=", "aYhb.AIdl+yE", "aYhb.AIdlQyE.AA", "aYhb.AIdlQyF", strings.Repeat("A", 100) + "." + strings.Repeat("A", 100)} {
		if _, _, err := ParseCertID(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// RFC 9773 section 5.
func TestReplaced(t *testing.T) {
	for replaces, want := range map[string]Serial{"": "", "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE": "87654321"} {
		if got := Replaced(protocol.Order{Replaces: replaces}); got != want {
			t.Errorf("%q replaces %q, want %q", replaces, got, want)
		}
	}
}

func FuzzParseCertID(f *testing.F) {
	f.Add("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE")
	f.Add("aYhba4dGQEHhs3uEe6CuLN4ByNQ.h2VDIQ")
	f.Add(".AA")
	f.Add("000.\n000")
	f.Add("AA.AA")
	f.Fuzz(func(t *testing.T, s string) {
		keyID, serial, err := ParseCertID(s)
		if err != nil {
			if _, ok := err.(*protocol.Problem); !ok {
				t.Fatalf("not a problem: %v", err)
			}
			return
		}
		aki, err1 := hex.DecodeString(keyID)
		number, err2 := hex.DecodeString(string(serial))
		if err1 != nil || err2 != nil || len(aki) == 0 || len(number) == 0 {
			t.Fatalf("%q gives %q, %q", s, keyID, serial)
		}
		// Writing it down again gives the same, but for DER's sign octet.
		b64 := base64.RawURLEncoding.EncodeToString
		plain, signed := b64(aki)+"."+b64(number), b64(aki)+"."+b64(append([]byte{0}, number...))
		if s != plain && s != signed {
			t.Fatalf("%q is read as %q", s, plain)
		}
	})
}
