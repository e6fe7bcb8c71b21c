package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/setup"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// newSSHCA makes a CA with SSH issuers, which proves 127.0.0.1 by http-01 from
// that port.
func newSSHCA(t *testing.T, port int) *setup.Made {
	t.Helper()
	certificate, key := newRoot(t)
	made, err := setup.Init{
		Dir: t.TempDir(), Name: "Test", DNS: "127.0.0.1", RootCert: certificate, RootKey: key, SSH: true,
		Overrides: func(e *config.Example) {
			e.Listen, e.Publish, e.Metrics, e.AdminSocket, e.Allow = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "admin.sock", []string{"127.0.0.1"}
			e.Networks, e.HTTPPort = []string{"127.0.0.1/32"}, port
		},
	}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// onPort is an http-01 solver that listens.
func onPort(t *testing.T) (*acme.HTTP01Solver, int) {
	t.Helper()
	solver := new(acme.HTTP01Solver)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: solver, ReadHeaderTimeout: 10 * time.Second}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return solver, l.Addr().(*net.TCPAddr).Port
}

// hostCertificate gets one for 127.0.0.1.
func hostCertificate(t *testing.T, c *acme.Client, solver *acme.HTTP01Solver, s ssh.Signer) (line string) {
	t.Helper()
	ctx := t.Context()
	order, err := c.NewOrder(ctx, acme.OrderRequest{Identifiers: acme.Identifiers("127.0.0.1"), Profile: "ssh-host"})
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range order.Authorizations {
		z, err := c.Authorization(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		for _, ch := range z.Challenges {
			if ch.Type != acme.HTTP01 || z.Status == acme.StatusValid {
				continue
			}
			keyAuth, err := c.KeyAuthorization(ch.Token)
			if err != nil {
				t.Fatal(err)
			}
			proof := acme.Proof{Authorization: z, Challenge: ch, KeyAuthorization: keyAuth}
			if _, err := solver.Present(ctx, proof); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Accept(ctx, ch, nil); err != nil {
				t.Fatal(err)
			}
			if _, err = c.WaitAuthorization(ctx, z); err != nil {
				t.Fatal(err)
			}
		}
	}
	possession, err := sshca.SignPossession(s, order.URL)
	if err != nil {
		t.Fatal(err)
	}
	order, err = c.FinalizeWith(ctx, order, map[string]string{"sshPublicKey": string(ssh.MarshalAuthorizedKey(s.PublicKey())), "possession": possession})
	if err == nil {
		order, err = c.WaitOrder(ctx, order)
	}
	if err != nil {
		t.Fatal(err)
	}
	chain, err := c.Certificate(ctx, order.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if chain.ContentType != "application/vnd.chancery.ssh-certificate" || strings.Count(string(chain.PEM), "\n") != 1 {
		t.Fatalf("%s: %q", chain.ContentType, chain.PEM)
	}
	return string(chain.PEM)
}

func newSSHKey(t *testing.T) ssh.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// keygen runs the real tool; its absence is a failure.
func keygen(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command("ssh-keygen", args...).CombinedOutput()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return string(out), err
}

func writeFile(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "id-cert.pub")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A host certificate over ACME, as OpenSSH reads it; what the directory says of
// SSH; the KRL before and after its revocation, signed, over HTTPS; and a rotation
// of the CA's key at SIGHUP, which leaves the old one published.
func TestSSH(t *testing.T) {
	solver, port := onPort(t)
	made := newSSHCA(t, port)
	r := start(t, made)
	base := "https://" + r.Listen.String()
	c := r.client("servers")
	s := newSSHKey(t)
	line := hostCertificate(t, c, solver, s)
	file := writeFile(t, line)
	if out, err := keygen(t, "-L", "-f", file); err != nil || !strings.Contains(out, "host certificate") || !strings.Contains(out, `Key ID: "127.0.0.1"`) {
		t.Errorf("%s, %v", out, err)
	}

	var directory struct {
		Meta struct {
			SSH struct {
				UserKeys, HostKeys []string
				KRL                string
			}
		}
	}
	_, body := r.get(base + "/acme/servers/directory")
	if err := json.Unmarshal([]byte(body), &directory); err != nil {
		t.Fatal(err)
	}
	told := directory.Meta.SSH
	_, users := r.get(base + "/ssh/user_ca.pub")
	_, hosts := r.get(base + "/ssh/host_ca.pub")
	if len(told.UserKeys) != 1 || len(told.HostKeys) != 1 || users != told.UserKeys[0]+"\n" || hosts != told.HostKeys[0]+"\n" || users == hosts ||
		told.KRL != "https://127.0.0.1/ssh/krl" {
		t.Errorf("%+v\n%s%s", told, users, hosts)
	}
	if _, body := r.get(base + "/acme/clients/directory"); strings.Contains(body, "userKeys") {
		t.Errorf("a directory without SSH: %s", body)
	}

	list := func() (krl string, parsed *sshca.KRL) {
		t.Helper()
		var signature string
		r.until("there is a KRL with its signature", func() bool {
			var first, second int
			first, krl = r.get(base + "/ssh/krl")
			second, signature = r.get(base + "/ssh/krl.sig")
			return first == 200 && second == 200
		})
		var trusted []ssh.PublicKey
		for _, text := range append(told.UserKeys, told.HostKeys...) {
			key, err := sshca.ParseKey(text)
			if err != nil {
				t.Fatal(err)
			}
			trusted = append(trusted, key)
		}
		parsed, err := sshca.OpenKRL([]byte(krl), []byte(signature), trusted)
		if err != nil {
			t.Logf("the two may be of two lists: %v", err) // once, while a new one takes its place
		}
		return krl, parsed
	}
	var before string
	r.until("the first KRL", func() (done bool) { var k *sshca.KRL; before, k = list(); return k != nil })
	if out, err := keygen(t, "-Q", "-f", writeFile(t, before), file); err != nil {
		t.Errorf("%s, %v", out, err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Revoke(t.Context(), key.Marshal(), acme.ReasonUnspecified, nil); err != nil {
		t.Fatal(err)
	}
	var after string
	r.until("the KRL has it", func() (done bool) { var k *sshca.KRL; after, k = list(); return k != nil && k.Revoked(key) })
	if out, err := keygen(t, "-Q", "-f", writeFile(t, after), file); err == nil || !strings.Contains(out, "REVOKED") {
		t.Errorf("%s, %v", out, err)
	}

	rotate(t, made)
	r.hangUp("configuration reloaded")
	second := hostCertificate(t, c, solver, s)
	_, published := r.get(base + "/ssh/host_ca.pub")
	if strings.Count(published, "\n") != 2 || !strings.Contains(published, strings.TrimSpace(hosts)) {
		t.Errorf("after the rotation: %s", published)
	}
	out, err := keygen(t, "-L", "-f", writeFile(t, second))
	old, _, _, _, _ := ssh.ParseAuthorizedKey([]byte(hosts))
	if err != nil || strings.Contains(out, ssh.FingerprintSHA256(old)) {
		t.Errorf("signed by the retired key: %s, %v", out, err)
	}
}

// rotate puts another host CA key beside the one there is, which retires: its
// private half goes away.
func rotate(t *testing.T, made *setup.Made) {
	t.Helper()
	dir := filepath.Dir(made.Config)
	if out, err := exec.Command("openssl", "genpkey", "-algorithm", "ed25519", "-out", filepath.Join(dir, "ca", "ssh-hosts-2.key")).CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	if err := os.Chmod(filepath.Join(dir, "ca", "ssh-hosts-2.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "ca", "ssh-hosts.key")); err != nil {
		t.Fatal(err)
	}
	edit(t, made.Config, `      - key: "file:ca/ssh-hosts.key"
        public_key: "ca/ssh-hosts.pub"
`, `      - key: "file:ca/ssh-hosts-2.key"
      - public_key: "ca/ssh-hosts.pub"
        retired: true
`)
}
