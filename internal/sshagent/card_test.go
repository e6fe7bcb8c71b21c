//go:build linux && pcsc && cgo

package sshagent_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/sshagent"
	"github.com/chancery-pki/chancery/internal/sshagent/sshdtest"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard/reader"
)

// readers are those of a pcscd of the tests' own, also where a test runs several
// times.
var readers *reader.Reader

func TestMain(m *testing.M) { reader.Main(m, 1, &readers) }

// A card behind the real pcscd, ssh and sshd: one touch a login, and the card is
// free for other programs in between.
func TestSoftCard(t *testing.T) {
	name, value, _ := strings.Cut(readers.Env()[0], "=")
	t.Setenv(name, value)
	soft := must(softcard.New(softcard.Options{Serial: 4711}))
	if err := readers.Insert(0, soft); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { readers.Remove(0) })
	const uri = "yubikey:serial=4711;slot=9a"
	pin := &asked{pin: softcard.DefaultPIN}
	generate := func(slot string, kind cert.KeyType, policy yubikey.PINPolicy) ssh.PublicKey {
		t.Helper()
		k, _, err := new(yubikey.Cards).Generate(t.Context(), "yubikey:serial=4711;slot="+slot, yubikey.GenerateOptions{
			KeyType: kind, PIN: func(context.Context) ([]byte, error) { return []byte(softcard.DefaultPIN), nil }, PINPolicy: policy, TouchPolicy: yubikey.TouchAlways,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		return must(ssh.NewPublicKey(k.Public()))
	}
	p256 := generate("9a", cert.P256, yubikey.PINOnce)
	others := map[string]ssh.PublicKey{
		"82": generate("82", cert.P384, yubikey.PINAlways),
		"83": generate("83", cert.RSA2048, yubikey.PINOnce),
		"84": generate("84", cert.Ed25519, yubikey.PINOnce),
	}
	folder, told := t.TempDir(), new(lines)
	keys := []string{uri, "yubikey:serial=4711;slot=82", "yubikey:serial=4711;slot=83", "yubikey:serial=4711;slot=84"}
	socket := start(t, sshagent.Options{Card: new(sshagent.Cards), Keys: keys, Folder: folder, PIN: pin.ask, KeepPIN: -1, Tell: told.add})
	env := []string{"SSH_AUTH_SOCK=" + socket}
	if n := strings.Count(command(t, env, "", "ssh-add", "-l"), "\n"); n != 4 {
		t.Fatalf("%d keys are listed, want 4", n)
	}

	ca := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	s := sshdtest.Start(t, "TrustedUserCAKeys %D/ca.pub", "AuthorizedKeysFile none")
	write(t, filepath.Join(s.Dir, "ca.pub"), ssh.MarshalAuthorizedKey(must(ssh.NewPublicKey(ca.Public()))))
	args := s.KnownHosts(t)
	login := func(key ssh.PublicKey) (signatures int) {
		t.Helper()
		before := soft.Signatures()
		write(t, filepath.Join(folder, "ssh-cert.pub"), ssh.MarshalAuthorizedKey(certify(t, ca, key, time.Now().Add(time.Hour))))
		if out, err := s.SSH(t, env, args...); err != nil {
			t.Fatalf("ssh: %v\n%s", err, out)
		}
		return soft.Signatures() - before
	}
	for range 2 {
		if n := login(p256); n != 1 {
			t.Errorf("%d signatures for a login", n)
		}
	}
	if n := pin.n.Load(); n != 1 {
		t.Errorf("the PIN was asked for %d times", n)
	}
	for slot, key := range others {
		if n := login(key); n != 1 {
			t.Errorf("slot %s: %d signatures for a login", slot, n)
		}
	}

	// Another program has the card meanwhile.
	if _, _, err := new(yubikey.Cards).Attest(t.Context(), uri); err != nil {
		t.Errorf("the agent holds the card: %v", err)
	}

	// What isn't SSH doesn't reach it.
	before, verifies := soft.Signatures(), soft.Verifies()
	client, _ := dial(t, socket)
	if _, err := client.Sign(p256, []byte(responseMessage())); err == nil || soft.Signatures() != before || soft.Verifies() != verifies {
		t.Errorf("an answer to a challenge: %v", err)
	}

	// Nobody touches it; it is pulled, and comes back.
	request := []byte(auth(ssh.KeyAlgoECDSA256, p256))
	soft.SetTouched(false)
	if _, err := client.Sign(p256, request); err == nil || !strings.Contains(told.String(), "nobody touched it") {
		t.Errorf("without a touch: %v; told %s", err, told)
	}
	soft.SetTouched(true)
	if err := readers.Remove(0); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Sign(p256, request); err == nil || !strings.Contains(told.String(), "plug it in") {
		t.Errorf("pulled: %v; told %s", err, told)
	}
	if n := strings.Count(command(t, env, "", "ssh-add", "-l"), "\n"); n < 4 {
		t.Errorf("%d keys are listed while it is away", n)
	}
	if err := readers.Insert(0, soft); err != nil {
		t.Fatal(err)
	}
	if sig, err := client.Sign(p256, request); err != nil || p256.Verify(request, sig) != nil {
		t.Errorf("back again: %v", err)
	}
}
