//go:build linux && pcsc && cgo

package login_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/login"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// other sets a member of one kind of object.
func other(kind, member string, value any) func(string, map[string]any) {
	return func(k string, o map[string]any) {
		if k == kind {
			o[member] = value
		}
	}
}

// A server that wants something else signed is refused before any touch and
// before the PIN, and the next CA is asked.
func TestRefusedBeforeTheTouch(t *testing.T) {
	b64 := base64.RawURLEncoding.EncodeToString
	good := yubikey.NewChallenge("yubikey-01", "x")
	for name, b := range map[string]struct {
		bend bend
		want string
	}{
		"another magic":       {bend{object: other("challenge", "challenge", b64(append([]byte("another-yubikey!"), good[16:]...)))}, "doesn't begin with"},
		"an SSH login":        {bend{object: other("challenge", "challenge", b64(bytes.Repeat([]byte{0, 0, 0, 32}, 16)))}, "doesn't begin with"},
		"too short":           {bend{object: other("challenge", "challenge", b64(good[:63]))}, "63 bytes"},
		"too long":            {bend{object: other("challenge", "challenge", b64(append(good, 0)))}, "65 bytes"},
		"no base64url":        {bend{object: other("challenge", "challenge", "!!!")}, "not base64url"},
		"a number":            {bend{object: other("challenge", "challenge", 7)}, "not a text"},
		"none":                {bend{object: func(k string, o map[string]any) { delete(o, "challenge") }}, "not a text"},
		"another CA's URL":    {bend{object: other("challenge", "url", "https://ca.elsewhere.internal/acme/people/yubikey-01/1")}, "is not below"},
		"another directory":   {bend{object: relocate("/acme/people/", "/acme/admins/")}, "is not below"},
		"up and out":          {bend{object: relocate("/acme/people/", "/acme/people/../admins/")}, "is not below"},
		"up, escaped":         {bend{object: relocate("/acme/people/", "/acme/people/..%2Fadmins/")}, "is not below"},
		"with a user":         {bend{object: relocate("https://", "https://x@")}, "is not below"},
		"another type":        {bend{object: other("challenge", "type", "yubikey-09")}, "offers no yubikey-01"},
		"another name":        {bend{object: other("authz", "identifier", map[string]string{"type": "dns", "value": "bob.people.internal"})}, "other names"},
		"a wildcard":          {bend{object: other("authz", "wildcard", true)}, "other names"},
		"more authorizations": {bend{object: other("order", "authorizations", []string{"https://x/1", "https://x/2"})}, "2 authorizations"},
		"a dead one":          {bend{object: other("authz", "status", "revoked")}, "any more"},
		"a bad SSH CA key":    {bend{object: other("directory", "meta", map[string]any{"ssh": map[string]any{"userKeys": []string{"ssh-dss AAAA"}}})}, "SSH CA keys"},
		"no directory":        {bend{object: func(k string, o map[string]any) { delete(o, "newOrder") }}, "not an ACME directory"},
		"a huge body": {bend{answer: func(kind string, w http.ResponseWriter, _ *http.Request) bool {
			if kind != "authz" {
				return false
			}
			for range 3000 {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 1000)); err != nil {
					break
				}
			}
			return true
		}}, "more than"},
		"no JSON": {bend{answer: func(kind string, w http.ResponseWriter, _ *http.Request) bool {
			if kind == "order" {
				w.Write([]byte("<html>"))
			}
			return kind == "order"
		}}, "evil"},
		"hanging up": {bend{answer: hangUp("authz")}, "evil"},
	} {
		t.Run(name, func(t *testing.T) {
			evil := newHouse(t, "evil")
			evil.set(b.bend)
			d := newDesk(t, protocol.YubiKey01, evil)
			if n := touches(func() {
				held, err := d.Run(t.Context())
				wants(t, err, b.want)
				if len(held) != 0 {
					t.Errorf("%d are held", len(held))
				}
			}); n != 0 || d.pins != 0 {
				t.Errorf("%d touches, %d PINs", n, d.pins)
			}
			if text := d.all(); strings.Contains(text, "touch") {
				t.Errorf("told %s", text)
			}
			d.nothing(t)
			if testing.Short() {
				return
			}
			d.CAs = append(d.CAs, newHouse(t, "good").ca(t))
			if n := touches(func() {
				held, err := d.Run(t.Context())
				check(t, err)
				if len(held) != 2 || held[0].CA.Name != "good" {
					t.Errorf("%d are held", len(held))
				}
			}); n != 2 {
				t.Errorf("%d touches", n)
			}
		})
	}
}

// relocate moves the URL of challenges.
func relocate(from, to string) func(string, map[string]any) {
	return func(k string, o map[string]any) {
		if k == "challenge" {
			o["url"] = strings.Replace(o["url"].(string), from, to, 1)
		}
	}
}

// hangUp ends the connection in the midst of TLS.
func hangUp(kind string) func(string, http.ResponseWriter, *http.Request) bool {
	return func(k string, w http.ResponseWriter, _ *http.Request) bool {
		if k != kind {
			return false
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			conn.Close()
		}
		return true
	}
}

