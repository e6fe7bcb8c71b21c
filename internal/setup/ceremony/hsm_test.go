package ceremony

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/signer/pkcs11/softhsm"
)

// The ceremonies with all keys in HSMs, a token for the root and one for the
// issuing CAs: SoftHSM through its PKCS#11 module.
func TestWithHSM(t *testing.T) {
	hsm := softhsm.New(t)
	vault, online := hsm.Token(t, "vault"), hsm.Token(t, "online")
	dir := t.TempDir()
	root := Parent{Certificate: filepath.Join(dir, "root.pem"), Key: Key{URI: vault.URI("root")}}
	if _, err := CreateCA(t.Context(), NewCA{Name: "Example Root CA", Root: true}, making(root.Key, cert.P384), Parent{}, root.Certificate); err != nil {
		t.Fatal(err)
	}
	// At once: both tokens are there.
	ca := Parent{Certificate: filepath.Join(dir, "servers.pem"), Key: Key{URI: online.URI("servers")}}
	made, err := CreateCA(t.Context(), NewCA{Name: "Example Server CA", Usages: []cert.Usage{cert.Server}}, making(ca.Key, cert.P256), root, ca.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	openssl(t, "verify", "-x509_strict", "-CAfile", root.Certificate, ca.Certificate)
	// Carried: the request from one token, the certificate from the other.
	key, csr, out := Key{URI: online.URI("clients")}, filepath.Join(dir, "clients.csr"), filepath.Join(dir, "clients.pem")
	if err := RequestCA(t.Context(), NewCA{Name: "Example Client CA"}, making(key, cert.RSA2048), csr); err != nil {
		t.Fatal(err)
	}
	openssl(t, "req", "-in", csr, "-noout", "-verify")
	if _, err := SignCA(t.Context(), NewCA{Usages: []cert.Usage{cert.Client}}, csr, root, out, func(string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	openssl(t, "verify", "-x509_strict", "-CAfile", root.Certificate, out)
	// The root's list, and an OCSP responder certified by the issuing CA.
	list := RootCRL{By: root, Number: 1, Out: filepath.Join(dir, "root.crl"), Revoke: []Withdrawal{{Certificate: out, Reason: 5}}}
	if _, err := list.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if said, err := opensslFails("verify", "-crl_check", "-CAfile", root.Certificate, "-CRLfile", list.Out, out); err == nil || !strings.Contains(said, "revoked") {
		t.Errorf("%v\n%s", err, said)
	}
	newCA(t, NewCA{Name: "OCSP", Responder: true}, ca, dir, "ocsp")

	opened, err := ca.Key.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	facts, err := Facts(ca.Key.URI, opened)
	if err != nil || facts.KeyID != keyIDOf(made) || !strings.Contains(facts.Token, "online") {
		t.Errorf("%+v, %v", facts, err)
	}
	// A key that is there is never replaced, and another's is found out.
	if _, err := ca.Key.Generate(t.Context(), Generation{Type: cert.P256}); err == nil {
		t.Error("a second key of one name")
	}
	if _, err := CreateCA(t.Context(), NewCA{Name: "X"}, never(t), Parent{Certificate: root.Certificate, Key: ca.Key}, filepath.Join(dir, "x.pem")); err == nil || !strings.Contains(err.Error(), "is not the key of") {
		t.Error(err)
	}
}

// A wrong PIN: the error names the token and quotes no PIN.
func TestWrongPIN(t *testing.T) {
	hsm := softhsm.New(t)
	token := hsm.Token(t, "guarded")
	k := Key{URI: "pkcs11:token=guarded;object=a?module-path=" + hsm.Module, PINFile: secretFile(t, "98765432")}
	if _, err := k.Generate(t.Context(), Generation{Type: cert.P256}); err == nil || !strings.Contains(err.Error(), "guarded") || strings.Contains(err.Error(), "98765432") {
		t.Errorf("%v", err)
	}
	k.PINFile = token.PINFile
	if _, err := k.Generate(t.Context(), Generation{Type: cert.P256}); err != nil {
		t.Error(err)
	}
}
