package e2e_test

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// The parts of a configuration that has SSH issuers, for hosts that an EAB key
// approves and for people by their devices.
const (
	sshIssuers = `ssh_issuers:
  ssh-users:
    signers: [{key: "file:ca/ssh-users.key", public_key: ca/ssh-users.pub}]
  ssh-hosts:
    signers: [{key: "file:ca/ssh-hosts.key"}]
devices:
  issuers: maker.pem
profiles:
  ssh-user: {issuer: ssh-users, usages: [ssh-user], challenges: [yubikey-02]}
  ssh-host: {issuer: ssh-hosts, usages: [ssh-host]}
`
	sshDirectories = `directories:
  hosts:
    profiles: [ssh-host]
    names: {allow: ["*.test"]}
    eab: {required: true}
  people:
    profiles: [ssh-user]
    names: {allow: ["*.people.test"]}
`
)

// OpenSSH with nothing but what the CA gives: a host that shows a certificate and
// trusts those of people, a person who proves by a device and logs in, and what the
// KRL does to both.
func TestSSH(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Ours("it issues no SSH certificates")
		w.Names()
		maker, err := softcard.NewMaker()
		if err != nil {
			w.Fatal(err)
		}
		ca := w.InitCA(func(conf string) string { return withSSH(w, conf, maker) })
		device := newDevice(w, maker)
		id := enrollFor(w, w.Path("admin.sock"), device, api.Identities{Principals: []string{"deploy"}})

		fetch := func(path string) string {
			res, err := ca.HTTPClient().Get("https://ca.test:14000/ssh/" + path)
			if err != nil {
				w.Fatal(err)
			}
			defer res.Body.Close()
			text, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != http.StatusOK && res.StatusCode != http.StatusServiceUnavailable {
				w.Fatalf("%s: %s, %v", path, res.Status, err)
			}
			return string(text)
		}
		// krl puts the current list into a file, once it is signed and revokes what
		// it should.
		krl := func(revokes ssh.PublicKey) {
			w.Until("the KRL is as it should be", func() bool {
				list, signature := fetch("krl"), fetch("krl.sig")
				var trusted []ssh.PublicKey
				for line := range strings.Lines(fetch("user_ca.pub") + fetch("host_ca.pub")) {
					key, err := sshca.ParseKey(line)
					if err != nil {
						w.Fatal(err)
					}
					trusted = append(trusted, key)
				}
				k, err := sshca.OpenKRL([]byte(list), []byte(signature), trusted)
				if err != nil || revokes != nil && !k.Revoked(revokes) {
					return false
				}
				w.Write("krl.new", list)
				return os.Rename(w.Path("krl.new"), w.Path("krl")) == nil
			})
		}
		krl(nil)

		// The host.
		hosts := sshClient(w, ca, "hosts", &acme.ExternalAccount{})
		hostCert := sshCertificate(w, hosts, "host", acme.OrderRequest{Identifiers: acme.Identifiers("a.test")}, nil)
		w.Write("user_ca.pub", fetch("user_ca.pub"))
		w.Write("principals", "deploy\n")
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // where sshd gives its rights up
			w.Fatal(err)
		}
		conf := w.Write("sshd_config", strings.NewReplacer("DIR", w.Path()).Replace(`ListenAddress 127.0.0.1:2222
HostKey DIR/host
HostCertificate DIR/host-cert.pub
TrustedUserCAKeys DIR/user_ca.pub
RevokedKeys DIR/krl
AuthorizedPrincipalsFile DIR/principals
AuthorizedKeysFile none
PermitRootLogin yes
StrictModes no
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
`))
		w.Run("/usr/sbin/sshd", "-t", "-f", conf)
		sshd := w.Cmd("/usr/sbin/sshd", "-D", "-e", "-f", conf).Start().Listens("127.0.0.1:2222")

		// The person.
		people := sshClient(w, ca, "people", nil)
		userCert := sshCertificate(w, people, "id", acme.OrderRequest{
			Identifiers: []acme.Identifier{{Type: "permanent-identifier", Value: "alice"}},
		}, device)
		w.Write("known_hosts", "@cert-authority *.test "+fetch("host_ca.pub"))
		login := func(options ...string) *harness.Cmd {
			args := append([]string{"-F", "none", "-p", "2222", "-i", w.Path("id"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
				"-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=/dev/null", "-o", "UserKnownHostsFile=" + w.Path("known_hosts")}, options...)
			return w.Cmd("ssh", append(args, "root@a.test", "echo", "hello")...)
		}
		if out := login().OK(); !strings.Contains(out, "hello") {
			w.Errorf("ssh says %q", out)
		}
		sshd.Says("ID alice/") // who it was, and by which device

		// sshd reads both files anew at each login.
		w.Write("principals", "somebody-else\n")
		if out := login().Fails(); !strings.Contains(out, "Permission denied") {
			w.Errorf("another's principals: %s", out)
		}
		w.Write("principals", "deploy\n")
		login().OK()

		post(w, w.Path("admin.sock"), "/v1/devices/"+id+"/lost", struct{}{})
		krl(userCert)
		if out := login().Fails(); !strings.Contains(out, "Permission denied") {
			w.Errorf("a lost device: %s", out)
		}
		sshd.Says("revoked by file")

		if err := hosts.Revoke(w.Context(), hostCert.Marshal(), acme.ReasonUnspecified, nil); err != nil {
			w.Fatal(err)
		}
		krl(hostCert)
		if out := login("-o", "RevokedHostKeys="+w.Path("krl")).Fails(); !strings.Contains(out, "revoked") {
			w.Errorf("a revoked host: %s", out)
		}
	})
}

