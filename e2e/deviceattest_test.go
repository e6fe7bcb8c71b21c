package e2e_test

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// peopleDirectory is a directory in which devices prove.
const peopleDirectory = `devices:
  issuers: maker.pem
profiles:
  people:
    issuer: clients
    usages: [client]
    challenges: [device-attest-01]
    max_lifetime: 24h
`

// The step CLI gets a certificate for a key that a YubiKey attests
// (device-attest-01), for the person and for the device.
func TestStepDeviceAttestation(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Ours("it knows no devices")
		w.Names()
		socket := w.Path("admin.sock")
		y := newYubiKeys(w, [3]byte{5, 7, 1})
		// Touched whenever it wants, as a person does.
		key, err := y.cards[0].Make(0x9a, softcard.P256, byte(yubikey.PINOnce), byte(yubikey.TouchAlways))
		if err != nil {
			w.Fatal(err)
		}
		ca := w.InitCA(func(conf string) string {
			var issuers [][]byte
			for _, c := range y.maker.Issuers() {
				issuers = append(issuers, c.Raw)
			}
			if err := os.Rename(w.SavePEM("maker.pem", issuers...), w.Path("ca", "maker.pem")); err != nil {
				w.Fatal(err)
			}
			return w.Replace(conf, "profiles:\n", peopleDirectory,
				"directories:\n", "directories:\n  people:\n    profiles: [people]\n    names:\n      allow: [\"*.people.test\"]\n")
		})
		id := enroll(w, socket, key)
		plugins := w.Mkdir("plugins")
		if err := os.Symlink(w.Testdata("step-kms-plugin"), plugins+"/step-kms-plugin"); err != nil {
			w.Fatal(err)
		}
		step := func(w *harness.World, subject string) *harness.Cmd {
			return w.Cmd(w.Tool("step"), "ca", "certificate", subject, w.Path("crt.pem"), w.Path("key.pem"), "--force",
				"--acme", strings.Replace(ca.Directory, "/servers/", "/people/", 1), "--root", ca.TLSRoot, "--contact", "a@example.org",
				"--attestation-uri", "yubikey:slot-id=9a").Env("STEPPATH="+w.Mkdir("step"), "PATH="+plugins+":"+os.Getenv("PATH"))
		}
		for _, subject := range []string{"alice", fmt.Sprint(y.cards[0].Serial())} {
			w.Sub(subject, func(w *harness.World) {
				step(w, subject).OK()
				c := w.Chain(w.Read(w.Path("crt.pem")))[0]
				if !key.Statement.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(c.PublicKey) || c.Subject.CommonName != subject {
					w.Errorf("%s: another key's, or for %q", subject, c.Subject)
				}
				crt := w.Path("crt.pem")
				w.Run("openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", ca.Root, "-untrusted", crt, crt)
				if out := w.Run("openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", crt); !strings.Contains(out, "othername") {
					w.Errorf("%s", out)
				}
			})
		}
		w.Sub("somebody else", func(w *harness.World) {
			if out := step(w, "bob").Fails(); !strings.Contains(out, "identifier is") {
				w.Errorf("the client says\n%s", out)
			}
		})
		w.Sub("retired", func(w *harness.World) {
			post(w, socket, "/v1/devices/"+id+"/retire", struct{}{})
			if out := step(w, "alice").Fails(); !strings.Contains(out, "state is") {
				w.Errorf("the client says\n%s", out)
			}
		})
		w.Until("both refusals are in the audit log", func() bool { // where entries are numbered a little later
			return strings.Count(ca.Admin("audit", "list", "--action", "device.mismatch"), `"device.mismatch"`) == 2
		})
	})
}

// enroll enrolls a key for alice by the admin API, as its holder shows it. It
// returns the device's ID.
func enroll(w *harness.World, socket string, key *softcard.Key) string {
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
		Owner: "alice", Attestation: string(a.PEM()), Possession: possession, MadeAt: at,
		Identities: api.Identities{Names: []string{"alice.people.test"}},
	})
	if err := json.Unmarshal(text, &d); err != nil || d.ID == "" {
		w.Fatalf("%s: %v", text, err)
	}
	return d.ID
}

// post asks the admin API.
func post(w *harness.World, socket, path string, body any) []byte {
	w.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		w.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	answer, err := client.Post("http://admin"+path, "application/json", bytes.NewReader(text))
	if err != nil {
		w.Fatal(err)
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode/100 != 2 {
		w.Fatalf("POST %s: %s: %s, %v", path, answer.Status, said, err)
	}
	return said
}
