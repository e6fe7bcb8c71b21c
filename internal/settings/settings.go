package settings

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// Settings is the whole file.
type Settings struct {
	// The CAs, tried in this order; enrolling and retiring reach all of them.
	CAs []CA `yaml:"cas"`
	// The security key; left out, the only one that is plugged in.
	Device Device `yaml:"device,omitempty"`
	// What `chancery login` gets.
	Certificates []Certificate `yaml:"certificates,omitempty"`
	// How operators prove who they are to the admin API.
	Operator Operator `yaml:"operator,omitempty"`
}

// CA is one certificate authority, independent of the others.
type CA struct {
	Name      string `yaml:"name"`            // what people call it
	Directory string `yaml:"directory"`       // the ACME directory's URL
	Roots     string `yaml:"roots,omitempty"` // a PEM file that its HTTPS is checked with; "": the system's
	// Where the admin API is: "https://ca.internal:8444" or
	// "unix:/run/chancery/admin.sock"; "": not for this user.
	Admin string `yaml:"admin,omitempty"`
	// The operator's certificate for this CA, which knows only its own; what is
	// left out is as in the settings' operator.
	Operator Operator `yaml:"operator,omitempty"`
}

// Device is a slot of a security key.
type Device struct {
	Serial uint32 `yaml:"serial,omitempty"`
	Slot   string `yaml:"slot,omitempty"` // "": 9a
}

// Certificate is one that login gets.
type Certificate struct {
	Name    string `yaml:"name"`         // for --only and --as, as in "tls"
	Kind    Kind   `yaml:"kind"`         // tls or ssh
	Profile string `yaml:"profile"`      // left out: the directory's own, for ssh "ssh-user"
	CA      string `yaml:"ca,omitempty"` // only from the CA of this name; left out: from the first that gives it
	// What is proven: dns names for tls; the person for ssh, "" being the
	// owner that the first name of the others begins with.
	Identifiers []string `yaml:"identifiers,omitempty"`
	// yubikey-01 certifies the key in the device, yubikey-02 a new key that
	// lives in memory and files.
	Challenge protocol.ChallengeType `yaml:"challenge"`
	// Where it is put: files, pkcs12, nss, keychain, slot, agent. Left out:
	// files for tls, agent for ssh.
	Into []string `yaml:"into,omitempty"`
	// How long it shall be good. Left out: 16h.
	For Duration `yaml:"for,omitempty"`
}

// Kind is what a certificate is for.
type Kind string

// The kinds.
const (
	TLS Kind = "tls"
	SSH Kind = "ssh"
)

// Operator is an operator's client certificate for the admin API over TLS.
type Operator struct {
	Certificate string `yaml:"certificate,omitempty"` // PEM file, leaf first
	Key         string `yaml:"key,omitempty"`         // a PEM file, or "yubikey:serial=…;slot=9a"
}

// Duration is a span as in "16h".
type Duration time.Duration

// UnmarshalText reads it.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// MarshalText writes it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// maxSize bounds the file.
const maxSize = 1 << 20

// Path is where the user's file is, whether there is one or not.
func Path() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "chancery", "config.yaml"), nil
}

// Load reads a file, strictly: errors name line and column. Where there is no
// such file the error is fs.ErrNotExist. Relative paths in it start at its
// folder.
func Load(path string) (*Settings, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxSize:
		return nil, fmt.Errorf("%s is longer than %d bytes", path, maxSize)
	}
	s := new(Settings)
	err = yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(s)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %s", path, yaml.FormatError(err, false, false))
	}
	for i := range s.CAs {
		s.CAs[i].Roots = under(path, s.CAs[i].Roots)
		s.CAs[i].Operator.under(path)
	}
	s.Operator.under(path)
	return s, nil
}

// under has relative paths start at a file's folder.
func (o *Operator) under(file string) {
	o.Certificate = under(file, o.Certificate)
	if !strings.HasPrefix(o.Key, "yubikey:") {
		o.Key = under(file, o.Key)
	}
}

// maxRoots bounds a file of roots.
const maxRoots = 1 << 20

// Roots reads a PEM file that a CA's HTTPS is checked with; "" is nil, which
// stands for the system's roots.
func Roots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRoots))
	if err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("roots: %s has no certificate in PEM", file)
	}
	return pool, nil
}

func under(file, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}

// Save writes a file that only its user can read, whole or not at all.
func Save(path string, s *Settings) error {
	data, err := yaml.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
