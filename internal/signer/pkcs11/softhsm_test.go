//go:build cgo

package pkcs11_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/signer/pkcs11"
	"github.com/chancery-pki/chancery/internal/signer/pkcs11/softhsm"
)

// tool runs pkcs11-tool, logged in to a token.
func tool(t *testing.T, token *softhsm.Token, args ...string) string {
	t.Helper()
	args = append([]string{"--module", token.Module, "--token-label", token.Label, "--login", "--pin", token.PIN}, args...)
	out, err := exec.Command("pkcs11-tool", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("pkcs11-tool %v: %v (install it: apt-get install opensc)\n%s", args, err, out)
	}
	return string(out)
}

func open(t *testing.T, uri string) *pkcs11.Key {
	t.Helper()
	k, err := pkcs11.Open(t.Context(), uri, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func generate(t *testing.T, uri string, kind cert.KeyType) *pkcs11.Key {
	t.Helper()
	k, err := pkcs11.Generate(t.Context(), uri, kind, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// sign makes one signature and verifies it.
func sign(t *testing.T, k *pkcs11.Key) error {
	t.Helper()
	digest := sha256.Sum256([]byte(t.Name()))
	var opts crypto.SignerOpts = crypto.SHA256
	if _, ok := k.Public().(ed25519.PublicKey); ok {
		opts = crypto.Hash(0)
	}
	sig, err := k.Sign(rand.Reader, digest[:], opts)
	if err != nil {
		return err
	}
	good := false
	switch key := k.Public().(type) {
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(key, digest[:], sig)
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], sig) == nil
	case ed25519.PublicKey:
		good = ed25519.Verify(key, digest[:], sig)
	}
	if !good {
		t.Error("a signature doesn't verify")
	}
	return nil
}

func refused(t *testing.T, what string, err, kind error, words ...string) {
	t.Helper()
	if err == nil || kind != nil && !errors.Is(err, kind) {
		t.Errorf("%s: error %v, want one that is %v", what, err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: error %q doesn't say %q", what, err, w)
		}
	}
}

// Every key type: made in the token, seen by pkcs11-tool as one that never
// leaves it, and its certificates verified by OpenSSL.
func TestKeyTypes(t *testing.T) {
	token := softhsm.New(t).Token(t, "ca")
	for _, kind := range []cert.KeyType{cert.P256, cert.P384, cert.P521, cert.Ed25519, cert.RSA2048, cert.RSA3072, cert.RSA4096} {
		t.Run(string(kind), func(t *testing.T) {
			made := generate(t, token.URI("k "+string(kind)), kind)
			if err := sign(t, made); err != nil {
				t.Fatal(err)
			}
			k := open(t, token.URI("k "+string(kind)))
			if !k.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(made.Public()) {
				t.Error("opened again, the key has another public key")
			}
			if want := `token "ca" (serial ` + token.Serial + ")"; k.Token() != want {
				t.Errorf("token %s, want %s", k.Token(), want)
			}
			shown := tool(t, token, "--list-objects", "--type", "privkey", "--label", "k "+string(kind))
			for _, want := range []string{"label:      k " + string(kind), "Usage:      sign\n", "sensitive", "always sensitive", "never extract"} {
				if !strings.Contains(shown, want) {
					t.Errorf("pkcs11-tool doesn't show %q:\n%s", want, shown)
				}
			}
			verifyWithOpenSSL(t, k)
		})
	}
}

func verifyWithOpenSSL(t *testing.T, k *pkcs11.Key) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, caTemplate(), caTemplate(), k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("openssl", "verify", "-check_ss_sig", "-x509_strict", "-CAfile", file, file).CombinedOutput(); err != nil {
		t.Errorf("openssl: %v\n%s", err, out)
	}
}

func caTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "Token CA"}, SubjectKeyId: []byte{1}, AuthorityKeyId: []byte{1},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

