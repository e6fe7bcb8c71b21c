package ceremony

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/revocation"
)

// openssl runs the real tool; its absence is a failure.
func openssl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := opensslFails(args...)
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func opensslFails(args ...string) (string, error) {
	out, err := exec.Command("openssl", args...).CombinedOutput()
	return string(out), err
}

// fileKey names a key in a file of dir.
func fileKey(dir, name string) Key { return Key{URI: "file:" + filepath.Join(dir, name)} }

// making is a Source that makes the key.
func making(k Key, typ cert.KeyType) Source {
	return func(ctx context.Context) (crypto.Signer, error) { return k.Generate(ctx, Generation{Type: typ}) }
}

// opening is a Source that opens the key.
func opening(k Key) Source {
	return func(ctx context.Context) (crypto.Signer, error) { return k.Open(ctx) }
}

// never is a Source that must not be asked.
func never(t *testing.T) Source {
	return func(context.Context) (crypto.Signer, error) {
		t.Error("a key was made or opened for a ceremony that can't be")
		return nil, errors.New("never")
	}
}

// newRoot makes a root in dir.
func newRoot(t *testing.T, dir string, typ cert.KeyType) Parent {
	t.Helper()
	p := Parent{Certificate: filepath.Join(dir, "root.pem"), Key: fileKey(dir, "root.key")}
	if _, err := CreateCA(t.Context(), NewCA{Name: "Example Root CA", Organization: "Example", Root: true}, making(p.Key, typ), Parent{}, p.Certificate); err != nil {
		t.Fatal(err)
	}
	return p
}

// newCA makes a CA below the parent.
func newCA(t *testing.T, n NewCA, by Parent, dir, name string) Parent {
	t.Helper()
	p := Parent{Certificate: filepath.Join(dir, name+".pem"), Key: fileKey(dir, name+".key")}
	if _, err := CreateCA(t.Context(), n, making(p.Key, cert.P256), by, p.Certificate); err != nil {
		t.Fatal(err)
	}
	return p
}

// RFC 5280 section 4.2: what a CA certificate says, as OpenSSL reads it, for
// every kind of key.
func TestCreate(t *testing.T) {
	for _, typ := range []cert.KeyType{cert.P256, cert.P384, cert.Ed25519, cert.RSA2048} {
		t.Run(string(typ), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			root := newRoot(t, dir, typ)
			key, out := fileKey(dir, "ca.key"), filepath.Join(dir, "ca.pem")
			made, err := CreateCA(t.Context(), NewCA{
				Name: "Example Server CA", Organization: "Example", Usages: []cert.Usage{cert.Server},
				Constrain: []string{"Prod.internal", "10.0.0.0/8", "fd00::1"}, CRLURL: "http://crl.internal", AIAURL: "http://crl.internal:8080/own.cer",
			}, making(key, typ), root, out)
			if err != nil {
				t.Fatal(err)
			}
			openssl(t, "verify", "-x509_strict", "-CAfile", root.Certificate, out)
			parent, err := ReadCertificate(root.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			text := openssl(t, "x509", "-in", out, "-noout", "-text")
			for _, want := range []string{
				"Subject: O = Example, CN = Example Server CA", "CA:TRUE, pathlen:0", "TLS Web Server Authentication", "Certificate Sign, CRL Sign",
				"DNS:prod.internal", "IP:10.0.0.0/255.0.0.0", "URI:http://crl.internal/crl/" + hex.EncodeToString(parent.SubjectKeyId) + ".crl",
				"CA Issuers - URI:http://crl.internal:8080/own.cer",
			} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
			opened, err := key.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			facts, err := Facts(key.URI, opened)
			if err != nil || facts.KeyID != hex.EncodeToString(made.SubjectKeyId) || facts.Type != typ || facts.Fingerprint != Fingerprint(made.RawSubjectPublicKeyInfo) {
				t.Errorf("%+v, %v", facts, err)
			}
		})
	}
}

