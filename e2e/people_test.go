package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// person is one with a YubiKey, and a home of her own.
type person struct {
	w    *harness.World
	home string
	env  []string
	card *softcard.Card
}

func newPerson(w *harness.World, name string, card *softcard.Card) *person {
	w.Helper()
	p := &person{w: w, home: w.Path("home", name), card: card}
	for _, dir := range []string{"config", "state", "run"} {
		if err := os.MkdirAll(filepath.Join(p.home, dir), 0o700); err != nil {
			w.Fatal(err)
		}
	}
	p.env = []string{
		"HOME=" + p.home, "XDG_CONFIG_HOME=" + p.home + "/config", "XDG_STATE_HOME=" + p.home + "/state", "XDG_RUNTIME_DIR=" + p.home + "/run",
		"SSH_AUTH_SOCK=", "PINENTRY=" + w.Write("pinentry", pinentry),
	}
	return p
}

// pinentry is somebody who knows the PIN (the Assuan protocol).
const pinentry = `#!/bin/sh
echo "OK at your service"
while read -r command; do
	case $command in
	GETPIN*) echo "D 123456" ;;
	esac
	echo OK
done
`

// chancery prepares a command of hers; the PIN is typed where one is asked for.
func (p *person) chancery(args ...string) *harness.Cmd {
	return p.w.Cmd(p.w.Tool("chancery"), args...).Env(p.env...).Stdin(softcard.DefaultPIN + "\n")
}

// touches counts what the card signs meanwhile.
func (p *person) touches(do func()) int {
	before := p.card.Signatures()
	do()
	return p.card.Signatures() - before
}

// sshd runs one on a high port, with what `chancery ssh host` writes included.
func sshd(w *harness.World) (port int, dir string, daemon *harness.Proc) {
	w.Helper()
	dir, port = w.Mkdir("sshd"), w.FreePort()
	w.Run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", dir+"/ssh_host_ed25519_key")
	w.Mkdir("sshd", "conf.d")
	conf := w.Write("sshd/sshd_config", fmt.Sprintf(`Include %[1]s/conf.d/*.conf
Port %[2]d
ListenAddress 127.0.0.1
HostKey %[1]s/ssh_host_ed25519_key
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile none
LogLevel VERBOSE
`, dir, port))
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		w.Fatal(err)
	}
	daemon = w.Cmd("/usr/sbin/sshd", "-D", "-e", "-f", conf).Start().Listens(fmt.Sprintf("127.0.0.1:%d", port))
	return port, dir, daemon
}

