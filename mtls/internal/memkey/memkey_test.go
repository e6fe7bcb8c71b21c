package memkey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"math/big"
	"sync"
	"testing"
)

func signs(t *testing.T, k *Key) bool {
	t.Helper()
	digest := sha256.Sum256([]byte("x"))
	sig, err := k.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		if !errors.Is(err, ErrErased) {
			t.Error(err)
		}
		return false
	}
	if !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), digest[:], sig) {
		t.Error("the signature does not verify")
	}
	return true
}

func TestErase(t *testing.T) {
	k, err := New()
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 the words are what is tested
	words := k.private.D.Bits()
	if !signs(t, k) {
		t.Fatal("a new key does not sign")
	}
	// Those who sign while it is erased get a good signature or ErrErased.
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for signs(t, k) {
			}
		})
	}
	k.Erase()
	all.Wait()
	k.Erase()
	if !new(big.Int).SetBits(words).IsInt64() || new(big.Int).SetBits(words).Int64() != 0 {
		t.Error("the key's words are still there")
	}
	if _, err := k.PKCS8(); !errors.Is(err, ErrErased) {
		t.Errorf("PKCS8 after Erase: %v", err)
	}
	if k.Public() == nil {
		t.Error("the public key is gone too")
	}
}

func TestParse(t *testing.T) {
	k, _ := New()
	der, err := k.PKCS8()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(der)
	if err != nil || !again.public.Equal(k.public) || !signs(t, again) {
		t.Errorf("round trip: %v", err)
	}
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	for name, key := range map[string]any{"Ed25519": ed, "P-384": p384} {
		der, _ := x509.MarshalPKCS8PrivateKey(key)
		if _, err := Parse(der); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := Parse(der[:len(der)-1]); err == nil {
		t.Error("a truncated key was taken")
	}
}

func TestDerive(t *testing.T) {
	raw := func(secret, purpose string) []byte {
		k, err := Derive([]byte(secret), purpose)
		if err != nil {
			t.Fatal(err)
		}
		signs(t, k)
		b, _ := k.private.Bytes()
		return b
	}
	one := raw("secret", "a")
	if !bytes.Equal(one, raw("secret", "a")) {
		t.Error("another key at the second time")
	}
	if bytes.Equal(one, raw("secret", "b")) || bytes.Equal(one, raw("Secret", "a")) {
		t.Error("one key for two purposes or secrets")
	}
}