// withSSH makes the CA's keys and adds what they sign to the configuration.
func withSSH(w *harness.World, conf string, maker *softcard.Maker) string {
	w.Helper()
	for _, name := range []string{"ssh-users", "ssh-hosts"} {
		key := w.Path("ca", "ca", name+".key")
		w.Run(w.Tool("chanceryd"), "key", "generate", "file:"+key)
		line := w.Run(w.Tool("chanceryd"), "key", "show", "--ssh", "file:"+key)
		if err := os.WriteFile(w.Path("ca", "ca", name+".pub"), []byte(line), 0o644); err != nil {
			w.Fatal(err)
		}
	}
	var issuers [][]byte
	for _, c := range maker.Issuers() {
		issuers = append(issuers, c.Raw)
	}
	if err := os.Rename(w.SavePEM("maker.pem", issuers...), w.Path("ca", "maker.pem")); err != nil {
		w.Fatal(err)
	}
	return w.Replace(conf, "profiles:\n", sshIssuers, "directories:\n", sshDirectories)
}

// newDevice is a key in a card, touched whenever it wants.
func newDevice(w *harness.World, maker *softcard.Maker) *softcard.Key {
	w.Helper()
	card, err := softcard.New(softcard.Options{Maker: maker})
	if err != nil {
		w.Fatal(err)
	}
	key, err := card.Make(0x9a, softcard.P256, byte(yubikey.PINOnce), byte(yubikey.TouchAlways))
	if err != nil {
		w.Fatal(err)
	}
	return key
}

// enrollFor enrolls a key for alice with these identities.
func enrollFor(w *harness.World, socket string, key *softcard.Key, as api.Identities) string {
	w.Helper()
	a, err := yubikey.ParseAttestation(key.Statement, key.Device)
	if err != nil {
		w.Fatal(err)
	}
	at := time.Now().Truncate(time.Second)
	possession, err := yubikey.SignMessage(key, yubikey.EnrolmentMessage(a, "alice", at))
	if err != nil {
		w.Fatal(err)
	}
	var d api.Device
	text := post(w, socket, "/v1/devices", api.NewDevice{
		Owner: "alice", Attestation: string(a.PEM()), Possession: possession, MadeAt: at, Identities: as,
	})
	if err := json.Unmarshal(text, &d); err != nil || d.ID == "" {
		w.Fatalf("%s: %v", text, err)
	}
	return d.ID
}

