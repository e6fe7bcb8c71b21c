package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// What a person wrote stays; what is missing is added once.
func TestRemember(t *testing.T) {
	enrolled := Settings{
		Device:       Device{Serial: 4711, Slot: "9c"},
		Certificates: []Certificate{{Name: "tls", Kind: TLS, Identifiers: []string{"alice.internal"}, Challenge: protocol.YubiKey01}},
	}
	for name, c := range map[string]struct {
		before string
		wrote  bool
		device Device
		first  string // certificate
	}{
		"an empty device":   {"# mine\ncas:\n  - {name: a, directory: \"https://a\"} # the first", true, Device{4711, "9c"}, "tls"},
		"a device":          {"device: {serial: 815}\n", true, Device{Serial: 815}, "tls"},
		"all there":         {"device: {slot: 9a}\ncertificates: [{name: x, kind: tls, challenge: yubikey-01}]\n", false, Device{Slot: "9a"}, "x"},
		"certificates only": {"certificates: [{name: x, kind: tls, challenge: yubikey-01}]\n\n", true, Device{4711, "9c"}, "x"},
		"an empty file":     {"", true, Device{4711, "9c"}, "tls"},
	} {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(c.before), 0o600); err != nil {
			t.Fatal(err)
		}
		wrote, err := Remember(path, enrolled)
		if err != nil || wrote != c.wrote {
			t.Errorf("%s: %v, %v", name, wrote, err)
			continue
		}
		after, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(after), c.before) {
			t.Errorf("%s: %s, %v", name, after, err)
		}
		s, err := Load(path)
		if err != nil || s.Device != c.device || len(s.Certificates) != 1 || s.Certificates[0].Name != c.first {
			t.Errorf("%s: %+v, %v\n%s", name, s, err, after)
		}
		if again, err := Remember(path, enrolled); err != nil || again {
			t.Errorf("%s, again: %v, %v", name, again, err)
		}
	}
}

// A new file needs CAs; one that can't be read isn't touched.
func TestRememberWithoutFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chancery", "config.yaml")
	if wrote, err := Remember(path, Settings{Device: Device{Serial: 1}}); err != nil || wrote {
		t.Errorf("%v, %v", wrote, err)
	}
	if wrote, err := Remember(path, Settings{CAs: []CA{{Name: "a", Directory: "https://a"}}, Device: Device{Serial: 1}}); err != nil || !wrote {
		t.Errorf("%v, %v", wrote, err)
	}
	if s, err := Load(path); err != nil || s.CAs[0].Name != "a" || s.Device.Serial != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	const bad = "cas: {name: a"
	if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Remember(path, Settings{Device: Device{Serial: 1}}); err == nil {
		t.Error("a bad file was taken")
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != bad {
		t.Errorf("%s, %v", now, err)
	}
}

// Files that the settings name lie beside them, a key in a device doesn't.
func TestRelativePaths(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	for key, want := range map[string]string{
		"op.key": filepath.Join(dir, "op.key"), "/etc/op.key": "/etc/op.key", "yubikey:slot=9a": "yubikey:slot=9a",
	} {
		if err := os.WriteFile(path, []byte("cas: [{name: a, directory: b, roots: r.pem}]\noperator: {certificate: op.pem, key: \""+key+"\"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Load(path)
		if err != nil || s.Operator.Key != want || s.Operator.Certificate != filepath.Join(dir, "op.pem") || s.CAs[0].Roots != filepath.Join(dir, "r.pem") {
			t.Errorf("%s: %+v, %v", key, s, err)
		}
	}
}
