package place

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"

	"github.com/chancery-pki/chancery/internal/yubikey"
)

// Pair is a TLS certificate to put somewhere.
type Pair struct {
	Name  string        // what its owner calls it, as in "tls"; see CheckName
	Chain [][]byte      // DER, leaf first, without the root
	Key   crypto.Signer // nil: the key is in the device
	Roots [][]byte      // DER; what the peers' certificates are checked with
}

// Target is one kind of place. Its methods may run programs and wait for
// people, and end with ctx.
type Target interface {
	// Put puts the pair there, in the place of the one of the same name; but the
	// stores of macOS and Windows keep that one until its Remove. With an error
	// comes what was done nevertheless, for Remove.
	Put(ctx context.Context, p Pair) (Placed, error)
	// Remove takes away what Put put, if it is still there.
	Remove(ctx context.Context, p Placed) error
}

// Placed says where a certificate is, so that logout and the next login can
// take it away. It is kept as JSON.
type Placed struct {
	Target string   `json:"target"` // for Named
	Name   string   `json:"name"`   // the pair's
	Where  []string `json:"where"`  // files, databases, slots
	Serial string   `json:"serial"` // the certificate's, in hex
	// Mark is what Remove knows it by: the SHA-256 of the leaf, of the file for
	// pkcs12, and the thumbprint (SHA-1) in the stores of macOS and Windows.
	Mark string `json:"mark"`
	// Was is the certificate that lay in the slot before (DER).
	Was []byte `json:"was,omitempty"`
}

// Options say what there is on this machine. Nothing is read from the
// environment here; but for Home, all may be left out.
type Options struct {
	Home       string // the user's home folder
	RuntimeDir string // $XDG_RUNTIME_DIR: in memory, and gone with the user's last session; "": none
	StateDir   string // $XDG_STATE_HOME, or %LOCALAPPDATA%; "": .local/state in Home
	ConfigDir  string // $XDG_CONFIG_HOME; "": .config in Home
	DataDir    string // $XDG_DATA_HOME; "": .local/share in Home
	OS         string // "": this one, in the words of runtime.GOOS

	// PKCS12Password encrypts the file; empty: a random one that lies beside it.
	PKCS12Password []byte
	NSS            NSS
	Slot           Slot
}

// NSS says what to do with the databases of Chromium and Firefox.
type NSS struct {
	// Databases are folders; left out: all that are found.
	Databases []string
	// Password gives a database's password; nil: none is known.
	Password func(ctx context.Context, database string) ([]byte, error)
	// Trust makes the pair's roots trusted for web servers.
	Trust bool
}

// Slot says which device and with what right.
type Slot struct {
	Cards *yubikey.Cards
	URI   string // as in "yubikey:serial=12345678;slot=9a"
	Set   yubikey.SetOptions
}

// Names are those that Named knows.
func Names() []string { return []string{"files", "pkcs12", "nss", "keychain", "slot"} }

// Named returns the target of a name: one of Names.
func Named(name string, o Options) (Target, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	switch name {
	case "files":
		return files{o}, nil
	case "pkcs12":
		return bundle{o}, nil
	case "nss":
		if o.OS == "windows" {
			return nil, errors.New("nss: its tools aren't on Windows: use keychain, which Chromium reads there, or pkcs12")
		}
		return nss{o}, nil
	case "keychain":
		switch o.OS {
		case "darwin":
			return keychain{o}, nil
		case "windows":
			return winstore{o}, nil
		}
		return nil, fmt.Errorf("keychain: there is none on %s: use nss for browsers, files or pkcs12 for the rest", o.OS)
	case "slot":
		if o.Slot.Cards == nil || o.Slot.URI == "" {
			return nil, errors.New("slot: no device is named")
		}
		return slot{o.Slot}, nil
	}
	return nil, fmt.Errorf("no place is called %q: one of %q", name, Names())
}

func (o *Options) fill() error {
	if !filepath.IsAbs(o.Home) {
		return fmt.Errorf("no home folder (%q): set HOME", o.Home)
	}
	if o.OS == "" {
		o.OS = runtime.GOOS
	}
	for _, d := range []struct {
		dir *string
		def []string
	}{{&o.StateDir, []string{".local", "state"}}, {&o.ConfigDir, []string{".config"}}, {&o.DataDir, []string{".local", "share"}}} {
		// "All paths must be absolute"; others count as not set (XDG).
		if !filepath.IsAbs(*d.dir) {
			*d.dir = filepath.Join(append([]string{o.Home}, d.def...)...)
		}
	}
	if !filepath.IsAbs(o.RuntimeDir) {
		o.RuntimeDir = ""
	}
	return nil
}

// CheckName refuses names that can't be a file's everywhere.
func CheckName(name string) error {
	if !goodName.MatchString(name) {
		return fmt.Errorf("certificate name %q: up to 64 letters, digits, '.', '_' and '-', a letter or digit first", name)
	}
	return nil
}

var goodName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// leaf checks the pair and returns its first certificate.
func (p Pair) leaf() (*x509.Certificate, error) {
	if err := CheckName(p.Name); err != nil {
		return nil, err
	}
	if len(p.Chain) == 0 {
		return nil, fmt.Errorf("%s: no certificate", p.Name)
	}
	for _, der := range slices.Concat(p.Chain, p.Roots) {
		if _, err := x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	c, err := x509.ParseCertificate(p.Chain[0])
	if err != nil {
		return nil, err
	}
	if p.Key != nil {
		public, ok := p.Key.Public().(interface{ Equal(crypto.PublicKey) bool })
		if !ok || !public.Equal(c.PublicKey) {
			return nil, fmt.Errorf("%s: the key isn't the certificate's", p.Name)
		}
	}
	return c, nil
}

// exportable is leaf for places that need the key itself.
func (p Pair) exportable(target, instead string) (*x509.Certificate, error) {
	c, err := p.leaf()
	if err == nil && p.Key == nil {
		err = fmt.Errorf("%s: the key of %s can't leave the device: use %s", target, p.Name, instead)
	}
	return c, err
}

// placed begins the record of a certificate.
func (p Pair) placed(target string, leaf *x509.Certificate) Placed {
	return Placed{Target: target, Name: p.Name, Serial: serial(leaf), Mark: mark(leaf.Raw)}
}

func serial(c *x509.Certificate) string { return fmt.Sprintf("%x", c.SerialNumber) }

func mark(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// check refuses a record that isn't this target's, since it comes from a file.
func (p Placed) check(target string) error {
	if p.Target != target {
		return fmt.Errorf("%s: a record of %q", target, p.Target)
	}
	return CheckName(p.Name)
}
