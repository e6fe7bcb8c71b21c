package sshagent_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/sshagent"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

const uri = "yubikey:serial=1;slot=9a"

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// card is a card of one key in memory, for what isn't about cards. It counts.
type card struct {
	key    crypto.Signer
	policy yubikey.PINPolicy
	away   atomic.Bool
	hang   chan struct{} // if set, a signature waits for it

	signed, open atomic.Int32
	mu           sync.Mutex
	shown        []string // PINs
}

func newCard() *card {
	return &card{key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), policy: yubikey.PINOnce}
}

func (c *card) ssh() ssh.PublicKey { return must(ssh.NewPublicKey(c.key.Public())) }

func (c *card) Look(context.Context, string) (crypto.PublicKey, yubikey.PINPolicy, error) {
	if c.away.Load() {
		return nil, 0, yubikey.ErrAbsent
	}
	return c.key.Public(), c.policy, nil
}

func (c *card) Open(ctx context.Context, _ string, pin func(context.Context) ([]byte, error)) (sshagent.OpenKey, error) {
	if c.away.Load() {
		return nil, yubikey.ErrAbsent
	}
	p, err := pin(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.shown = append(c.shown, string(p))
	c.mu.Unlock()
	if string(p) != "123456" {
		return nil, fmt.Errorf("%w: refused, 2 tries left", yubikey.ErrPIN)
	}
	c.open.Add(1)
	return &openKey{c.key, c, ctx}, nil
}

type openKey struct {
	crypto.Signer
	card *card
	ctx  context.Context
}

func (k *openKey) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.card.hang != nil {
		select {
		case <-k.card.hang:
		case <-k.ctx.Done():
			return nil, context.Cause(k.ctx)
		}
	}
	k.card.signed.Add(1)
	return k.Signer.Sign(r, digest, opts)
}

func (k *openKey) Close() error { k.card.open.Add(-1); return nil }

// lines collects what the user was shown.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) add(s string) { l.mu.Lock(); defer l.mu.Unlock(); l.all = append(l.all, s) }

func (l *lines) String() string { l.mu.Lock(); defer l.mu.Unlock(); return strings.Join(l.all, "\n") }

// asked is a PIN entry that counts.
type asked struct {
	pin string
	n   atomic.Int32
}

func (a *asked) ask(context.Context, string) ([]byte, error) { a.n.Add(1); return []byte(a.pin), nil }

// start runs an agent until the test ends, and returns its socket.
func start(t *testing.T, o sshagent.Options) string {
	t.Helper()
	dir := must(os.MkdirTemp("", "agent-")) // a socket's path is bounded
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := sshagent.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	if o.Keys == nil {
		o.Keys = []string{uri}
	}
	if o.PIN == nil {
		o.PIN = (&asked{pin: "123456"}).ask
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sshagent.New(o).Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Error("the socket is still there:", err)
		}
	})
	return socket
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// realAgent runs OpenSSH's own agent with one key, until the test ends.
func realAgent(t *testing.T) (socket string, key ssh.PublicKey) {
	t.Helper()
	dir := must(os.MkdirTemp("", "upstream-"))
	socket = filepath.Join(dir, "s")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal("this test needs ssh-agent (openssh-client): ", err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); os.RemoveAll(dir) })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("ssh-agent doesn't answer")
		}
	}
	file := filepath.Join(dir, "id")
	command(t, nil, "", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "theirs", "-f", file)
	command(t, []string{"SSH_AUTH_SOCK=" + socket}, "", "ssh-add", "-q", file)
	return socket, must(sshca.ParseKey(string(must(os.ReadFile(file + ".pub")))))
}

// command runs a program that must work, and returns what it said.
func command(t *testing.T, env []string, stdin, name string, args ...string) string {
	t.Helper()
	out, err := try(t, env, stdin, name, args...)
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return out
}

func try(t *testing.T, env []string, stdin, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env, cmd.Stdin = append(os.Environ(), env...), strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// certify makes a user certificate for root.
func certify(t *testing.T, ca crypto.Signer, key ssh.PublicKey, until time.Time) *ssh.Certificate {
	t.Helper()
	p, err := must(sshca.NewAuthority(ca.Public())).Prepare(sshca.Request{
		Kind: sshca.User, Key: key, Serial: 7, KeyID: "alice/1-9a", Principals: []string{"root"},
		ValidAfter: until.Add(-2 * time.Hour).Truncate(time.Second), ValidBefore: until.Truncate(time.Second),
		Extensions: map[string]string{"permit-pty": "", "permit-agent-forwarding": ""},
	})
	if err != nil {
		t.Fatal(err)
	}
	wire, err := p.Sign(func(digest []byte, opts crypto.SignerOpts) ([]byte, error) { return ca.Sign(rand.Reader, digest, opts) })
	if err != nil {
		t.Fatal(err)
	}
	return must(ssh.ParsePublicKey(wire)).(*ssh.Certificate)
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
