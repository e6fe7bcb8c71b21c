package jws

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"testing"

	jose "github.com/go-jose/go-jose/v4"
)

// Each fuzz target holds our reading against go-jose's: what we accept, it must
// accept too, and understand in the same way. The other direction isn't
// wanted: it takes much that ACME forbids.

var (
	joseAlgorithms = []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512, jose.EdDSA, jose.RS256}
	joseMACs       = []jose.SignatureAlgorithm{jose.HS256, jose.HS384, jose.HS512}
)

func FuzzParse(f *testing.F) {
	for _, v := range vectors(f) {
		if v.Read == "request" || v.Read == "inner" {
			f.Add(v.bytes())
		}
	}
	key := mustKey(f, vectors(f)["ok-kid-ES256"].Key)
	f.Fuzz(func(t *testing.T, body []byte) { compareRequest(t, body, key) })
}

// FuzzSigned fuzzes what is inside the base64url, and signs it, so that
// acceptance is more than parsing.
func FuzzSigned(f *testing.F) {
	for _, v := range vectors(f) {
		var frame struct{ Protected, Payload string }
		if json.Unmarshal(v.bytes(), &frame) != nil {
			continue
		}
		protected, err1 := base64.RawURLEncoding.DecodeString(frame.Protected)
		payload, err2 := base64.RawURLEncoding.DecodeString(frame.Payload)
		if err1 == nil && err2 == nil {
			f.Add(protected, payload)
		}
	}
	private, key := testKey(f)
	f.Add([]byte(`{"alg":"ES256","url":"u","jwk":`+key.Canonical+`}`), []byte(`{"a":["\u00e9",{}]}`))
	f.Fuzz(func(t *testing.T, protected, payload []byte) {
		compareRequest(t, signES256(t, private, protected, payload), key)
	})
}

