package sshca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"math/big"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/sshca"
)

// plainKeys are of every type that is certified.
func plainKeys() map[string]ssh.PublicKey {
	all := map[string]ssh.PublicKey{}
	for name, key := range signers() {
		all[name] = public(key)
	}
	for name, key := range fidos() {
		all[name] = key.PublicKey()
	}
	return all
}

var keyTypes = map[string]cert.KeyType{
	"ed25519": cert.Ed25519, "p256": cert.P256, "p384": cert.P384, "p521": cert.P521, "rsa": cert.RSA2048,
	"sk-ed25519": sshca.SKEd25519, "sk-p256": sshca.SKP256,
}

func TestParseKey(t *testing.T) {
	for name, key := range plainKeys() {
		for _, text := range []string{line(key), line(key) + "\n", line(key) + " alice@laptop, her key\r\n", " \t" + strings.ReplaceAll(line(key), " ", "\t ")} {
			got, err := sshca.ParseKey(text)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if line(got) != line(key) {
				t.Errorf("%s: another key came back", name)
			}
			if typ, ok := sshca.KeyTypeOf(got); !ok || typ != keyTypes[name] {
				t.Errorf("%s is of type %q", name, typ)
			}
			if err := sshca.CheckKey(got, []cert.KeyType{keyTypes[name]}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if err := sshca.CheckKey(got, []cert.KeyType{cert.RSA4096}); err == nil {
				t.Errorf("%s passes for a type that it isn't", name)
			}
		}
	}
}

// encode makes a line of wire bytes.
func encode(typ string, wire []byte) string {
	return typ + " " + base64.StdEncoding.EncodeToString(wire)
}

func rsaLine(n *big.Int, e int64) string {
	return encode("ssh-rsa", ssh.Marshal(struct {
		Type string
		E, N *big.Int
	}{"ssh-rsa", big.NewInt(e), n}))
}

func TestParseKeyRefuses(t *testing.T) {
	key := public(newEd25519())
	good := line(key)
	wire := key.Marshal()
	certificate := issue(t, newEd25519(), request(key))
	n := softRSA().N
	dss := ssh.Marshal(struct {
		Type       string
		P, Q, G, Y *big.Int
	}{"ssh-dss", n, n, n, n})
	p224 := must(must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)).PublicKey.Bytes())
	offCurve := append([]byte{4}, make([]byte, 64)...)
	ecdsaWire := func(curve string, point []byte) []byte {
		return ssh.Marshal(struct {
			Type, Curve string
			Point       []byte
		}{"ecdsa-sha2-" + curve, curve, point})
	}
	for name, bad := range map[string]string{
		"nothing":                   "",
		"one word":                  "ssh-ed25519",
		"a comment":                 "# " + good,
		"options":                   `command="reboot" ` + good,
		"cert-authority":            "cert-authority " + good,
		"two lines":                 good + "\n" + good + "\n",
		"two newlines":              good + "\n\n",
		"a carriage return inside":  strings.Replace(good, " ", " \r", 1),
		"NUL":                       good + "\x00",
		"a certificate":             line(certificate),
		"a certificate in disguise": encode("ssh-ed25519", certificate.Marshal()),
		"another type outside":      encode("ssh-rsa", wire),
		"bytes after the key":       encode("ssh-ed25519", append(wire[:len(wire):len(wire)], 0)),
		"a byte too few":            encode("ssh-ed25519", wire[:len(wire)-1]),
		"bad base64":                strings.Replace(good, "AAAA", "AA*A", 1),
		"base64 without padding":    strings.TrimRight(line(public(signers()["p256"])), "="),
		"an endless comment":        good + " " + strings.Repeat("x", 5000),
		"DSA":                       encode("ssh-dss", dss),
		"RSA of 1024 bits":          rsaLine(new(big.Int).Rsh(n, 1024), 65537),
		"RSA of 2040 bits":          rsaLine(new(big.Int).SetBit(new(big.Int).Rsh(n, 8), 0, 1), 65537),
		"RSA of 2047 bits":          rsaLine(new(big.Int).SetBit(new(big.Int).Rsh(n, 1), 0, 1), 65537),
		"RSA of 4104 bits":          rsaLine(new(big.Int).SetBit(big.NewInt(1), 4103, 1), 65537),
		"an even RSA modulus":       rsaLine(new(big.Int).SetBit(n, 0, 0), 65537),
		"a negative RSA modulus":    rsaLine(new(big.Int).Neg(n), 65537),
		"RSA with exponent 3":       rsaLine(n, 3),
		"RSA with an even exponent": rsaLine(n, 65538),
		"P-224":                     encode("ecdsa-sha2-nistp224", ecdsaWire("nistp224", p224)),
		"a point off the curve":     encode("ecdsa-sha2-nistp256", ecdsaWire("nistp256", offCurve)),
		"RSA with SHA-2's name":     encode("rsa-sha2-256", wire),
		"an mpint with a zero more": encode("ssh-rsa", ssh.Marshal(struct{ Type, E, N string }{"ssh-rsa", "\x00\x01\x00\x01", "\x00" + string(n.Bytes())})),
	} {
		_, err := sshca.ParseKey(bad)
		if p, ok := errors.AsType[*protocol.Problem](err); !ok || p.Type != protocol.BadCSR {
			t.Errorf("%s: got %v, want a badCSR problem", name, err)
		}
	}
	if _, err := sshca.NewKey(&softRSA().PublicKey); err != nil {
		t.Error(err)
	}
	for _, bad := range []any{nil, "text", &rsa.PublicKey{N: big.NewInt(15), E: 3}, must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)).Public()} {
		if _, err := sshca.NewKey(bad); err == nil {
			t.Errorf("a key %T was taken", bad)
		}
	}
	if sshca.CheckKey(nil, nil) == nil || sshca.CheckKey(certificate, nil) == nil {
		t.Error("no key, or a certificate, passes for a key")
	}
}

func FuzzParseKey(f *testing.F) {
	for _, key := range plainKeys() {
		f.Add(line(key))
	}
	f.Add(`from="*" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA`)
	f.Add("ssh-dss AAAAB3NzaC1kc3MAAAAA")
	f.Add("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAwEAAQ==")
	f.Fuzz(func(t *testing.T, text string) {
		key, err := sshca.ParseKey(text)
		if err != nil {
			if _, ok := err.(*protocol.Problem); !ok {
				t.Fatalf("not a problem: %v", err)
			}
			return
		}
		again, err := sshca.ParseKey(line(key))
		if err != nil || line(again) != line(key) {
			t.Fatalf("%q comes back as %v, %v", text, again, err)
		}
		if other, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(text)); err != nil || len(options)+len(rest) > 0 || line(other) != line(key) {
			t.Fatalf("x/crypto reads %q otherwise", text)
		}
	})
}
