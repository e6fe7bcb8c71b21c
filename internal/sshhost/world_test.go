package sshhost_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/challenge/loopdns"
	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/server"
	"github.com/chancery-pki/chancery/internal/setup"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/sshhost"
	"github.com/chancery-pki/chancery/mtls/acme"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A realCA is a whole server of this process, with SSH issuers for users and
// hosts.
type realCA struct {
	sshhost.CA
	userCA ed25519.PrivateKey
	admin  string // the socket
	stop   func()
}

// answers answers http-01 at a port of its own.
type answers struct {
	acme.HTTP01Solver
	port int
}

func newAnswers(t *testing.T) *answers {
	t.Helper()
	a, l := new(answers), must(net.Listen("tcp", "127.0.0.1:0"))
	a.port = l.Addr().(*net.TCPAddr).Port
	web := &http.Server{Handler: a}
	go web.Serve(l)
	t.Cleanup(func() { web.Close() })
	return a
}

// startCA makes and runs a CA that proves names by http-01 on this machine.
func startCA(t *testing.T, name string, a *answers) *realCA {
	t.Helper()
	c := &realCA{CA: sshhost.CA{Name: name}}
	dns := must(loopdns.Start())
	t.Cleanup(func() { dns.Close() })

	listen := freeAddress(t)
	rootCert, rootKey := newRoot(t)
	made, err := setup.Init{
		Dir: t.TempDir(), Name: "Test", DNS: "127.0.0.1", RootCert: rootCert, RootKey: rootKey,
		Overrides: func(e *config.Example) {
			e.Listen, e.ExternalURL, e.Metrics, e.AdminSocket, e.Allow = listen, "https://"+listen, "", "admin.sock", []string{"*.example"}
			e.HTTPPort, e.Resolvers, e.Networks, e.NoRateLimits = a.port, []string{dns.Addr()}, []string{"127.0.0.0/8"}, true
		},
	}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.addSSH(t, made.Config)
	c.admin = filepath.Join(filepath.Dir(made.Config), "admin.sock")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must(os.ReadFile(made.Bundle)))
	c.HTTP = &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	c.Directory = "https://" + listen + "/acme/servers/directory"
	c.run(t, made.Config)
	// Its first KRL comes a moment after it answers.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := c.HTTP.Get("https://" + listen + "/ssh/krl"); err != nil {
			t.Fatal(err)
		} else if resp.Body.Close(); resp.StatusCode == http.StatusOK {
			return c
		} else if time.Now().After(deadline) {
			t.Fatalf("no KRL: %s", resp.Status)
		}
	}
}

// addSSH gives the configuration SSH issuers and profiles.
func (c *realCA) addSSH(t *testing.T, file string) {
	t.Helper()
	_, c.userCA, _ = ed25519.GenerateKey(rand.Reader)
	_, hostCA, _ := ed25519.GenerateKey(rand.Reader)
	for name, key := range map[string]ed25519.PrivateKey{"user": c.userCA, "host": hostCA} {
		der := must(x509.MarshalPKCS8PrivateKey(key))
		write(t, filepath.Join(filepath.Dir(file), "ssh-"+name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	text := string(must(os.ReadFile(file)))
	text += "\nssh_issuers:\n  users:\n    signers: [{key: \"file:ssh-user.key\"}]\n  hosts:\n    signers: [{key: \"file:ssh-host.key\"}]\n"
	text = strings.Replace(text, "\nprofiles:\n", "\nprofiles:\n  ssh-host:\n    usages: [ssh-host]\n    issuer: hosts\n  ssh-user:\n    usages: [ssh-user]\n    issuer: users\n", 1)
	text = strings.Replace(text, "profiles: [\"server\"]", "profiles: [\"server\", ssh-host, ssh-user]", 1)
	write(t, file, []byte(text))
}

func (c *realCA) run(t *testing.T, file string) {
	t.Helper()
	conf, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if bad := config.Check(conf).Errors(); len(bad) > 0 {
		t.Fatalf("%v\n%s", bad, must(os.ReadFile(file)))
	}
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, server.Options{Config: conf, Logger: slog.New(slog.DiscardHandler), Ready: func(server.Running) { close(ready) }})
	}()
	stopped := false
	c.stop = func() {
		if !stopped {
			stopped = true
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(c.stop)
	select {
	case <-ready:
	case err := <-ended:
		stopped = true
		t.Fatal(err)
	}
}

func newRoot(t *testing.T) (certificate, key string) {
	t.Helper()
	k := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	root := must(issuer.NewRoot(k, issuer.CA{CommonName: "Brought Root", Now: time.Now()}))
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "root.pem"), filepath.Join(dir, "root.key")
	write(t, certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}))
	write(t, key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(k))}))
	return certificate, key
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	return l.Addr().String()
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func line(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func newSigner() ssh.Signer {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	return must(ssh.NewSignerFromSigner(key))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func logger(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(testWriter{t}, nil)) }

func pemBytes(block *pem.Block) []byte { return pem.EncodeToMemory(block) }

// certify makes a certificate by hand.
func certify(t *testing.T, ca ed25519.PrivateKey, kind sshca.Kind, key ssh.PublicKey, serial uint64, principals []string, from time.Time, life time.Duration) *ssh.Certificate {
	t.Helper()
	p, err := must(sshca.NewAuthority(ca.Public())).Prepare(sshca.Request{
		Kind: kind, Key: key, Serial: serial, KeyID: "alice/1-9a", Principals: principals,
		ValidAfter: from.Truncate(time.Second), ValidBefore: from.Add(life).Truncate(time.Second),
	})
	if err != nil {
		t.Fatal(err)
	}
	wire, err := p.Sign(signWith(ca))
	if err != nil {
		t.Fatal(err)
	}
	return must(ssh.ParsePublicKey(wire)).(*ssh.Certificate)
}

func signWith(key ed25519.PrivateKey) sshca.SignFunc {
	return func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		return key.Sign(rand.Reader, digest, opts)
	}
}