// The offline ceremony: request, carry, sign, carry back.
func TestRequestAndSign(t *testing.T) {
	dir := t.TempDir()
	root := newRoot(t, dir, cert.P384)
	key, csr, out := fileKey(dir, "ca.key"), filepath.Join(dir, "ca.csr"), filepath.Join(dir, "ca.pem")
	if err := RequestCA(t.Context(), NewCA{Name: "Example Client CA", Organization: "Example"}, making(key, cert.P256), csr); err != nil {
		t.Fatal(err)
	}
	openssl(t, "req", "-in", csr, "-noout", "-verify")
	n := NewCA{Usages: []cert.Usage{cert.Client}, Lifetime: 100 * 24 * time.Hour}
	var shown string
	refuse := errors.New("not what was expected")
	if _, err := SignCA(t.Context(), n, csr, root, out, func(what string) error { shown = what; return refuse }); !errors.Is(err, refuse) {
		t.Fatal(err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Fatal("signed although it was refused")
	}
	r, err := ReadRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(n.Lifetime).UTC().Format(time.DateOnly)
	for _, want := range []string{"Example Root CA", "CN=Example Client CA,O=Example", Fingerprint(r.RawSubjectPublicKeyInfo), "P-256", "client", end} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not shown in\n%s", want, shown)
		}
	}
	made, err := SignCA(t.Context(), n, csr, root, out, func(string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	openssl(t, "verify", "-x509_strict", "-CAfile", root.Certificate, out)
	if opened, err := key.Open(t.Context()); err != nil || !sameKey(opened.Public(), made.PublicKey) || made.Subject.String() != "CN=Example Client CA,O=Example" {
		t.Errorf("%v %v", made.Subject, err)
	}
}

func TestRequestsFromOpenSSL(t *testing.T) {
	dir := t.TempDir()
	root := newRoot(t, dir, cert.P256)
	for name, c := range map[string]struct{ subject, want string }{
		"good":      {"/O=Example/CN=Other CA", ""},
		"two names": {"/CN=a/CN=b", "one common name"},
		"country":   {"/C=CH/CN=a", "one common name"},
		"no name":   {"/O=a", "one common name"},
	} {
		csr, out := filepath.Join(dir, name+".csr"), filepath.Join(dir, name+".pem")
		openssl(t, "req", "-newhdr", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", filepath.Join(dir, name+".key"), "-subj", c.subject, "-out", csr)
		_, err := SignCA(t.Context(), NewCA{}, csr, root, out, func(string) error { return nil })
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			openssl(t, "verify", "-x509_strict", "-CAfile", root.Certificate, out)
		}
	}
}

// A delegated OCSP responder (RFC 6960 section 4.2.2.2).
func TestResponder(t *testing.T) {
	dir := t.TempDir()
	root := newRoot(t, dir, cert.P256)
	ca := newCA(t, NewCA{Name: "Example Server CA"}, root, dir, "ca")
	responder := newCA(t, NewCA{Name: "Example Server OCSP", Responder: true}, ca, dir, "ocsp")
	text := openssl(t, "x509", "-in", responder.Certificate, "-noout", "-text")
	for _, want := range []string{"OCSP Signing", "OCSP No Check"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	openssl(t, "verify", "-x509_strict", "-CAfile", root.Certificate, "-untrusted", ca.Certificate, responder.Certificate)
	child, err := ReadCertificate(responder.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	above, err := ReadCertificate(ca.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if err := revocation.CheckResponder(child, above); err != nil {
		t.Error(err)
	}
}

// What can't be is refused before a key is made, and nothing is written.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	root := newRoot(t, dir, cert.P256)
	ca := newCA(t, NewCA{Name: "Example Server CA"}, root, dir, "ca")
	other := newRoot(t, t.TempDir(), cert.P256)
	good := NewCA{Name: "New CA"}
	with := func(change func(*NewCA)) NewCA { n := good; change(&n); return n }
	taken := filepath.Join(dir, "taken.pem")
	if err := os.WriteFile(taken, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(dir, "large.pem")
	if err := os.WriteFile(large, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		new  NewCA
		by   Parent
		out  string
		want string
	}{
		"no name":             {NewCA{}, root, "", "needs a name"},
		"file in the way":     {good, root, taken, "there already"},
		"another's key":       {good, Parent{Certificate: root.Certificate, Key: other.Key}, "", "is not the key of"},
		"no certificate":      {good, Parent{Certificate: filepath.Join(dir, "root.key"), Key: root.Key}, "", "has no PEM certificate"},
		"too large":           {good, Parent{Certificate: large, Key: root.Key}, "", "larger than"},
		"lost parent":         {good, Parent{Certificate: filepath.Join(dir, "nope.pem"), Key: root.Key}, "", "no such file"},
		"lost key":            {good, Parent{Certificate: root.Certificate, Key: fileKey(dir, "nope.key")}, "", "no such file"},
		"key without URI":     {good, Parent{Certificate: root.Certificate}, "", "no key is named"},
		"PIN of a file":       {good, Parent{Certificate: root.Certificate, Key: Key{URI: root.Key.URI, PINFile: "x"}}, "", "has a password and no PIN"},
		"password of a token": {good, Parent{Certificate: root.Certificate, Key: Key{URI: "pkcs11:token=x", PasswordFile: "x"}}, "", "has a PIN and no password"},
		"https":               {with(func(n *NewCA) { n.CRLURL = "https://crl.internal" }), root, "", "use http"},
		"no URL":              {with(func(n *NewCA) { n.AIAURL = "crl.internal" }), root, "", "is not an http URL"},
		"wildcard":            {with(func(n *NewCA) { n.Constrain = []string{"*.internal"} }), root, "", "is not a domain or network"},
		"network bits":        {with(func(n *NewCA) { n.Constrain = []string{"10.0.0.1/8"} }), root, "", "is not a network"},
		"responder's usages":  {with(func(n *NewCA) { n.Responder, n.Usages = true, []cert.Usage{cert.Server} }), root, "", "has no usages"},
		"root's constraints":  {with(func(n *NewCA) { n.Root, n.Constrain = true, []string{"internal"} }), Parent{}, "", "below a root"},
		"root and responder":  {with(func(n *NewCA) { n.Root, n.Responder = true, true }), Parent{}, "", "no OCSP responder"},
	} {
		out := c.out
		if out == "" {
			out = filepath.Join(dir, "new.pem")
		}
		if _, err := CreateCA(t.Context(), c.new, never(t), c.by, out); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// These show only when the certificate is made.
	if _, err := CreateCA(t.Context(), good, opening(root.Key), root, filepath.Join(dir, "new.pem")); err == nil || !strings.Contains(err.Error(), "parent's own") {
		t.Errorf("the parent's key again: %v", err)
	}
	if _, err := CreateCA(t.Context(), good, making(fileKey(dir, "below.key"), cert.P256), ca, filepath.Join(dir, "new.pem")); err == nil || !strings.Contains(err.Error(), "allows no CA below it") {
		t.Errorf("below an issuing CA: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "new.pem")); err == nil {
		t.Error("a certificate was written")
	}
	if b, _ := os.ReadFile(taken); string(b) != "mine" {
		t.Error("a file was overwritten")
	}
}

func TestGenerateRefuses(t *testing.T) {
	dir := t.TempDir()
	there := fileKey(dir, "a.key")
	if _, err := there.Generate(t.Context(), Generation{Type: cert.P256}); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(filepath.Join(dir, "a.key"))
	for name, c := range map[string]struct {
		key  Key
		g    Generation
		want string
	}{
		"there already":           {there, Generation{Type: cert.P256}, "exist"},
		"attestation of a file":   {fileKey(dir, "b.key"), Generation{Type: cert.P256, Attestation: "x"}, "are a YubiKey's"},
		"unknown type":            {fileKey(dir, "b.key"), Generation{Type: cert.MLDSA44}, "ML-DSA-44"},
		"unknown kind":            {Key{URI: "awskms:x"}, Generation{Type: cert.P256}, "awskms"},
		"PIN policy":              {Key{URI: "yubikey:slot=9c"}, Generation{Type: cert.P256, PINPolicy: "sometimes"}, "sometimes"},
		"management key's digits": {Key{URI: "yubikey:slot=9c"}, Generation{Type: cert.P256, ManagementKeyFile: secretFile(t, "xyz")}, "hex digits"},
	} {
		if _, err := c.key.Generate(t.Context(), c.g); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after, _ := os.ReadFile(filepath.Join(dir, "a.key")); !bytes.Equal(before, after) {
		t.Error("the key was overwritten")
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 1 {
		t.Errorf("%q", names)
	}
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// An encrypted key file: its password comes from a file, or a person is asked.
func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	k := fileKey(dir, "a b#.key")
	k.URI = "file://" + filepath.Join(dir, "a%20b%23.key") // RFC 8089
	k.PasswordFile = secretFile(t, "sesame")
	if _, err := k.Generate(t.Context(), Generation{Type: cert.P256}); err != nil {
		t.Fatal(err)
	}
	openssl(t, "pkey", "-in", filepath.Join(dir, "a b#.key"), "-passin", "pass:sesame", "-noout", "-check")
	if _, err := k.Open(t.Context()); err != nil {
		t.Error(err)
	}
	asked := ""
	k.PasswordFile, k.Ask = "", func(_ context.Context, what string) ([]byte, error) { asked = what; return []byte("sesame"), nil }
	if _, err := k.Open(t.Context()); err != nil || !strings.Contains(asked, k.URI) {
		t.Errorf("%q %v", asked, err)
	}
	k.Ask = nil
	if _, err := k.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "password") {
		t.Error(err)
	}
}

// Only what request signatures prove is certified; no bytes make it panic.
func FuzzRequest(f *testing.F) {
	key, err := fileKey(f.TempDir(), "k").Generate(f.Context(), Generation{Type: cert.P256})
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add(der[:len(der)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, der []byte) {
		if r, err := parseRequest(der); err == nil && (r.CheckSignature() != nil || r.Subject.CommonName == "") {
			t.Error("an unproven request was taken")
		}
	})
}

func TestTamperedRequest(t *testing.T) {
	dir := t.TempDir()
	csr := filepath.Join(dir, "a.csr")
	if err := RequestCA(t.Context(), NewCA{Name: "Example"}, making(fileKey(dir, "a.key"), cert.P256), csr); err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(csr)
	block, _ := pem.Decode(data)
	changed := bytes.Replace(slices.Clone(block.Bytes), []byte("Example"), []byte("Evil CA"), 1)
	if err := os.WriteFile(csr, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: changed}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRequest(csr); err == nil || !strings.Contains(err.Error(), "not by its key") {
		t.Error(err)
	}
}
