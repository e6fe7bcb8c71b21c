package setup_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/server"
	"github.com/chancery-pki/chancery/internal/setup"
)

// openssl runs the real tool; its absence is a failure.
func openssl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("openssl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func certificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// check is `chanceryd check`.
func check(t *testing.T, path string) error {
	t.Helper()
	c, err := config.Load(path)
	if err != nil {
		return err
	}
	if found := config.Check(c); len(found) > 0 {
		return found
	}
	return server.Check(t.Context(), c, false, func(err error) { t.Error(err) })
}

// What init writes for each key type is in order, by our own check and by
// OpenSSL's.
func TestInit(t *testing.T) {
	for _, tt := range []struct {
		typ     setup.KeyChoice
		root    map[string]x509.PublicKeyAlgorithm
		issuing []string
	}{
		{"", map[string]x509.PublicKeyAlgorithm{"root": x509.ECDSA}, []string{"servers", "clients"}},
		{setup.RSA, map[string]x509.PublicKeyAlgorithm{"root": x509.RSA}, []string{"servers", "clients"}},
		{setup.Both, map[string]x509.PublicKeyAlgorithm{"root": x509.ECDSA, "root-rsa": x509.RSA}, []string{"servers", "clients", "servers-rsa", "clients-rsa"}},
	} {
		t.Run("type "+string(tt.typ), func(t *testing.T) {
			t.Parallel()
			in := setup.Init{Dir: filepath.Join(t.TempDir(), "new", "ca"), Name: "Example", DNS: "ca.example.internal", KeyType: tt.typ}
			made, err := in.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := check(t, made.Config); err != nil {
				t.Error(err)
			}
			bundle, err := os.ReadFile(made.Bundle)
			if err != nil || bytes.Count(bundle, []byte("BEGIN CERTIFICATE")) != len(tt.root) || len(made.Roots) != len(tt.root) {
				t.Errorf("%d roots, %v", len(made.Roots), err)
			}
			for i, path := range made.Roots {
				name := strings.TrimSuffix(filepath.Base(path), ".pem")
				if c := certificate(t, path); c.PublicKeyAlgorithm != tt.root[name] || !c.IsCA {
					t.Errorf("%s: %v", name, c.PublicKeyAlgorithm)
				}
				key, err := os.ReadFile(made.RootKeys[i])
				if err != nil || !bytes.HasPrefix(key, []byte("-----BEGIN ENCRYPTED PRIVATE KEY")) {
					t.Errorf("the root's key is in clear: %v", err)
				}
				openssl(t, "pkey", "-in", made.RootKeys[i], "-passin", "pass:"+made.Passphrase, "-noout", "-check")
			}
			for _, name := range tt.issuing {
				path := filepath.Join(in.Dir, "ca", name+".pem")
				openssl(t, "verify", "-x509_strict", "-CAfile", made.Bundle, path)
				c := certificate(t, path)
				if !c.MaxPathLenZero || len(c.ExtKeyUsage) != 1 || c.PermittedDNSDomainsCritical {
					t.Errorf("%s: path length %d, usage %v", name, c.MaxPathLen, c.ExtKeyUsage)
				}
				info, err := os.Stat(filepath.Join(in.Dir, "ca", name+".key"))
				if err != nil || info.Mode() != 0o600 {
					t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
				}
			}
			var said bytes.Buffer
			made.Explain(&said, in)
			for _, want := range []string{made.Passphrase, made.Bundle, "offline", "renew_before_expiry = 8 hours", "*:0/5", "https://ca.example.internal/acme/servers/directory", "trust-bundle"} {
				if !strings.Contains(said.String(), want) {
					t.Errorf("nothing is said of %q", want)
				}
			}
			// The same folder again: nothing is touched.
			before, _ := os.ReadFile(made.Config)
			if _, err := in.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "there already") {
				t.Errorf("again: %v", err)
			}
			if after, _ := os.ReadFile(made.Config); !bytes.Equal(before, after) || check(t, made.Config) != nil {
				t.Error("the CA that was there was changed")
			}
		})
	}
}

// RFC 5280 section 4.2.1.10, where asked for.
func TestInitConstrain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		dns, cluster string
		want         []string
	}{
		{"ca.example.internal", "", []string{"DNS:example.internal"}},
		{"10.1.2.3", "", []string{"IP:10.1.2.3/255.255.255.255"}},
		{"ca.example.internal", "cluster.local", []string{"DNS:cluster.local", "DNS:example.internal"}},
		{"10.1.2.3", "cluster.local", []string{"DNS:cluster.local", "IP:10.1.2.3/255.255.255.255"}},
	} {
		in := setup.Init{Dir: t.TempDir(), Name: "Example", DNS: tt.dns, Kubernetes: tt.cluster, Constrain: true}
		made, err := in.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		text := openssl(t, "x509", "-in", filepath.Join(in.Dir, "ca", "servers.pem"), "-noout", "-text")
		for _, want := range append(tt.want, "X509v3 Name Constraints: critical") {
			if !strings.Contains(text, want) {
				t.Errorf("%s, %s: no %s in\n%s", tt.dns, tt.cluster, want, text)
			}
		}
		if tt.cluster != "" { // check asks the cluster, and there is none
			continue
		}
		if err := check(t, made.Config); err != nil {
			t.Error(err)
		}
	}
}

