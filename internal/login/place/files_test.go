package place_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/login/place"
)

// nothing checks that no file is left, and that what is there is its owner's
// alone.
func nothing(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func private(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestFiles(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := newCA(t)
	for _, key := range []crypto.Signer{newKey(t), rsaKey(t), ed} {
		o := home(t)
		target := named(t, "files", o)
		dir := filepath.Join(o.RuntimeDir, "chancery", "tls")
		placed := put(t, target, ca.pair(t, "tls", key))
		c, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Certificate) != 2 {
			t.Errorf("the chain has %d certificates", len(c.Certificate))
		}
		if out := run(t, "openssl", "verify", "-CAfile", filepath.Join(dir, "root.pem"), "-untrusted", filepath.Join(dir, "cert.pem"), filepath.Join(dir, "cert.pem")); !strings.Contains(out, "OK") {
			t.Error(out)
		}
		private(t, filepath.Join(o.RuntimeDir, "chancery"))
		for range 2 {
			remove(t, target, placed)
			nothing(t, o.RuntimeDir)
		}
	}
}

// Without a folder in memory they are among the state.
func TestFilesState(t *testing.T) {
	o := home(t)
	o.RuntimeDir = filepath.Join(o.Home, "nowhere")
	target := named(t, "files", o)
	placed := put(t, target, newCA(t).pair(t, "tls", newKey(t)))
	if want := filepath.Join(o.Home, ".local/state/chancery/tls/cert.pem"); placed.Where[0] != want {
		t.Errorf("they are in %s, not %s", placed.Where[0], want)
	}
	private(t, filepath.Join(o.Home, ".local/state/chancery"))
	remove(t, target, placed)
	nothing(t, o.Home)
}

// A later certificate takes the place of an earlier one with all its files, and
// isn't removed by that one's record.
func TestFilesReplace(t *testing.T) {
	o, ca := home(t), newCA(t)
	target := named(t, "files", o)
	dir := filepath.Join(o.RuntimeDir, "chancery", "tls")
	first := put(t, target, ca.pair(t, "tls", newKey(t)))
	device := ca.pair(t, "tls", newKey(t))
	device.Key, device.Roots = nil, nil
	second := put(t, target, device)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "cert.pem" {
		t.Errorf("there are %v, %v", entries, err)
	}
	remove(t, target, first)
	if _, err := os.Stat(filepath.Join(dir, "cert.pem")); err != nil {
		t.Errorf("the first one's record removed the second: %v", err)
	}
	write(t, filepath.Join(dir, "mine.txt"), "the user's own", 0o600)
	remove(t, target, second)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Name() != "mine.txt" {
		t.Errorf("there are %v, %v", entries, err)
	}
}

// What was cut off is finished: half a removal, and a Put before its end.
func TestFilesHalfDone(t *testing.T) {
	o, ca := home(t), newCA(t)
	target := named(t, "files", o)
	dir := filepath.Join(o.RuntimeDir, "chancery", "tls")
	placed := put(t, target, ca.pair(t, "tls", newKey(t)))
	if err := os.Remove(filepath.Join(dir, "cert.pem")); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, ".new-123")
	write(t, left, "a key", 0o600)
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(left, old, old); err != nil {
		t.Fatal(err)
	}
	remove(t, target, placed)
	nothing(t, o.RuntimeDir)
}

