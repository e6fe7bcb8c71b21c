package place

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
)

// nss is the target for Chromium and Firefox: their databases, changed by NSS's
// own tools.
//
// NSS finds certificates by nickname and by subject, and takes any of those
// that share one: it was seen to delete another certificate with the same
// (empty) subject. So the nickname ends in the key's ID, by which NSS
// deletes exactly that key, and no two certificates share it.
type nss struct{ o Options }

// nickname is "chancery NAME KEYID".
func nickname(name, id string) string { return "chancery " + name + " " + id }

// keyID is NSS's CKA_ID of a key: the SHA-1 of its public value.
func keyID(public crypto.PublicKey) (string, error) {
	var value []byte
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		var err error
		if value, err = k.Bytes(); err != nil {
			return "", err
		}
	case *rsa.PublicKey:
		value = k.N.Bytes()
	default:
		return "", fmt.Errorf("nss: browsers take RSA and ECDSA keys, not %T", public)
	}
	sum := sha1.Sum(value)
	return hex.EncodeToString(sum[:]), nil
}

// toImport are files for the tools.
type toImport struct {
	name, id       string
	leaf           *x509.Certificate
	roots          [][]byte
	dir            string // of these:
	p12, password  string
	leafFile, none string
}

// Put imports the pair into all databases; an error of one doesn't keep it from
// the others.
func (t nss) Put(ctx context.Context, p Pair) (Placed, error) {
	leaf, err := p.exportable("nss", "slot, and load a PKCS#11 module into the browser")
	if err != nil {
		return Placed{}, err
	}
	id, err := keyID(leaf.PublicKey)
	if err != nil {
		return Placed{}, err
	}
	if err := tools(); err != nil {
		return Placed{}, err
	}
	databases := t.o.NSS.Databases
	if len(databases) == 0 {
		databases = t.o.browsers()
	}
	if len(databases) == 0 { // where both Chromium and NSS look first
		databases = []string{filepath.Join(t.o.Home, ".pki", "nssdb")}
	}
	placed := p.placed("nss", leaf)
	var failed []error
	err = t.o.scratch(func(dir string) error {
		in := toImport{name: p.Name, id: id, leaf: leaf, roots: p.Roots, dir: dir}
		if err := in.write(p); err != nil {
			return err
		}
		for _, db := range databases {
			if err := t.into(ctx, db, in); err != nil {
				failed = append(failed, fmt.Errorf("nss: %s: %w", db, explain(db, err)))
				continue
			}
			placed.Where = append(placed.Where, db)
		}
		return errors.Join(failed...)
	})
	return placed, err
}

func tools() error {
	for _, name := range []string{"certutil", "pk12util"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("nss: %s isn't there: install libnss3-tools (Debian), nss-tools (Fedora) or nss (Arch, Homebrew)", name)
		}
	}
	return nil
}

