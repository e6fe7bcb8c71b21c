package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/signer/pkcs11/softhsm"
)

// session runs command lines in a folder, where $D stands for it.
type session struct{ dir string }

func (s session) run(t *testing.T, want int, line string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	args := strings.Fields(line)
	for i := range args {
		args[i] = strings.NewReplacer("$D", s.dir, "_", " ").Replace(args[i])
	}
	if code := run(t.Context(), args, &out, &errs); code != want {
		t.Fatalf("chanceryd %s\nexit code %d, want %d\n%s%s", line, code, want, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

func openssl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("openssl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// The ceremonies as an operator types them: a root, an issuing CA under it at
// once and another carried, the root's list, and what there is then.
func TestCeremonies(t *testing.T) {
	s := session{t.TempDir()}
	at := func(name string) string { return filepath.Join(s.dir, name) }
	if err := os.WriteFile(at("pw"), []byte("sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := s.run(t, 0, "key generate file:$D/root.key --type P-384 --password-file $D/pw")
	if !regexp.MustCompile(`type +P-384\n  key id +[0-9a-f]{40}\n  fingerprint +[0-9a-f]{64}\n$`).MatchString(out) {
		t.Errorf("key generate: %s", out)
	}
	openssl(t, "pkey", "-in", at("root.key"), "-passin", "pass:sesame", "-noout")
	s.run(t, 0, "ca create --self-signed --key file:$D/root.key --password-file $D/pw --name Example_Root_CA --organization Example --out $D/root.pem")
	root := " --parent $D/root.pem --parent-key file:$D/root.key --parent-password-file $D/pw "
	s.run(t, 0, "ca create --generate --key file:$D/servers.key --name Example_Server_CA --usage server --constrain internal --crl-url http://crl.internal --lifetime 100d --out $D/servers.pem"+root)
	openssl(t, "verify", "-x509_strict", "-CAfile", at("root.pem"), at("servers.pem"))

	out, _ = s.run(t, 0, "ca request --generate --type RSA-2048 --key file:$D/clients.key --name Example_Client_CA --out $D/clients.csr")
	print := regexp.MustCompile(`[0-9a-f]{64}`).FindString(out)
	_, shown := s.run(t, 0, "ca sign $D/clients.csr --usage client --yes --out $D/clients.pem"+root)
	if print == "" || !strings.Contains(shown, print) {
		t.Errorf("the fingerprint %q isn't shown at both ends: %s", print, shown)
	}
	openssl(t, "verify", "-x509_strict", "-CAfile", at("root.pem"), at("clients.pem"))

	s.run(t, 0, "ca crl --number 1 --out $D/root.crl"+root)
	out, _ = s.run(t, 0, "ca crl --out $D/root.crl --revoke $D/clients.pem=cACompromise --validity 30d"+root)
	if !strings.Contains(out, "number 2, 1 withdrawn") {
		t.Error(out)
	}
	openssl(t, "verify", "-crl_check", "-CAfile", at("root.pem"), "-CRLfile", at("root.crl"), at("servers.pem"))

	out, _ = s.run(t, 0, "key show --json file:$D/servers.key file:$D/clients.key")
	var facts []struct{ Type string }
	if err := json.Unmarshal([]byte(out), &facts); err != nil || len(facts) != 2 || facts[0].Type != "P-256" || facts[1].Type != "RSA-2048" {
		t.Errorf("%v %s", err, out)
	}
}

// init, rotate, list: the configuration's own commands.
func TestRotateAndList(t *testing.T) {
	s := session{t.TempDir()}
	out, _ := s.run(t, 0, "init $D/ca --name Example --dns ca.example.internal")
	passphrase := regexp.MustCompile(`[a-z2-7]{4}(-[a-z2-7]{4}){7}`).FindString(out)
	if err := os.WriteFile(filepath.Join(s.dir, "pw"), []byte(passphrase), 0o600); err != nil {
		t.Fatal(err)
	}
	root := " --config $D/ca/chancery.yaml --parent $D/ca/root/root.pem --parent-key file:$D/ca/root/root.key --parent-password-file $D/pw"
	out, _ = s.run(t, 0, "ca rotate servers --generate --key file:$D/ca/ca/servers-2.key --out $D/ca/ca/servers-2.pem"+root)
	for _, want := range []string{"Example Server CA 2", `key: "file:ca/servers-2.key"`, `certificate: "ca/servers-2.pem"`, "retired: true"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out, _ = s.run(t, 0, "ca rotate --root --generate --type P-384 --key file:$D/ca/root/root-2.key --password-file $D/pw --out $D/ca/root/root-2.pem"+root)
	if !strings.Contains(out, "Example Root CA 2") || !strings.Contains(out, "alternate_chains") {
		t.Error(out)
	}
	openssl(t, "verify", "-CAfile", filepath.Join(s.dir, "ca/root/root-2.pem"), filepath.Join(s.dir, "ca/ca/servers-root-2.pem"))

	out, said := s.run(t, 0, "ca list --config $D/ca/chancery.yaml")
	if !strings.Contains(out, "CN=Example Server CA") || !strings.Contains(out, "days left") || !strings.Contains(said, "who uses them is not shown") {
		t.Errorf("%s%s", out, said)
	}
	out, _ = s.run(t, 0, "ca list --json --config $D/ca/chancery.yaml")
	var all []struct {
		Issuer, State string
		DaysLeft      int `json:"days_left"`
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 2 || all[0].Issuer != "clients" || all[1].DaysLeft < 1800 || all[1].State != "configured" {
		t.Errorf("%v %s", err, out)
	}
}

// Keys on a token, whose PIN comes from a file.
func TestCeremoniesOnToken(t *testing.T) {
	hsm := softhsm.New(t)
	token := hsm.Token(t, "ca")
	s := session{t.TempDir()}
	uri := func(object string) string { return "pkcs11:token=ca;object=" + object + "?module-path=" + hsm.Module }
	pin := " --pin-file " + token.PINFile
	out, _ := s.run(t, 0, "key generate "+uri("root")+pin)
	if !strings.Contains(out, "token ") {
		t.Error(out)
	}
	s.run(t, 0, "ca create --self-signed --key "+uri("root")+pin+" --name Root --out $D/root.pem")
	s.run(t, 0, "ca create --generate --key "+uri("ca")+pin+" --name CA --out $D/ca.pem --parent $D/root.pem --parent-key "+uri("root")+" --parent-pin-file "+token.PINFile)
	openssl(t, "verify", "-x509_strict", "-CAfile", filepath.Join(s.dir, "root.pem"), filepath.Join(s.dir, "ca.pem"))
	_, said := s.run(t, 1, "key generate "+uri("ca")+pin)
	if strings.Count(said, "\n") != 1 {
		t.Errorf("an error is one line: %s", said)
	}
}

// Mistakes: 2 for the command line, 1 for the rest, one line each.
func TestCeremonyMistakes(t *testing.T) {
	s := session{t.TempDir()}
	s.run(t, 0, "ca create --self-signed --generate --key file:$D/root.key --name Root --out $D/root.pem")
	parent := " --parent $D/root.pem --parent-key file:$D/root.key"
	for _, c := range []struct {
		code       int
		line, want string
	}{
		{2, "ca create --key file:$D/x --name X --out $D/x.pem", "--parent=FILE"},
		{2, "ca create --key file:$D/x --name X --self-signed --out $D/x.pem" + parent, "exclude each other"},
		{2, "ca create --name X --out $D/x.pem" + parent, "--key"},
		{2, "ca create --key file:$D/x --name X --usage mail --out $D/x.pem" + parent, "--usage"},
		{2, "ca create --key file:$D/x --name X --lifetime long --out $D/x.pem" + parent, "not a duration"},
		{2, "ca create --key file:$D/x --attestation $D/a --name X --out $D/x.pem" + parent, "--generate"},
		{2, "ca crl --out $D/root.crl --revoke $D/root.pem=boredom" + parent, "the reason is one of"},
		{2, "ca rotate --key file:$D/x --out $D/x.pem" + parent, "expected an issuer, or --root"},
		{2, "ca rotate servers --root --key file:$D/x --out $D/x.pem" + parent, "expected an issuer, or --root"},
		{2, "key generate file:$D/x --type P-224", "--type"},
		{2, "key generate file:$D/x --touch-policy sometimes", "--touch-policy"},
		{1, "key generate file:$D/root.key", "exist"},
		{1, "key generate tpm:x", "tpm"},
		{1, "key show file:$D/nope.key", "no such file"},
		{1, "ca create --key file:$D/nope.key --name X --out $D/x.pem" + parent, "no such file"},
		{1, "ca create --key file:$D/root.key --name X --out $D/root.pem" + parent, "there already"},
		{1, "ca sign $D/root.pem --yes --out $D/x.pem" + parent, "has no PEM certificate request"},
		{1, "ca list --config $D/nope.yaml", "no such file"},
		{1, "ca rotate servers --config $D/nope.yaml --key file:$D/x --out $D/x.pem" + parent, "no such file"},
	} {
		_, said := s.run(t, c.code, c.line)
		if !strings.Contains(said, c.want) || strings.Count(said, "\n") != 1 {
			t.Errorf("chanceryd %s\nsays: %swant: %s", c.line, said, c.want)
		}
	}
	if names, _ := filepath.Glob(filepath.Join(s.dir, "*")); len(names) != 2 {
		t.Errorf("left behind: %q", names)
	}
}

// What the running server knows of the keys is in the list.
func TestListAsksServer(t *testing.T) {
	s := session{t.TempDir()}
	s.run(t, 0, "init $D/ca --name Example --dns ca.example.internal")
	path, socket := filepath.Join(s.dir, "ca", "chancery.yaml"), filepath.Join(s.dir, "admin.sock")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(`# listen: ":443"`, `listen: "127.0.0.1:0"`, "/run/chancery/admin.sock", socket, "127.0.0.1:9464", "127.0.0.1:0").Replace(string(data))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var log bytes.Buffer
	ended := make(chan int)
	go func() { ended <- run(ctx, []string{"serve", path}, &log, &log) }()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the server doesn't start")
		}
	}
	out, said := s.run(t, 0, "ca list --config $D/ca/chancery.yaml")
	if said != "" || strings.Count(out, "state        ready") != 2 || !strings.Contains(out, "in use by    1 certificates, the last of which ends") {
		t.Errorf("%s%s", out, said)
	}
	stop()
	if code := <-ended; code != 0 && code != 1 {
		t.Errorf("exit code %d\n%s", code, log.String())
	}
	// Without keys it serves a shared database, and an SQLite file is none.
	_, said = s.run(t, 1, "serve --publish-only $D/ca/chancery.yaml")
	if !strings.Contains(said, "PostgreSQL") || !strings.Contains(said, "chancery.yaml:") {
		t.Error(said)
	}
}
