//go:build linux && pcsc && cgo

package login_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/login"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/settings"
)

// A day: log in, look, log in again, log out.
func TestDay(t *testing.T) {
	for _, challenge := range []protocol.ChallengeType{protocol.YubiKey01, protocol.YubiKey02} {
		t.Run(string(challenge), func(t *testing.T) {
			h := newHouse(t, "first")
			d := newDesk(t, challenge, h)
			var held []login.Held
			n := touches(func() {
				var err error
				held, err = d.Run(t.Context())
				check(t, err)
			})
			if n != 2 || d.pins != 1 || len(held) != 2 {
				t.Errorf("%d touches, %d PINs, %d certificates", n, d.pins, len(held))
			}
			d.says(t, "touch the key now (1 of 2: TLS for alice.people.internal at first)", "touch the key now (2 of 2: SSH for alice at first)")
			if life := time.Until(held[0].NotAfter); life < 15*time.Hour || life > 16*time.Hour {
				t.Errorf("it is good for %v", life)
			}
			files := tlsFile(t, d, "tls", challenge)
			sshFiles(t, d, challenge)
			for _, s := range look(t, d) {
				if s.Trouble != "" {
					t.Error(s.Trouble)
				}
			}
			// Again, which leaves nothing of before.
			_, err := d.Run(t.Context())
			check(t, err)
			if !slices.Equal(files, tlsFile(t, d, "tls", challenge)) {
				t.Error("other files than before")
			}
			gone, err := login.Logout{State: d.State, Places: d.Places, Tell: d.Tell, Revoke: true}.Run(t.Context())
			check(t, err)
			if len(gone) != 2 || h.revoked != 2 {
				t.Errorf("%d gone, %d revoked", len(gone), h.revoked)
			}
			d.nothing(t)
			if gone, err := (login.Logout{State: d.State, Places: d.Places}).Run(t.Context()); err != nil || len(gone) != 0 {
				t.Errorf("once more: %d, %v", len(gone), err)
			}
		})
	}
}

// tlsFile checks the certificate's file, and that there is a key beside it
// exactly where it is a new one. It returns the paths.
func tlsFile(t *testing.T, d *desk, name string, challenge protocol.ChallengeType) []string {
	t.Helper()
	held, err := d.State.Held()
	check(t, err)
	i := slices.IndexFunc(held, func(h login.Held) bool { return h.Name == name })
	if i < 0 {
		t.Fatalf("%s isn't held", name)
	}
	files := held[i].Placed[0].Where
	keys := 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		check(t, err)
		block, _ := pem.Decode(text)
		switch {
		case block == nil:
			t.Fatalf("%s is no PEM", f)
		case filepath.Base(f) == "cert.pem":
			leaf, err := x509.ParseCertificate(block.Bytes)
			check(t, err)
			if public.Equal(leaf.PublicKey) != (challenge == protocol.YubiKey01) {
				t.Error("the device's key or not?")
			}
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			keys++
			if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", f, info.Mode(), err)
			}
		}
	}
	if (keys == 1) != (challenge == protocol.YubiKey02) {
		t.Errorf("%d keys in %q", keys, files)
	}
	return files
}

// sshFiles has ssh-keygen read what was written.
func sshFiles(t *testing.T, d *desk, challenge protocol.ChallengeType) {
	t.Helper()
	base := filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "chancery", "ssh", "id")
	out, err := exec.Command("ssh-keygen", "-L", "-f", base+"-cert.pub").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "alice") {
		t.Errorf("%s: %v", out, err)
	}
	out, err = exec.Command("ssh-keygen", "-y", "-f", base).CombinedOutput()
	if (err == nil) != (challenge == protocol.YubiKey02) {
		t.Errorf("a private key under %s? %s: %v", challenge, out, err)
	}
}

func look(t *testing.T, d *desk) []login.Standing {
	t.Helper()
	all, err := d.State.Look()
	check(t, err)
	if len(all) != 2 {
		t.Errorf("%d are held", len(all))
	}
	return all
}

