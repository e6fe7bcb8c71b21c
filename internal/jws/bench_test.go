package jws

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"testing"

	jose "github.com/go-jose/go-jose/v4"
)

// signES256 makes a request of a header and a payload.
func signES256(t testing.TB, private *ecdsa.PrivateKey, protected, payload []byte) []byte {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	input := b64(protected) + "." + b64(payload)
	sum := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, private, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return []byte(`{"protected":"` + b64(protected) + `","payload":"` + b64(payload) + `","signature":"` + b64(sig) + `"}`)
}

// finalize is the longest usual request: a CSR, here of 600 bytes.
func finalize(b *testing.B) (body []byte, key *JWK) {
	private, key := testKey(b)
	csr, err := json.Marshal(map[string][]byte{"csr": make([]byte, 600)})
	if err != nil {
		b.Fatal(err)
	}
	header := `{"alg":"ES256","kid":"https://ca.example/acme/servers/acct/0abcdefghijklmnopqrstuvwxy","nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","url":"https://ca.example/acme/servers/order/0abcdefghijklmnopqrstuvwxy/finalize"}`
	return signES256(b, private, []byte(header), csr), key
}

func BenchmarkParse(b *testing.B) {
	body, _ := finalize(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseVerify(b *testing.B) {
	body, key := finalize(b)
	b.ReportAllocs()
	for b.Loop() {
		r, err := Parse(body)
		if err != nil {
			b.Fatal(err)
		}
		if err := r.Verify(key.Key); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParseVerifyJWK is newAccount: the key must be read and checked too.
func BenchmarkParseVerifyJWK(b *testing.B) {
	private, key := testKey(b)
	header := `{"alg":"ES256","jwk":` + key.Canonical + `,"nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","url":"https://ca.example/acme/servers/new-account"}`
	body := signES256(b, private, []byte(header), []byte(`{"termsOfServiceAgreed":true,"contact":["mailto:a@example.org"]}`))
	b.ReportAllocs()
	for b.Loop() {
		r, err := Parse(body)
		if err != nil {
			b.Fatal(err)
		}
		if err := r.Verify(r.JWK.Key); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFloor is what can't be avoided: one hash and one bare ecdsa.Verify.
func BenchmarkFloor(b *testing.B) {
	body, key := finalize(b)
	r, err := Parse(body)
	if err != nil {
		b.Fatal(err)
	}
	R := new(big.Int).SetBytes(r.signature[:32])
	S := new(big.Int).SetBytes(r.signature[32:])
	sum := sha256.Sum256([]byte(string(r.signed[0]) + "." + string(r.signed[1])))
	b.ReportAllocs()
	for b.Loop() {
		if !ecdsa.Verify(key.Key.(*ecdsa.PublicKey), sum[:], R, S) {
			b.Fatal("does not verify")
		}
	}
}

// BenchmarkGoJose is the same request read and verified by go-jose alone.
func BenchmarkGoJose(b *testing.B) {
	body, key := finalize(b)
	text := string(body)
	b.ReportAllocs()
	for b.Loop() {
		s, err := jose.ParseSignedJSON(text, joseAlgorithms)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Verify(key.Key); err != nil {
			b.Fatal(err)
		}
	}
}
