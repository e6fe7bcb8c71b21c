package sshhost

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/mtls/acme"
)

func newSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What a CA may send in place of what was asked for.
func TestCheckCertificate(t *testing.T) {
	ca, other, key := newSigner(t), newSigner(t), newSigner(t)
	now := time.Now()
	good := func() *ssh.Certificate {
		return &ssh.Certificate{
			Key: key.PublicKey(), Serial: 1, CertType: ssh.HostCert, KeyId: "web", ValidPrincipals: []string{"web.example", "10.0.0.1"},
			ValidAfter: uint64(now.Add(-time.Minute).Unix()), ValidBefore: uint64(now.Add(time.Hour).Unix()),
		}
	}
	names, cas := []string{"10.0.0.1", "web.example"}, []ssh.PublicKey{ca.PublicKey()}
	for name, c := range map[string]struct {
		change func(*ssh.Certificate)
		by     ssh.Signer
		ok     bool
	}{
		"good":                {func(*ssh.Certificate) {}, ca, true},
		"a user's":            {func(c *ssh.Certificate) { c.CertType = ssh.UserCert }, ca, false},
		"another key's":       {func(c *ssh.Certificate) { c.Key = other.PublicKey() }, ca, false},
		"another name":        {func(c *ssh.Certificate) { c.ValidPrincipals[0] = "mail.example" }, ca, false},
		"one name more":       {func(c *ssh.Certificate) { c.ValidPrincipals = append(c.ValidPrincipals, "mail.example") }, ca, false},
		"no name":             {func(c *ssh.Certificate) { c.ValidPrincipals = nil }, ca, false},
		"another CA's":        {func(*ssh.Certificate) {}, other, false},
		"expired":             {func(c *ssh.Certificate) { c.ValidBefore = uint64(now.Add(-time.Second).Unix()) }, ca, false},
		"not yet":             {func(c *ssh.Certificate) { c.ValidAfter = uint64(now.Add(time.Minute).Unix()) }, ca, false},
		"a critical option":   {func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"x": ""} }, ca, false},
		"changed when signed": {nil, ca, false},
	} {
		cert := good()
		if c.change != nil {
			c.change(cert)
		}
		if err := cert.SignCert(rand.Reader, c.by); err != nil {
			t.Fatal(err)
		}
		if c.change == nil {
			cert.Serial++
		}
		if err := checkCertificate(cert, key.PublicKey(), names, cas, now); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	line := string(ssh.MarshalAuthorizedKey(key.PublicKey()))
	for _, bad := range []string{"", "x", line, line + line, "cert-authority " + line} {
		if _, err := parseCertificate([]byte(bad)); err == nil {
			t.Errorf("%q is a certificate", bad)
		}
	}
}

// Hosts that were set up together renew apart, each between 61 and 72 hundredths
// of the certificate's life.
func TestRenewAt(t *testing.T) {
	times := map[time.Time]bool{}
	for serial := range uint64(100) {
		c := &ssh.Certificate{Serial: serial, ValidAfter: 1_000_000, ValidBefore: 1_000_000 + 36_000}
		at := renewAt(c)
		if part := at.Sub(time.Unix(1_000_000, 0)).Hours() / 10; part < 0.61 || part > 0.72 || !at.Equal(renewAt(c)) {
			t.Errorf("renewed at %v", part)
		}
		times[at] = true
	}
	if len(times) < 90 {
		t.Errorf("%d times of 100", len(times))
	}
}

func TestSolvers(t *testing.T) {
	dir := t.TempDir()
	p := acme.Proof{Authorization: acme.Authorization{Identifier: acme.Identifier{Type: "dns", Value: "web.example"}},
		Challenge: acme.Challenge{Token: "tok"}, KeyAuthorization: "tok.thumb"}
	web := Webroot{dir}
	if _, err := web.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, ".well-known", "acme-challenge", "tok")
	if data, err := os.ReadFile(file); err != nil || string(data) != "tok.thumb" {
		t.Errorf("%q, %v", data, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v: another user serves it", info, err)
	}
	if err := web.CleanUp(t.Context(), p); err != nil {
		t.Error(err)
	}

	out := filepath.Join(dir, "out")
	hook := DNSHook{Command: `echo "$CHANCERY_ACTION $CHANCERY_NAME $CHANCERY_VALUE" >>` + out}
	p.Authorization.Identifier.Value = "$(touch /tmp/never).example"
	if _, err := hook.Present(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := hook.CleanUp(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	value := acme.DNS01Value("tok.thumb")
	want := "present _acme-challenge.$(touch /tmp/never).example " + value + "\ncleanup _acme-challenge.$(touch /tmp/never).example " + value + "\n"
	if data, err := os.ReadFile(out); err != nil || string(data) != want {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := (DNSHook{Command: "echo away; false"}).Present(t.Context(), p); err == nil || !strings.Contains(err.Error(), "away") {
		t.Errorf("a hook that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (DNSHook{Command: "true", Wait: time.Hour}).Present(ctx, p); err == nil {
		t.Error("waits for an hour")
	}

	token := filepath.Join(dir, "token")
	if _, err := (PodToken{token}).Present(t.Context(), p); err == nil {
		t.Error("no token")
	}
	if err := os.WriteFile(token, []byte("eyJ\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if payload, err := (PodToken{token}).Present(t.Context(), p); err != nil || payload.(map[string]string)["serviceAccountToken"] != "eyJ" {
		t.Errorf("%v, %v", payload, err)
	}
}
