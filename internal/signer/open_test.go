package signer

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
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chancery-pki/chancery/internal/cert"
)

// canSign proves that the private key works and belongs to pub.
func canSign(t *testing.T, key crypto.Signer, pub crypto.PublicKey) {
	t.Helper()
	message := []byte("to be signed")
	opts, digest := crypto.SignerOpts(crypto.SHA256), sha256.Sum256(message)
	in := digest[:]
	if _, ok := pub.(ed25519.PublicKey); ok {
		opts, in = crypto.Hash(0), message
	}
	sig, err := key.Sign(rand.Reader, in, opts)
	if err != nil {
		t.Fatal(err)
	}
	if !verifies(pub, in, sig) {
		t.Fatalf("a %T's signature doesn't verify", key)
	}
}

// verifies checks a signature of a SHA-256 digest, or Ed25519's of a message.
func verifies(pub crypto.PublicKey, in, sig []byte) bool {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, in, sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, crypto.SHA256, in, sig) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(pub, in, sig)
	}
	return false
}

func password(s string) Options {
	return Options{Password: func(context.Context) ([]byte, error) { return []byte(s), nil }}
}

// openssl runs the real tool; it is part of every Debian we support, so that
// its absence is a failure.
func openssl(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := exec.Command("openssl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func TestGenerateThenOpen(t *testing.T) {
	for _, typ := range []cert.KeyType{cert.P256, cert.P384, cert.P521, cert.Ed25519, cert.RSA2048} {
		for _, secret := range []string{"", "correct horse"} {
			if secret != "" && typ != cert.P384 {
				continue // stretching a password takes its time by design; TestOpenSSLReads does more
			}
			path := filepath.Join(t.TempDir(), "a.key")
			key, err := Generate(typ, path, []byte(secret))
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode() != 0o600 {
				t.Errorf("mode is %v (%v), want 0600", info.Mode(), err)
			}
			if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
				t.Errorf("Generate left %v behind", left)
			}
			if text, err := os.ReadFile(path); err != nil || bytes.Contains(text, []byte("ENCRYPTED")) != (secret != "") {
				t.Errorf("password %q: %s, %v", secret, text[:min(len(text), 40)], err)
			}
			got, err := Open(t.Context(), "file:"+path, password(secret))
			if err != nil {
				t.Fatal(err)
			}
			canSign(t, got, key.Public())
			canSign(t, key, got.Public())
		}
	}
}

func TestGenerateNeverOverwrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.key")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Generate(cert.P256, path, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("err = %v, want fs.ErrExist", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("the old file is gone")
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("Generate left %v behind", left)
	}
}

func TestGenerateRefusesOtherTypes(t *testing.T) {
	for _, typ := range []cert.KeyType{"", "P-224", "RSA-1024", cert.MLDSA44} {
		path := filepath.Join(t.TempDir(), "a.key")
		if _, err := Generate(typ, path, nil); err == nil || !strings.Contains(err.Error(), "P-256") {
			t.Errorf("%q: err = %v, want one that lists the types", typ, err)
		}
	}
}

func TestURIs(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.Mkdir("a b%", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Generate(cert.P256, "a b%/k.key", nil); err != nil {
		t.Fatal(err)
	}
	abs := strings.NewReplacer("%", "%25").Replace(filepath.Join(dir, "a b%", "k.key"))
	for _, tt := range []struct{ uri, want string }{
		{"file:" + abs, ""},
		{"file://" + abs, ""},
		{"file://localhost" + abs, ""},
		{"file:a%20b%25/k.key", ""},
		{"file:a b%25/k.key", ""},
		{"file:a b%/k.key", "write % as %25"},
		{"file://elsewhere/k.key", "only files of this machine"},
		{"file:", "no path"},
		{"file:///", "no path"},
		{"file:k%00.key", "NUL"},
		{"file:k.key?pin=1", "no query"},
		{"file:missing.key", "no such file"},
		{"k.key", "write file:k.key"},
		{"awskms:k", "not one of file:"},
		{"FILE:k.key", "not one of file:"},
		{"pkcs11:token=x;object=y?pin-value=1234", "pin-value"},
		{"yubikey:serial=1", "slot"},
		{"", "not a URI"},
	} {
		s, err := Open(t.Context(), tt.uri, Options{})
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.uri, err)
		case tt.want == "" && (s.URI != tt.uri || s.Parallel < 1):
			t.Errorf("%s: got %+v", tt.uri, s)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: err = %v, want %q in it", tt.uri, err, tt.want)
		}
	}
}

