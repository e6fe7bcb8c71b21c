package ca

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
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
		if err := w.revokeSerial(t.Context(), serial, cert.Superseded); err != nil {
			t.Fatal(err)
		}
		if info, err = w.RenewalInfo(t.Context(), "main", certID(c)); err != nil || !info.End.Before(w.Now()) || !info.Start.Before(info.End) {
			t.Errorf("revoked: %v to %v, %v", info.Start, info.End, err)
		}
	})
}

// upstream is an issuer that doesn't say how fast it signs.
type upstream struct{ Issuer }

// rated is an issuer that signs so many a second.
type rated struct {
	Issuer
	rate float64
}

func (r rated) Rate() float64 { return r.rate }

// The span counts what lives under any of the issuer's keys, and nothing else,
// against what they sign (policy's tests tell what comes of it).
func TestSpread(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		a := w.account(t, "main")
		leaf, _ := a.issue("a.example")
		keyID := hex.EncodeToString(leaf.AuthorityKeyId)
		c := cert.Certificate{Issuer: "local", NotBefore: leaf.NotBefore, NotAfter: leaf.NotBefore.Add(day)}
		w.signsWith(rated{w.key, 5})
		if got := w.spread(c); got != day/12 {
			t.Errorf("nothing counted yet: %v", got)
		}
		w.live.Store(&map[string]store.Live{keyID: {Count: 40_000}, "another issuer's": {Count: 1_000_000}})
		if got, want := w.spread(c), 16_000*time.Second; got != want { // half of five a second
			t.Errorf("%v, want %v", got, want)
		}
		w.signsWith(upstream{w.key})
		if got := w.spread(c); got != day/12 {
			t.Errorf("unknown rate: %v", got)
		}
		c.Issuer = "gone"
		if got := w.spread(c); got != day/12 {
			t.Errorf("no issuer: %v", got)
		}
	})
}