func (d *desk) all() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.told, "\n")
}

// A CA that doesn't answer, or whose TLS isn't its own, is left for the next
// one.
func TestNextCA(t *testing.T) {
	deaf, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, says nothing
	check(t, err)
	defer deaf.Close()
	good := newHouse(t, "good")
	for name, directory := range map[string]string{
		"silent":  "https://" + deaf.Addr().String() + "/acme/people/directory",
		"refused": "https://127.0.0.1:1/acme/people/directory",
		"TLS":     good.ca(t).Directory, // with roots that don't know its server
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, protocol.YubiKey01, good)
			ca := good.ca(t)
			ca.Name, ca.Directory = "dead", directory
			if name == "TLS" {
				text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good.root.Raw})
				check(t, os.WriteFile(ca.Roots, text, 0o600))
			}
			d.CAs = append(d.CAs[:0:0], ca, good.ca(t))
			if name == "silent" {
				d.Patience = 5 * time.Second // the other CA has no longer, either
			}
			if n := touches(func() {
				held, err := d.Run(t.Context())
				check(t, err)
				if len(held) != 2 || held[0].CA.Name != "good" {
					t.Errorf("%d are held", len(held))
				}
			}); n != 2 {
				t.Errorf("%d touches", n)
			}
			d.says(t, "SSH for alice: dead is left out (", "TLS for alice.people.internal: dead is left out (", "good is next")
		})
	}
}

// What comes back and isn't what was asked for is thrown away, and the next CA
// costs another touch, which the person is told.
func TestRefusedAfterTheTouch(t *testing.T) {
	stranger := newKey(t)
	swap := func(crypto.PublicKey) crypto.PublicKey { return stranger.Public() }
	for name, b := range map[string]struct {
		bend   bend
		want   string
		failed int // of the two certificates
	}{
		"another key":        {bend{public: swap}, "for another key", 2},
		"another CA":         {bend{signer: stranger}, "thrown away", 2},
		"another name":       {bend{leaf: func(c *x509.Certificate) { c.DNSNames = []string{"bob.people.internal"} }}, "other names", 1},
		"a name more":        {bend{leaf: func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "bob.people.internal") }}, "other names", 1},
		"an address more":    {bend{leaf: func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} }}, "other names", 1},
		"a CA":               {bend{leaf: func(c *x509.Certificate) { c.IsCA = true }}, "other names", 1},
		"ended":              {bend{leaf: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }}, "it ended at", 1},
		"for tomorrow":       {bend{leaf: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }}, "begins only", 1},
		"ended, SSH":         {bend{request: func(r *sshca.Request) { r.ValidBefore = time.Now().Add(-time.Second).Truncate(time.Second) }}, "it ended at", 1},
		"another person":     {bend{request: func(r *sshca.Request) { r.KeyID = "bob/1001-9a" }}, "another person", 1},
		"a host certificate": {bend{request: func(r *sshca.Request) { r.Kind, r.Extensions = sshca.Host, nil }}, "user certificate", 1},
		"no proof":           {bend{answer: hangUp("yubikey-01")}, "evil", 2},
		"no finalize":        {bend{answer: hangUp("finalize")}, "evil", 2},
		"no certificate":     {bend{answer: hangUp("certificate")}, "evil", 2},
		"not a certificate": {bend{answer: func(kind string, w http.ResponseWriter, _ *http.Request) bool {
			if kind == "certificate" {
				w.Header().Set("Content-Type", "text/html")
				w.Write([]byte("<html>"))
			}
			return kind == "certificate"
		}}, "text/html", 2},
	} {
		t.Run(name, func(t *testing.T) {
			evil := newHouse(t, "evil")
			evil.set(b.bend)
			d := newDesk(t, protocol.YubiKey01, evil)
			if n := touches(func() {
				held, err := d.Run(t.Context())
				wants(t, err, b.want)
				if len(held) != 2-b.failed {
					t.Errorf("%d are held", len(held))
				}
			}); n != 2 {
				t.Errorf("%d touches", n)
			}
			_, err := login.Logout{State: d.State, Places: d.Places}.Run(t.Context())
			check(t, err)
			d.nothing(t)
			d.CAs = append(d.CAs, newHouse(t, "good").ca(t))
			if n := touches(func() {
				held, err := d.Run(t.Context())
				check(t, err)
				if len(held) != 2 {
					t.Errorf("%d are held", len(held))
				}
			}); n != 2+b.failed || d.pins != 2 { // one PIN for each login, however many touches
				t.Errorf("%d touches, %d PINs", n, d.pins)
			}
			d.says(t, "evil failed after the touch", "good is next, which needs another touch")
		})
	}
}

// A certificate that is good for longer than was asked for is refused; where
// nobody asked, the CA's word counts.
func TestTooLong(t *testing.T) {
	h := newHouse(t, "first")
	h.set(bend{leaf: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(40 * time.Hour) }})
	d := newDesk(t, protocol.YubiKey01, h)
	_, err := d.Run(t.Context())
	check(t, err)
	d.Certificates[0].For = d.Certificates[0].For + 3600e9
	_, err = d.Run(t.Context())
	wants(t, err, "later than was asked for")
}
