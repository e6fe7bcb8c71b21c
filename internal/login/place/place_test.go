package place_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/login/place"
)

// ca is a root with one intermediate, which signs.
type ca struct {
	root, inter *x509.Certificate
	key         crypto.Signer
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sign(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newCA(t testing.TB) *ca {
	t.Helper()
	rootKey, key := newKey(t), newKey(t)
	authority := func(name string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	}
	self := authority("Test root " + rand.Text())
	root := sign(t, self, self, rootKey.Public(), rootKey)
	return &ca{root: root, inter: sign(t, authority("Test intermediate"), root, key.Public(), rootKey), key: key}
}

// pair is a certificate as Chancery makes them: its subject is empty.
func (c *ca) pair(t testing.TB, name string, key interface{ Public() crypto.PublicKey }) place.Pair {
	t.Helper()
	leaf := sign(t, &x509.Certificate{
		DNSNames: []string{"alice.people.test"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, c.inter, key.Public(), c.key)
	private, _ := key.(crypto.Signer)
	return place.Pair{Name: name, Chain: [][]byte{leaf.Raw, c.inter.Raw}, Key: private, Roots: [][]byte{c.root.Raw}}
}

// home is a machine with a folder in memory.
func home(t testing.TB) place.Options {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"home", "run"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return place.Options{Home: filepath.Join(dir, "home"), RuntimeDir: filepath.Join(dir, "run")}
}

func named(t testing.TB, name string, o place.Options) place.Target {
	t.Helper()
	target, err := place.Named(name, o)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// put puts, and brings the record through JSON, as its keeper does.
func put(t testing.TB, target place.Target, p place.Pair) place.Placed {
	t.Helper()
	placed, err := target.Put(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(placed)
	if err != nil {
		t.Fatal(err)
	}
	var again place.Placed
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	return again
}

func remove(t testing.TB, target place.Target, p place.Placed) {
	t.Helper()
	if err := target.Remove(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s\n(apt-get install openssl libnss3-tools opensc ykcs11)", name, args, err, out)
	}
	return string(out)
}

func write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func wants(t testing.TB, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("%v\nwants %q", err, text)
	}
}

func TestNamedRefuses(t *testing.T) {
	o := home(t)
	for name, says := range map[string]string{"": "no place is called", "Files": "one of", "slot": "no device"} {
		_, err := place.Named(name, o)
		wants(t, err, says)
	}
	o.OS = "linux"
	_, err := place.Named("keychain", o)
	wants(t, err, "there is none on linux")
	o.OS = "windows"
	_, err = place.Named("nss", o)
	wants(t, err, "use keychain")
	_, err = place.Named("files", place.Options{})
	wants(t, err, "no home folder")
}

// Records that were written yesterday are understood tomorrow.
func TestPlacedJSON(t *testing.T) {
	const text = `{"target":"slot","name":"tls","where":["yubikey:serial=1;slot=9a"],"serial":"0abc","mark":"00ff","was":"MAA="}`
	var p place.Placed
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(p); err != nil || string(again) != text {
		t.Errorf("%s, %v", again, err)
	}
}

// No place takes a pair that isn't one.
func TestPutRefuses(t *testing.T) {
	o, ca := home(t), newCA(t)
	good := ca.pair(t, "tls", newKey(t))
	for _, target := range []string{"files", "pkcs12", "nss"} {
		for about, spoil := range map[string]func(*place.Pair){
			"a path":         func(p *place.Pair) { p.Name = "../tls" },
			"a hidden name":  func(p *place.Pair) { p.Name = ".new-1" },
			"an option":      func(p *place.Pair) { p.Name = "-d" },
			"no name":        func(p *place.Pair) { p.Name = "" },
			"a long name":    func(p *place.Pair) { p.Name = strings.Repeat("a", 65) },
			"no certificate": func(p *place.Pair) { p.Chain = nil },
			"nonsense":       func(p *place.Pair) { p.Chain = [][]byte{{1, 2, 3}} },
			"nonsense above": func(p *place.Pair) { p.Chain = [][]byte{p.Chain[0], {1}} },
			"nonsense root":  func(p *place.Pair) { p.Roots = [][]byte{{1}} },
			"another key":    func(p *place.Pair) { p.Key = newKey(t) },
		} {
			p := good
			spoil(&p)
			if _, err := named(t, target, o).Put(t.Context(), p); err == nil {
				t.Errorf("%s takes %s", target, about)
			}
		}
	}
	device := good
	device.Key = nil
	for _, target := range []string{"pkcs12", "nss"} {
		_, err := named(t, target, o).Put(t.Context(), device)
		wants(t, err, "can't leave the device")
	}
	if entries, err := os.ReadDir(o.RuntimeDir); err != nil || len(entries) > 0 {
		t.Errorf("refusals left %v, %v", entries, err)
	}
}

func rsaKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
