package setup_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/setup"
)

// What init --ssh writes is in order, by our own check and by ssh-keygen's.
func TestInitSSH(t *testing.T) {
	for typ, want := range map[setup.KeyChoice]string{setup.ECDSA: "(ED25519)", setup.RSA: "(RSA)"} {
		dir := t.TempDir()
		in := setup.Init{Dir: dir, Name: "Example", DNS: "ca.internal", KeyType: typ, RootPassword: []byte("x"), SSH: true}
		made, err := in.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := check(t, made.Config); err != nil {
			t.Error(err)
		}
		var said strings.Builder
		made.Explain(&said, in)
		for _, line := range []string{
			"chancery devices enroll --owner alice --name alice.people.internal --principal alice --directory https://ca.internal/acme/people/directory --roots " + made.Bundle + "\n",
			"chancery ssh host --directory https://ca.internal/acme/servers/directory --roots " + made.Bundle + " --name NAME --http :80\n",
		} {
			if !strings.Contains(said.String(), line) {
				t.Errorf("init says\n%s\nwithout %s", &said, line)
			}
		}
		for _, name := range []string{"ssh-users", "ssh-hosts"} {
			out, err := exec.Command("ssh-keygen", "-l", "-f", filepath.Join(dir, "ca", name+".pub")).CombinedOutput()
			if text := string(out); err != nil || !strings.Contains(text, want) || !strings.Contains(text, "Example "+name) {
				t.Errorf("%s: %s, %v", name, out, err)
			}
		}
	}
}