// TestCheckURI: what is wrong with a URI is said without opening anything, and
// without repeating a PIN.
func TestCheckURI(t *testing.T) {
	for _, tt := range []struct{ uri, want string }{
		{"file:/nowhere/k.key", ""},
		{"pkcs11:token=none;object=nothing?module-path=/nowhere.so", ""},
		{"yubikey:serial=4711;slot=9c", ""},
		{"/nowhere/k.key", "write file:/nowhere/k.key"},
		{"file:", "no path"},
		{"http://nowhere/k.key", "not one of file:"},
		{"pkcs11:token=x;object=y?module-path=/nowhere.so&pin-value=19283746", "pin-value"},
		{"pkcs11:tokem=x", "tokem"},
		{"yubikey:slot=77", "77"},
	} {
		err := CheckURI(tt.uri)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: err = %v, want %q in it", tt.uri, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "19283746") {
			t.Errorf("the PIN is in the error: %v", err)
		}
	}
}

// TestPermissions: a key that others could have copied is no secret.
func TestPermissions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.key")
	if _, err := Generate(cert.P256, path, nil); err != nil {
		t.Fatal(err)
	}
	for mode, ok := range map[os.FileMode]bool{
		0o600: true, 0o400: true, 0o700: true,
		0o640: os.Geteuid() == 0, 0o604: false, 0o644: false, 0o620: false, 0o602: false, 0o660: false, 0o601: false,
	} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), "file:"+path, Options{})
		if ok && err != nil {
			t.Errorf("%04o: %v", mode, err)
		}
		if !ok && (!errors.Is(err, ErrPermissions) || !strings.Contains(err.Error(), "chmod 0600 "+path)) {
			t.Errorf("%04o: err = %v, want ErrPermissions and the chmod to run", mode, err)
		}
		if _, err := PasswordFile(path)(t.Context()); ok != (err == nil) {
			t.Errorf("password file %04o: %v", mode, err)
		}
	}
}

func TestOddFiles(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{fifo: "not a regular file", dir: "not a regular file"} {
		if _, err := Open(t.Context(), "file:"+path, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: err = %v, want %q", path, err, want)
		}
	}
	key, err := newKey(cert.P256)
	if err != nil {
		t.Fatal(err)
	}
	der, _ := x509.MarshalPKCS8PrivateKey(key)
	good := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	weak, _ := os.ReadFile("testdata/rsa1024.pem")
	p224, _ := os.ReadFile("testdata/p224.pem")
	for name, tt := range map[string]struct{ text, want string }{
		"empty":       {"", "no private key"},
		"certificate": {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no private key"},
		"two":         {good + good, "more than one"},
		"damaged":     {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "damaged"},
		"damaged enc": {"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "damaged"},
		"openssh":     {"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "ssh-keygen -p"},
		"old cipher":  {"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n", "openssl pkcs8 -topk8"},
		"huge":        {good + strings.Repeat("#", maxKeyFile), "no secret of this kind is"},
		"rsa 1024":    {string(weak), "1024 bits"},
		"p-224":       {string(p224), "P-224"},
	} {
		path := filepath.Join(dir, "k")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), "file:"+path, password("x"))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: err = %v, want %q in it", name, err, tt.want)
		}
	}
}

