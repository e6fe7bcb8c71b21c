package server_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// Devices of the makers that the configuration trusts are enrolled, by the
// policies of its directories; and a watched key that is used is an alarm.
func TestRegistryIsWired(t *testing.T) {
	made := newCA(t)
	dir := filepath.Dir(made.Config)
	card, err := softcard.New(softcard.Options{Serial: 4711})
	if err != nil {
		t.Fatal(err)
	}
	var trusted []byte
	for _, c := range card.Maker().Issuers() {
		trusted = append(trusted, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	if err := os.WriteFile(filepath.Join(dir, "makers.pem"), trusted, 0o600); err != nil {
		t.Fatal(err)
	}
	edit(t, made.Config, "\nissuers:", "\ndevices: {issuers: makers.pem}\nissuers:")
	o := &operating{running: start(t, made)}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "admin.sock"))
	}
	o.socket = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}

	enroll := func(touch yubikey.TouchPolicy) (int, string) {
		t.Helper()
		key, err := card.Make(0x9a, softcard.P256, byte(yubikey.PINOnce), byte(touch))
		if err != nil {
			t.Fatal(err)
		}
		a, err := yubikey.ParseAttestation(key.Statement, key.Device)
		if err != nil {
			t.Fatal(err)
		}
		at := time.Now().UTC().Truncate(time.Second)
		signature, err := yubikey.SignMessage(key, yubikey.EnrolmentMessage(a, "alice", at))
		if err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(api.NewDevice{
			Owner: "alice", Identities: api.Identities{Names: []string{"alice.example"}}, Attestation: string(a.PEM()), Possession: signature, MadeAt: at,
		})
		if err != nil {
			t.Fatal(err)
		}
		return o.call(o.socket, "http://admin/v1/devices", string(body))
	}
	if status, said := enroll(yubikey.TouchCached); status != 400 || !strings.Contains(said, "touch policy") {
		t.Errorf("%d %s", status, said)
	}
	if status, said := enroll(yubikey.TouchAlways); status != 200 || !strings.Contains(said, `"serial":4711`) {
		t.Errorf("%d %s", status, said)
	}

	const fingerprint = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
	if status, said := o.call(o.socket, "http://admin/v1/watched-keys", `{"fingerprint":"`+fingerprint+`","label":"break glass"}`); status != 200 {
		t.Fatalf("%d %s", status, said)
	}
	path := "http://admin/v1/watched-keys/" + base64.RawURLEncoding.EncodeToString([]byte(fingerprint)) + "/sightings"
	if status, said := o.call(o.socket, path, `{"host":"web.example","user":"root","at":"2026-11-21T12:00:00Z"}`); status != 200 {
		t.Fatalf("%d %s", status, said)
	}
	if _, body := o.get("http://" + o.Metrics.String() + "/metrics"); !strings.Contains(body, "chancery_ssh_sightings_total 1") {
		t.Error("no alarm in the metrics")
	}
	if o.log.count("a watched SSH key was used") != 1 {
		t.Error("no alarm in the log")
	}
}