// A new key and its certificate go into the user's agent, for as long as the
// certificate is good; a device's key stays where only our own agent finds it.
func TestAgent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	check(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	t.Setenv("SSH_AUTH_SOCK", socket)
	keys := func() string {
		out, _ := exec.Command("ssh-add", "-L").CombinedOutput() // fails where there are none
		return string(out)
	}

	h := newHouse(t, "first")
	d := newDesk(t, protocol.YubiKey02, h)
	d.Certificates[1].Into = nil
	for range 2 {
		_, err := d.Run(t.Context())
		check(t, err)
		if all := keys(); strings.Count(all, "\n") != 1 || !strings.Contains(all, "ecdsa-sha2-nistp256-cert-v01@openssh.com") || !strings.Contains(all, "chancery ssh") {
			t.Errorf("the agent has %s", all)
		}
	}
	check(t, exec.Command("ssh-add", "-D").Run())
	if s := look(t, d); !strings.Contains(s[1].Trouble, "gone from the ssh-agent") || s[0].Trouble != "" {
		t.Errorf("%q, %q", s[0].Trouble, s[1].Trouble)
	}
	_, err := d.Run(t.Context())
	check(t, err)
	_, err = login.Logout{State: d.State, Places: d.Places}.Run(t.Context())
	check(t, err)
	if all := keys(); !strings.Contains(all, "no identities") {
		t.Errorf("the agent has %s", all)
	}

	d = newDesk(t, protocol.YubiKey01, h)
	d.Certificates[1].Into = nil
	_, err = d.Run(t.Context())
	check(t, err)
	if all := keys(); !strings.Contains(all, "no identities") {
		t.Errorf("the agent has %s", all)
	}
	if _, err := os.Stat(filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "chancery", "ssh", "ssh-cert.pub")); err != nil {
		t.Error(err)
	}
	_, err = login.Logout{State: d.State, Places: d.Places}.Run(t.Context())
	check(t, err)
	d.nothing(t)
	// Where no agent is, the certificate of a new key has no place to be.
	t.Setenv("SSH_AUTH_SOCK", "")
	d = newDesk(t, protocol.YubiKey02, h)
	d.Certificates[1].Into = nil
	held, err := d.Run(t.Context())
	wants(t, err, "no ssh-agent answers", "put the certificate into files")
	if len(held) != 1 || held[0].Kind != settings.TLS {
		t.Errorf("%d are held", len(held))
	}
}

// A file that is gone, and a certificate that has ended, are seen.
func TestLook(t *testing.T) {
	d := newDesk(t, protocol.YubiKey02, newHouse(t, "first"))
	held, err := d.Run(t.Context())
	check(t, err)
	check(t, os.Remove(held[0].Placed[0].Where[0]))
	if s := look(t, d); !strings.Contains(s[0].Trouble, "is gone") || s[1].Trouble != "" {
		t.Errorf("%q, %q", s[0].Trouble, s[1].Trouble)
	}
	d.Certificates[0].For = settings.Duration(time.Minute)
	d.Certificates[1].For = settings.Duration(time.Minute)
	if held, err = d.Run(t.Context()); err != nil || time.Until(held[1].NotAfter) > time.Minute {
		t.Errorf("%v, %v", held[1].NotAfter, err)
	}
}

// A certificate may be one CA's alone, as an operator's is.
func TestOneCA(t *testing.T) {
	first, second := newHouse(t, "first"), newHouse(t, "second")
	d := newDesk(t, protocol.YubiKey01, first, second)
	d.Certificates[0].CA = "second"
	held, err := d.Run(t.Context())
	check(t, err)
	if held[0].CA.Name != "second" || held[1].CA.Name != "first" {
		t.Errorf("by %s and %s", held[0].CA.Name, held[1].CA.Name)
	}
	second.server.Close()
	held, err = d.Run(t.Context())
	wants(t, err, "no TLS for alice.people.internal: second: ")
	if len(held) != 1 || held[0].Name != "ssh" {
		t.Errorf("%+v", held)
	}
}

// What is asked for wrongly costs no touch.
func TestWants(t *testing.T) {
	h := newHouse(t, "first")
	for name, c := range map[string]struct {
		bend func(*desk)
		want string
	}{
		"no CA":           {func(d *desk) { d.CAs = nil }, "no CA is known"},
		"no certificates": {func(d *desk) { d.Certificates = nil }, "no certificate is wanted"},
		"http":            {func(d *desk) { d.CAs[0].Directory = "http://ca.internal/acme/x/directory" }, "want a URL"},
		"roots":           {func(d *desk) { d.CAs[0].Roots = "/nowhere" }, "roots"},
		"a path":          {func(d *desk) { d.Certificates[0].Name = "../x" }, "file's name"},
		"a kind":          {func(d *desk) { d.Certificates[0].Kind = "pgp" }, "want tls or ssh"},
		"a challenge":     {func(d *desk) { d.Certificates[0].Challenge = protocol.DNS01 }, "yubikey-01"},
		"two of a name":   {func(d *desk) { d.Certificates[1].Name = "tls" }, "two certificates"},
		"no names":        {func(d *desk) { d.Certificates[0].Identifiers = nil }, "0 names"},
		"two people":      {func(d *desk) { d.Certificates[1].Identifiers = []string{"a", "b"} }, "one person"},
		"nobody":          {func(d *desk) { d.Certificates = d.Certificates[1:] }, "for whom?"},
		"too short":       {func(d *desk) { d.Certificates[0].For = 1 }, "too short"},
		"another CA":      {func(d *desk) { d.Certificates[0].CA = "south" }, `know no CA called "south"`},
		"a slot":          {func(d *desk) { d.Device.Slot = "99" }, "slot"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, protocol.YubiKey01, h)
			c.bend(d)
			if n := touches(func() {
				_, err := d.Run(t.Context())
				wants(t, err, c.want)
			}); n != 0 || d.pins != 0 {
				t.Errorf("%d touches, %d PINs", n, d.pins)
			}
		})
	}
}
