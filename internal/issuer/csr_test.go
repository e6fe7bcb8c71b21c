package issuer

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// vector is one file of testdata/csr.
type vector struct {
	file   string
	fields map[string]string
	der    []byte
}

func readVectors(t testing.TB) []vector {
	t.Helper()
	files, err := filepath.Glob("testdata/csr/*.txt")
	if err != nil || len(files) < 60 {
		t.Fatalf("%d vectors: %v", len(files), err)
	}
	var all []vector
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := bytes.Cut(text, []byte("\n\n"))
		block, _ := pem.Decode(text)
		if block == nil {
			t.Fatalf("%s: no PEM", file)
		}
		v := vector{file: filepath.Base(file), fields: map[string]string{}, der: block.Bytes}
		for line := range strings.Lines(string(head)) {
			key, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
			if !ok {
				t.Fatalf("%s: %q", file, line)
			}
			v.fields[key] = value
		}
		all = append(all, v)
	}
	return all
}

func TestCSRVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		t.Run(v.file, func(t *testing.T) {
			c, err := ParseCSR(v.der)
			switch v.fields["expect"] {
			case "ok":
				if err != nil {
					t.Fatalf("%s: %v", v.fields["reason"], err)
				}
				checkGoodVector(t, v, c)
			case "badCSR":
				p, ok := errors.AsType[*protocol.Problem](err)
				if !ok || p.Type != protocol.BadCSR {
					t.Fatalf("%s: err = %v, want badCSR", v.fields["reason"], err)
				}
				if !strings.Contains(p.Detail, v.fields["says"]) {
					t.Errorf("%s: detail %q lacks %q", v.fields["reason"], p.Detail, v.fields["says"])
				}
			default:
				t.Fatal("the vector expects nothing")
			}
		})
	}
}

func checkGoodVector(t *testing.T, v vector, c *CSR) {
	var names []string
	for _, id := range c.Names {
		names = append(names, id.String())
	}
	if got := strings.Join(names, " "); got != v.fields["names"] {
		t.Errorf("names are %q, want %q", got, v.fields["names"])
	}
	usage := string(c.Usage)
	if c.OtherUsage {
		usage += "other"
	}
	if usage != v.fields["usage"] {
		t.Errorf("usage is %q, want %q", usage, v.fields["usage"])
	}
	if hash, err := keyHash(c.PublicKey); err != nil || hash != c.KeyHash {
		t.Errorf("KeyHash is %s, want %s (%v)", c.KeyHash, hash, err)
	}
}

// TestCSROneBit: whatever single bit is flipped, a CSR is refused or still says
// the same about its key and names, since the signature covers both.
func TestCSROneBit(t *testing.T) {
	der, err := os.ReadFile("testdata/csr/ok-san.txt")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(der)
	good, err := ParseCSR(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for i := range block.Bytes {
		for bit := range 8 {
			b := bytes.Clone(block.Bytes)
			b[i] ^= 1 << bit
			if c, err := ParseCSR(b); err == nil && (c.KeyHash != good.KeyHash || c.Names[0] != good.Names[0]) {
				t.Errorf("byte %d bit %d: taken, with %v", i, bit, c.Names)
			}
		}
	}
}

func TestMatch(t *testing.T) {
	id := func(s string) protocol.Identifier {
		typ, value, _ := strings.Cut(s, ":")
		return protocol.Identifier{Type: protocol.IdentifierType(typ), Value: value}
	}
	ids := func(s string) (all []protocol.Identifier) {
		for _, f := range strings.Fields(s) {
			all = append(all, id(f))
		}
		return all
	}
	for _, tt := range []struct{ csr, order, says string }{
		{"dns:a.example", "dns:a.example", ""},
		{"dns:a.example ip:192.0.2.1", "ip:192.0.2.1 dns:a.example", ""},
		{"dns:a.example", "dns:a.example dns:a.example", ""},
		{"dns:a.example", "dns:a.example dns:b.example", "it lacks dns:b.example"},
		{"dns:a.example dns:b.example", "dns:a.example", "the order doesn't have dns:b.example"},
		{"dns:*.a.example", "dns:a.example", "it lacks dns:a.example; the order doesn't have dns:*.a.example"},
		{"dns:192.0.2.1", "ip:192.0.2.1", "it lacks ip:192.0.2.1"},
		{"dns:a.example dns:b dns:c dns:d dns:e dns:f dns:g dns:h", "dns:a.example", "…"},
	} {
		c := &CSR{Names: sortNames(ids(tt.csr))}
		err := c.Match(ids(tt.order))
		if tt.says == "" && err != nil {
			t.Errorf("%s for %s: %v", tt.csr, tt.order, err)
		}
		if tt.says != "" && (err == nil || protocol.AsProblem(err).Type != protocol.BadCSR || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s for %s: err = %v, want badCSR with %q", tt.csr, tt.order, err, tt.says)
		}
	}
}

// TestKeyKind: a key that crypto/x509 doesn't know is still named; ML-DSA's by
// what to do about it.
func TestKeyKind(t *testing.T) {
	spki := func(oid ...int) []byte {
		der, err := asn1.Marshal(struct {
			Algorithm pkix.AlgorithmIdentifier
			Key       asn1.BitString
		}{pkix.AlgorithmIdentifier{Algorithm: oid}, asn1.BitString{Bytes: []byte{1}, BitLength: 8}})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for want, der := range map[string][]byte{
		"ML-DSA, which needs a server built with Go 1.27": spki(2, 16, 840, 1, 101, 3, 4, 3, 18),
		"2.16.840.1.101.3.4.3.20":                         spki(2, 16, 840, 1, 101, 3, 4, 3, 20),
		"1.2.3":                                           spki(1, 2, 3),
		"unknown":                                         {0x30, 0},
	} {
		if got := keyKind(&x509.CertificateRequest{RawSubjectPublicKeyInfo: der}); got != want {
			t.Errorf("%x: %q, want %q", der, got, want)
		}
	}
}

func FuzzParseCSR(f *testing.F) {
	for _, v := range readVectors(f) {
		if len(v.der) < 4096 {
			f.Add(v.der)
		}
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := ParseCSR(der)
		if err != nil {
			if p, ok := errors.AsType[*protocol.Problem](err); !ok || p.Type != protocol.BadCSR || p.Detail == "" {
				t.Fatalf("err = %v, want a badCSR problem", err)
			}
			return
		}
		if len(c.Names) == 0 || c.PublicKey == nil {
			t.Fatal("a CSR without names or key")
		}
		for _, id := range c.Names {
			if canon, err := protocol.ParseIdentifier(string(id.Type), id.Value); err != nil || canon != id {
				t.Errorf("%q is not canonical", id)
			}
		}
		if err := c.Match(c.Names); err != nil {
			t.Error(err)
		}
	})
}
