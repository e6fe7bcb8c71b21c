package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// SSH CA keys as an operator makes them: at init, and later for a rotation; their
// public halves are what ssh-keygen says they are.
func TestSSHKeys(t *testing.T) {
	s := session{t.TempDir()}
	if err := os.WriteFile(filepath.Join(s.dir, "pw"), []byte("sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run(t, 0, "init --ssh --name Example --dns ca.internal --root-password-file $D/pw $D/ca")
	if err := os.Remove(filepath.Join(s.dir, "ca", "root", "root.key")); err != nil {
		t.Fatal(err)
	}
	s.run(t, 0, "check $D/ca/chancery.yaml")
	s.run(t, 0, "key generate file:$D/ca/ca/ssh-users-2.key --type P-384")
	line, _ := s.run(t, 0, "key show --ssh file:$D/ca/ca/ssh-users-2.key")
	file := filepath.Join(s.dir, "2.pub")
	if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ssh-keygen", "-l", "-f", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "384") {
		t.Errorf("%s, %v", out, err)
	}
	s.run(t, 2, "key show --ssh --json file:$D/ca/ca/ssh-users-2.key")
	// Another's public key beside it is found out before anything starts.
	if err := os.WriteFile(filepath.Join(s.dir, "ca", "ca", "ssh-users.pub"), []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, said := s.run(t, 1, "check $D/ca/chancery.yaml"); !strings.Contains(said, "ssh_issuers.ssh-users.signers[0]") || !strings.Contains(said, "another key") {
		t.Errorf("check said: %s", said)
	}
}