// sshClient is an ACME client of a directory; eab asks for an account that an EAB
// key approves for all names of .test.
func sshClient(w *harness.World, ca *harness.CA, directory string, eab *acme.ExternalAccount) *acme.Client {
	w.Helper()
	c := &acme.Client{DirectoryURL: "https://ca.test:14000/acme/" + directory + "/directory", HTTPClient: ca.HTTPClient(), Key: w.NewKey()}
	if eab != nil {
		kid, hmac := ca.NewEAB("--directory", directory, "--name", "*.test", "--pre-approved")
		mac, err := base64.RawURLEncoding.DecodeString(hmac)
		if err != nil {
			w.Fatal(err)
		}
		eab.KeyID, eab.MACKey = kid, mac
	}
	if _, err := c.Register(w.Context(), acme.Registration{TermsAgreed: true, EAB: eab}); err != nil {
		w.Fatal(err)
	}
	return c
}

// sshCertificate gets a certificate for a new key, which it puts into a file of
// that name as ssh-keygen does, the certificate beside it.
func sshCertificate(w *harness.World, c *acme.Client, name string, r acme.OrderRequest, device crypto.Signer) ssh.PublicKey {
	w.Helper()
	key := w.NewKey()
	block, err := ssh.MarshalPrivateKey(key, name)
	if err != nil {
		w.Fatal(err)
	}
	signer, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(w.Path(name), pem.EncodeToMemory(block), 0o600); err != nil {
		w.Fatal(err)
	}
	order, err := c.NewOrder(w.Context(), r)
	if err != nil {
		w.Fatal(err)
	}
	if device != nil {
		answerByDevice(w, c, order, device.(*softcard.Key))
	}
	possession, err := sshca.SignPossession(signer, order.URL)
	if err != nil {
		w.Fatal(err)
	}
	line := string(ssh.MarshalAuthorizedKey(signer.PublicKey()))
	order, err = c.FinalizeWith(w.Context(), order, map[string]string{"sshPublicKey": line, "possession": possession})
	if err == nil {
		order, err = c.WaitOrder(w.Context(), order)
	}
	if err != nil {
		w.Fatal(err)
	}
	got, err := c.Certificate(w.Context(), order.Certificate)
	if err != nil {
		w.Fatal(err)
	}
	w.Write(name+"-cert.pub", string(got.PEM))
	w.Run("ssh-keygen", "-L", "-f", w.Path(name+"-cert.pub"))
	certificate, _, _, _, err := ssh.ParseAuthorizedKey(got.PEM)
	if err != nil {
		w.Fatal(err)
	}
	return certificate
}

// answerByDevice answers yubikey-02.
func answerByDevice(w *harness.World, c *acme.Client, order acme.Order, device *softcard.Key) {
	w.Helper()
	z, err := c.Authorization(w.Context(), order.Authorizations[0])
	if err != nil {
		w.Fatal(err)
	}
	for _, ch := range z.Challenges {
		if ch.Type != "yubikey-02" {
			continue
		}
		var text string
		if err := json.Unmarshal(ch.Extra["challenge"], &text); err != nil {
			w.Fatal(err)
		}
		challenge, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil {
			w.Fatal(err)
		}
		thumbprint, err := acme.Thumbprint(c.Key.Public())
		if err != nil {
			w.Fatal(err)
		}
		message, err := yubikey.ResponseMessage(challenge, thumbprint, ch.Type, ch.URL)
		if err != nil {
			w.Fatal(err)
		}
		signature, err := yubikey.SignMessage(device, message)
		if err != nil {
			w.Fatal(err)
		}
		a, err := yubikey.ParseAttestation(device.Statement, device.Device)
		if err != nil {
			w.Fatal(err)
		}
		if _, err := c.Accept(w.Context(), ch, yubikey.NewResponse(a, signature)); err != nil {
			w.Fatal(err)
		}
		if _, err := c.WaitAuthorization(w.Context(), z); err != nil {
			w.Fatal(err)
		}
		return
	}
	w.Fatalf("the authorization offers %+v", z.Challenges)
}
