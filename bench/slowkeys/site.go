package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// lab is what all scenarios share.
type lab struct {
	root string // of the repository
	dir  string // scratch, on a disk
	bin  string // the programs
}

// build builds the server as it is shipped, and what steers it.
func (l *lab) build(ctx context.Context) error {
	env := []string{"GOWORK=off"}
	if _, err := output(ctx, l.root, env, "go", "build", "-tags", "pcsc", "-o", l.bin+"/", "./cmd/chanceryd", "./cmd/chancery"); err != nil {
		return err
	}
	_, err := output(ctx, l.root, env, "go", "build", "-o", filepath.Join(l.bin, "inside"), "./bench/slowkeys/inside/main.go")
	return err
}

func (l *lab) program(name string) string { return filepath.Join(l.bin, name) }

// issuer is one issuer of a site, with a directory of the same name.
type issuer struct {
	name       string
	keys       int    // each on a token of its own
	revocation string // none, crl, ocsp or crl+ocsp
}

// site is a CA whose keys are slow.
type site struct {
	*lab
	dir     string
	issuers []issuer
	keys    map[string]string // URIs by label
	roots   *x509.CertPool

	server                 *process
	acme, publish, metrics string // addresses
}

// label is the token of an issuer's key.
func (i issuer) label(key int) string { return fmt.Sprintf("%s-%d", i.name, key) }

// certificate is the CA certificate of a key.
func (s *site) certificate(label string) (*x509.Certificate, error) {
	text, err := os.ReadFile(filepath.Join(s.dir, label+".pem"))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s.pem holds no certificate", label)
	}
	return x509.ParseCertificate(block.Bytes)
}

// keyID is how files, metrics and URLs name a key.
func (s *site) keyID(label string) (string, error) {
	c, err := s.certificate(label)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", c.SubjectKeyId), nil
}

func (s *site) database() string { return filepath.Join(s.dir, "chancery.db") }

// newSite makes tokens, keys, CA certificates and the configuration. The
// server's own HTTPS certificate has a key of its own, in a file, so that it
// takes nobody's turn.
func (l *lab) newSite(ctx context.Context, name string, issuers ...issuer) (*site, error) {
	s := &site{lab: l, dir: filepath.Join(l.dir, name), issuers: issuers, keys: map[string]string{}, roots: x509.NewCertPool()}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	if err := s.makeTokens(ctx); err != nil {
		return nil, err
	}
	if err := s.makeCAs(ctx); err != nil {
		return nil, err
	}
	for _, addr := range []*string{&s.acme, &s.publish, &s.metrics} {
		var err error
		if *addr, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	return s, os.WriteFile(filepath.Join(s.dir, "chancery.yaml"), s.configuration(), 0o600)
}

func (s *site) makeTokens(ctx context.Context) error {
	args := []string{"hsm", s.dir}
	for _, i := range s.issuers {
		for k := range i.keys {
			args = append(args, i.label(k))
		}
	}
	uris, err := output(ctx, s.dir, nil, s.program("inside"), args...)
	if err != nil {
		return err
	}
	for i, uri := range strings.Fields(string(uris)) {
		s.keys[args[2+i]] = uri
	}
	return nil
}

func (s *site) makeCAs(ctx context.Context) error {
	create := func(key, name string, more ...string) error {
		args := append([]string{"ca", "create", "--generate", "--key", key, "--name", name, "--out", filepath.Join(s.dir, name+".pem")}, more...)
		_, err := output(ctx, s.dir, nil, s.program("chanceryd"), args...)
		return err
	}
	rootKey := "file:" + s.dir + "-root.key" // the server doesn't start with it at hand
	below := []string{"--parent", filepath.Join(s.dir, "root.pem"), "--parent-key", rootKey}
	err := errors.Join(create(rootKey, "root", "--self-signed"), create("file:"+filepath.Join(s.dir, "own.key"), "own", below...))
	if err != nil {
		return err
	}
	for label, uri := range s.keys {
		if err := create(uri, label, below...); err != nil {
			return err
		}
	}
	root, err := os.ReadFile(filepath.Join(s.dir, "root.pem"))
	if err == nil && !s.roots.AppendCertsFromPEM(root) {
		err = errors.New("root.pem holds no certificate")
	}
	return err
}

// configuration writes down the site.
func (s *site) configuration() []byte {
	var b bytes.Buffer
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	_, port, _ := strings.Cut(s.acme, ":")
	say("external_url: \"https://ca.internal:%s\"\nlisten: %q\ntls: {profile: own}", port, s.acme)
	say("metrics: {listen: %q}\nadmin: {socket: admin.sock}\npublish: {listen: %q}", s.metrics, s.publish)
	say("rate_limits: {new_accounts_per_address: off, orders_per_account: off, orders_per_client: off, certificates_per_name: off, failed_validations_per_account: off}")
	say("issuers:\n  own:\n    chain: root.pem\n    signers: [{key: \"file:own.key\", certificate: own.pem}]")
	for _, i := range s.issuers {
		say("  %s:\n    chain: root.pem\n    signers:", i.name)
		for k := range i.keys {
			say("      - {key: %q, certificate: %s.pem}", s.keys[i.label(k)], i.label(k))
		}
		if strings.Contains(i.revocation, "crl") {
			say("    crl_url: \"http://crl.internal\"")
		}
		if strings.Contains(i.revocation, "ocsp") {
			say("    ocsp_url: %q", ocspURL)
		}
	}
	say("profiles:\n  own: {issuer: own, usages: [server]}")
	for _, i := range s.issuers {
		say("  %s: {issuer: %s, usages: [server], lifetime: 24h, revocation: %s}", i.name, i.name, i.revocation)
	}
	say("directories:")
	for _, i := range s.issuers {
		say("  %s: {profiles: [%s], names: {allow: [\"*.internal\"]}, eab: {required: true}}", i.name, i.name)
	}
	return b.Bytes()
}

// ocspURL is where certificates say that OCSP is; we know better.
const ocspURL = "http://ocsp.internal"

// serve starts the server and waits until it takes orders.
func (s *site) serve(ctx context.Context) (err error) {
	s.server, err = start(filepath.Join(s.dir, "log"), s.program("chanceryd"), "serve", filepath.Join(s.dir, "chancery.yaml"))
	if err != nil {
		return err
	}
	return s.server.listens(ctx, s.acme)
}

func (s *site) scrape() (metrics, error) { return scrape(s.metrics) }

// stop ends the server, if it runs.
func (s *site) stop() error {
	if s.server == nil {
		return nil
	}
	p := s.server
	s.server = nil
	return p.stop()
}

// delay makes each signature take so long from now on: of one token, or of all
// others with "". It and pull speak to the module by its files, as package
// slowhsm does.
func (s *site) delay(label string, d time.Duration) error {
	return s.steer("delay", label, strconv.FormatInt(d.Microseconds(), 10))
}

// pull pulls a token out, plug puts it in again, each once.
func (s *site) pull(label string) error { return s.steer("state", label, "0 out") }
func (s *site) plug(label string) error { return s.steer("state", label, "1 in") }

func (s *site) steer(what, label, text string) error {
	name := filepath.Join(s.dir, "slow", what)
	if label != "" {
		name += "." + label
	}
	if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}