func TestGenerateReplacesNothing(t *testing.T) {
	token := softhsm.New(t).Token(t, "ca")
	plain := strings.Replace(token.URI("first"), ";object=first", "", 1)
	withID := func(rest string) string { return strings.Replace(plain, "?", rest+"?", 1) }
	first := generate(t, withID(";object=first;id=%01"), cert.P256)
	tool(t, token, "--write-object", pemFile(t), "--type", "data", "--label", "note", "--application-label", "x")
	for what, uri := range map[string]string{
		"same label":                      token.URI("first"),
		"same label, other id":            withID(";object=first;id=%02"),
		"same id":                         withID(";id=%01"),
		"same id, other label":            withID(";object=other;id=%01"),
		"label of something else than it": token.URI("note"),
	} {
		_, err := pkcs11.Generate(t.Context(), uri, cert.P256, nil)
		refused(t, what, err, fs.ErrExist, "never replaced", token.Serial)
	}
	_, err := pkcs11.Generate(t.Context(), plain, cert.P256, nil)
	refused(t, "neither label nor id", err, nil, "object=LABEL")
	for _, kind := range []cert.KeyType{"", "P-224", cert.MLDSA65} {
		_, err := pkcs11.Generate(t.Context(), token.URI("odd"), kind, nil)
		refused(t, "key type "+string(kind), err, nil, "P-256, P-384")
	}
	if err := sign(t, first); err != nil {
		t.Error(err)
	}
	if shown := tool(t, token, "--list-objects", "--type", "privkey"); strings.Count(shown, "Private Key Object") != 1 {
		t.Errorf("refused generations left keys:\n%s", shown)
	}
	// An id alone is a name, too.
	if err := sign(t, generate(t, withID(";id=%aa%bb"), cert.P256)); err != nil {
		t.Error(err)
	}
	if err := sign(t, open(t, withID(";id=%aa%bb"))); err != nil {
		t.Error(err)
	}
}

func pemFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAmbiguous(t *testing.T) {
	hsm := softhsm.New(t)
	one, two := hsm.Token(t, "ca"), hsm.Token(t, "ca")
	uri := func(serial, rest string) string {
		return "pkcs11:token=ca" + serial + ";object=k" + rest + "?module-path=" + hsm.Module + "&pin-source=file:" + one.PINFile
	}
	asked := 0
	_, err := pkcs11.Open(t.Context(), "pkcs11:token=ca;object=k?module-path="+hsm.Module, func(context.Context) ([]byte, error) { asked++; return []byte("1234"), nil })
	refused(t, "two tokens", err, pkcs11.ErrAmbiguous, "serial="+one.Serial, "serial="+two.Serial, "add serial=", "keys")
	if asked != 0 {
		t.Error("the PIN was asked for before it was clear which token is meant")
	}
	_, err = pkcs11.Generate(t.Context(), uri("", ""), cert.P256, nil)
	refused(t, "two tokens to generate in", err, pkcs11.ErrAmbiguous)

	generate(t, uri(";serial="+one.Serial, ";id=%01"), cert.P256)
	k := open(t, uri(";serial="+one.Serial, ""))
	if !strings.Contains(k.Token(), one.Serial) {
		t.Errorf("opened %s", k.Token())
	}
	_, err = pkcs11.Open(t.Context(), uri(";serial="+two.Serial, ""), nil)
	refused(t, "the other token", err, pkcs11.ErrNotFound, two.Serial, "holds none")

	// A second key of that label, made by another program.
	out, err := exec.Command("pkcs11-tool", "--module", hsm.Module, "--login", "--pin", "1234", "--slot-index", slotIndex(t, hsm.Module, one.Serial),
		"--keypairgen", "--key-type", "EC:prime256v1", "--label", "k", "--id", "02").CombinedOutput()
	if err != nil {
		t.Fatalf("pkcs11-tool: %v\n%s", err, out)
	}
	_, err = pkcs11.Open(t.Context(), uri(";serial="+one.Serial, ""), nil)
	refused(t, "two keys", err, pkcs11.ErrAmbiguous, "id=%01", "id=%02", "add the id=")
	if err := sign(t, open(t, uri(";serial="+one.Serial, ";id=%02"))); err != nil {
		t.Error(err)
	}
}

// slotIndex finds the place of a token in the module's list of slots.
func slotIndex(t *testing.T, module, serial string) string {
	t.Helper()
	out, err := exec.Command("pkcs11-tool", "--module", module, "--list-slots").CombinedOutput()
	if err != nil {
		t.Fatalf("pkcs11-tool: %v\n%s", err, out)
	}
	before, _, ok := strings.Cut(string(out), serial)
	if !ok {
		t.Fatalf("no slot holds %s:\n%s", serial, out)
	}
	return big.NewInt(int64(strings.Count(before, "\nSlot ") - 1)).String()
}

func TestNotFound(t *testing.T) {
	hsm := softhsm.New(t)
	token := hsm.Token(t, "ca")
	pin := "&pin-source=file:" + token.PINFile
	_, err := pkcs11.Open(t.Context(), token.URI("k"), nil)
	refused(t, "empty token", err, pkcs11.ErrNotFound, "holds none", "chanceryd key generate")
	generate(t, token.URI("real"), cert.P256)
	_, err = pkcs11.Open(t.Context(), token.URI("k"), nil)
	refused(t, "other key", err, pkcs11.ErrNotFound, "object=real", token.Serial)
	for what, path := range map[string]string{
		"label": "token=other", "serial": "token=ca;serial=00", "model": "token=ca;model=x", "manufacturer": "token=ca;manufacturer=x", "slot": "token=ca;slot-id=1",
	} {
		_, err = pkcs11.Open(t.Context(), "pkcs11:"+path+";object=real?module-path="+hsm.Module+pin, nil)
		refused(t, what, err, pkcs11.ErrNotFound, token.Serial)
	}
	if err := sign(t, open(t, "pkcs11:serial="+token.Serial+";manufacturer=SoftHSM%20project;model=SoftHSM%20v2?module-path="+hsm.Module+pin)); err != nil {
		t.Errorf("the only key of a token named by all but its label: %v", err)
	}
}

