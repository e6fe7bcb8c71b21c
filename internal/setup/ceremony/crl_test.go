package ceremony

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/cert"
)

// A root's list over the years, with OpenSSL as the relying party.
func TestRootCRL(t *testing.T) {
	for _, typ := range []cert.KeyType{cert.P384, cert.RSA2048, cert.Ed25519} {
		t.Run(string(typ), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			root := newRoot(t, dir, typ)
			old := newCA(t, NewCA{Name: "Example Server CA"}, root, dir, "old")
			bad := newCA(t, NewCA{Name: "Example Client CA"}, root, dir, "bad")
			kept := newCA(t, NewCA{Name: "Example Server CA 2"}, root, dir, "kept")
			l := RootCRL{By: root, Out: filepath.Join(dir, "root.crl")}
			if _, err := l.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "--number 1") {
				t.Fatalf("a first list without a number: %v", err)
			}
			l.Number = 7
			if list, err := l.Run(t.Context()); err != nil || list.Number.Int64() != 7 || len(list.RevokedCertificateEntries) != 0 {
				t.Fatal(list, err)
			}
			verify := []string{"verify", "-x509_strict", "-crl_check", "-CAfile", root.Certificate, "-CRLfile", l.Out}
			for _, ca := range []Parent{old, bad, kept} {
				openssl(t, append(verify, ca.Certificate)...)
			}
			l.Number, l.Revoke = 0, []Withdrawal{{Certificate: old.Certificate, Reason: 4}}
			if _, err := l.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			// The next one keeps what is on it, reason and date included.
			l.Revoke, l.Validity = []Withdrawal{{Certificate: bad.Certificate, Reason: 2}}, 30*24*time.Hour
			list, err := l.Run(t.Context())
			if err != nil || list.Number.Int64() != 9 || len(list.RevokedCertificateEntries) != 2 {
				t.Fatal(list, err)
			}
			if left := time.Until(list.NextUpdate); left < 29*24*time.Hour || left > 30*24*time.Hour {
				t.Errorf("believed for %v", left)
			}
			for _, ca := range []Parent{old, bad} {
				if out, err := opensslFails(append(verify, ca.Certificate)...); err == nil || !strings.Contains(out, "certificate revoked") {
					t.Errorf("%s: %v\n%s", ca.Certificate, err, out)
				}
			}
			openssl(t, append(verify, kept.Certificate)...)
			text := openssl(t, "crl", "-in", l.Out, "-noout", "-text", "-CAfile", root.Certificate)
			for _, want := range []string{"verify OK", "Superseded", "CA Compromise", "X509v3 CRL Number: \n                9"} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
			if names, _ := filepath.Glob(filepath.Join(dir, "*.new")); len(names) > 0 {
				t.Errorf("left behind: %q", names)
			}
		})
	}
}

func TestRootCRLRefuses(t *testing.T) {
	dir := t.TempDir()
	root := newRoot(t, dir, cert.P256)
	ca := newCA(t, NewCA{Name: "Example Server CA"}, root, dir, "ca")
	otherDir := t.TempDir()
	other := newRoot(t, otherDir, cert.P256)
	foreign := newCA(t, NewCA{Name: "Foreign CA"}, other, otherDir, "ca")
	first := RootCRL{By: root, Out: filepath.Join(dir, "root.crl"), Number: 5, Revoke: []Withdrawal{{Certificate: ca.Certificate}}}
	if _, err := first.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	theirs := RootCRL{By: other, Out: filepath.Join(otherDir, "root.crl"), Number: 1}
	if _, err := theirs.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(first.Out)
	again := RootCRL{By: root, Out: first.Out}
	with := func(change func(*RootCRL)) RootCRL { l := again; change(&l); return l }
	for name, c := range map[string]struct {
		list RootCRL
		want string
	}{
		"number stays":      {with(func(l *RootCRL) { l.Number = 5 }), "isn't above"},
		"number goes back":  {with(func(l *RootCRL) { l.Number = 1 }), "isn't above"},
		"withdrawn already": {with(func(l *RootCRL) { l.Revoke = first.Revoke }), "on the list since"},
		"another's":         {with(func(l *RootCRL) { l.Revoke = []Withdrawal{{Certificate: foreign.Certificate}} }), "was not issued by"},
		"another's list":    {with(func(l *RootCRL) { l.Previous = theirs.Out }), "CRL for"},
		"no list":           {with(func(l *RootCRL) { l.Previous = ca.Certificate }), "not a CRL"},
		"lost list":         {with(func(l *RootCRL) { l.Previous = filepath.Join(dir, "nope.crl") }), "no such file"},
		"file in the way":   {with(func(l *RootCRL) { l.Previous, l.Out = first.Out, ca.Certificate }), "there already"},
		"another's key":     {with(func(l *RootCRL) { l.By.Key = other.Key }), "is not the key of"},
	} {
		if _, err := c.list.Run(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after, _ := os.ReadFile(first.Out); string(before) != string(after) {
		t.Error("the list was changed")
	}
}

// A CA that others made may lack what lists need: it says so.
func TestRootCRLNeedsKeyUsage(t *testing.T) {
	dir := t.TempDir()
	p := Parent{Certificate: filepath.Join(dir, "root.pem"), Key: fileKey(dir, "root.key")}
	key, err := making(p.Key, cert.P256)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "No CRLs"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(p.Certificate, EncodeCertificate(&x509.Certificate{Raw: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := (RootCRL{By: p, Out: filepath.Join(dir, "root.crl"), Number: 1}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "cRLSign") {
		t.Error(err)
	}
}

func TestParseWithdrawal(t *testing.T) {
	for text, want := range map[string]Withdrawal{
		"ca/a.pem":              {"ca/a.pem", 0},
		"ca/a=b.pem=superseded": {"ca/a=b.pem", 4},
		"a.pem=cACompromise":    {"a.pem", 2},
	} {
		if w, err := ParseWithdrawal(text); err != nil || w != want {
			t.Errorf("%q: %+v, %v", text, w, err)
		}
	}
	if _, err := ParseWithdrawal("a.pem=certificateHold"); err == nil {
		t.Error("a hold is taken")
	}
}
