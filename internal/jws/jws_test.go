package jws

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

// The RFCs' own examples, in their own members' order. They aren't ACME
// requests (no url, and a payload that is no object or a JWT's), so Parse must
// refuse them; their signatures must verify all the same.
var rfcExamples = []struct {
	ref, protected, payload, signature, key string
	alg                                     *algorithm
}{
	{
		"RFC 7515 A.2", "eyJhbGciOiJSUzI1NiJ9", rfc7515Payload,
		"cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
		`{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}`,
		&rs256,
	},
	{
		"RFC 7515 A.3", "eyJhbGciOiJFUzI1NiJ9", rfc7515Payload,
		"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
		`{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`,
		&es256,
	},
	{
		"RFC 7515 A.4", "eyJhbGciOiJFUzUxMiJ9", "UGF5bG9hZA",
		"AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
		`{"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}`,
		&es512,
	},
	{
		"RFC 8037 A.4", "eyJhbGciOiJFZERTQSJ9", "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
		"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
		`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
		&eddsa,
	},
}

const rfc7515Payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"

func TestRFCSignatures(t *testing.T) {
	for _, e := range rfcExamples {
		t.Run(e.ref, func(t *testing.T) {
			body := `{"protected":"` + e.protected + `","payload":"` + e.payload + `","signature":"` + e.signature + `"}`
			_, err := Parse([]byte(body))
			wantKind(t, err, Malformed)
			key, err := readKey([]byte(e.key), "key")
			if err != nil {
				t.Fatal(err)
			}
			signature, err := decode("signature", []byte(e.signature))
			if err != nil {
				t.Fatal(err)
			}
			r := &Request{Alg: e.alg.name, alg: e.alg, signature: signature, signed: [2][]byte{[]byte(e.protected), []byte(e.payload)}}
			if err := r.Verify(key.Key); err != nil {
				t.Error(err)
			}
			r.signed[1] = append(slices.Clip(r.signed[1]), 'A')
			wantKind(t, r.Verify(key.Key), Unauthorized)
		})
	}
}

func TestRFCMAC(t *testing.T) { // RFC 7515 A.1
	key, err := decode("k", []byte("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"))
	if err != nil {
		t.Fatal(err)
	}
	mac, err := decode("signature", []byte("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"))
	if err != nil {
		t.Fatal(err)
	}
	e := &EAB{hash: crypto.SHA256, mac: mac, signed: [2][]byte{[]byte("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"), []byte(rfc7515Payload)}}
	if err := e.Verify(key); err != nil {
		t.Error(err)
	}
	key[0] ^= 1
	wantKind(t, e.Verify(key), Unauthorized)
	// A key that is too short is the operator's fault, not the client's.
	err = e.Verify(key[:31])
	if _, ours := errors.AsType[*Error](err); err == nil || ours {
		t.Errorf("MAC key of 31 bytes: %v", err)
	}
}

func TestThumbprint(t *testing.T) {
	for ref, c := range map[string]struct{ key, thumbprint string }{
		"RFC 7638 section 3.1": {
			`{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`,
			"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
		},
		"RFC 8037 A.3": {`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
	} {
		k, err := readKey([]byte(c.key), "key")
		if err != nil {
			t.Fatal(ref, err)
		}
		if k.Thumbprint != c.thumbprint {
			t.Errorf("%s: thumbprint %s, want %s", ref, k.Thumbprint, c.thumbprint)
		}
		again := mustKey(t, k.Canonical)
		if !again.Equal(k) || again.Thumbprint != k.Thumbprint {
			t.Errorf("%s: %+v isn't %+v", ref, again, k)
		}
	}
}

func TestRequestFields(t *testing.T) {
	all := vectors(t)
	r, err := Parse(all["ok-kid-ES256"].bytes())
	if err != nil {
		t.Fatal(err)
	}
	if r.Alg != "ES256" || r.Nonce != "bm9uY2U" || r.URL != "https://ca.example/acme/new-order" || r.KID != "https://ca.example/acme/acct/1" || r.JWK != nil {
		t.Errorf("%+v", r)
	}
	for name, want := range map[string]bool{"ok-post-as-get": true, "ok-empty-object": false, "ok-kid-ES256": false} {
		r, err := Parse(all[name].bytes())
		if err != nil {
			t.Fatal(err)
		}
		if r.IsPostAsGet() != want {
			t.Errorf("%s: IsPostAsGet is %v", name, !want)
		}
	}
	r, err = Parse(all["ok-header-space-and-escapes"].bytes())
	if err != nil || r.KID != "https://ca.example/acme/acct/1" || r.URL != "https://ca.example/acme/new-order" {
		t.Errorf("%+v, %v", r, err)
	}
	e, err := ParseEAB(all["ok-eab-HS256"].bytes())
	if err != nil || e.KID != "eab-1" || e.URL != "https://ca.example/acme/new-account" {
		t.Errorf("%+v, %v", e, err)
	}
	if jwk := mustKey(t, all["ok-kid-ES256"].Key); !e.JWK.Equal(jwk) || e.JWK.Equal(nil) || (*JWK)(nil).Equal(nil) {
		t.Error("Equal is wrong")
	}
}

// TestLimits: the bounds hold for every reader, at their edge.
func TestLimits(t *testing.T) {
	body := vectors(t)["ok-kid-ES256"].bytes()
	pad := strings.Repeat(" ", MaxBody-len(body))
	if _, err := Parse([]byte(pad + string(body))); err != nil {
		t.Error("MaxBody bytes:", err)
	}
	for name, read := range map[string]func([]byte) error{
		"Parse":      func(b []byte) error { _, err := Parse(b); return err },
		"ParseInner": func(b []byte) error { _, err := ParseInner(b); return err },
		"ParseEAB":   func(b []byte) error { _, err := ParseEAB(b); return err },
		"ParseKey":   func(b []byte) error { _, err := ParseKey(b); return err },
	} {
		err := read([]byte(pad + " " + string(body)))
		wantKind(t, err, Malformed)
		if err != nil && !strings.Contains(err.Error(), "longer than") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeyFromPublic(t *testing.T) {
	for name, v := range vectors(t) {
		if v.Read != "key" || v.Expect != "ok" {
			continue
		}
		want := mustKey(t, v.Body)
		got, err := KeyFromPublic(want.Key)
		if err != nil || !got.Equal(want) || got.Thumbprint != want.Thumbprint {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	big2048 := new(big.Int).SetBit(big.NewInt(1), 2047, 1)
	for name, pub := range map[string]crypto.PublicKey{
		"nil": nil, "nil ECDSA": (*ecdsa.PublicKey)(nil), "nil RSA": (*rsa.PublicKey)(nil), "empty RSA": &rsa.PublicKey{},
		"empty ECDSA": &ecdsa.PublicKey{}, "P-224": &p224.PublicKey, "private": p224, "bytes": []byte("key"), "short Ed25519": ed25519.PublicKey{1},
		"low order Ed25519": ed25519.PublicKey(make([]byte, 32)),
		"even e":            &rsa.PublicKey{N: big2048, E: 4}, "negative e": &rsa.PublicKey{N: big2048, E: -3},
	} {
		_, err := KeyFromPublic(pub)
		if wantKind(t, err, BadPublicKey); t.Failed() {
			t.Fatal(name)
		}
		if name == "low order Ed25519" {
			continue // Verify is for keys that came through here
		}
		r, err := Parse(vectors(t)["ok-kid-ES256"].bytes())
		if err != nil {
			t.Fatal(err)
		}
		if wantKind(t, r.Verify(pub), BadPublicKey); t.Failed() {
			t.Fatal(name)
		}
	}
}

// TestSmallOrder shows why points of small order are refused: without any
// private key, R = the identity and S = 0 is a signature for some messages.
func TestSmallOrder(t *testing.T) {
	forged := make([]byte, ed25519.SignatureSize)
	forged[0] = 1
	count := 0
	for name, v := range vectors(t) {
		if !strings.HasPrefix(name, "jwk-okp-order-") && name != "jwk-okp-identity" {
			continue
		}
		count++
		_, text, _ := strings.Cut(v.Body, `"protected":"`)
		text, _, _ = strings.Cut(text, `"`)
		header, err := decode("protected", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		_, x, _ := strings.Cut(string(header), `"x":"`)
		pub, err := decode("x", []byte(x[:43]))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(make([]int, 256), func(int) bool {
			message := make([]byte, 8)
			rand.Read(message)
			return ed25519.Verify(pub, message, forged)
		}) {
			t.Errorf("%s: no forged signature verified", name)
		}
	}
	if count != 8 {
		t.Errorf("%d points of small order, want 8", count)
	}
}

// TestEdwardsPoints holds checkEdwards against honest keys and against
// crypto/ed25519, which refuses to verify with a key that is no point.
func TestEdwardsPoints(t *testing.T) {
	seed := make([]byte, ed25519.SeedSize)
	for i := range 64 {
		seed[0] = byte(i)
		if err := checkEdwards(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)); err != nil {
			t.Error(i, err)
		}
	}
	// y is on the curve or isn't; half of all values are. The square root is
	// what crypto/ed25519 computes, and we only look whether there is one.
	p := hexInt(edwardsP)
	refused := 0
	for y := range int64(200) {
		n := big.NewInt(y + 2)
		le := n.FillBytes(make([]byte, 32))
		slices.Reverse(le)
		x2 := new(big.Int).Mul(n, n)
		den := new(big.Int).Mul(x2, hexInt(edwardsD))
		den.Add(den, big.NewInt(1)).ModInverse(den, p)
		x2.Sub(x2, big.NewInt(1)).Mul(x2, den).Mod(x2, p)
		root := new(big.Int).ModSqrt(x2, p)
		if err := checkEdwards(le); (err == nil) != (root != nil) {
			t.Errorf("y = %d: %v, but root %v", n, err, root)
		} else if err != nil {
			refused++
		}
	}
	if refused < 50 || refused > 150 {
		t.Errorf("%d of 200 refused", refused)
	}
}

// TestWideECDSA: P-521's r and s are one bit short of 66 bytes and so begin
// with zeros nearly always; full width must be kept (RFC 7518 section 3.4).
func TestWideECDSA(t *testing.T) {
	k, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	protected, payload := []byte("cA"), []byte("cA")
	sum := sha512.Sum512([]byte("cA.cA"))
	for range 8 {
		R, S, err := ecdsa.Sign(rand.Reader, k, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		sig := append(R.FillBytes(make([]byte, 66)), S.FillBytes(make([]byte, 66))...)
		r := &Request{Alg: "ES512", alg: &es512, signed: [2][]byte{protected, payload}, signature: sig}
		if err := r.Verify(&k.PublicKey); err != nil {
			t.Error(err)
		}
		r.signature = slices.Concat(R.Bytes(), S.Bytes())
		if len(r.signature) != 132 {
			wantKind(t, r.Verify(&k.PublicKey), Malformed)
		}
	}
}

// TestNoPrivateMaterial: an error never quotes a value that a client sent by
// mistake, only the name of its member.
func TestNoPrivateMaterial(t *testing.T) {
	_, err := ParseKey([]byte(`{"crv":"P-256","kty":"EC","d":"c2VjcmV0"}`))
	if wantKind(t, err, BadPublicKey); strings.Contains(err.Error(), "c2VjcmV0") {
		t.Error(err)
	}
}

// TestScannerStrings checks escapes against RFC 8259 section 7.
func TestScannerStrings(t *testing.T) {
	for in, want := range map[string]string{
		`""`: "", `"a"`: "a", `"\"\\\/\b\f\n\r\t"`: "\"\\/\b\f\n\r\t", `"\u00e9\u00E9"`: "éé",
		`"x\ud83d\uDD11y"`: "x🔑y", `"\uFFFD"`: "\ufffd", `"é🔑"`: "é🔑", "\"\x7f\"": "\x7f",
	} {
		s := &scanner{data: []byte(in + "rest"), what: "text"}
		got, err := s.str()
		if err != nil || string(got) != want || got == nil || string(s.data[s.pos:]) != "rest" {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
}

func TestScannerFaults(t *testing.T) {
	for _, in := range []string{
		"", `"`, `"a`, `"\`, `"\n`, `"\nab`, `"\u`, `"\u004`, `"\u004"`, `"\ud83d\`, `"\ud83d\u"`, `"\ud83d\n"`, `"\ud83dx"`, `"\n` + "\xff" + `"`,
		"nul", "tru", "fals", "nulL", "-", "-a", ".5", "1.e1", "1e+", "[", "[1", "[,1]", "[1 2]", `{"a"`, `{"a":`, `{"a":1`, `{,}`, "\x00", "NaN", "Infinity",
	} {
		s := &scanner{data: []byte(in), what: "text"}
		if err := s.skip(); err == nil {
			t.Errorf("%q is taken", in)
		} else {
			wantKind(t, err, Malformed)
		}
	}
}

// TestQuadratic: the costliest body of MaxBody bytes stays cheap.
func TestQuadratic(t *testing.T) {
	object := []byte("{")
	for i := range maxMembers {
		if i > 0 {
			object = append(object, ',')
		}
		object = append(object, '"', byte('0'+i/8), byte('0'+i%8), '"', ':', '0')
	}
	object = append(object, '}')
	text := append([]byte(`{"a":[`), bytes.Join(slices.Repeat([][]byte{object}, MaxBody/len(object)), []byte(","))...)
	s := &scanner{data: append(text, "]}"...)}
	fastest := time.Hour
	for range 5 {
		*s = scanner{data: s.data, what: "text"}
		start := time.Now()
		if err := s.document(func([]byte) error { return s.skip() }); err != nil {
			t.Fatal(err)
		}
		fastest = min(fastest, time.Since(start))
	}
	if t.Log(len(s.data), "bytes in", fastest); fastest > 200*time.Millisecond {
		t.Error("too slow")
	}
}

// TestEveryBit: no bit of a request can be another without its being refused.
func TestEveryBit(t *testing.T) {
	all := vectors(t)
	body, key := all["ok-kid-ES256"].bytes(), mustKey(t, all["ok-kid-ES256"].Key)
	for i := range body {
		for bit := range 8 {
			changed := bytes.Clone(body)
			changed[i] ^= 1 << bit
			r, err := Parse(changed)
			if err == nil {
				err = r.Verify(key.Key)
			}
			if err == nil {
				t.Fatalf("taken with bit %d of byte %d changed: %s", bit, i, changed)
			}
			checkFault(t, err)
		}
		if _, err := Parse(body[:i]); err == nil {
			t.Errorf("taken when cut at %d", i)
		}
	}
}

func wantKind(t testing.TB, err error, kind Kind) {
	t.Helper()
	checkFault(t, err)
	if fault, ok := errors.AsType[*Error](err); !ok || fault.Kind != kind {
		t.Errorf("got %v, want %v", err, kind)
	}
}
