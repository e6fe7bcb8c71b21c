package issuer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/signer/pkcs11/softhsm"
	"github.com/chancery-pki/chancery/internal/sshca"
)

func sshProfile() cert.Profile {
	return cert.Profile{
		Name: "ssh-user", Usages: []cert.Usage{cert.SSHUser}, Lifetime: time.Hour, MaxLifetime: day, Backdate: time.Minute,
		KeyTypes: []cert.KeyType{cert.P256, cert.Ed25519, cert.RSA2048}, Revocation: cert.RevocationKRL, SSH: cert.SSH{Extensions: []string{"permit-pty"}},
	}
}

const day = 24 * time.Hour

func sshKeyOf(t testing.TB, key crypto.Signer) SSHKey {
	t.Helper()
	return SSHKey{Public: key.Public(), Queue: queueOf(key)}
}

func newSSH(t testing.TB, keys ...SSHKey) *SSH {
	t.Helper()
	s, err := NewSSH(SSHConfig{Name: "ssh", Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func clientKey(t testing.TB, pub crypto.PublicKey) ssh.PublicKey {
	t.Helper()
	k, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sshSubject(t testing.TB) SSHSubject {
	t.Helper()
	return SSHSubject{Key: clientKey(t, newKey(t, cert.P256).Public()), KeyID: "anna/1-9a", Principals: []string{"anna"}}
}

func sshRequestOf(t testing.TB, s SSHSubject) Request {
	t.Helper()
	return Request{Profile: sshProfile(), SSH: s, NotBefore: now.Truncate(time.Second), NotAfter: now.Truncate(time.Second).Add(time.Hour), Now: now}
}

// Every kind of CA key, one in an HSM too: prepared, resumed after a crash, signed
// once, and read back.
func TestSSHIssues(t *testing.T) {
	keys := map[string]SSHKey{"HSM": inHSM(t)}
	for _, typ := range []cert.KeyType{cert.P256, cert.P384, cert.P521, cert.Ed25519, cert.RSA2048} {
		keys[string(typ)] = sshKeyOf(t, newKey(t, typ))
	}
	for name, key := range keys {
		s := newSSH(t, key)
		subject := sshSubject(t)
		p, err := s.Prepare(t.Context(), sshRequestOf(t, subject))
		if err != nil {
			t.Fatal(name, err)
		}
		spki, err := x509.MarshalPKIXPublicKey(sshca.CryptoKey(subject.Key))
		if err != nil {
			t.Fatal(err)
		}
		if hash := sha256.Sum256(spki); p.KeyHash != hex.EncodeToString(hash[:]) || p.KeyID != "anna/1-9a" || p.Principals[0] != "anna" || p.Remote() || !p.Usable() {
			t.Errorf("%s: %+v", name, p)
		}
		again, err := newSSH(t, key).Resume(p.TBS, signer.Request{}) // another process
		if err != nil || again.Serial != p.Serial || again.IssuerKeyID != p.IssuerKeyID || again.KeyID != p.KeyID || !again.NotAfter.Equal(p.NotAfter) {
			t.Fatalf("%s: %+v, %v", name, again, err)
		}
		wire, err := s.Issue(t.Context(), p)
		if err != nil {
			t.Fatal(name, err)
		}
		if !bytes.HasPrefix(wire, p.TBS) {
			t.Errorf("%s: other bytes than were prepared", name)
		}
		if _, err := s.Issue(t.Context(), p); !errors.Is(err, ErrUsed) {
			t.Errorf("%s: signed twice: %v", name, err)
		}
		if _, err := s.Issue(t.Context(), again); !errors.Is(err, ErrWrongIssuer) {
			t.Errorf("%s: another process's token: %v", name, err)
		}
		if above, count, err := s.Chain(p.IssuerKeyID, 0); len(above) != 0 || count != 1 || err != nil {
			t.Errorf("%s: chain %v, %d, %v", name, above, count, err)
		}
		asked, err := Asked(cert.Certificate{Format: cert.OpenSSH, DER: p.TBS})
		if err != nil || !bytes.Equal(asked.SSH.Marshal(), subject.Key.Marshal()) || asked.KeyHash != p.KeyHash {
			t.Errorf("%s: %+v, %v", name, asked, err)
		}
	}
}

// inHSM is a key in a SoftHSM.
func inHSM(t *testing.T) SSHKey {
	t.Helper()
	token := softhsm.New(t).Token(t, "ssh")
	file := filepath.Join(t.TempDir(), "ca.key")
	if _, err := signer.Generate(cert.P384, file, nil); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("softhsm2-util", "--import", file, "--token", "ssh", "--label", "ca", "--id", "01", "--pin", token.PIN).CombinedOutput()
	if err != nil {
		t.Fatalf("softhsm2-util: %v\n%s", err, out)
	}
	s, err := signer.Open(t.Context(), token.URI("ca"), signer.Options{Password: signer.PasswordFile(token.PINFile)})
	if err != nil {
		t.Fatal(err)
	}
	queue, err := signer.NewQueue(signer.QueueOptions{}, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(queue.Close)
	return SSHKey{Public: s.Public(), Queue: queue}
}

// A retired key signs no more and stays published; one on another replica is
// planned for and signed there.
func TestSSHRotation(t *testing.T) {
	old, fresh := newKey(t, cert.P256), newKey(t, cert.Ed25519)
	before := newSSH(t, sshKeyOf(t, old))
	plan, err := before.Prepare(t.Context(), sshRequestOf(t, sshSubject(t)))
	if err != nil {
		t.Fatal(err)
	}
	after := newSSH(t, sshKeyOf(t, fresh), SSHKey{Public: old.Public()})
	if keys := after.PublicKeys(); len(keys) != 2 {
		t.Errorf("%d keys are published", len(keys))
	}
	if _, err := after.Resume(plan.TBS, signer.Request{}); !errors.Is(err, ErrWrongIssuer) {
		t.Errorf("a retired key would sign: %v", err)
	}
	if _, _, err := after.Chain(plan.IssuerKeyID, 0); err != nil {
		t.Errorf("its certificates have no issuer: %v", err)
	}
	for range 4 {
		p, err := after.Prepare(t.Context(), sshRequestOf(t, sshSubject(t)))
		if err != nil || p.IssuerKeyID == plan.IssuerKeyID {
			t.Fatalf("%+v, %v", p, err)
		}
		p.Discard()
	}
	remote := newSSH(t, SSHKey{Public: fresh.Public(), Remote: signer.NewRemote(fresh.Public())})
	p, err := remote.Prepare(t.Context(), sshRequestOf(t, sshSubject(t)))
	if err != nil || !p.Remote() {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := remote.Issue(t.Context(), p); !errors.Is(err, ErrRemote) {
		t.Error(err)
	}
	there, err := after.Resume(p.TBS, signer.Request{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := after.Issue(t.Context(), there); err != nil {
		t.Error(err)
	}
}

// What is refused, and to whom it is told.
func TestSSHRefuses(t *testing.T) {
	key := sshKeyOf(t, newKey(t, cert.P256))
	known := newKey(t, cert.P256)
	spki, err := x509.MarshalPKIXPublicKey(known.Public())
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(spki)
	file := filepath.Join(t.TempDir(), "blocked")
	if err := os.WriteFile(file, []byte(hex.EncodeToString(hash[:])+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	blocked, err := LoadBlocklist(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSSH(SSHConfig{Name: "ssh", Keys: []SSHKey{key}, Blocklist: blocked})
	if err != nil {
		t.Fatal(err)
	}
	small := smallPrimeModulus()
	for name, c := range map[string]struct {
		change func(*Request)
		says   string
	}{
		"a compromised key": {func(r *Request) { r.SSH.Key = clientKey(t, known.Public()) }, "known to be compromised"},
		"a type too many":   {func(r *Request) { r.SSH.Key = clientKey(t, newKey(t, cert.P384).Public()) }, "P-384"},
		"a weak modulus":    {func(r *Request) { r.SSH.Key = clientKey(t, small) }, "small factor"},
	} {
		r := sshRequestOf(t, sshSubject(t))
		c.change(&r)
		_, err := s.Prepare(t.Context(), r)
		problem, ok := errors.AsType[*protocol.Problem](err)
		if !ok || problem.Type != protocol.BadCSR || !strings.Contains(problem.Detail, c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*Request){
		"no principals": func(r *Request) { r.SSH.Principals = nil },
		"a wildcard":    func(r *Request) { r.SSH.Principals = []string{"*"} },
		"no key ID":     func(r *Request) { r.SSH.KeyID = "a\nb" },
		"for TLS":       func(r *Request) { r.Profile.Usages = []cert.Usage{cert.Client} },
		"for both":      func(r *Request) { r.Profile.Usages = []cert.Usage{cert.SSHUser, cert.SSHHost} },
		"no lifetime":   func(r *Request) { r.NotAfter = r.NotBefore },
	} {
		r := sshRequestOf(t, sshSubject(t))
		change(&r)
		_, err := s.Prepare(t.Context(), r)
		if _, problem := errors.AsType[*protocol.Problem](err); err == nil || problem {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Prepare(ctx, sshRequestOf(t, sshSubject(t))); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, keys := range map[string][]SSHKey{
		"none": nil, "twice": {key, key}, "another key": {{Public: newKey(t, cert.P256).Public(), Queue: key.Queue}}, "P-224": {{Public: p224.Public()}},
	} {
		if _, err := NewSSH(SSHConfig{Name: "ssh", Keys: keys}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := newSSH(t, SSHKey{Public: known.Public()}).Supports(sshProfile()); err == nil {
		t.Error("an issuer whose keys are retired")
	}
	if _, err := s.Resume([]byte("nothing"), signer.Request{}); err == nil || errors.Is(err, ErrWrongIssuer) {
		t.Errorf("damaged bytes: %v", err)
	}
}

// smallPrimeModulus is a modulus of 2048 bits that 3 divides.
func smallPrimeModulus() *rsa.PublicKey {
	n := new(big.Int).SetBit(new(big.Int), 2047, 1)
	n.SetBit(n, 0, 1)
	for new(big.Int).Mod(n, big.NewInt(3)).Sign() != 0 {
		n.Add(n, big.NewInt(2))
	}
	return &rsa.PublicKey{N: n, E: 65537}
}
