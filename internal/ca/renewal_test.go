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
	"github.com/chancery-pki/chancery/internal/store"
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

// rated is an issuer that signs so many a second.
type rated struct {
	Issuer
	rate float64
}

func (r rated) Rate() float64 { return r.rate }

// Renewals of certificates that were issued together are spread so that they
// take half of what the keys can sign, never later than the certificates allow.
func TestRenewalsSpread(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		leaf, _ := a.issue("a.example")
		keyID := hex.EncodeToString(leaf.AuthorityKeyId)
		issued := w.Now()
		for name, tt := range map[string]struct {
			alive    int64
			rate     float64
			from, to float64 // of the life, within which all windows must lie
			least    float64 // of the life, over which they spread at least
		}{
			"plenty of budget": {40_000, 5000, 0.60, 0.71, 0},
			// 40,000 renewals at 2.5 a second take 4 h 26 m.
			"one key of five a second": {40_000, 5, 0.50, 0.72, 0.17},
			"too much for the key":     {1_000_000, 5, 0.40, 0.76, 0.30},
			"unknown rate":             {40_000, 0, 0.60, 0.71, 0},
		} {
			w.live.Store(&map[string]store.Live{keyID: {Count: tt.alive}})
			w.signsWith(rated{w.key, tt.rate})
			first, last := 1.0, 0.0
			perTwelfth := map[int]int{}
			for range 2000 {
				c := cert.Certificate{Serial: cert.NewSerial(), Issuer: "local", NotBefore: issued, NotAfter: issued.Add(day)}
				start, end := renewalWindow(c, w.spread(c, day))
				if end.Sub(start) != day/12 {
					t.Fatalf("%s: a window of %v", name, end.Sub(start))
				}
				from, to := float64(start.Sub(issued))/float64(day), float64(end.Sub(issued))/float64(day)
				first, last = min(first, from), max(last, to)
				perTwelfth[int((from+to)/2*24)]++
			}
			if first < tt.from || last > tt.to || last-first < tt.least {
				t.Errorf("%s: windows from %.3f to %.3f of the life; want within %.2f to %.2f, spread over %.2f", name, first, last, tt.from, tt.to, tt.least)
			}
			for hour, n := range perTwelfth {
				if tt.least >= 0.3 && n > 2000/4 {
					t.Errorf("%s: %d of 2000 in hour %d", name, n, hour)
				}
			}
		}
		// The same answer each time, on each replica.
		c := cert.Certificate{Serial: cert.NewSerial(), Issuer: "local", NotBefore: issued, NotAfter: issued.Add(day)}
		start, _ := renewalWindow(c, day/3)
		if again, _ := renewalWindow(c, day/3); !again.Equal(start) {
			t.Error("another window for the same certificate")
		}
	})
}
