package place_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/chancery-pki/chancery/internal/login/place"
)

// database makes one with a password, "" being none.
func database(t *testing.T, dir, password string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "certutil", "-N", "-d", "sql:"+dir, "-f", passwordFile(t, password))
	return dir
}

// passwordFile holds a line; NSS takes an empty one for no password.
func passwordFile(t *testing.T, password string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	write(t, path, password+"\n", 0o600)
	return path
}

// count says how many keys and certificates of ours a database has.
func count(t *testing.T, dir, password string) (keys, certs int) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "certutil", "-K", "-d", "sql:"+dir, "-f", passwordFile(t, password)).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "no keys found") {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.Count(string(out), "<"), strings.Count(run(t, "certutil", "-L", "-d", "sql:"+dir), "chancery ")
}

func counts(t *testing.T, dir, password string, keys, certs int) {
	t.Helper()
	if k, c := count(t, dir, password); k != keys || c != certs {
		t.Errorf("%s has %d keys and %d certificates of ours, not %d and %d\n%s", dir, k, c, keys, certs, run(t, "certutil", "-L", "-d", "sql:"+dir))
	}
}

// Where there is no database, Chromium's is made; what comes out of it is what
// went in.
func TestNSS(t *testing.T) {
	ca, o := newCA(t), home(t)
	target, db := named(t, "nss", o), filepath.Join(o.Home, ".pki", "nssdb")
	for _, key := range []func() place.Pair{
		func() place.Pair { return ca.pair(t, "tls", newKey(t)) }, func() place.Pair { return ca.pair(t, "tls", rsaKey(t)) },
	} {
		pair := key()
		placed := put(t, target, pair)
		if !slices.Equal(placed.Where, []string{db}) {
			t.Fatalf("it is in %q", placed.Where)
		}
		counts(t, db, "", 1, 1)
		nick := nicknames(t, db)[0]
		out := filepath.Join(t.TempDir(), "out.p12")
		run(t, "pk12util", "-o", out, "-n", nick, "-d", "sql:"+db, "-W", "x", "-k", passwordFile(t, ""))
		if text := run(t, "openssl", "pkcs12", "-in", out, "-passin", "pass:x", "-nodes", "-legacy"); strings.Count(text, "BEGIN CERTIFICATE") < 2 || !strings.Contains(text, "BEGIN PRIVATE KEY") {
			t.Errorf("what is exported has not all:\n%s", text)
		}
		private(t, filepath.Join(o.Home, ".pki"))
		nothing(t, o.RuntimeDir)
		remove(t, target, placed)
		counts(t, db, "", 0, 0)
		remove(t, target, placed)
	}
	if err := os.RemoveAll(db); err != nil {
		t.Fatal(err)
	}
	remove(t, target, place.Placed{Target: "nss", Name: "tls", Where: []string{db}})
}

func nicknames(t *testing.T, db string) (all []string) {
	t.Helper()
	for line := range strings.Lines(run(t, "certutil", "-L", "-d", "sql:"+db)) {
		if strings.HasPrefix(line, "chancery ") {
			all = append(all, strings.Join(strings.Fields(line)[:3], " "))
		}
	}
	return all
}

// Certificates that share a subject, as all with an empty one do, aren't taken
// for one another.
func TestNSSReplace(t *testing.T) {
	ca, o := newCA(t), home(t)
	target, db := named(t, "nss", o), filepath.Join(o.Home, ".pki", "nssdb")
	keep := put(t, target, ca.pair(t, "admin", newKey(t)))
	theirs := ca.pair(t, "theirs", newKey(t))
	der := filepath.Join(t.TempDir(), "theirs.der")
	write(t, der, string(theirs.Chain[0]), 0o600)
	run(t, "certutil", "-A", "-d", "sql:"+db, "-n", "somebody else's", "-t", ",,", "-i", der)

	old := put(t, target, ca.pair(t, "tls", newKey(t)))
	counts(t, db, "", 2, 2)
	var now place.Placed
	for range 3 {
		now = put(t, target, ca.pair(t, "tls", newKey(t)))
		counts(t, db, "", 2, 2)
	}
	remove(t, target, old)
	counts(t, db, "", 2, 2)
	remove(t, target, now)
	counts(t, db, "", 1, 1)
	if n := nicknames(t, db); !strings.HasPrefix(n[0], "chancery admin ") {
		t.Errorf("%q is left", n)
	}
	remove(t, target, keep)
	counts(t, db, "", 0, 0)
	if out := run(t, "certutil", "-L", "-d", "sql:"+db); !strings.Contains(out, "somebody else's") {
		t.Errorf("another's certificate is gone:\n%s", out)
	}
}

