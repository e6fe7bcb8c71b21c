package acme

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
)

type joseHeader struct {
	Alg   string          `json:"alg"`
	JWK   json.RawMessage `json:"jwk"`
	Kid   string          `json:"kid"`
	Nonce string          `json:"nonce"`
	URL   string          `json:"url"`
}

// verify holds a POST to RFC 8555 section 6.2 to 6.5.
func (ca *fakeCA) verify(r *http.Request) (*signedRequest, string, error) {
	if got := r.Header.Get("Content-Type"); got != "application/jose+json" {
		return nil, ErrMalformed, fmt.Errorf("content type %q", got)
	}
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	req, head, err := openJWS(body)
	if err != nil {
		return nil, ErrMalformed, err
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if head.Kid != "" {
		if req.account = ca.accounts[head.Kid]; req.account == nil {
			return nil, ErrAccountDoesNotExist, fmt.Errorf("no account %q", head.Kid)
		}
		req.key, req.thumb = req.account.key, req.account.thumb
		if err := checkJWS(body, head.Alg, req.key); err != nil {
			return nil, ErrUnauthorized, err
		}
	}
	switch {
	case head.URL != "https://"+r.Host+r.URL.RequestURI():
		return nil, ErrUnauthorized, fmt.Errorf("url is %q", head.URL)
	case !ca.nonces[head.Nonce]:
		return nil, ErrBadNonce, fmt.Errorf("nonce %q", head.Nonce)
	}
	delete(ca.nonces, head.Nonce)
	return req, "", nil
}

// openJWS reads a flattened JWS and, if its header has the key, verifies it.
func openJWS(body []byte) (*signedRequest, joseHeader, error) {
	var j struct{ Protected, Payload, Signature *string }
	var head joseHeader
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&j); err != nil || j.Protected == nil || j.Payload == nil || j.Signature == nil {
		return nil, head, fmt.Errorf("not a flattened JWS: %s", body)
	}
	dec = json.NewDecoder(bytes.NewReader(unb64(*j.Protected)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&head); err != nil || (head.JWK == nil) == (head.Kid == "") {
		return nil, head, fmt.Errorf("protected header %s: %v", unb64(*j.Protected), err)
	}
	req := &signedRequest{payload: unb64(*j.Payload), jwk: head.JWK}
	if head.JWK != nil {
		var err error
		if req.key, req.thumb, err = parseJWK(head.JWK); err != nil {
			return nil, head, err
		}
		return req, head, checkJWS(body, head.Alg, req.key)
	}
	return req, head, nil
}

// checkJWS verifies by RFC 7518 section 3 and RFC 8037.
func checkJWS(body []byte, alg string, key crypto.PublicKey) error {
	var j struct{ Protected, Payload, Signature string }
	json.Unmarshal(body, &j)
	input, sig := []byte(j.Protected+"."+j.Payload), unb64(j.Signature)
	ok := false
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		want := map[string]int{"ES256": 32, "ES384": 48, "ES512": 66}[alg]
		digest := map[string][]byte{"ES256": sum(sha256.New(), input), "ES384": sum(sha512.New384(), input), "ES512": sum(sha512.New(), input)}[alg]
		if want != (key.Curve.Params().BitSize+7)/8 || len(sig) != 2*want {
			return fmt.Errorf("%s with a signature of %d bytes on %s", alg, len(sig), key.Curve.Params().Name)
		}
		ok = ecdsa.Verify(key, digest, new(big.Int).SetBytes(sig[:want]), new(big.Int).SetBytes(sig[want:]))
	case *rsa.PublicKey:
		ok = alg == "RS256" && rsa.VerifyPKCS1v15(key, crypto.SHA256, sum(sha256.New(), input), sig) == nil
	case ed25519.PublicKey:
		ok = alg == "EdDSA" && ed25519.Verify(key, input, sig)
	}
	if !ok {
		return fmt.Errorf("%s signature does not verify", alg)
	}
	return nil
}

func sum(h io.Writer, input []byte) []byte {
	h.Write(input)
	return h.(interface{ Sum([]byte) []byte }).Sum(nil)
}

// parseJWK reads a key and its thumbprint by RFC 7517, 7518, 8037 and 7638.
func parseJWK(raw json.RawMessage) (crypto.PublicKey, string, error) {
	var k struct{ Kty, Crv, X, Y, N, E string }
	if err := json.Unmarshal(raw, &k); err != nil {
		return nil, "", err
	}
	var key crypto.PublicKey
	var canonical string
	var err error
	switch k.Kty {
	case "EC":
		curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[k.Crv]
		key, err = ecdsa.ParseUncompressedPublicKey(curve, append(append([]byte{4}, unb64(k.X)...), unb64(k.Y)...))
		canonical = fmt.Sprintf(`{"crv":%q,"kty":"EC","x":%q,"y":%q}`, k.Crv, k.X, k.Y)
	case "OKP":
		key = ed25519.PublicKey(unb64(k.X))
		canonical = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":%q}`, k.X)
	case "RSA":
		key = &rsa.PublicKey{N: new(big.Int).SetBytes(unb64(k.N)), E: int(new(big.Int).SetBytes(unb64(k.E)).Int64())}
		canonical = fmt.Sprintf(`{"e":%q,"kty":"RSA","n":%q}`, k.E, k.N)
	}
	digest := sha256.Sum256([]byte(canonical))
	return key, base64.RawURLEncoding.EncodeToString(digest[:]), err
}

// unb64 refuses what RFC 8555 section 6.1 refuses: padding and trailing bits.
func unb64(s string) []byte {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil
	}
	return b
}
