package challenge

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
)

// attestationObject is what the step CLI makes of it.
func attestationObject(t testing.TB, v protocol.Validation, k *softcard.Key, change func(object, statement map[string]any)) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(v.KeyAuthorization()))
	digest, hash, algorithm := sum[:], crypto.SHA256, coseES256
	switch k.Public().(type) {
	case *rsa.PublicKey:
		algorithm = coseRS256
	case ed25519.PublicKey:
		algorithm, digest, hash = coseEdDSA, []byte(v.KeyAuthorization()), 0
	}
	signature, err := k.Sign(rand.Reader, digest, hash)
	if err != nil {
		t.Fatal(err)
	}
	statement := map[string]any{"alg": algorithm, "sig": marshal(t, signature), "x5c": [][]byte{k.Statement.Raw, k.Device.Raw}}
	object := map[string]any{"fmt": "step", "attStmt": statement}
	if change != nil {
		change(object, statement)
	}
	return marshal(t, object)
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := cbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The attestation object, strictly.
func TestAttestationObject(t *testing.T) {
	p := newPeople(t, softcard.P256)
	v := asks(protocol.DeviceAttest01)
	type object = map[string]any
	validate := func(raw []byte) (protocol.Evidence, error) {
		v.Response = []byte(`{"attObj":"` + base64.RawURLEncoding.EncodeToString(raw) + `"}`)
		return p.by(v.Type).Validate(t.Context(), v)
	}
	for name, change := range map[string]func(o, s object){
		"as it is": nil,
		"with the issuers": func(_, s object) {
			s["x5c"] = append(s["x5c"].([][]byte), p.maker.Issuers()[1].Raw, p.maker.Root().Raw)
		},
		"with empty auth data": func(o, _ object) { o["authData"] = []byte{} },
	} {
		if _, err := validate(attestationObject(t, v, p.key, change)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := attestationObject(t, v, p.key, nil)
	for name, raw := range map[string][]byte{
		"nothing": nil, "an empty map": {0xa0}, "a number": {1}, "text": marshal(t, "step"), "cut": good[:len(good)-1], "longer": append(slices.Clone(good), 0),
		"twice fmt":           append(append([]byte{0xa3}, marshal(t, "fmt")...), append(marshal(t, "step"), good[1:]...)...),
		"indefinite":          append(append([]byte{0xbf}, good[1:]...), 0xff),
		"tagged":              append([]byte{0xd8, 0x20}, good...),
		"another member":      attestationObject(t, v, p.key, func(o, _ object) { o["more"] = 1 }),
		"another in attStmt":  attestationObject(t, v, p.key, func(_, s object) { s["ver"] = "2.0" }),
		"FMT":                 attestationObject(t, v, p.key, func(o, _ object) { o["FMT"] = o["fmt"]; delete(o, "fmt") }),
		"tpm":                 attestationObject(t, v, p.key, func(o, _ object) { o["fmt"] = "tpm" }),
		"apple":               attestationObject(t, v, p.key, func(o, _ object) { o["fmt"] = "apple" }),
		"packed":              attestationObject(t, v, p.key, func(o, _ object) { o["fmt"] = "packed" }),
		"no format":           attestationObject(t, v, p.key, func(o, _ object) { delete(o, "fmt") }),
		"no statement":        attestationObject(t, v, p.key, func(o, _ object) { delete(o, "attStmt") }),
		"no signature":        attestationObject(t, v, p.key, func(_, s object) { delete(s, "sig") }),
		"a bare signature":    attestationObject(t, v, p.key, func(_, s object) { s["sig"] = s["sig"].([]byte)[2:] }),
		"no chain":            attestationObject(t, v, p.key, func(_, s object) { delete(s, "x5c") }),
		"the statement alone": attestationObject(t, v, p.key, func(_, s object) { s["x5c"] = s["x5c"].([][]byte)[:1] }),
		"many certificates":   attestationObject(t, v, p.key, func(_, s object) { s["x5c"] = slices.Repeat(s["x5c"].([][]byte), 3) }),
		"no certificates":     attestationObject(t, v, p.key, func(_, s object) { s["x5c"] = [][]byte{{1}, {2}} }),
		"deep":                append(slices.Repeat([]byte{0x81}, 50), 0),
		"a long array":        append([]byte{0x9a, 0x7f, 0xff, 0xff, 0xff}, 0),
		"much":                make([]byte, maxAttObj+1),
	} {
		seen, err := validate(raw)
		if why, ok := errors.AsType[*protocol.ValidationError](err); !ok || why.Retryable || why.Problem.Type != protocol.BadAttestationStatement || len(why.Problem.Detail) > 300 {
			t.Errorf("%s: %+v, %v", name, seen, err)
		}
	}
	for name, change := range map[string]func(o, s object){
		"another algorithm": func(_, s object) { s["alg"] = coseRS256 },
		"no algorithm":      func(_, s object) { delete(s, "alg") },
		"no bytes signed":   func(_, s object) { s["sig"] = marshal(t, []byte{}) },
	} {
		seen, err := validate(attestationObject(t, v, p.key, change))
		refusedAs(t, name, seen, err, "signature", false)
	}
	for name, payload := range map[string]string{"nothing": "", "a list": "[]", "a number": `{"attObj":1}`} {
		v.Response = []byte(payload)
		if _, err := p.by(v.Type).Validate(t.Context(), v); protocol.AsProblem(err).Type != protocol.Malformed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzAttestationObject(f *testing.F) {
	p := newPeople(f, softcard.P256)
	v := asks(protocol.DeviceAttest01)
	f.Add(attestationObject(f, v, p.key, nil))
	f.Add([]byte{0xa1, 0x63, 'f', 'm', 't', 0x64, 's', 't', 'e', 'p'})
	f.Fuzz(func(t *testing.T, raw []byte) {
		v := v
		v.Response = []byte(`{"attObj":"` + base64.RawURLEncoding.EncodeToString(raw) + `"}`)
		read, err := readAttestation(v)
		if err == nil && (read.statement == nil || read.device == nil || read.signed == nil) {
			t.Errorf("%x was taken as %+v", raw, read)
		}
	})
}
