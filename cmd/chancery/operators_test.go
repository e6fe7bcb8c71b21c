//go:build pcsc && cgo

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/server"
	"github.com/chancery-pki/chancery/internal/setup"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// TestOperators runs testdata/operators/*.txtar against one whole server, a
// soft card behind the real pcscd and settings that name both: from the first
// enrolment over the socket to operators' certificates from the card.
func TestOperators(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/operators",
		Setup: func(e *testscript.Env) error {
			dir, card, err := insertCard(e)
			if err != nil {
				return err
			}
			return startServer(e, dir, card.Maker())
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"keep": keep},
	})
}

// loopback is an address of the test's own, on which nobody else takes a port
// that is free for a moment.
func loopback() string {
	var b [3]byte
	rand.Read(b[:])
	return fmt.Sprintf("127.%d.%d.%d", 1+b[0]%254, b[1], 1+b[2]%254)
}

// newRoot makes a root that is brought along, since to encrypt a new one's key
// takes long: path.pem and path.key.
func newRoot(path string) (string, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	root, err := issuer.NewRoot(k, issuer.CA{CommonName: "Test Root", Now: time.Now()})
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return "", err
	}
	return path, errors.Join(
		os.WriteFile(path+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}), 0o600),
		os.WriteFile(path+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
}

// makeServer writes a CA with a people directory, whose operators are alice and
// bob.
func makeServer(dir, host, acme, admin string, maker *softcard.Maker) (*setup.Made, error) {
	root, err := newRoot(dir + "-root")
	if err != nil {
		return nil, err
	}
	made, err := setup.Init{
		Dir: dir, Name: "Test", DNS: host, SSH: true, RootCert: root + ".pem", RootKey: root + ".key",
		Overrides: func(e *config.Example) {
			e.Listen, e.Publish, e.Metrics, e.AdminSocket, e.Allow = acme, "127.0.0.1:0", "127.0.0.1:0", "admin.sock", []string{"*.example"}
		},
	}.Run(context.Background())
	if err != nil {
		return nil, err
	}
	var makers []byte
	for _, c := range maker.Issuers() {
		makers = append(makers, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	text, err := os.ReadFile(made.Config)
	if err != nil {
		return nil, err
	}
	for _, edit := range [][2]string{
		{fmt.Sprintf("external_url: %q", "https://"+host), fmt.Sprintf("external_url: %q", "https://"+acme)},
		{"\nissuers:", "\ndevices: {issuers: makers.pem}\n\nissuers:"},
		{"\nadmin:\n", fmt.Sprintf(`
admin:
  listen: %q
  operators:
    - {issuer: clients, profile: person, name: alice-admin.example, role: administrator}
    - {issuer: clients, profile: person, name: bob-admin.example, role: enroller}
`, admin)},
	} {
		if !bytes.Contains(text, []byte(edit[0])) {
			return nil, fmt.Errorf("the configuration has no %q", edit[0])
		}
		text = bytes.Replace(text, []byte(edit[0]), []byte(edit[1]), 1)
	}
	return made, errors.Join(os.WriteFile(made.Config, text, 0o600), os.WriteFile(filepath.Join(dir, "makers.pem"), makers, 0o600))
}

func startServer(e *testscript.Env, dir string, maker *softcard.Maker) error {
	host := loopback()
	acme, admin := host+":8443", host+":8444"
	made, err := makeServer(filepath.Join(dir, "ca"), host, acme, admin, maker)
	if err != nil {
		return err
	}
	c, err := config.Load(made.Config)
	if err != nil {
		return err
	}
	if bad := config.Check(c).Errors(); len(bad) > 0 {
		return bad
	}
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, server.Options{
			Config: c, Version: "test", Logger: slog.New(slog.DiscardHandler), Ready: func(server.Running) { close(ready) },
		})
	}()
	e.Defer(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				e.T().Log(err)
			}
		case <-time.After(time.Minute):
			e.T().Log("the server doesn't stop")
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		return fmt.Errorf("the server didn't start: %w", err)
	}
	e.Setenv("SOCKET", c.Path(c.Admin.Socket))
	state := filepath.Join(e.WorkDir, "state")
	e.Setenv("XDG_STATE_HOME", state)
	e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
	settings := filepath.Join(e.WorkDir, "config", "chancery", "config.yaml")
	if err := os.MkdirAll(filepath.Dir(settings), 0o700); err != nil {
		return err
	}
	return os.WriteFile(settings, fmt.Appendf(nil, `# the operator's own
cas:
  - {name: main, directory: "https://%s/acme/people/directory", roots: %q, admin: "https://%s"}
operator:
  certificate: %q
  key: "yubikey:serial=4711;slot=9a"
`, acme, made.Bundle, admin, filepath.Join(state, "chancery", "tls", "cert.pem")), 0o600)
}