func TestModules(t *testing.T) {
	hsm := softhsm.New(t)
	token := hsm.Token(t, "ca")
	generate(t, token.URI("k"), cert.P256)
	bare, _, _ := strings.Cut(token.URI("k"), "?")
	rest := "?pin-source=file:" + token.PINFile

	t.Setenv("CHANCERY_PKCS11_MODULE", "")
	_, err := pkcs11.Open(t.Context(), bare+rest, nil)
	refused(t, "no module", err, nil, "module-path", "CHANCERY_PKCS11_MODULE")
	t.Setenv("CHANCERY_PKCS11_MODULE", "libsofthsm2.so")
	_, err = pkcs11.Open(t.Context(), bare+rest, nil)
	refused(t, "relative module", err, nil, "absolute")
	t.Setenv("CHANCERY_PKCS11_MODULE", hsm.Module)
	if err := sign(t, open(t, bare+rest)); err != nil {
		t.Error(err)
	}
	_, err = pkcs11.Open(t.Context(), bare+"?module-path=/nonexistent/x.so", nil)
	refused(t, "missing module", err, fs.ErrNotExist, "/nonexistent")
	_, err = pkcs11.Open(t.Context(), bare+"?module-path="+pemFile(t), nil)
	refused(t, "text for a module", err, nil, "can't be loaded", "ldd")
	_, err = pkcs11.Open(t.Context(), bare+"?module-name=no-such-module", nil)
	refused(t, "unknown module name", err, nil, "libno-such-module.so")
	_, err = pkcs11.Open(t.Context(), bare+"?module-name=*", nil)
	refused(t, "pattern for a module name", err, nil, "module-name")

	// The system's own SoftHSM by name, with this test's tokens.
	if err := sign(t, open(t, bare+"?module-name=softhsm2&pin-source=file:"+token.PINFile)); err != nil {
		t.Error(err)
	}
}