// Where others could put something else there, nothing is written; links are
// followed neither in writing nor in removing.
func TestFilesUnsafe(t *testing.T) {
	ca := newCA(t)
	other := t.TempDir()
	victim := filepath.Join(other, "cert.pem")
	for about, c := range map[string]struct {
		spoil func(run string) error
		says  string
	}{
		"writable by the group": {func(run string) error { return os.Chmod(run, 0o770) }, "others can write"},
		"writable by all":       {func(run string) error { return os.Chmod(run, 0o1777) }, "others can write"},
		"our folder writable": {func(run string) error {
			if err := os.Mkdir(filepath.Join(run, "chancery"), 0o700); err != nil {
				return err
			}
			return os.Chmod(filepath.Join(run, "chancery"), 0o777)
		}, "others can write"},
		"our folder a link": {func(run string) error { return os.Symlink(other, filepath.Join(run, "chancery")) }, "symbolic link"},
		"its folder a link": {func(run string) error {
			if err := os.Mkdir(filepath.Join(run, "chancery"), 0o700); err != nil {
				return err
			}
			return os.Symlink(other, filepath.Join(run, "chancery", "tls"))
		}, "symbolic link"},
		"a file in the way": {func(run string) error { return os.WriteFile(filepath.Join(run, "chancery"), nil, 0o600) }, "in the way"},
		"somebody else's": {func(run string) error {
			if os.Geteuid() != 0 {
				return nil
			}
			return os.Chown(run, 65534, 65534)
		}, "belongs to user 65534"},
	} {
		if about == "somebody else's" && os.Geteuid() != 0 {
			continue // only root can give a folder away
		}
		o := home(t)
		if err := c.spoil(o.RuntimeDir); err != nil {
			t.Fatal(err)
		}
		_, err := named(t, "files", o).Put(t.Context(), ca.pair(t, "tls", newKey(t)))
		if err == nil {
			t.Errorf("%s: no error", about)
			continue
		}
		wants(t, err, c.says)
	}
	nothing(t, other)

	o := home(t)
	target := named(t, "files", o)
	dir := filepath.Join(o.RuntimeDir, "chancery", "tls")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, victim, "not ours", 0o600)
	for _, name := range []string{"cert.pem", "key.pem", ".new-1"} {
		if err := os.Symlink(victim, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	placed := put(t, target, ca.pair(t, "tls", newKey(t)))
	if text, err := os.ReadFile(victim); err != nil || string(text) != "not ours" {
		t.Errorf("a link was followed: %q, %v", text, err)
	}
	for _, name := range []string{"cert.pem", "key.pem"} {
		if info, err := os.Lstat(filepath.Join(dir, name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "cert.pem")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(dir, "cert.pem")); err != nil {
		t.Fatal(err)
	}
	wants(t, target.Remove(t.Context(), placed), "isn't a file")
	if _, err := os.Stat(victim); err != nil {
		t.Error(err)
	}
}

// Where one file can't be replaced, none is.
func TestFilesWhole(t *testing.T) {
	o, ca := home(t), newCA(t)
	target := named(t, "files", o)
	dir := filepath.Join(o.RuntimeDir, "chancery", "tls")
	put(t, target, ca.pair(t, "tls", newKey(t)))
	before, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "root.pem")), os.Mkdir(filepath.Join(dir, "root.pem"), 0o700)); err != nil {
		t.Fatal(err)
	}
	_, err = target.Put(t.Context(), ca.pair(t, "tls", newKey(t)))
	wants(t, err, "root.pem is a folder")
	if after, err := os.ReadFile(filepath.Join(dir, "cert.pem")); err != nil || string(after) != string(before) {
		t.Errorf("the certificate was replaced: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
		t.Errorf("there are %v, %v", entries, err)
	}
}

// Nobody reads a key in the moment before it is closed to them: watched while
// it is replaced over and over, no file of any name is open to others.
func TestFilesNeverOpen(t *testing.T) {
	o, ca := home(t), newCA(t)
	target := named(t, "files", o)
	old := umask(0) // the worst there is
	defer umask(old)
	pair := ca.pair(t, "tls", newKey(t))
	put(t, target, pair)
	dir := filepath.Join(o.RuntimeDir, "chancery", "tls")
	done := make(chan struct{})
	var looks int
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Error(err)
				return
			}
			for _, e := range entries {
				if info, err := e.Info(); err == nil && info.Mode().Perm()&0o077 != 0 {
					t.Errorf("%s has mode %v", e.Name(), info.Mode())
				}
			}
			looks++
		}
	})
	for range 100 {
		put(t, target, pair)
	}
	close(done)
	wg.Wait()
	private(t, filepath.Join(o.RuntimeDir, "chancery"))
	if looks == 0 {
		t.Error("nobody looked")
	}
}

