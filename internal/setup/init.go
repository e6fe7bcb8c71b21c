package setup

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/setup/ceremony"
	"github.com/chancery-pki/chancery/internal/signer"
)

// KeyChoice says which algorithms the CAs' own keys have.
type KeyChoice string

// ECDSA is right for nearly everybody; RSA is for the few that know no ECDSA
// chain; Both runs the two side by side, with a root each.
const (
	ECDSA KeyChoice = "ecdsa"
	RSA   KeyChoice = "rsa"
	Both  KeyChoice = "both"
)

// kinds returns the key types of a choice, with the ending of their files.
func (k KeyChoice) kinds() ([]kind, error) {
	ecdsa := kind{"", "", cert.P256, cert.P384}
	rsa := kind{"-rsa", " RSA", cert.RSA3072, cert.RSA4096}
	switch k {
	case ECDSA, "":
		return []kind{ecdsa}, nil
	case RSA:
		rsa.suffix, rsa.label = "", ""
		return []kind{rsa}, nil
	case Both:
		return []kind{ecdsa, rsa}, nil
	}
	return nil, fmt.Errorf("key type %q: want ecdsa, rsa or both", k)
}

type kind struct {
	suffix, label string
	issuing, root cert.KeyType
}

// Init says what CA to make.
type Init struct {
	Dir          string
	Name         string // for people: "Example"
	DNS          string // where clients reach it: "ca.internal"
	KeyType      KeyChoice
	RootCert     string // a root brought along; "" makes one
	RootKey      string // its key
	RootPassword []byte // of the root's key; nil for a new one: a passphrase is made
	Kubernetes   string // the domain of the cluster that the server is to run in, and whose pods it certifies; "" for none
	SSH          bool   // SSH CA keys for users and hosts, and a directory for people
	Constrain    bool   // the issuing CAs may name only what lies under DNS's parent domain, and under the cluster's
	Overrides    func(*config.Example)
}

// Made is what an Init made.
type Made struct {
	Config     string   // path of chancery.yaml
	Roots      []string // certificates to trust
	RootKeys   []string // to be taken offline; none for a root brought along
	Bundle     string   // all roots in one file
	Passphrase string   // of the root keys, where one was made up: shown once
	Domain     string   // what may be issued: names below this

	files []string // all but the configuration, which comes last
}

// write writes a new file and remembers it.
func (m *Made) write(path string, data []byte, mode fs.FileMode) error {
	err := ceremony.WriteNew(path, data, mode)
	if err == nil {
		m.files = append(m.files, path)
	}
	return err
}

// key makes a new key in a file and remembers it.
func (m *Made) key(typ cert.KeyType, path string, password []byte) (crypto.Signer, error) {
	key, err := signer.Generate(typ, path, password)
	if err == nil {
		m.files = append(m.files, path)
	}
	return key, err
}

// Run makes the root (or takes the one brought along), an issuing CA for
// servers and one for clients under it, and the configuration, in a folder
// that holds no CA yet. Everything is on disk when it returns.
func (in Init) Run(ctx context.Context) (made *Made, err error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	kinds, err := in.KeyType.kinds()
	if err != nil {
		return nil, err
	}
	if in.RootCert != "" && len(kinds) > 1 {
		return nil, errors.New("a root brought along goes with one key type: choose ecdsa or rsa")
	}
	made = &Made{Config: filepath.Join(in.Dir, "chancery.yaml"), Bundle: filepath.Join(in.Dir, "roots.pem"), Domain: in.domain()}
	if _, err := os.Lstat(made.Config); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is there already: this folder has a CA; choose another", made.Config)
	}
	if err := in.folders(); err != nil {
		return nil, err
	}
	defer func() {
		if err = errors.Join(err, in.settle(made, err != nil)); err != nil {
			made = nil
		}
	}()
	return made, in.make(ctx, kinds, made)
}

