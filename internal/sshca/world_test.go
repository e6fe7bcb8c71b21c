package sshca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/sshca"
)

// now is when the certificates of the tests are valid; ssh-keygen doesn't look.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// softRSA are made once: they take long.
var softRSA = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// signers are keys of every kind that crypto.Signer and SSH have in common.
func signers() map[string]crypto.Signer {
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	return map[string]crypto.Signer{
		"ed25519": ed,
		"p256":    must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		"p384":    must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"p521":    must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)),
		"rsa":     softRSA(),
	}
}

func newEd25519() ed25519.PrivateKey {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	return key
}

// fixedEd25519 is for fuzz tests: what one process of the fuzzer found must be the
// same in another.
func fixedEd25519() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
}

func public(key crypto.Signer) ssh.PublicKey { return must(ssh.NewPublicKey(key.Public())) }

// line is a key in authorized_keys' form, without its newline.
func line(key ssh.PublicKey) string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n")
}

func signWith(key crypto.Signer) sshca.SignFunc {
	return func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		return key.Sign(rand.Reader, digest, opts)
	}
}

func authority(key crypto.Signer) *sshca.Authority { return must(sshca.NewAuthority(key.Public())) }

// request is a good one, for tests to spoil.
func request(key ssh.PublicKey) sshca.Request {
	return sshca.Request{
		Kind: sshca.User, Key: key, Serial: 7, KeyID: "alice@example.com/yubikey-1234", Principals: []string{"alice", "root"},
		ValidAfter: now, ValidBefore: now.Add(16 * time.Hour),
		Extensions: map[string]string{"permit-pty": "", "permit-port-forwarding": ""},
	}
}

// issue makes a certificate and reads it.
func issue(t testing.TB, ca crypto.Signer, r sshca.Request) *ssh.Certificate {
	t.Helper()
	p, err := authority(ca).Prepare(r)
	if err != nil {
		t.Fatal(err)
	}
	wire, err := p.Sign(signWith(ca))
	if err != nil {
		t.Fatal(err)
	}
	return must(ssh.ParsePublicKey(wire)).(*ssh.Certificate)
}

// A fido is a key on a FIDO token, in software (PROTOCOL.u2f).
type fido struct {
	key   crypto.Signer // Ed25519 or P-256
	flags byte          // 1: touched
}

const fidoApplication = "ssh:"

func (f fido) PublicKey() ssh.PublicKey {
	var wire []byte
	switch pub := f.key.Public().(type) {
	case ed25519.PublicKey:
		wire = ssh.Marshal(struct{ Type, Key, Application string }{ssh.KeyAlgoSKED25519, string(pub), fidoApplication})
	case *ecdsa.PublicKey:
		wire = ssh.Marshal(struct{ Type, Curve, Key, Application string }{ssh.KeyAlgoSKECDSA256, "nistp256", string(must(pub.Bytes())), fidoApplication})
	}
	return must(ssh.ParsePublicKey(wire))
}

func (f fido) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	application, message := sha256.Sum256([]byte(fidoApplication)), sha256.Sum256(data)
	tail := binary.BigEndian.AppendUint32([]byte{f.flags}, 42)
	signed := append(append(application[:], tail...), message[:]...)
	if key, ok := f.key.(ed25519.PrivateKey); ok {
		return &ssh.Signature{Format: ssh.KeyAlgoSKED25519, Blob: ed25519.Sign(key, signed), Rest: tail}, nil
	}
	digest := sha256.Sum256(signed)
	r, s, err := ecdsa.Sign(rand.Reader, f.key.(*ecdsa.PrivateKey), digest[:])
	return &ssh.Signature{Format: ssh.KeyAlgoSKECDSA256, Blob: ssh.Marshal(struct{ R, S *big.Int }{r, s}), Rest: tail}, err
}

// fidos are a touched token of each type.
func fidos() map[string]fido {
	return map[string]fido{
		"sk-ed25519": {newEd25519(), 1},
		"sk-p256":    {must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), 1},
	}
}

// keygen runs the real ssh-keygen, which must be there, in a directory.
func keygen(t testing.TB, dir, stdin string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Fatal("this test needs the ssh-keygen command (openssh-client): ", err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.String(), err
}

// mustKeygen is for what must work.
func mustKeygen(t testing.TB, dir, stdin string, args ...string) string {
	t.Helper()
	out, err := keygen(t, dir, stdin, args...)
	if err != nil {
		t.Fatalf("ssh-keygen %v: %v\n%s", args, err, out)
	}
	return out
}

// writeFile writes dir/name.
func writeFile(t testing.TB, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// writePrivate writes a private key as ssh-keygen reads it, with its public one.
func writePrivate(t testing.TB, dir, name string, key crypto.Signer) {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, name, pem.EncodeToMemory(block))
	writeFile(t, dir, name+".pub", ssh.MarshalAuthorizedKey(public(key)))
}
