package server

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/ca/device"
	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/setup/ceremony"
	"github.com/chancery-pki/chancery/internal/signer"
)

// A replica that opens no keys publishes SSH CA keys by their public halves, and
// says whose is missing; a file that holds something else is found out.
func TestSSHWithoutKeys(t *testing.T) {
	dir := t.TempDir()
	key, err := signer.Generate(cert.Ed25519, filepath.Join(dir, "users.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	line, err := ceremony.SSHLine(key.Public(), "users")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"users.pub": line, "two.pub": line + line, "not.pub": "hello\n", "dss.pub": "ssh-dss AAAAB3NzaC1kc3MAAAAB\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(signer string, keys *keyring) (*parts, error) {
		t.Helper()
		c, err := config.Parse(filepath.Join(dir, "chancery.yaml"), []byte("ssh_issuers:\n  users:\n    signers: [{"+signer+"}]\n"+
			"profiles:\n  ssh-user: {issuer: users, usages: [ssh-user], challenges: [yubikey-01]}\n"))
		if err != nil {
			t.Fatal(err)
		}
		keys.begin()
		p, err := wire(t.Context(), c, keys, device.Registry{}, slog.New(slog.DiscardHandler))
		keys.end(err == nil)
		return p, err
	}
	p, err := read("key: file:users.key, public_key: users.pub", nil)
	if err != nil || len(p.ssh.keys) != 1 || len(p.ssh.users) != 1 || len(p.ssh.hosts) != 0 || p.ssh.keys[0].Queue != nil || len(p.held) != 0 {
		t.Errorf("%+v, %v", p, err)
	}
	keys := newKeyring(slog.New(slog.DiscardHandler))
	defer keys.close()
	p, err = read("key: file:users.key, public_key: users.pub", keys)
	if err != nil || p.ssh.keys[0].Queue == nil || len(p.held) != 1 || p.held[0] != p.ssh.keys[0].Authority.ID() || keys.all()[0].keyID != p.held[0] {
		t.Errorf("%+v, %v", p, err)
	}
	for signer, says := range map[string]string{
		"key: file:users.key":   ".public_key: the file of the public key is wanted",
		"public_key: two.pub":   ".public_key: " + filepath.Join(dir, "two.pub") + " should have one public key in one line",
		"public_key: not.pub":   "should have one public key in one line",
		"public_key: dss.pub":   "should have one public key in one line",
		"public_key: there.not": "no such file",
	} {
		if _, err := read(signer, nil); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "ssh_issuers.users.signers[0]") {
			t.Errorf("%s: %v", signer, err)
		}
	}
}
