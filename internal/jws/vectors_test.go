package jws

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

// vector is one file of testdata; testdata/make says what the fields mean.
type vector struct {
	Why, Ref, Read, Body string
	Body64               []byte
	Key                  string
	Expect, Says         string
	Payload              string
}

func (v vector) bytes() []byte {
	if v.Body64 != nil {
		return v.Body64
	}
	return []byte(v.Body)
}

func vectors(t testing.TB) map[string]vector {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 300 {
		t.Fatalf("%d vectors, %v", len(files), err)
	}
	all := make(map[string]vector, len(files))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var v vector
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatal(file, err)
		}
		if v.Why == "" || v.Ref == "" || v.Expect != "ok" && v.Says == "" {
			t.Errorf("%s lacks why, ref or says", file)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".json")] = v
	}
	return all
}

func TestVectors(t *testing.T) {
	for name, v := range vectors(t) {
		t.Run(name, func(t *testing.T) {
			payload, err := run(t, v)
			if v.Expect == "ok" {
				if err != nil {
					t.Fatalf("refused (%v), but: %s", err, v.Why)
				}
				if payload != v.Payload {
					t.Errorf("payload %q, want %q", payload, v.Payload)
				}
				return
			}
			checkFault(t, err)
			fault, _ := errors.AsType[*Error](err)
			if fault == nil || fault.Kind.String() != v.Expect {
				t.Fatalf("got %v, want %s, because: %s (%s)", err, v.Expect, v.Why, v.Ref)
			}
			if !strings.Contains(fault.Detail, v.Says) {
				t.Errorf("detail %q doesn't say %q", fault.Detail, v.Says)
			}
		})
	}
}

// run reads and verifies as the vector says.
func run(t *testing.T, v vector) (payload string, err error) {
	t.Helper()
	switch v.Read {
	case "request", "inner":
		read := Parse
		if v.Read == "inner" {
			read = ParseInner
		}
		r, err := read(v.bytes())
		if err != nil {
			return "", err
		}
		var key crypto.PublicKey
		if r.JWK != nil {
			key = r.JWK.Key
			if v.Expect == "ok" && r.JWK.Canonical != v.Key {
				t.Errorf("jwk %s, want %s", r.JWK.Canonical, v.Key)
			}
		} else {
			key = mustKey(t, v.Key).Key
		}
		return string(r.Payload), r.Verify(key)
	case "eab":
		e, err := ParseEAB(v.bytes())
		if err != nil {
			return "", err
		}
		mac, err := base64.RawURLEncoding.DecodeString(v.Key)
		if err != nil {
			t.Fatal(err)
		}
		return e.JWK.Canonical, e.Verify(mac)
	case "key":
		_, err := ParseKey(v.bytes())
		return "", err
	}
	t.Fatalf("read is %q", v.Read)
	return "", nil
}

func mustKey(t testing.TB, canonical string) *JWK {
	t.Helper()
	k, err := ParseKey([]byte(canonical))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// checkFault checks what every error must be: typed, short, printable, and
// with the algorithms where RFC 8555 section 6.2 asks for them.
func checkFault(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	fault, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("%T is no *Error: %v", err, err)
	}
	if fault.Kind < Malformed || fault.Kind > Unauthorized {
		t.Errorf("kind %v", fault.Kind)
	}
	if len(fault.Detail) < 10 || len(fault.Detail) > 400 {
		t.Errorf("detail of %d bytes: %s", len(fault.Detail), fault.Detail)
	}
	for _, r := range fault.Detail {
		if !unicode.IsPrint(r) {
			t.Errorf("detail %q holds %U", fault.Detail, r)
		}
	}
	if (fault.Kind == BadSignatureAlgorithm) != (len(fault.Algorithms) > 0) {
		t.Errorf("%v with algorithms %q", fault.Kind, fault.Algorithms)
	}
}
