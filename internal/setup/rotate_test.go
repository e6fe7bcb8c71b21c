package setup_test

import (
	"context"
	"crypto"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/setup"
	"github.com/chancery-pki/chancery/internal/setup/ceremony"
)

// edit replaces text in the configuration, each "old => new" once.
func edit(t *testing.T, path string, edits ...string) *config.Config {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, e := range edits {
		old, edited, _ := strings.Cut(e, " => ")
		if strings.Count(text, old) != 1 {
			t.Fatalf("%q is there %d times in\n%s", old, strings.Count(text, old), text)
		}
		text = strings.Replace(text, old, edited, 1)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A whole life: init, another issuing certificate, another root. After each,
// what the ceremony advised makes a configuration that starts.
func TestRotations(t *testing.T) {
	dir := t.TempDir()
	made, err := setup.Init{Dir: dir, Name: "Example", DNS: "ca.example.internal"}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(secret, []byte(made.Passphrase), 0o600); err != nil {
		t.Fatal(err)
	}
	root := ceremony.Parent{
		Certificate: filepath.Join(dir, "root", "root.pem"),
		Key:         ceremony.Key{URI: "file:" + filepath.Join(dir, "root", "root.key"), PasswordFile: secret},
	}
	making := func(k ceremony.Key) ceremony.Source {
		return func(ctx context.Context) (crypto.Signer, error) {
			return k.Generate(ctx, ceremony.Generation{Type: cert.P256})
		}
	}
	key := ceremony.Key{URI: "file:" + filepath.Join(dir, "ca", "servers-2.key")}
	if _, err := (ceremony.Rotation{
		Config: edit(t, made.Config), Issuer: "servers", Key: key, By: root, Out: filepath.Join(dir, "ca", "servers-2.pem"),
	}).Run(t.Context(), making(key)); err != nil {
		t.Fatal(err)
	}
	c := edit(t, made.Config, `        certificate: "ca/servers.pem"
 =>         certificate: "ca/servers.pem"
        retired: true
      - key: "file:ca/servers-2.key"
        certificate: "ca/servers-2.pem"
`)
	if err := check(t, made.Config); err != nil {
		t.Fatal(err)
	}

	next := ceremony.Key{URI: "file:" + filepath.Join(dir, "root", "root-2.key"), PasswordFile: secret}
	rotated, err := ceremony.RootRotation{Config: c, Old: root, Out: filepath.Join(dir, "root", "root-2.pem")}.Run(t.Context(), making(next))
	if err != nil {
		t.Fatal(err)
	}
	edits := []string{
		`"ca/servers.pem" => "ca/servers-root-2.pem"`, `"ca/servers-2.pem" => "ca/servers-2-root-2.pem"`, `"ca/clients.pem" => "ca/clients-root-2.pem"`,
	}
	for _, e := range edits {
		if _, name, _ := strings.Cut(e, " => "); !strings.Contains(rotated.Advice, "certificate: "+name) {
			t.Errorf("%s is not advised in\n%s", name, rotated.Advice)
		}
	}
	data, err := os.ReadFile(made.Config)
	if err != nil {
		t.Fatal(err)
	}
	chains := strings.ReplaceAll(string(data), `    chain: "root/root.pem"`, "    chain: \"root/root-2-cross.pem\"\n    alternate_chains: [\"root/root-2.pem\"]")
	if err := os.WriteFile(made.Config, []byte(chains), 0o600); err != nil {
		t.Fatal(err)
	}
	edit(t, made.Config, edits...)
	if err := check(t, made.Config); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"servers-root-2.pem", "servers-2-root-2.pem", "clients-root-2.pem"} {
		path := filepath.Join(dir, "ca", name)
		openssl(t, "verify", "-x509_strict", "-CAfile", filepath.Join(dir, "root", "root-2.pem"), path)
		openssl(t, "verify", "-x509_strict", "-CAfile", root.Certificate, "-untrusted", filepath.Join(dir, "root", "root-2-cross.pem"), path)
	}
	// Once everybody trusts the new root, the old one goes.
	chains = strings.NewReplacer("root/root-2-cross.pem", "root/root-2.pem", "    alternate_chains: [\"root/root-2.pem\"]\n", "").Replace(chains)
	if err := os.WriteFile(made.Config, []byte(chains), 0o600); err != nil {
		t.Fatal(err)
	}
	edit(t, made.Config, edits...)
	if err := check(t, made.Config); err != nil {
		t.Fatal(err)
	}
}
