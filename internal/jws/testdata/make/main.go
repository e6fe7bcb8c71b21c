// Make writes the vectors: one JSON file for each way a message can be wrong,
// and one for each that must be taken. It knows the RFCs and not package jws.
// Run it in the package's folder: go run ./testdata/make (ECDSA signatures
// differ at each run, so all files do; commit them together).
//
//	why      what is wrong, or right, with the message
//	ref      the rule
//	read     how to read it: request, inner, eab or key
//	body     the message; body64 (base64) where it is no valid UTF-8
//	key      the JWK, or for eab the MAC key in base64url, to verify it with
//	expect   ok, or the kind of error
//	says     words that the error's detail must have
//	payload  ok only: the payload, decoded
package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash"
	"log"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

type vector struct {
	Why     string `json:"why"`
	Ref     string `json:"ref"`
	Read    string `json:"read"`
	Body    string `json:"body,omitempty"`
	Body64  []byte `json:"body64,omitempty"`
	Key     string `json:"key,omitempty"`
	Expect  string `json:"expect"`
	Says    string `json:"says,omitempty"`
	Payload string `json:"payload,omitempty"`
}

var b64 = base64.RawURLEncoding.EncodeToString

func un64(s string) []byte {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		log.Fatal(err)
	}
	return b
}

// signer is a key, its JWK and its alg.
type signer struct {
	alg, jwk string
	sign     func(input string) []byte
}

func ecSigner(alg string, curve elliptic.Curve, h crypto.Hash, d string) signer {
	k, err := ecdsa.ParseRawPrivateKey(curve, un64(d))
	if err != nil {
		log.Fatal(err)
	}
	point, _ := k.PublicKey.Bytes()
	w := len(point) / 2
	jwk := fmt.Sprintf(`{"crv":%q,"kty":"EC","x":%q,"y":%q}`, curve.Params().Name, b64(point[1:1+w]), b64(point[1+w:]))
	return signer{alg, jwk, func(input string) []byte {
		hh := h.New()
		hh.Write([]byte(input))
		r, s, err := ecdsa.Sign(rand.Reader, k, hh.Sum(nil))
		if err != nil {
			log.Fatal(err)
		}
		return append(r.FillBytes(make([]byte, w)), s.FillBytes(make([]byte, w))...)
	}}
}

func rsaSigner(p, q string) signer {
	P, Q, one := new(big.Int).SetBytes(un64(p)), new(big.Int).SetBytes(un64(q)), big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(P, one), new(big.Int).Sub(Q, one))
	k := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(P, Q), E: 65537},
		D:         new(big.Int).ModInverse(big.NewInt(65537), phi), Primes: []*big.Int{P, Q},
	}
	k.Precompute()
	return signer{"RS256", rsaJWK(k.N.Bytes()), func(input string) []byte {
		sum := sha256.Sum256([]byte(input))
		sig, err := rsa.SignPKCS1v15(nil, k, crypto.SHA256, sum[:])
		if err != nil {
			log.Fatal(err)
		}
		return sig
	}}
}

func rsaJWK(n []byte) string { return fmt.Sprintf(`{"e":"AQAB","kty":"RSA","n":%q}`, b64(n)) }

func macSigner(alg string, h func() hash.Hash, key []byte) signer {
	return signer{alg, b64(key), func(input string) []byte {
		m := hmac.New(h, key)
		m.Write([]byte(input))
		return m.Sum(nil)
	}}
}

// The private keys that RFC 7515 A.2 to A.4 and RFC 8037 A.1 publish, and one for P-384.
var (
	p256 = ecSigner("ES256", elliptic.P256(), crypto.SHA256, "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI")
	p384 = ecSigner("ES384", elliptic.P384(), crypto.SHA384, b64(bytes.Repeat([]byte{0x5c}, 48)))
	p521 = ecSigner("ES512", elliptic.P521(), crypto.SHA512, "AY5pb7A0UFiB3RELSD64fTLOSV_jazdF7fLYyuTw8lOfRhWg6Y6rUrPAxerEzgdRhajnu0ferB0d53vM9mE15j2C")
	rs   = rsaSigner("4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc",
		"uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc")
	ed25519Key = ed25519.NewKeyFromSeed(un64("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"))
	ed         = signer{"EdDSA", fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":%q}`, b64(ed25519Key[32:])),
		func(input string) []byte { return ed25519.Sign(ed25519Key, []byte(input)) }}
	macKey = un64("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
	hs256  = macSigner("HS256", sha256.New, macKey)
)

const (
	kid   = `"kid":"https://ca.example/acme/acct/1"`
	nonce = `"nonce":"bm9uY2U"`
	url   = `"url":"https://ca.example/acme/new-order"`
	order = `{"identifiers":[{"type":"dns","value":"www.example.org"}]}`
)

// message is the three strings of a JWS, base64url.
type message struct{ protected, payload, signature string }

func jws(k signer, protected, payload string) message {
	m := message{protected: b64([]byte(protected)), payload: b64([]byte(payload))}
	return m.resign(k)
}

func (m message) resign(k signer) message {
	m.signature = b64(k.sign(m.protected + "." + m.payload))
	return m
}

func (m message) json() string {
	return fmt.Sprintf(`{"protected":"%s","payload":"%s","signature":"%s"}`, m.protected, m.payload, m.signature)
}

// head joins header members, alg first.
func head(k signer, members ...string) string {
	return "{" + strings.Join(append([]string{fmt.Sprintf(`"alg":%q`, k.alg)}, members...), ",") + "}"
}

// good is an ordinary request with kid.
func good(k signer) message { return jws(k, head(k, kid, nonce, url), order) }

// withJWK is a request with a jwk, signed with k whatever the jwk says.
func withJWK(k signer, jwk string) string {
	return jws(k, head(k, `"jwk":`+jwk, nonce, url), order).json()
}

func ec(crv, x, y, more string) string {
	return fmt.Sprintf(`{"kty":"EC","crv":%q,"x":%q,"y":%q%s}`, crv, x, y, more)
}

func main() {
	old, _ := filepath.Glob("testdata/*.json")
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			log.Fatal(err)
		}
	}
	taken()
	frames()
	encodings()
	texts()
	headers()
	payloads()
	keys()
	signatures()
	inner()
	bindings()
	stored()
}

func write(name string, v vector) {
	if !utf8.ValidString(v.Body) {
		v.Body64, v.Body = []byte(v.Body), ""
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		log.Fatal(err)
	}
	file := filepath.Join("testdata", name+".json")
	if _, err := os.Stat(file); err == nil {
		log.Fatal(file, " is written twice")
	}
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
		log.Fatal(err)
	}
}

// fault writes a request that must be refused before its signature is looked at.
func fault(name, ref, why, says, body string) {
	write(name, vector{Why: why, Ref: ref, Read: "request", Body: body, Key: p256.jwk, Expect: "malformed", Says: says})
}

func ok(name, ref, why string, k signer, body, payload string) {
	write("ok-"+name, vector{Why: why, Ref: ref, Read: "request", Body: body, Key: k.jwk, Expect: "ok", Payload: payload})
}