// TestOpenSSLWrites: every form in which openssl writes a private key.
func TestOpenSSLWrites(t *testing.T) {
	t.Chdir(t.TempDir())
	openssl(t, "ecparam", "-name", "prime256v1", "-genkey", "-out", "sec1") // EC PARAMETERS + EC PRIVATE KEY
	openssl(t, "genrsa", "-traditional", "-out", "pkcs1", "2048")
	openssl(t, "genpkey", "-algorithm", "ed25519", "-out", "ed")
	openssl(t, "genpkey", "-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", "pkcs8")
	// openssl 3's default, then each choice that it offers and we read.
	openssl(t, "pkcs8", "-topk8", "-in", "pkcs8", "-passout", "pass:geheim", "-out", "enc1")
	openssl(t, "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512", "-iter", "1000", "-in", "ed", "-passout", "pass:geheim", "-out", "enc2")
	openssl(t, "pkcs8", "-topk8", "-v2", "aes-128-cbc", "-in", "pkcs1", "-passout", "pass:geheim", "-out", "enc3")
	openssl(t, "genpkey", "-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-aes256", "-pass", "pass:geheim", "-out", "enc4")
	for _, name := range []string{"sec1", "pkcs1", "ed", "pkcs8", "enc1", "enc2", "enc3", "enc4"} {
		s, err := Open(t.Context(), "file:"+name, password("geheim"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		block, _ := pem.Decode(openssl(t, "pkey", "-in", name, "-passin", "pass:geheim", "-pubout"))
		pub, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		canSign(t, s, pub)
	}
	// What we don't read says how to convert it.
	openssl(t, "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA1", "-in", "ed", "-passout", "pass:x", "-out", "sha1")
	openssl(t, "pkcs8", "-topk8", "-v2", "des3", "-in", "ed", "-passout", "pass:x", "-out", "des3")
	openssl(t, "pkcs8", "-topk8", "-scrypt", "-in", "ed", "-passout", "pass:x", "-out", "scrypt")
	for _, name := range []string{"sha1", "des3", "scrypt"} {
		if _, err := Open(t.Context(), "file:"+name, password("x")); err == nil || !strings.Contains(err.Error(), "openssl pkcs8 -topk8") {
			t.Errorf("%s: err = %v, want advice to convert", name, err)
		}
	}
}

// TestOpenSSLReads: what Generate writes, openssl opens, with the password only.
func TestOpenSSLReads(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, typ := range []cert.KeyType{cert.P256, cert.Ed25519} {
		name := string(typ)
		key, err := Generate(typ, name, []byte("geheim"))
		if err != nil {
			t.Fatal(err)
		}
		want, _ := x509.MarshalPKIXPublicKey(key.Public())
		block, _ := pem.Decode(openssl(t, "pkey", "-in", name, "-passin", "pass:geheim", "-pubout"))
		if !bytes.Equal(block.Bytes, want) {
			t.Errorf("%s: openssl reads another key", typ)
		}
		openssl(t, "pkcs8", "-in", name, "-passin", "pass:geheim", "-out", name+".clear")
		if out, err := exec.Command("openssl", "pkey", "-in", name, "-passin", "pass:wrong", "-noout").CombinedOutput(); err == nil {
			t.Errorf("%s: openssl opens it with a wrong password: %s", typ, out)
		}
	}
}

func TestPasswords(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.key") // with few iterations, since we open it often
	if _, err := Generate(cert.P256, path+".clear", nil); err != nil {
		t.Fatal(err)
	}
	openssl(t, "pkcs8", "-topk8", "-iter", "100", "-in", path+".clear", "-passout", "pass:geheim", "-out", path)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), "file:"+path, Options{}); !errors.Is(err, ErrPassword) {
		t.Errorf("no password: err = %v", err)
	}
	if _, err := Open(t.Context(), "file:"+path, password("wrong")); !errors.Is(err, ErrPassword) {
		t.Errorf("wrong password: err = %v", err)
	}
	away := errors.New("nobody at the prompt")
	if _, err := Open(t.Context(), "file:"+path, Options{Password: func(context.Context) ([]byte, error) { return nil, away }}); !errors.Is(err, away) {
		t.Errorf("err = %v, want the callback's", err)
	}
	for text, ok := range map[string]bool{"geheim": true, "geheim\n": true, "geheim\r\n": true, "geheim\n\n": false, " geheim": false, "": false, "\n": false} {
		file := filepath.Join(dir, "password")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), "file:"+path, Options{Password: PasswordFile(file)})
		if ok != (err == nil) {
			t.Errorf("password file %q: %v", text, err)
		}
		if err != nil && !errors.Is(err, ErrPassword) {
			t.Errorf("password file %q: err = %v, want ErrPassword", text, err)
		}
	}
}

// TestDamage flips every byte of an encrypted key and cuts it everywhere: never
// a panic or a hang. (PBES2 protects no integrity: a flipped bit may give
// another key, which then doesn't match its CA certificate.)
func TestDamage(t *testing.T) {
	key, err := newKey(cert.P256)
	if err != nil {
		t.Fatal(err)
	}
	der, _ := x509.MarshalPKCS8PrivateKey(key)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	openssl(t, "pkcs8", "-topk8", "-iter", "1", "-in", filepath.Join(dir, "in"), "-outform", "DER", "-passout", "pass:x", "-out", filepath.Join(dir, "out"))
	sealed, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decryptPKCS8(sealed, []byte("x")); err != nil || !bytes.Equal(got, der) {
		t.Fatalf("undamaged: %v", err)
	}
	for i := range sealed {
		b := bytes.Clone(sealed)
		b[i] ^= 0x41
		if plain, err := decryptPKCS8(b, []byte("x")); err == nil {
			parseKey(&pem.Block{Type: "PRIVATE KEY", Bytes: plain})
		}
		if _, err := decryptPKCS8(sealed[:i], []byte("x")); err == nil {
			t.Errorf("cut to %d bytes: no error", i)
		}
	}
}

func FuzzKeyFile(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	for _, name := range []string{"testdata/rsa1024.pem", "testdata/p224.pem", "testdata/encrypted.pem"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		block, err := findKey(text)
		if err != nil {
			return
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" {
			if plain, err := decryptPKCS8(block.Bytes, []byte("x")); err == nil {
				block = &pem.Block{Type: "PRIVATE KEY", Bytes: plain}
			}
		}
		if key, err := parseKey(block); err == nil && key.Public() == nil {
			t.Error("a key without public half")
		}
	})
}

func FuzzCheckURI(f *testing.F) {
	for _, seed := range []string{"file:a.key", "file:///etc/a%20b.key", "file://host/a", "pkcs11:token=x;object=y", "yubikey:slot=9c", "", ":", "x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		rest, isFile := strings.CutPrefix(uri, "file:")
		if err := CheckURI(uri); err != nil || !isFile {
			return
		}
		if path, err := filePath(rest); err != nil || path == "" || strings.ContainsRune(path, 0) {
			t.Errorf("%q is the path %q: %v", uri, path, err)
		}
	})
}