// write makes the files. The chain is imported with the key: certificates that
// the database has already keep their names and their trust.
func (in *toImport) write(p Pair) error {
	password := rand.Text()
	data, err := p.encode(pkcs12.Modern2023, password)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		path *string
		name string
		data []byte
	}{
		{&in.p12, "pair.p12", data}, {&in.password, "password", []byte(password + "\n")},
		{&in.leafFile, "leaf.der", in.leaf.Raw}, {&in.none, "none", []byte("\n")},
	} {
		*f.path = filepath.Join(in.dir, f.name)
		if err := os.WriteFile(*f.path, f.data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// into imports into one database.
func (t nss) into(ctx context.Context, db string, in toImport) error {
	if _, err := os.Stat(filepath.Join(db, "cert9.db")); err != nil {
		if err := os.MkdirAll(db, 0o700); err != nil {
			return err
		}
		if _, err := tool(ctx, nil, "", "certutil", "-N", "-d", "sql:"+db, "--empty-password"); err != nil {
			return err
		}
	}
	password, err := t.password(ctx, db, in.dir)
	if err != nil {
		return err
	}
	if err := t.forget(ctx, db, password, in.name, func(*x509.Certificate) bool { return true }); err != nil {
		return err
	}
	nick := nickname(in.name, in.id)
	for _, args := range [][]string{
		// First the certificate, which gives the nickname, then the key to it.
		{"certutil", "-A", "-d", "sql:" + db, "-f", password, "-n", nick, "-t", ",,", "-i", in.leafFile},
		{"pk12util", "-i", in.p12, "-d", "sql:" + db, "-k", password, "-w", in.password},
	} {
		if _, err := tool(ctx, nil, "", args[0], args[1:]...); err != nil {
			return err
		}
	}
	if keys, err := tool(ctx, nil, "", "certutil", "-K", "-d", "sql:"+db, "-f", password); err != nil || !strings.Contains(keys, in.id) {
		return errors.Join(errors.New("the key isn't there after the import"), err)
	}
	if !t.o.NSS.Trust {
		return nil
	}
	return t.trust(ctx, db, password, in)
}

// trust makes the roots trusted for web servers. They stay: they are a setting,
// and no secret.
func (t nss) trust(ctx context.Context, db, password string, in toImport) error {
	for _, der := range in.roots {
		path := filepath.Join(in.dir, "root.der")
		if err := os.WriteFile(path, der, 0o600); err != nil {
			return err
		}
		if _, err := tool(ctx, nil, "", "certutil", "-A", "-d", "sql:"+db, "-f", password, "-n", "chancery root "+mark(der)[:16], "-t", "C,,", "-i", path); err != nil {
			return err
		}
	}
	return nil
}

// password returns a file with the database's password, which is tried.
func (t nss) password(ctx context.Context, db, dir string) (string, error) {
	path := filepath.Join(dir, "none") // NSS takes an empty line, not an empty file
	if err := os.WriteFile(path, []byte("\n"), 0o600); err != nil {
		return "", err
	}
	wrong := func() (bool, error) {
		// Fails as well where there are no keys.
		out, err := tool(ctx, nil, "", "certutil", "-K", "-d", "sql:"+db, "-f", path)
		if err == nil || strings.Contains(out, "no keys found") {
			return false, nil
		}
		return strings.Contains(out, "SEC_ERROR_BAD_PASSWORD"), err
	}
	bad, err := wrong()
	if !bad {
		return path, err
	}
	if t.o.NSS.Password == nil {
		return "", errors.New("the database has a password (Firefox's primary password): put it into a file and name that with --nss-password-file")
	}
	secret, err := t.o.NSS.Password(ctx, db)
	if err != nil {
		return "", err
	}
	defer clear(secret)
	if len(secret) == 0 || bytes.ContainsAny(secret, "\r\n") {
		return "", errors.New("the database's password is empty or more than a line")
	}
	path = filepath.Join(dir, "secret")
	if err := os.WriteFile(path, append(secret, '\n'), 0o600); err != nil {
		return "", err
	}
	if bad, err = wrong(); bad {
		err = errors.New("that isn't the database's password")
	}
	return path, err
}

// listed is a line of certutil -L: nickname and trust.
var listed = regexp.MustCompile(`^(chancery ([A-Za-z0-9._-]+) ([0-9a-f]{40})) +[A-Za-z]*,[A-Za-z]*,[A-Za-z]* *$`)

// forget deletes the keys and certificates of a name that are wanted away.
func (t nss) forget(ctx context.Context, db, password, name string, which func(*x509.Certificate) bool) error {
	out, err := tool(ctx, nil, "", "certutil", "-L", "-d", "sql:"+db, "-f", password)
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		m := listed.FindStringSubmatch(strings.TrimRight(line, "\r\n"))
		if m == nil || m[2] != name {
			continue
		}
		is, err := t.has(ctx, db, m[1], m[3], which)
		if err != nil {
			return err
		}
		if !is {
			continue
		}
		// The key first: without it the certificate is of no use, and as long
		// as that is there, a removal that was cut off is begun again.
		if out, err := tool(ctx, nil, "", "certutil", "-F", "-d", "sql:"+db, "-f", password, "-k", m[3]); err != nil && !strings.Contains(out, "is not a key-id") {
			return err
		}
		if _, err := tool(ctx, nil, "", "certutil", "-D", "-d", "sql:"+db, "-f", password, "-n", m[1]); err != nil {
			return err
		}
	}
	return nil
}

// has looks for the certificate among those that NSS shows for a nickname,
// which are all with the same subject.
func (t nss) has(ctx context.Context, db, nick, id string, which func(*x509.Certificate) bool) (bool, error) {
	out, err := tool(ctx, nil, "", "certutil", "-L", "-d", "sql:"+db, "-n", nick, "-a")
	if err != nil {
		return false, err
	}
	for rest := []byte(out); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return false, nil
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			continue
		}
		if its, err := keyID(c.PublicKey); err == nil && its == id && which(c) {
			return true, nil
		}
	}
}

// explain says what to do about a database in use.
func explain(db string, err error) error {
	text := err.Error()
	// Firefox's lock is a dangling link (Linux) or a file (macOS); the rest is
	// what NSS was seen to say while another process writes, or holds the lock.
	_, running := os.Lstat(filepath.Join(db, "lock"))
	if running == nil || inUse.MatchString(text) {
		return fmt.Errorf("%w (is the browser running? close it and log in again)", err)
	}
	return err
}

var inUse = regexp.MustCompile(`SEC_ERROR_(BUSY|BAD_DATABASE|PKCS11_GENERAL_ERROR)|locked`)

// Remove deletes key and certificate from the databases that have them.
func (t nss) Remove(ctx context.Context, p Placed) error {
	if err := p.check("nss"); err != nil {
		return err
	}
	if err := tools(); err != nil {
		return err
	}
	return t.o.scratch(func(dir string) error {
		var failed []error
		for _, db := range p.Where {
			if err := t.outOf(ctx, db, dir, p); err != nil {
				failed = append(failed, fmt.Errorf("nss: %s: %w", db, explain(db, err)))
			}
		}
		return errors.Join(failed...)
	})
}

func (t nss) outOf(ctx context.Context, db, dir string, p Placed) error {
	if !filepath.IsAbs(db) {
		return errors.New("not a database's path")
	}
	if _, err := os.Stat(filepath.Join(db, "cert9.db")); errors.Is(err, os.ErrNotExist) {
		return nil // profiles come and go
	}
	password, err := t.password(ctx, db, dir)
	if err != nil {
		return err
	}
	return t.forget(ctx, db, password, p.Name, func(c *x509.Certificate) bool { return mark(c.Raw) == p.Mark })
}