// A removal that was cut off after the key goes on.
func TestNSSHalfDone(t *testing.T) {
	o := home(t)
	target, db := named(t, "nss", o), filepath.Join(o.Home, ".pki", "nssdb")
	placed := put(t, target, newCA(t).pair(t, "tls", newKey(t)))
	id := strings.Fields(nicknames(t, db)[0])[2]
	run(t, "certutil", "-F", "-d", "sql:"+db, "-k", id, "-f", passwordFile(t, ""))
	counts(t, db, "", 0, 1)
	remove(t, target, placed)
	counts(t, db, "", 0, 0)
}

// Roots are trusted where that is asked for, and only there.
func TestNSSTrust(t *testing.T) {
	o, ca := home(t), newCA(t)
	db := filepath.Join(o.Home, ".pki", "nssdb")
	put(t, named(t, "nss", o), ca.pair(t, "tls", newKey(t)))
	if out := run(t, "certutil", "-L", "-d", "sql:"+db); strings.Contains(out, "C") && strings.Contains(out, "C,") {
		t.Errorf("something is trusted:\n%s", out)
	}
	o.NSS.Trust = true
	put(t, named(t, "nss", o), ca.pair(t, "tls", newKey(t)))
	if out := run(t, "certutil", "-L", "-d", "sql:"+db); strings.Count(out, "C,,") != 1 || !strings.Contains(out, "chancery root ") {
		t.Errorf("the root isn't trusted:\n%s", out)
	}
}