func TestPINSources(t *testing.T) {
	token := softhsm.New(t).Token(t, "ca")
	generate(t, token.URI("k"), cert.P256).Close()
	bare := strings.Split(token.URI("k"), "&")[0]

	_, err := pkcs11.Open(t.Context(), bare, nil)
	refused(t, "no PIN", err, pkcs11.ErrPIN, "pin_file", token.Serial)
	_, err = pkcs11.Open(t.Context(), bare, func(context.Context) ([]byte, error) { return nil, nil })
	refused(t, "empty PIN", err, pkcs11.ErrPIN, "empty")
	_, err = pkcs11.Open(t.Context(), bare, func(context.Context) ([]byte, error) { return nil, errors.New("no terminal") })
	refused(t, "failing source", err, pkcs11.ErrPIN, "no terminal")
	secret := []byte("1234")
	k, err := pkcs11.Open(t.Context(), bare, func(context.Context) ([]byte, error) { return secret, nil })
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(secret, make([]byte, 4)) {
		t.Error("the PIN wasn't wiped")
	}
	// The process is logged in: nobody is asked.
	again, err := pkcs11.Open(t.Context(), bare, func(context.Context) ([]byte, error) { t.Error("asked for a PIN again"); return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	k.Close()

	// The last session is closed, so the next Open logs in again.
	if err := os.Chmod(token.PINFile, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = pkcs11.Open(t.Context(), token.URI("k"), nil)
	refused(t, "PIN file that others read", err, pkcs11.ErrPIN, "chmod 0600")
	if err := os.Chmod(token.PINFile, 0o600); err != nil {
		t.Fatal(err)
	}
	// pin-source wins over what the caller gives.
	k, err = pkcs11.Open(t.Context(), token.URI("k"), func(context.Context) ([]byte, error) { return []byte("wrong"), nil })
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
	_, err = pkcs11.Open(t.Context(), bare+"&pin-source=file:"+t.TempDir(), nil)
	refused(t, "folder for a PIN file", err, pkcs11.ErrPIN, "regular file")

	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("stopped")
	cancel(why)
	_, err = pkcs11.Open(ctx, token.URI("k"), nil)
	refused(t, "ended context", err, why)
}

// What a token shows as a public key is believed only after a signature.
func TestPublicKeySources(t *testing.T) {
	token := softhsm.New(t).Token(t, "ca")
	withID := strings.Replace(token.URI("k"), "?", ";id=%01?", 1)
	k := generate(t, withID, cert.P256)
	der, err := x509.CreateCertificate(rand.Reader, caTemplate(), caTemplate(), k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.der")
	if err := os.WriteFile(file, der, 0o600); err != nil {
		t.Fatal(err)
	}
	k.Close()

	other := generate(t, token.URI("other"), cert.P256)
	spki, err := x509.MarshalPKIXPublicKey(other.Public())
	if err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "wrong.der")
	if err := os.WriteFile(wrong, spki, 0o600); err != nil {
		t.Fatal(err)
	}
	// Beside the right one stands a wrong one with the same id.
	tool(t, token, "--write-object", wrong, "--type", "pubkey", "--id", "01", "--label", "k")
	if got := open(t, token.URI("k")); !got.Public().(*ecdsa.PublicKey).Equal(k.Public()) {
		t.Error("the wrong public key was believed")
	}
	// Without any, and with the wrong one alone.
	tool(t, token, "--delete-object", "--type", "pubkey", "--id", "01")
	tool(t, token, "--delete-object", "--type", "pubkey", "--id", "01")
	_, err = pkcs11.Open(t.Context(), token.URI("k"), nil)
	refused(t, "no public key", err, nil, "no public key object", "certificate")
	tool(t, token, "--write-object", wrong, "--type", "pubkey", "--id", "01", "--label", "k")
	_, err = pkcs11.Open(t.Context(), token.URI("k"), nil)
	refused(t, "wrong public key", err, nil, "doesn't belong")
	tool(t, token, "--delete-object", "--type", "pubkey", "--id", "01")
	// A certificate does as well, as on many smart cards.
	tool(t, token, "--write-object", file, "--type", "cert", "--id", "01", "--label", "k")
	if err := sign(t, open(t, token.URI("k"))); err != nil {
		t.Error(err)
	}
}

// Keys that other programs made and a CA can't use.
func TestUnusableKeys(t *testing.T) {
	token := softhsm.New(t).Token(t, "ca")
	tool(t, token, "--keypairgen", "--key-type", "RSA:1024", "--label", "small")
	tool(t, token, "--keypairgen", "--key-type", "EC:secp256k1", "--label", "rare")
	tool(t, token, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "asks", "--always-auth")
	for label, words := range map[string]string{"small": "1024 bits", "rare": "P-256", "asks": "PIN again"} {
		_, err := pkcs11.Open(t.Context(), token.URI(label), nil)
		refused(t, label, err, nil, words, token.Serial)
	}
}

// A token that comes after the module was loaded is found by initializing the
// module anew, but not under a key that is in use.
func TestLateToken(t *testing.T) {
	hsm := softhsm.New(t)
	token := hsm.Token(t, "first")
	link := filepath.Join(t.TempDir(), "link.so") // the same module by another name
	if err := os.Symlink(hsm.Module, link); err != nil {
		t.Fatal(err)
	}
	generate(t, token.URI("k"), cert.P256).Close()
	first := open(t, strings.Replace(token.URI("k"), hsm.Module, link, 1))
	late := hsm.Token(t, "late")
	_, err := pkcs11.Generate(t.Context(), late.URI("k"), cert.P256, nil)
	refused(t, "late token beside a key in use", err, pkcs11.ErrNotFound)
	if err := sign(t, first); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if err := sign(t, generate(t, late.URI("k"), cert.P256)); err != nil {
		t.Error(err)
	}
	if err := sign(t, open(t, token.URI("k"))); err != nil {
		t.Error(err)
	}
}

func TestClose(t *testing.T) {
	token := softhsm.New(t).Token(t, "ca")
	k := generate(t, token.URI("k"), cert.P256)
	other := open(t, token.URI("k"))
	for range 2 {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
	refused(t, "sign after Close", sign(t, k), pkcs11.ErrGone, "closed")
	refused(t, "Reopen after Close", k.Reopen(t.Context()), pkcs11.ErrGone, "closed")
	if err := sign(t, other); err != nil {
		t.Errorf("another key of the token: %v", err)
	}
}

func BenchmarkSign(b *testing.B) {
	hsm := softhsm.New(b)
	k, err := pkcs11.Generate(b.Context(), hsm.Token(b, "ca").URI("k"), cert.P256, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	digest := sha256.Sum256(nil)
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			if _, err := k.Sign(nil, digest[:], crypto.SHA256); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := k.Sign(nil, digest[:], crypto.SHA256); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