// A root brought along, its key encrypted by whatever OpenSSL has.
func TestInitRoot(t *testing.T) {
	t.Parallel()
	from := t.TempDir()
	p := func(name string) string { return filepath.Join(from, name) }
	openssl(t, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes", "-keyout", p("ec.key"), "-out", p("ec.pem"),
		"-days", "3650", "-subj", "/CN=Old Root", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
	openssl(t, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", p("rsa.key"), "-out", p("rsa.pem"),
		"-days", "3650", "-subj", "/CN=Old RSA Root", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
	openssl(t, "pkcs8", "-topk8", "-in", p("ec.key"), "-out", p("pbkdf2.key"), "-v2", "aes-256-cbc", "-passout", "pass:secret")
	openssl(t, "pkcs8", "-topk8", "-in", p("ec.key"), "-out", p("sha512.key"), "-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA512", "-passout", "pass:secret")
	openssl(t, "pkcs8", "-topk8", "-in", p("rsa.key"), "-out", p("rsa-enc.key"), "-v2", "aes-256-cbc", "-passout", "pass:secret")
	for _, name := range []string{"ec.key", "rsa.key", "pbkdf2.key", "sha512.key", "rsa-enc.key"} {
		if err := os.Chmod(p(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, cert, key, password string
		typ                       setup.KeyChoice
		says                      string // "": works
	}{
		{"in clear", "ec.pem", "ec.key", "", setup.ECDSA, ""},
		{"encrypted", "ec.pem", "pbkdf2.key", "secret", setup.ECDSA, ""},
		{"encrypted, SHA-512", "ec.pem", "sha512.key", "secret", setup.ECDSA, ""},
		{"RSA over ECDSA", "rsa.pem", "rsa-enc.key", "secret", setup.ECDSA, ""},
		{"RSA", "rsa.pem", "rsa.key", "", setup.RSA, ""},
		{"wrong password", "ec.pem", "pbkdf2.key", "wrong", setup.ECDSA, "password"},
		{"no password", "ec.pem", "pbkdf2.key", "", setup.ECDSA, "password"},
		{"another's key", "ec.pem", "rsa.key", "", setup.ECDSA, "is not the one in"},
		{"both types", "ec.pem", "ec.key", "", setup.Both, "one key type"},
		{"no certificate", "ec.key", "ec.key", "", setup.ECDSA, "no PEM certificate"},
		{"no such file", "gone.pem", "ec.key", "", setup.ECDSA, "no such file"},
		{"no key", "ec.pem", "", "", setup.ECDSA, "together"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := setup.Init{Dir: t.TempDir(), Name: "Example", DNS: "ca.example.internal", KeyType: tt.typ, RootCert: p(tt.cert)}
			if tt.key != "" {
				in.RootKey = p(tt.key)
			}
			if tt.password != "" {
				in.RootPassword = []byte(tt.password)
			}
			made, err := in.Run(t.Context())
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Fatalf("%v, want %q", err, tt.says)
				}
				// Done right, it works in the same folder.
				in.RootCert, in.RootKey, in.RootPassword, in.KeyType = p("ec.pem"), p("ec.key"), nil, setup.ECDSA
				made, err = in.Run(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(made.RootKeys) != 0 || made.Passphrase != "" {
				t.Error("a key of the root was written")
			}
			if files, _ := filepath.Glob(filepath.Join(in.Dir, "root", "*.key")); len(files) != 0 {
				t.Errorf("%v", files)
			}
			if err := check(t, made.Config); err != nil {
				t.Error(err)
			}
			openssl(t, "verify", "-CAfile", made.Bundle, filepath.Join(in.Dir, "ca", "servers.pem"))
		})
	}
}

func TestInitRefusals(t *testing.T) {
	for name, tt := range map[string]struct {
		in   setup.Init
		says string
	}{
		"no name":        {setup.Init{DNS: "ca.example"}, "needs a name"},
		"long name":      {setup.Init{Name: strings.Repeat("x", 41), DNS: "ca.example"}, "40 characters"},
		"no dns":         {setup.Init{Name: "X"}, "--dns"},
		"a URL":          {setup.Init{Name: "X", DNS: "https://ca.example"}, "--dns"},
		"a wildcard":     {setup.Init{Name: "X", DNS: "*.example"}, "wildcard"},
		"key type":       {setup.Init{Name: "X", DNS: "ca.example", KeyType: "dsa"}, "ecdsa, rsa or both"},
		"a bad cluster":  {setup.Init{Name: "X", DNS: "10.0.0.1", Kubernetes: "Not A Domain"}, "--kubernetes"},
		"empty password": {setup.Init{Name: "X", DNS: "ca.example", RootPassword: []byte{}}, "in clear"},
	} {
		tt.in.Dir = filepath.Join(t.TempDir(), "ca")
		if _, err := tt.in.Run(t.Context()); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
		if _, err := os.Stat(tt.in.Dir); err == nil {
			t.Errorf("%s: the folder was made", name)
		}
	}
	// A key that lies there already isn't replaced.
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "ca"), 0o700); err != nil {
		t.Fatal(err)
	}
	precious := filepath.Join(dir, "ca", "clients.key")
	if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (setup.Init{Dir: dir, Name: "X", DNS: "ca.example"}).Run(t.Context()); err == nil {
		t.Error("made a CA over another's key")
	}
	if b, _ := os.ReadFile(precious); string(b) != "precious" {
		t.Error("a key was replaced")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}