// Each browser and profile gets it, from whichever place its kind of
// installation keeps the database in.
func TestNSSBrowsers(t *testing.T) {
	o := home(t)
	h := o.Home
	firefox, xdg := filepath.Join(h, ".mozilla", "firefox"), filepath.Join(h, ".config", "mozilla", "firefox")
	elsewhere := filepath.Join(h, "elsewhere")
	want := []string{
		filepath.Join(h, ".pki/nssdb"), filepath.Join(h, ".local/share/pki/nssdb"),
		filepath.Join(h, "snap/chromium/current/.pki/nssdb"), filepath.Join(h, ".var/app/org.chromium.Chromium/data/pki/nssdb"),
		filepath.Join(firefox, "ab.default"), filepath.Join(xdg, "cd.work"), elsewhere,
		filepath.Join(h, "snap/firefox/common/.mozilla/firefox/ef.default"),
	}
	for _, dir := range want {
		database(t, dir, "")
	}
	never := filepath.Join(firefox, "never-started")
	if err := os.Mkdir(never, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(firefox, "profiles.ini"), "[Install4F96D1932A9F858E]\nDefault=ab.default\n\n[Profile1]\nName=new\nIsRelative=1\nPath=never-started\n[Profile0]\r\nName=default\r\nIsRelative=1\r\nPath=ab.default\r\n[General]\nVersion=2\n", 0o600)
	write(t, filepath.Join(xdg, "profiles.ini"), "[Profile0]\nName=w\nIsRelative=1\nPath=cd.work\n\n[Profile1]\nIsRelative=0\nPath="+elsewhere+"\n", 0o600)
	write(t, filepath.Join(h, "snap/firefox/common/.mozilla/firefox/profiles.ini"), "[Profile0]\nPath=ef.default\n", 0o600)
	target := named(t, "nss", o)
	placed := put(t, target, newCA(t).pair(t, "tls", newKey(t)))
	slices.Sort(want)
	if got := slices.Sorted(slices.Values(placed.Where)); !slices.Equal(got, want) {
		t.Errorf("put into\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	remove(t, target, placed)
	for _, dir := range want {
		counts(t, dir, "", 0, 0)
	}
}

// A database with a password takes the right one, and an error elsewhere doesn't
// keep the others from it.
func TestNSSPassword(t *testing.T) {
	o, ca := home(t), newCA(t)
	open, closed := database(t, filepath.Join(o.Home, "open"), ""), database(t, filepath.Join(o.Home, "closed"), "s3cret")
	o.NSS.Databases = []string{closed, open}
	placed, err := named(t, "nss", o).Put(t.Context(), ca.pair(t, "tls", newKey(t)))
	wants(t, err, "--nss-password-file")
	if !slices.Equal(placed.Where, []string{open}) {
		t.Errorf("it is in %q", placed.Where)
	}
	counts(t, open, "", 1, 1)
	counts(t, closed, "s3cret", 0, 0)
	for given, says := range map[string]string{"wrong": "isn't the database's password", "two\nlines": "more than a line", "": "empty"} {
		o.NSS.Password = func(context.Context, string) ([]byte, error) { return []byte(given), nil }
		_, err := named(t, "nss", o).Put(t.Context(), ca.pair(t, "tls", newKey(t)))
		wants(t, err, says)
	}
	o.NSS.Password = func(context.Context, string) ([]byte, error) { return nil, errors.New("nobody there") }
	_, err = named(t, "nss", o).Put(t.Context(), ca.pair(t, "tls", newKey(t)))
	wants(t, err, "nobody there")
	var asked []string
	o.NSS.Password = func(_ context.Context, db string) ([]byte, error) {
		asked = append(asked, db)
		return []byte("s3cret"), nil
	}
	target := named(t, "nss", o)
	placed = put(t, target, ca.pair(t, "tls", newKey(t)))
	counts(t, closed, "s3cret", 1, 1)
	remove(t, target, placed)
	counts(t, closed, "s3cret", 0, 0)
	if !slices.Equal(asked, []string{closed, closed}) {
		t.Errorf("asked for %q", asked)
	}
	nothing(t, o.RuntimeDir)
}

// No password and no key is on a command line.
func TestNSSCommandLines(t *testing.T) {
	o := home(t)
	seen := wrap(t, "certutil", "pk12util")
	o.NSS.Databases = []string{database(t, filepath.Join(o.Home, "closed"), "s3cret-of-nss")}
	o.NSS.Password = func(context.Context, string) ([]byte, error) { return []byte("s3cret-of-nss"), nil }
	put(t, named(t, "nss", o), newCA(t).pair(t, "tls", newKey(t)))
	lines := seen()
	if strings.Contains(lines, "s3cret-of-nss") || strings.Contains(lines, " -W ") || strings.Contains(lines, " -K ") && strings.Contains(lines, "pk12util -K") {
		t.Errorf("a password is on a command line:\n%s", lines)
	}
	if !strings.Contains(lines, "pk12util -i") {
		t.Errorf("pk12util wasn't seen:\n%s", lines)
	}
}

// wrap notes the command lines of programs, which run.
func wrap(t *testing.T, names ...string) func() string {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	write(t, log, "", 0o600)
	for _, name := range names {
		real, err := exec.LookPath(name)
		if err != nil {
			t.Fatalf("%v: apt-get install libnss3-tools", err)
		}
		write(t, filepath.Join(dir, name), "#!/bin/sh\necho \""+name+" $*\" >>'"+log+"'\nexec "+real+" \"$@\"\n", 0o700)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() string {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}

// A database that a browser writes to at the moment is said to be in use, and
// takes the certificate afterwards.
func TestNSSLocked(t *testing.T) {
	o, ca := home(t), newCA(t)
	db := database(t, filepath.Join(o.Home, "profile"), "")
	o.NSS.Databases = []string{db}
	conn, err := sqlite.OpenConn(filepath.Join(db, "cert9.db"), sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := sqlitex.ExecuteTransient(conn, "BEGIN EXCLUSIVE", nil); err != nil {
		t.Fatal(err)
	}
	target := named(t, "nss", o)
	_, err = target.Put(t.Context(), ca.pair(t, "tls", newKey(t)))
	wants(t, err, "is the browser running?")
	if err := sqlitex.ExecuteTransient(conn, "ROLLBACK", nil); err != nil {
		t.Fatal(err)
	}
	put(t, target, ca.pair(t, "tls", newKey(t)))
	counts(t, db, "", 1, 1)
}

// What a person can do is said: no tools, and a browser that runs.
func TestNSSSays(t *testing.T) {
	o, ca := home(t), newCA(t)
	db := database(t, filepath.Join(o.Home, "profile"), "")
	o.NSS.Databases = []string{db}
	target := named(t, "nss", o)
	if err := os.Symlink("127.0.1.1:+4711", filepath.Join(db, "lock")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(db, "cert9.db"), 5); err != nil {
		t.Fatal(err)
	}
	_, err := target.Put(t.Context(), ca.pair(t, "tls", newKey(t)))
	wants(t, err, "is the browser running?")
	t.Setenv("PATH", t.TempDir())
	_, err = target.Put(t.Context(), ca.pair(t, "tls", newKey(t)))
	wants(t, err, "install libnss3-tools")
}