// testKey is a fixed P-256 key.
func testKey(t testing.TB) (*ecdsa.PrivateKey, *JWK) {
	t.Helper()
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	key, err := KeyFromPublic(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return private, key
}

func compareRequest(t *testing.T, body []byte, key *JWK) {
	r, err := Parse(body)
	if _, innerErr := ParseInner(body); err != nil && innerErr == nil {
		t.Error("ParseInner takes what Parse doesn't")
	}
	if err != nil {
		checkFault(t, err)
		return
	}
	theirs, err := jose.ParseSignedJSON(string(body), joseAlgorithms)
	if err != nil {
		t.Fatalf("go-jose refuses: %v", err)
	}
	if len(theirs.Signatures) != 1 {
		t.Fatalf("%d signatures", len(theirs.Signatures))
	}
	h := theirs.Signatures[0].Protected
	if h.Algorithm != r.Alg || h.Nonce != r.Nonce || h.KeyID != r.KID || h.ExtraHeaders["url"] != r.URL {
		t.Errorf("header %+v, ours %+v", h, r)
	}
	if (h.JSONWebKey == nil) != (r.JWK == nil) || (r.JWK == nil) == (r.KID == "") {
		t.Fatalf("jwk %v, ours %v, kid %q", h.JSONWebKey, r.JWK, r.KID)
	}
	if r.JWK != nil {
		compareKey(t, r.JWK, h.JSONWebKey)
		key = r.JWK
	}
	if !bytes.Equal(theirs.UnsafePayloadWithoutVerification(), r.Payload) {
		t.Errorf("payload %q, ours %q", theirs.UnsafePayloadWithoutVerification(), r.Payload)
	}
	payload, theirErr := theirs.Verify(key.Key)
	ourErr := r.Verify(key.Key)
	checkFault(t, ourErr)
	if (ourErr == nil) != (theirErr == nil) || ourErr == nil && !bytes.Equal(payload, r.Payload) {
		t.Errorf("verify: go-jose %v, ours %v", theirErr, ourErr)
	}
	checkObject(t, r.Payload)
}

// checkObject: encoding/json, which callers decode payloads with, takes it too.
func checkObject(t *testing.T, payload []byte) {
	var v map[string]any
	if err := json.Unmarshal(payload, &v); len(payload) > 0 && err != nil {
		t.Errorf("encoding/json refuses %q: %v", payload, err)
	}
}

func compareKey(t *testing.T, ours *JWK, theirs *jose.JSONWebKey) {
	t.Helper()
	if !theirs.Valid() || !theirs.IsPublic() {
		t.Error("go-jose finds the key invalid or private")
	}
	thumbprint, err := theirs.Thumbprint(crypto.SHA256)
	if err != nil || base64.RawURLEncoding.EncodeToString(thumbprint) != ours.Thumbprint {
		t.Errorf("thumbprint %x, %v, ours %s", thumbprint, err, ours.Thumbprint)
	}
	again, err := ParseKey([]byte(ours.Canonical))
	if err != nil || !again.Equal(ours) {
		t.Errorf("the canonical form reads back as %v, %v", again, err)
	}
	if made, err := KeyFromPublic(theirs.Key); err != nil || !made.Equal(ours) {
		t.Errorf("go-jose's key is %v, %v, ours %v", made, err, ours)
	}
}

func FuzzParseEAB(f *testing.F) {
	for _, v := range vectors(f) {
		if v.Read == "eab" {
			f.Add(v.bytes())
		}
	}
	f.Add(vectors(f)["ok-kid-ES256"].bytes())
	macKey, err := base64.RawURLEncoding.DecodeString(vectors(f)["ok-eab-HS256"].Key)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := ParseEAB(raw)
		if err != nil {
			checkFault(t, err)
			return
		}
		theirs, err := jose.ParseSignedJSON(string(raw), joseMACs)
		if err != nil {
			t.Fatalf("go-jose refuses: %v", err)
		}
		h := theirs.Signatures[0].Protected
		if h.KeyID != e.KID || h.ExtraHeaders["url"] != e.URL || h.Nonce != "" || h.JSONWebKey != nil {
			t.Errorf("header %+v, ours %+v", h, e)
		}
		var key jose.JSONWebKey
		if err := key.UnmarshalJSON(theirs.UnsafePayloadWithoutVerification()); err != nil {
			t.Fatal(err)
		}
		compareKey(t, e.JWK, &key)
		_, theirErr := theirs.Verify(macKey)
		if ourErr := e.Verify(macKey); (ourErr == nil) != (theirErr == nil) {
			t.Errorf("verify: go-jose %v, ours %v", theirErr, ourErr)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	for _, v := range vectors(f) {
		var frame struct{ Protected string }
		var header struct{ JWK json.RawMessage }
		if v.Read == "key" {
			f.Add(v.bytes())
		} else if json.Unmarshal(v.bytes(), &frame) == nil {
			protected, _ := base64.RawURLEncoding.DecodeString(frame.Protected)
			if json.Unmarshal(protected, &header) == nil && header.JWK != nil {
				f.Add([]byte(header.JWK))
			}
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := readKey(text, "key")
		stored, storedErr := ParseKey(text)
		if err != nil {
			checkFault(t, err)
			if storedErr == nil {
				t.Fatal("ParseKey takes what readKey doesn't")
			}
			return
		}
		if (storedErr == nil) != (k.Canonical == string(text)) || storedErr == nil && !stored.Equal(k) {
			t.Errorf("ParseKey: %v, %v", stored, storedErr)
		}
		var theirs jose.JSONWebKey
		if err := theirs.UnmarshalJSON(text); err != nil {
			t.Fatalf("go-jose refuses: %v", err)
		}
		compareKey(t, k, &theirs)
	})
}

// TestGoJoseSigner: what go-jose's signer makes, with its own nonce source and
// embedded keys, is what we take; so much for the many clients built on it.
func TestGoJoseSigner(t *testing.T) {
	private, key := testKey(t)
	for _, embed := range []bool{true, false} {
		options := &jose.SignerOptions{NonceSource: nonces{}, EmbedJWK: embed}
		options.WithHeader("url", "https://ca.example/acme/new-order")
		signing := jose.SigningKey{Algorithm: jose.ES256, Key: private}
		if !embed {
			signing.Key = jose.JSONWebKey{Key: private, KeyID: "https://ca.example/acme/acct/1"}
		}
		signer, err := jose.NewSigner(signing, options)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign([]byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r, err := Parse([]byte(signed.FullSerialize()))
		if err != nil {
			t.Fatal(err)
		}
		if r.Nonce != "abc" || string(r.Payload) != "{}" || (r.JWK != nil) != embed || embed && !r.JWK.Equal(key) {
			t.Errorf("%+v", r)
		}
		if err := r.Verify(key.Key); err != nil {
			t.Error(err)
		}
	}
}

type nonces struct{}

func (nonces) Nonce() (string, error) { return "abc", nil }
