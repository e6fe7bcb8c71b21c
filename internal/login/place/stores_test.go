package place_test

import (
	"crypto/sha1"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/login/place"
)

// stand puts a program on PATH that notes its arguments, its input and the
// variables that are for it, and keeps the file that it is given.
func stand(t *testing.T, name, script string) (seen func() string, kept string) {
	t.Helper()
	dir := t.TempDir()
	log, kept := filepath.Join(dir, "log"), filepath.Join(dir, "kept")
	write(t, log, "", 0o600)
	write(t, filepath.Join(dir, name), fmt.Sprintf("#!/bin/sh\nLOG='%s' KEPT='%s'\nfor a; do printf '<%%s>' \"$a\" >>$LOG; done\nenv | grep -E '^CHANCERY_(PFX|THUMBPRINT)=' >>$LOG\n%s\n", log, kept, script), 0o700)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() string {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		write(t, log, "", 0o600)
		return string(text)
	}, kept
}

func sha1Of(der []byte) string { return fmt.Sprintf("%X", sha1.Sum(der)) }

// A stand-in for security(1) sees what macOS would: this shows the command
// lines, not that macOS takes them.
func TestKeychain(t *testing.T) {
	o := home(t)
	o.OS = "darwin"
	pair := newCA(t).pair(t, "tls", newKey(t))
	thumb := sha1Of(pair.Chain[0])
	seen, kept := stand(t, "security", `case $1 in
import) cp "$2" $KEPT;;
find-certificate) [ ! -e $KEPT ] || echo "SHA-1 hash: `+thumb+`";;
delete-identity) rm $KEPT;;
esac`)
	target := named(t, "keychain", o)
	placed := put(t, target, pair)
	line := seen()
	keychain := filepath.Join(o.Home, "Library/Keychains/login.keychain-db")
	if !strings.HasPrefix(line, "<import><") || !strings.Contains(line, "pair.p12><-k><"+keychain+"><-f><pkcs12><-x><-P><") {
		t.Errorf("%s", line)
	}
	password := strings.TrimRight(line[strings.Index(line, "<-P><")+5:], ">\n")
	if out := run(t, "openssl", "pkcs12", "-in", kept, "-passin", "pass:"+password, "-nodes"); strings.Count(out, "BEGIN CERTIFICATE") != 2 || !strings.Contains(out, "PRIVATE KEY") {
		t.Errorf("the file has not all:\n%s", out)
	}
	nothing(t, o.RuntimeDir) // the key's file least of all
	remove(t, target, placed)
	if line := seen(); !strings.Contains(line, "<delete-identity><-Z><"+thumb+"><"+keychain+">") {
		t.Errorf("%s", line)
	}
	remove(t, target, placed)
	if line := seen(); strings.Contains(line, "delete") {
		t.Errorf("what isn't there is deleted: %s", line)
	}
	none := placed
	none.Mark = ""
	write(t, kept, "", 0o600)
	remove(t, target, none)
	if line := seen(); strings.Contains(line, "delete") {
		t.Errorf("a record without mark deletes: %s", line)
	}
}

// The same for Windows.
func TestWindowsStore(t *testing.T) {
	o := home(t)
	o.OS = "windows"
	pair := newCA(t).pair(t, "tls", newKey(t))
	seen, kept := stand(t, "powershell.exe", `read -r password; printf %s "$password" >$KEPT.password
[ -z "$CHANCERY_PFX" ] || cp "$CHANCERY_PFX" $KEPT`)
	target := named(t, "keychain", o)
	placed := put(t, target, pair)
	line := seen()
	for _, want := range []string{"<-NoProfile><-NonInteractive><-Command><", "Import-PfxCertificate -FilePath $env:CHANCERY_PFX", "CHANCERY_PFX=" + o.RuntimeDir} {
		if !strings.Contains(line, want) {
			t.Errorf("no %q in %s", want, line)
		}
	}
	password, err := os.ReadFile(kept + ".password")
	if err != nil || len(password) < 20 || strings.Contains(line, string(password)) {
		t.Errorf("the password isn't the input's alone: %q, %v", password, err)
	}
	run(t, "openssl", "pkcs12", "-in", kept, "-passin", "file:"+kept+".password", "-nodes")
	nothing(t, o.RuntimeDir)
	remove(t, target, placed)
	if line := seen(); !strings.Contains(line, "CHANCERY_THUMBPRINT="+sha1Of(pair.Chain[0])) || !strings.Contains(line, "-DeleteKey") {
		t.Errorf("%s", line)
	}
	remove(t, target, place.Placed{Target: "keychain", Name: "tls", Mark: "*"})
	if line := seen(); line != "" {
		t.Errorf("a record without a thumbprint runs %s", line)
	}
}

// What the tool says reaches the person.
func TestStoreFails(t *testing.T) {
	o := home(t)
	o.OS = "darwin"
	stand(t, "security", "echo first; echo 'SecKeychainItemImport: User interaction is not allowed.'; exit 1")
	_, err := named(t, "keychain", o).Put(t.Context(), newCA(t).pair(t, "tls", newKey(t)))
	wants(t, err, "User interaction is not allowed.")
	nothing(t, o.RuntimeDir)
}
