package ca

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// certID is RFC 9773 section 4.1's, written independently.
func certID(c *x509.Certificate) string {
	serial := c.SerialNumber.Bytes()
	if serial[0]&0x80 != 0 {
		serial = append([]byte{0}, serial...)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return b64(c.AuthorityKeyId) + "." + b64(serial)
}

// The example of RFC 9773 section 4.1.
func TestParseCertID(t *testing.T) {
	keyID, serial, err := parseCertID("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE")
	if err != nil || keyID != "69885b6b87464041e1b37b847ba0ae2cde01c8d4" || serial != "87654321" {
		t.Errorf("%s, %s, %v", keyID, serial, err)
	}
	for _, bad := range []string{"", ".", "a", "aYhb.", ".AIdlQyE", "aYhb.AIdlQyE=", "aYhb.AIdl+yE", "aYhb.AIdlQyE.AA", "aYhb.AIdlQyF", strings.Repeat("A", 100) + "." + strings.Repeat("A", 100)} {
		if _, _, err := parseCertID(bad); err == nil {
			t.Errorf("%q was taken", bad)
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
		keyID, serial, err := parseCertID(s)
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

// RFC 9773 section 4.2: a window around two thirds of the life; in the past
// for what was revoked.
func TestRenewalInfo(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		c, serial := a.issue("a.example")
		info, err := w.RenewalInfo(t.Context(), "main", certID(c))
		if err != nil {
			t.Fatal(err)
		}
		life := c.NotAfter.Sub(c.NotBefore)
		if two := c.NotBefore.Add(life * 2 / 3); !info.Start.Before(two) || !info.End.After(two) || info.End.Sub(info.Start) > life/10 ||
			info.Start.Before(c.NotBefore) || info.End.After(c.NotAfter) {
			t.Errorf("%v to %v of %v to %v", info.Start, info.End, c.NotBefore, c.NotAfter)
		}
		if info.RetryAfter < time.Minute || info.RetryAfter > 6*time.Hour {
			t.Errorf("ask again after %v", info.RetryAfter)
		}
		for what, ask := range map[string][2]string{
			"another directory": {"other", certID(c)}, "another issuer": {"main", "AAAA" + certID(c)}, "no such serial": {"main", certID(c)[:28] + "AQID"},
		} {
			if _, err := w.RenewalInfo(t.Context(), ask[0], ask[1]); err == nil || !strings.Contains(err.Error(), "no such certificate") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := w.RevokeCertificate(t.Context(), administrator, serial, cert.Superseded); err != nil {
			t.Fatal(err)
		}
		if info, err = w.RenewalInfo(t.Context(), "main", certID(c)); err != nil || !info.End.Before(w.Now()) || !info.Start.Before(info.End) {
			t.Errorf("revoked: %v to %v, %v", info.Start, info.End, err)
		}
	})
}
