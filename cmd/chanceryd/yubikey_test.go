//go:build pcsc && cgo

package main

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/yubikey"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard/reader"
)

// A root and an issuing CA in two slots of one YubiKey: made there, with the
// card's evidence, and used by one command at once. A soft card behind the
// real pcscd and go-piv.
func TestCeremoniesOnYubiKey(t *testing.T) {
	dir, err := os.MkdirTemp("", "pcscd") // not t.TempDir: a socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	readers, err := reader.Start(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer readers.Close()
	name, value, _ := strings.Cut(readers.Env()[0], "=")
	t.Setenv(name, value)
	maker, err := softcard.NewMaker()
	if err != nil {
		t.Fatal(err)
	}
	card, err := softcard.New(softcard.Options{Serial: 4711, Maker: maker})
	if err != nil {
		t.Fatal(err)
	}
	if err := readers.Insert(0, card); err != nil {
		t.Fatal(err)
	}

	s := session{t.TempDir()}
	pinFile := filepath.Join(s.dir, "pin")
	if err := os.WriteFile(pinFile, []byte(softcard.DefaultPIN), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := s.run(t, 0, "key generate yubikey:serial=4711;slot=9c --pin-file $D/pin --attestation $D/root.attestation")
	if !strings.Contains(out, "4711") {
		t.Error(out)
	}
	data, err := os.ReadFile(filepath.Join(s.dir, "root.attestation"))
	if err != nil {
		t.Fatal(err)
	}
	var chain []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, c)
	}
	if len(chain) != 2 {
		t.Fatalf("%d certificates of evidence", len(chain))
	}
	a, err := yubikey.ParseAttestation(chain[0], chain[1])
	if err != nil || a.Serial != 4711 || a.Verify(maker.Issuers(), time.Now()) != nil {
		t.Errorf("%+v, %v", a, err)
	}
	root := "yubikey:slot=9c"
	s.run(t, 0, "ca create --self-signed --key "+root+" --pin-file $D/pin --name Root --out $D/root.pem")
	s.run(t, 0, "ca create --generate --type P-384 --key yubikey:slot=82 --pin-file $D/pin --name CA --out $D/ca.pem --parent $D/root.pem --parent-key "+root+" --parent-pin-file $D/pin")
	openssl(t, "verify", "-x509_strict", "-CAfile", filepath.Join(s.dir, "root.pem"), filepath.Join(s.dir, "ca.pem"))
	s.run(t, 0, "key show "+root+" yubikey:slot=82 --pin-file $D/pin")
	// A slot that holds a key keeps it, unless that is said in so many words.
	s.run(t, 1, "key generate "+root+" --pin-file $D/pin")
	openssl(t, "verify", "-CAfile", filepath.Join(s.dir, "root.pem"), filepath.Join(s.dir, "root.pem"))
	s.run(t, 0, "key generate yubikey:slot=82 --pin-file $D/pin --destroy-present-key")
	// A wrong PIN costs one try, and the message says what is left.
	if err := os.WriteFile(pinFile, []byte("654321"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, said := s.run(t, 1, "ca crl --number 1 --out $D/root.crl --parent $D/root.pem --parent-key "+root+" --parent-pin-file $D/pin")
	if card.Tries() != 2 || !strings.Contains(said, "2") || strings.Contains(said, "654321") {
		t.Errorf("%d tries left: %s", card.Tries(), said)
	}
}
