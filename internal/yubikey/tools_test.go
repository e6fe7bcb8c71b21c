//go:build linux && pcsc && cgo

package yubikey_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// Other software sees the keys that Generate makes, by their certificates,
// and signs with them; OpenSSL verifies.
func TestOtherSoftware(t *testing.T) {
	dir := t.TempDir()
	message := filepath.Join(dir, "message")
	if err := os.WriteFile(message, []byte("what is signed"), 0o600); err != nil {
		t.Fatal(err)
	}
	// OpenSC gives each reader four of its sixteen slots, if nobody says more.
	conf := filepath.Join(dir, "opensc.conf")
	if err := os.WriteFile(conf, []byte("app opensc-pkcs11 { pkcs11 { max_virtual_slots = 64; } }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OPENSC_CONF", conf)
	alone(t)
	for _, c := range []struct {
		typ       cert.KeyType
		slot      yubikey.Slot
		id        string // in both modules
		mechanism string
	}{
		{cert.P256, yubikey.Authentication, "01", "ECDSA-SHA256"},
		{cert.RSA2048, yubikey.CardAuthentication, "04", "SHA256-RSA-PKCS"},
	} {
		a := generate(t, uri(first, c.slot), yubikey.GenerateOptions{KeyType: c.typ, Overwrite: true})
		der, err := x509.MarshalPKIXPublicKey(a.Statement.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		public := filepath.Join(dir, "public.pem")
		if err := os.WriteFile(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, module := range []string{"libykcs11.so", "opensc-pkcs11.so"} {
			if listed := tool(t, "pkcs11-tool", "--module", module, "--list-objects", "--type", "cert"); !bytes.Contains(listed, []byte("Certificate Object")) {
				t.Errorf("%s lists no certificate:\n%s", module, listed)
			}
			signature := filepath.Join(dir, "signature")
			tool(t, "pkcs11-tool", "--module", module, "--login", "--pin", softcard.DefaultPIN, "--id", c.id, "--sign",
				"--mechanism", c.mechanism, "--signature-format", "openssl", "--input-file", message, "--output-file", signature)
			tool(t, "openssl", "dgst", "-sha256", "-verify", public, "-signature", signature, message)
		}
	}
}

// yubico-piv-tool makes a key that we open, and reads what we made.
func TestYubicoTool(t *testing.T) {
	dir, c := t.TempDir(), older[0] // version 2.2 knows no management keys of AES
	on := func(args ...string) []byte {
		t.Helper()
		return tool(t, "yubico-piv-tool", append([]string{"-r", "#2"}, args...)...)
	}
	on("-a", "generate", "-s", "9d", "-A", "ECCP384", "-o", filepath.Join(dir, "public.pem"))
	k, err := new(yubikey.Cards).Open(t.Context(), uri(c, yubikey.KeyManagement), pin(softcard.DefaultPIN).ask)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile(filepath.Join(dir, "public.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(theirs); block == nil || !bytes.Equal(block.Bytes, spki(t, k)) {
		t.Errorf("we opened another key than\n%s", theirs)
	}
	mustSign(t, k)
	k.Close()

	ours := generate(t, empty(c, yubikey.Authentication), yubikey.GenerateOptions{})
	statement, _ := pem.Decode(on("-a", "attest", "-s", "9a"))
	device, _ := pem.Decode(on("-a", "read-certificate", "-s", "f9"))
	if statement == nil || device == nil {
		t.Fatal("no attestation")
	}
	parsed := make([]*x509.Certificate, 2)
	for i, b := range []*pem.Block{statement, device} {
		if parsed[i], err = x509.ParseCertificate(b.Bytes); err != nil {
			t.Fatal(err)
		}
	}
	a, err := yubikey.ParseAttestation(parsed[0], parsed[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Verify(maker.Issuers(), time.Now()); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(a.Statement.RawSubjectPublicKeyInfo, ours.Statement.RawSubjectPublicKeyInfo) {
		t.Error("they attest another key than we made")
	}
	if out := on("-a", "status"); !bytes.Contains(out, []byte("Chancery key, YubiKey 3001 slot 9a")) {
		t.Errorf("status doesn't show our certificate:\n%s", out)
	}
}

// BenchmarkSign is what our side of a signature costs: the card takes no time
// of its own beside the arithmetic.
func BenchmarkSign(b *testing.B) {
	k, err := new(yubikey.Cards).Open(b.Context(), uri(first, yubikey.Signature), pin(softcard.DefaultPIN).ask)
	if err != nil {
		k, _, err = new(yubikey.Cards).Generate(b.Context(), uri(first, yubikey.Signature), yubikey.GenerateOptions{KeyType: cert.P256, PIN: pin(softcard.DefaultPIN).ask})
	}
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	digest := make([]byte, 32)
	for b.Loop() {
		if _, err := k.Sign(rand.Reader, digest, crypto.SHA256); err != nil {
			b.Fatal(err)
		}
	}
}