// A working life: an operator enrolls Alice's YubiKey, she logs in with two
// touches, her SSH certificates open a real sshd that `chancery ssh host` looks
// after, one CA of two is dead all the while; then the key is lost.
func TestPeople(t *testing.T) {
	harness.Alone(t, 4*time.Minute, func(w *harness.World) {
		w.Ours("it knows no people")
		w.Names()
		socket := w.Path("admin.sock")
		y := newYubiKeys(w, [3]byte{5, 7, 1})
		ca := w.InitCA(func(conf string) string {
			var issuers [][]byte
			for _, c := range y.maker.Issuers() {
				issuers = append(issuers, c.Raw)
			}
			if err := os.Rename(w.SavePEM("maker.pem", issuers...), w.Path("ca", "maker.pem")); err != nil {
				w.Fatal(err)
			}
			return w.Replace(conf, "profiles:\n", "devices:\n  issuers: maker.pem\nprofiles:\n",
				"  servers:\n    profiles: [", "  servers:\n    validation:\n      allow: [127.0.0.0/8]\n    profiles: [")
		}, "--ssh")
		people := strings.Replace(ca.Directory, "/servers/", "/people/", 1)
		alice := newPerson(w, "alice", y.cards[0])
		w.Setenv("SSL_CERT_FILE", ca.Root)

		w.Sub("enroll", func(w *harness.World) {
			out := alice.chancery("devices", "enroll", "--socket", socket, "--pin-stdin", "--owner", "alice", "--name", "alice.people.test",
				"--other-name", "alice-laptop.people.test", "--principal", "root", "--directory", people).OK()
			w.Log(out)
			list := alice.chancery("devices", "list", "--socket", socket, "--json").OK()
			if !strings.Contains(list, `"owner": "alice"`) || !strings.Contains(list, fmt.Sprint(y.cards[0].Serial())) {
				w.Errorf("the registry has\n%s", list)
			}
		})
		settings := alice.home + "/config/chancery/config.yaml"
		conf := w.Read(settings)
		w.Log(conf)
		dead := "cas:\n- name: dead\n  directory: https://ca.test:1/acme/people/directory\n"
		if err := os.WriteFile(settings, []byte(w.Replace(conf, "cas:\n", dead)), 0o600); err != nil {
			w.Fatal(err)
		}

		port, dir, daemon := sshd(w)
		host := func() *harness.Cmd {
			return w.Cmd(w.Tool("chancery"), "ssh", "host", "--once", "--directory", ca.Directory, "--roots", ca.Root, "--name", "host.test",
				"--key", dir+"/ssh_host_ed25519_key", "--http", "127.0.0.1:80", "--dir", dir+"/chancery", "--snippet", dir+"/conf.d/chancery.conf",
				"--state", dir+"/state", "--sshd-config", dir+"/sshd_config", "--reload-command", fmt.Sprintf("kill -HUP %d", daemon.Pid()))
		}
		host().OK()
		daemon.Listens(fmt.Sprintf("127.0.0.1:%d", port))
		known := w.Write("known_hosts", w.Run(w.Tool("chancery"), "ssh", "trust", "known-hosts", "--directory", ca.Directory, "--roots", ca.Root, "*.test"))
		ssh := func(agent string, more ...string) *harness.Cmd {
			args := append([]string{"-F", "none", "-o", "BatchMode=yes", "-o", "UserKnownHostsFile=" + known, "-o", "StrictHostKeyChecking=yes",
				"-p", fmt.Sprint(port)}, more...)
			return w.Cmd("ssh", append(args, "root@host.test", "echo", "in as", "$USER")...).Env(append(alice.env, "SSH_AUTH_SOCK="+agent)...)
		}

		w.Sub("two certificates, two touches", func(w *harness.World) {
			var out string
			if n := alice.touches(func() { out = alice.chancery("login", "--pin-stdin").OK() }); n != 2 {
				w.Errorf("%d touches", n)
			}
			w.Log(out)
			if !strings.Contains(out, "touch the key now") || !strings.Contains(out, "dead") {
				w.Errorf("login says\n%s", out)
			}
			w.Log(alice.chancery("status").OK())
		})
		agent := alice.home + "/run/agent.sock"
		a := alice.chancery("ssh", "agent", "--socket", agent, "--", "sleep", "600").Start()
		a.Until("the agent listens", func() bool { _, err := os.Stat(agent); return err == nil })
		w.Sub("ssh by touch", func(w *harness.World) {
			if out := w.Cmd("ssh-add", "-l").Env("SSH_AUTH_SOCK=" + agent).OK(); !strings.Contains(out, "ECDSA-CERT") {
				w.Errorf("ssh-add -l:\n%s", out)
			}
			if n := alice.touches(func() {
				if out := ssh(agent).OK(); !strings.Contains(out, "in as root") {
					w.Errorf("ssh says\n%s", out)
				}
			}); n != 1 {
				w.Errorf("%d touches", n)
			}
			daemon.Says(fmt.Sprintf("ID alice/%d-9a (serial ", alice.card.Serial()))
		})
		w.Sub("anything else isn't signed", func(w *harness.World) {
			if n := alice.touches(func() { ssh(agent, "-l", "nobody").Fails() }); n > 1 {
				w.Errorf("%d touches", n)
			}
		})
		w.Sub("lost", func(w *harness.World) {
			out := alice.chancery("devices", "lost", "--socket", socket, "--json", fmt.Sprint(y.cards[0].Serial())).OK()
			w.Log(out)
			var said any
			if err := json.Unmarshal([]byte(out), &said); err != nil {
				w.Error(err)
			}
			host().OK() // which fetches the KRL
			daemon.Listens(fmt.Sprintf("127.0.0.1:%d", port))
			if out := ssh(agent).Fails(); !strings.Contains(out, "Permission denied") {
				w.Errorf("ssh says\n%s", out)
			}
			daemon.Says("revoked")
			if out := alice.chancery("login", "--pin-stdin").Fails(); !strings.Contains(out, "lost") {
				w.Errorf("login says\n%s", out)
			}
			alice.chancery("logout").OK()
		})
	})
}