// folders makes those that the CA is made in.
func (in Init) folders() error {
	for _, folder := range []string{in.Dir, filepath.Join(in.Dir, "root"), filepath.Join(in.Dir, "ca")} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// settle takes back what was made before something failed, so that the next
// try finds an empty folder; else it sees the files' names to the disk.
func (in Init) settle(made *Made, failed bool) error {
	if failed {
		for _, file := range made.files {
			os.Remove(file) // what can't be removed is in the next try's way, which says so
		}
		return nil
	}
	for _, folder := range []string{in.Dir, filepath.Join(in.Dir, "root"), filepath.Join(in.Dir, "ca")} {
		if err := ceremony.SyncFolder(folder); err != nil {
			return err
		}
	}
	return nil
}

// make makes the roots, the issuing CAs and the configuration.
func (in Init) make(ctx context.Context, kinds []kind, made *Made) error {
	if in.RootCert == "" && in.RootPassword == nil {
		made.Passphrase = newPassphrase()
		in.RootPassword = []byte(made.Passphrase)
	}
	example := in.example(made.Domain)
	var bundle []byte
	for _, k := range kinds {
		root, key, err := in.root(ctx, k, made)
		if err != nil {
			return err
		}
		bundle = append(bundle, ceremony.EncodeCertificate(root)...)
		for _, usage := range usages {
			i, err := in.issuing(k, usage, root, key, made)
			if err != nil {
				return err
			}
			example.Issuers = append(example.Issuers, i)
		}
	}
	if err := made.write(made.Bundle, bundle, 0o644); err != nil {
		return err
	}
	if in.SSH {
		if err := in.sshKeys(made); err != nil {
			return err
		}
	}
	if in.Overrides != nil {
		in.Overrides(&example)
	}
	return writeConfig(made.Config, example)
}

func (in Init) check() error {
	switch {
	case in.Name == "" || len(in.Name) > 40:
		return errors.New("the CA needs a name of at most 40 characters, as in --name Example")
	case (in.RootCert == "") != (in.RootKey == ""):
		return errors.New("--root-cert and --root-key come together")
	case in.RootCert == "" && in.RootPassword != nil && len(in.RootPassword) == 0:
		return errors.New("the root's password is empty; its key must not be kept in clear")
	}
	if in.Kubernetes == "" {
		return in.checkDNS()
	}
	if id, err := protocol.ParseIdentifier(string(protocol.DNS), in.Kubernetes); err != nil || id.Value != in.Kubernetes || id.IsWildcard() {
		return fmt.Errorf("--kubernetes: %q is not a cluster's domain, as cluster.local is", in.Kubernetes)
	}
	return in.checkDNS()
}

func (in Init) checkDNS() error {
	if _, err := netip.ParseAddr(in.DNS); err == nil {
		return nil
	}
	id, err := protocol.ParseIdentifier(string(protocol.DNS), in.DNS)
	if err != nil {
		return fmt.Errorf("--dns: %s", protocol.AsProblem(err).Detail)
	}
	if id.IsWildcard() {
		return errors.New("--dns: the CA's own name can't be a wildcard")
	}
	return nil
}

// domain is what the CA issues for: the cluster's, or the one that it lives in.
func (in Init) domain() string { return cmp.Or(in.Kubernetes, parentDomain(in.DNS)) }

// parentDomain is the domain that a host lives in.
func parentDomain(dns string) string {
	if _, parent, ok := strings.Cut(dns, "."); ok {
		if _, err := netip.ParseAddr(dns); err != nil {
			return strings.ToLower(parent)
		}
	}
	return strings.ToLower(dns)
}

func (in Init) example(domain string) config.Example {
	e := config.Example{
		Name: in.Name, ExternalURL: "https://" + strings.ToLower(in.DNS), Database: "chancery.db", SSH: in.SSH,
		AdminSocket: "/run/chancery/admin.sock", Metrics: "127.0.0.1:9464", Allow: []string{"*." + domain},
	}
	if _, err := netip.ParseAddr(domain); err == nil {
		e.Allow = []string{domain}
	}
	if in.SSH {
		e.Publish, e.PublishURL = ":8080", "http://"+net.JoinHostPort(strings.ToLower(in.DNS), "8080")
	}
	if in.Kubernetes != "" { // as deploy/kubernetes has it
		e.Kubernetes, e.Listen, e.Database = in.Kubernetes, ":8443", "/var/lib/chancery/chancery.db"
	}
	return e
}

// root makes the root of one kind, or reads the one brought along.
func (in Init) root(ctx context.Context, k kind, made *Made) (*x509.Certificate, crypto.Signer, error) {
	certFile := filepath.Join(in.Dir, "root", "root"+k.suffix+".pem")
	if in.RootCert != "" {
		root, key, err := in.given(ctx)
		if err != nil {
			return nil, nil, err
		}
		made.Roots = append(made.Roots, certFile)
		return root, key, made.write(certFile, ceremony.EncodeCertificate(root), 0o644)
	}
	keyFile := filepath.Join(in.Dir, "root", "root"+k.suffix+".key")
	key, err := made.key(k.root, keyFile, in.RootPassword)
	if err != nil {
		return nil, nil, err
	}
	root, err := issuer.NewRoot(key, issuer.CA{CommonName: in.Name + k.label + " Root CA", Organization: in.Name, Now: time.Now()})
	if err != nil {
		return nil, nil, err
	}
	made.Roots, made.RootKeys = append(made.Roots, certFile), append(made.RootKeys, keyFile)
	return root, key, made.write(certFile, ceremony.EncodeCertificate(root), 0o644)
}

func (in Init) given(ctx context.Context) (*x509.Certificate, crypto.Signer, error) {
	root, err := ceremony.ReadCertificate(in.RootCert)
	if err != nil {
		return nil, nil, fmt.Errorf("--root-cert: %w", err)
	}
	key, err := signer.Open(ctx, "file:"+in.RootKey, signer.Options{
		Password: func(context.Context) ([]byte, error) { return in.RootPassword, nil },
	})
	if err != nil {
		return nil, nil, fmt.Errorf("--root-key: %w", err)
	}
	return root, key, nil
}

// usages are what there is an issuing CA for.
var usages = []cert.Usage{cert.Server, cert.Client}

// exampleIssuer describes the issuing CA of one usage in the configuration.
func exampleIssuer(k kind, usage cert.Usage) config.ExampleIssuer {
	name := string(usage) + "s" + k.suffix
	return config.ExampleIssuer{
		Name: name, Profile: string(usage) + k.suffix, Usage: usage, Chain: filepath.Join("root", "root"+k.suffix+".pem"),
		Signers: []config.Signer{{Key: "file:" + filepath.Join("ca", name+".key"), Certificate: filepath.Join("ca", name+".pem")}},
	}
}

// issuing makes one issuing CA, whose files carry the plural of its usage.
func (in Init) issuing(k kind, usage cert.Usage, root *x509.Certificate, rootKey crypto.Signer, made *Made) (config.ExampleIssuer, error) {
	name := string(usage) + "s" + k.suffix
	what := map[cert.Usage]string{cert.Server: "Server", cert.Client: "Client"}[usage]
	ca := issuer.CA{
		CommonName: in.Name + k.label + " " + what + " CA", Organization: in.Name, Now: time.Now(), Usages: []cert.Usage{usage},
	}
	if in.Constrain {
		in.constrain(&ca)
	}
	i := exampleIssuer(k, usage)
	key, err := made.key(k.issuing, filepath.Join(in.Dir, "ca", name+".key"), nil)
	if err != nil {
		return i, err
	}
	c, err := issuer.NewIntermediate(root, rootKey, key.Public(), ca)
	if err != nil {
		return i, err
	}
	return i, made.write(filepath.Join(in.Dir, "ca", name+".pem"), ceremony.EncodeCertificate(c), 0o644)
}

// constrain permits what the CA issues for, and the server's own name, which
// may lie outside the cluster's domain.
func (in Init) constrain(ca *issuer.CA) {
	domains := []string{in.domain()}
	if own := parentDomain(in.DNS); own != domains[0] {
		domains = append(domains, own)
	}
	for _, domain := range domains {
		if addr, err := netip.ParseAddr(domain); err == nil {
			ca.PermittedIPs = append(ca.PermittedIPs, netip.PrefixFrom(addr, addr.BitLen()))
		} else {
			ca.PermittedDNS = append(ca.PermittedDNS, domain)
		}
	}
}

// sshKeys makes the SSH CA keys, for users and for hosts: who has the one can't
// pass for the other.
func (in Init) sshKeys(made *Made) error {
	typ := cert.Ed25519
	if in.KeyType == RSA { // whose reason may be an HSM, or software of long ago
		typ = cert.RSA3072
	}
	for _, name := range []string{"ssh-users", "ssh-hosts"} {
		key, err := made.key(typ, filepath.Join(in.Dir, "ca", name+".key"), nil)
		if err != nil {
			return err
		}
		line, err := ceremony.SSHLine(key.Public(), in.Name+" "+name)
		if err != nil {
			return err
		}
		if err := made.write(filepath.Join(in.Dir, "ca", name+".pub"), []byte(line), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// newPassphrase makes 160 random bits readable in groups of four.
func newPassphrase() string {
	var b [20]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	text := strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
	var groups []string
	for len(text) > 0 {
		groups, text = append(groups, text[:4]), text[4:]
	}
	return strings.Join(groups, "-")
}

func writeConfig(path string, e config.Example) error {
	var text strings.Builder
	if err := e.Write(&text); err != nil {
		return err
	}
	return ceremony.WriteNew(path, []byte(text.String()), 0o600)
}