// A record that was tampered with removes nothing else.
func TestFilesRecord(t *testing.T) {
	o := home(t)
	target := named(t, "files", o)
	placed := put(t, target, newCA(t).pair(t, "tls", newKey(t)))
	dir := filepath.Join(o.RuntimeDir, "chancery", "tls")
	mine := filepath.Join(dir, "mine")
	write(t, mine, "", 0o600)
	for _, where := range [][]string{nil, {mine}, {placed.Where[0], mine}, {"/etc/cert.pem"}, {"chancery/tls/cert.pem"}, {dir + "/../ssh/cert.pem"}} {
		bad := placed
		bad.Where = where
		if err := target.Remove(t.Context(), bad); err == nil {
			t.Errorf("%q is no record", where)
		}
	}
	for _, spoil := range []func(*place.Placed){
		func(p *place.Placed) { p.Target = "nss" }, func(p *place.Placed) { p.Name = "../tls" }, func(p *place.Placed) { p.Name = "other" },
	} {
		bad := placed
		spoil(&bad)
		if err := target.Remove(t.Context(), bad); err == nil {
			t.Errorf("%+v is no record", bad)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 4 {
		t.Errorf("there are %v, %v", entries, err)
	}
}

// ssh-keygen reads what PutSSH writes, and finds the certificate by the key.
func TestSSHFiles(t *testing.T) {
	o, key := home(t), newKey(t)
	authority, err := ssh.NewSignerFromSigner(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	certificate := func() []byte {
		c := &ssh.Certificate{Key: public, Serial: 7, CertType: ssh.UserCert, KeyId: "alice/1", ValidPrincipals: []string{"alice"}, ValidBefore: ssh.CertTimeInfinity}
		if err := c.SignCert(rand.Reader, authority); err != nil {
			t.Fatal(err)
		}
		return ssh.MarshalAuthorizedKey(c)
	}
	placed, err := place.PutSSH(o, place.SSHPair{Name: "ssh", Certificate: certificate(), Key: key})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(o.RuntimeDir, "chancery", "ssh")
	private(t, dir)
	if out := run(t, "ssh-keygen", "-L", "-f", filepath.Join(dir, "id-cert.pub")); !strings.Contains(out, `"alice/1"`) {
		t.Error(out)
	}
	of := strings.Fields(run(t, "ssh-keygen", "-y", "-f", filepath.Join(dir, "id")))
	want := strings.Fields(string(ssh.MarshalAuthorizedKey(public)))
	if of[1] != want[1] {
		t.Error("another key was written")
	}
	target := named(t, "files", o)
	later, err := place.PutSSH(o, place.SSHPair{Name: "ssh", Certificate: certificate()}) // the key is in the device now
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "id")); err == nil {
		t.Error("the old key is still there")
	}
	remove(t, target, placed)
	if _, err := os.Stat(filepath.Join(dir, "id-cert.pub")); err != nil {
		t.Error("the old record removed the new certificate")
	}
	remove(t, target, later)
	remove(t, target, later)
	nothing(t, o.RuntimeDir)

	for about, p := range map[string]place.SSHPair{
		"a plain key": {Name: "ssh", Certificate: ssh.MarshalAuthorizedKey(public)},
		"nonsense":    {Name: "ssh", Certificate: []byte("ssh-rsa")},
		"another key": {Name: "ssh", Certificate: certificate(), Key: newKey(t)},
		"no name":     {Certificate: certificate()},
	} {
		if _, err := place.PutSSH(o, p); err == nil {
			t.Errorf("it takes %s", about)
		}
	}
	_, err = place.PutSSH(place.Options{}, place.SSHPair{Name: "ssh", Certificate: certificate()})
	wants(t, err, "no home folder")
}

// OpenSSL and keytool's like read the bundle with the password beside it, or
// with the one given.
func TestPKCS12(t *testing.T) {
	o, ca := home(t), newCA(t)
	target := named(t, "pkcs12", o)
	first := put(t, target, ca.pair(t, "tls", newKey(t)))
	dir := filepath.Join(o.RuntimeDir, "chancery", "tls")
	bundle := filepath.Join(dir, "tls.p12")
	private(t, dir)
	show := func(password string) string {
		return run(t, "openssl", "pkcs12", "-in", bundle, "-passin", password, "-nodes", "-info")
	}
	out := show("file:" + bundle + ".password")
	for want, n := range map[string]int{"BEGIN CERTIFICATE": 2, "BEGIN PRIVATE KEY": 1, "AES-256-CBC": 2, "MAC: sha256": 1} {
		if strings.Count(out, want) != n {
			t.Errorf("%d times %q, not %d:\n%s", strings.Count(out, want), want, n, out)
		}
	}
	o.PKCS12Password = []byte("given")
	pair := ca.pair(t, "tls", rsaKey(t))
	second := put(t, named(t, "pkcs12", o), pair)
	if _, err := os.Stat(bundle + ".password"); err == nil {
		t.Error("the old password is still there")
	}
	block, _ := pem.Decode([]byte(show("pass:given")[strings.Index(show("pass:given"), "-----BEGIN CERT"):]))
	if block == nil || string(block.Bytes) != string(pair.Chain[0]) {
		t.Error("the first certificate isn't the leaf")
	}
	remove(t, target, first)
	if _, err := os.Stat(bundle); err != nil {
		t.Errorf("the first one's record removed the second: %v", err)
	}
	remove(t, target, second)
	remove(t, target, second)
	nothing(t, o.RuntimeDir)
}
