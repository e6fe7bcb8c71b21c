package login

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/settings"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// Whatever challenge a server sends, what is signed begins with our magic and
// is for a URL of its own directory.
func FuzzChallenge(f *testing.F) {
	const directory = "https://ca.internal/acme/people/directory"
	a, err := newAuthority(settings.CA{Directory: directory}, time.Second)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(`{"type":"yubikey-01","url":"https://ca.internal/acme/people/challenge/1","token":"x","challenge":"Y2hhbmNlcnkteXViaWtleQ"}`)
	f.Add(`{"type":"yubikey-01","url":"https://ca.internal/acme/people/challenge/1","token":"x","challenge":"Y2hhbmNlcnkteXViaWtleXh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eA"}`)
	f.Add(`{"type":"yubikey-02","url":"https://ca.internal/acme/people/../x","challenge":7}`)
	f.Add(`{"url":"https://ca.internal/acme/people/?x#y"}`)
	f.Fuzz(func(t *testing.T, text string) {
		var ch acme.Challenge
		if json.Unmarshal([]byte(text), &ch) != nil {
			return
		}
		message, err := a.message(ch)
		if err != nil {
			return
		}
		if len(message) != yubikey.ChallengeSize+64 || yubikey.CheckChallenge(message[:yubikey.ChallengeSize]) != nil {
			t.Fatalf("it signs %q", message)
		}
		if !strings.HasPrefix(ch.URL, "https://ca.internal/acme/people/") || strings.Contains(ch.URL, "..") && !strings.ContainsAny(ch.URL, "?#") {
			t.Fatalf("it signs for %q", ch.URL)
		}
	})
}
