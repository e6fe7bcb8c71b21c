package acme

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // ES384, ES512, HS384 and HS512 hash with it
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

var b64 = base64.RawURLEncoding

// jwsKey is a key that signs requests (RFC 7515), with everything about it
// that never changes worked out once.
type jwsKey struct {
	signer     crypto.Signer
	alg        string
	hash       crypto.Hash // 0 for EdDSA, which hashes by itself
	width      int         // bytes of r and of s in ECDSA signatures, else 0
	jwk        string      // canonical JSON, as RFC 7638 hashes it
	thumbprint string      // base64url(SHA-256(jwk))
}

func newJWSKey(signer crypto.Signer) (*jwsKey, error) {
	if signer == nil {
		return nil, errors.New("acme: the client has no account key")
	}
	jwk, err := marshalJWK(signer.Public())
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(jwk))
	k := &jwsKey{signer: signer, jwk: jwk, thumbprint: b64.EncodeToString(sum[:])}
	switch pub := signer.Public().(type) {
	case *ecdsa.PublicKey: // RFC 7518 section 3.4
		k.width = (pub.Curve.Params().BitSize + 7) / 8
		switch pub.Curve {
		case elliptic.P256():
			k.alg, k.hash = "ES256", crypto.SHA256
		case elliptic.P384():
			k.alg, k.hash = "ES384", crypto.SHA384
		case elliptic.P521():
			k.alg, k.hash = "ES512", crypto.SHA512
		}
	case *rsa.PublicKey:
		k.alg, k.hash = "RS256", crypto.SHA256
	case ed25519.PublicKey: // RFC 8037 section 3.1
		k.alg = "EdDSA"
	}
	return k, nil
}

// marshalJWK writes a public key with its required members only, in
// lexicographic order and without space, as RFC 7638 section 3 wants it.
func marshalJWK(pub crypto.PublicKey) (string, error) {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey: // RFC 7518 section 6.2.1: coordinates of full width
		switch pub.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
		default:
			return "", errors.New("acme: account keys are on P-256, P-384 or P-521")
		}
		point, err := pub.Bytes() // 4 ‖ x ‖ y
		if err != nil {
			return "", fmt.Errorf("acme: account key: %w", err)
		}
		x, y := point[1:1+len(point)/2], point[1+len(point)/2:]
		return `{"crv":"` + pub.Curve.Params().Name + `","kty":"EC","x":"` + b64.EncodeToString(x) + `","y":"` + b64.EncodeToString(y) + `"}`, nil
	case *rsa.PublicKey: // RFC 7518 section 6.3.1: no leading zeros
		if pub.N == nil || pub.N.BitLen() < 2048 {
			return "", errors.New("acme: an RSA account key has at least 2048 bits")
		}
		e := big.NewInt(int64(pub.E)).Bytes()
		return `{"e":"` + b64.EncodeToString(e) + `","kty":"RSA","n":"` + b64.EncodeToString(pub.N.Bytes()) + `"}`, nil
	case ed25519.PublicKey: // RFC 8037 section 2
		return `{"crv":"Ed25519","kty":"OKP","x":"` + b64.EncodeToString(pub) + `"}`, nil
	}
	return "", fmt.Errorf("acme: a %T can't be an account key; use ECDSA, Ed25519 or RSA", pub)
}

// Thumbprint returns the RFC 7638 thumbprint of a public key, base64url. It
// fails for keys that can't be account keys.
func Thumbprint(pub crypto.PublicKey) (string, error) {
	jwk, err := marshalJWK(pub)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(jwk))
	return b64.EncodeToString(sum[:]), nil
}

// sign returns the JWS signature over input.
func (k *jwsKey) sign(input []byte) ([]byte, error) {
	digest, opts := input, k.hash
	if k.hash != 0 {
		h := k.hash.New()
		h.Write(input)
		digest = h.Sum(nil)
	}
	sig, err := k.signer.Sign(rand.Reader, digest, opts)
	if err != nil {
		return nil, fmt.Errorf("acme: the account key did not sign: %w", err)
	}
	if k.width != 0 {
		return fixedWidth(sig, k.width)
	}
	return sig, nil
}

// fixedWidth turns the ASN.1 ECDSA signature of a crypto.Signer into r ‖ s,
// each of width bytes (RFC 7518 section 3.4).
func fixedWidth(sig []byte, width int) ([]byte, error) {
	var rs struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(sig, &rs)
	if err != nil || len(rest) > 0 || rs.R.Sign() <= 0 || rs.S.Sign() <= 0 ||
		rs.R.BitLen() > 8*width || rs.S.BitLen() > 8*width {
		return nil, errors.New("acme: the account key returned a malformed ECDSA signature")
	}
	out := make([]byte, 2*width)
	rs.R.FillBytes(out[:width])
	rs.S.FillBytes(out[width:])
	return out, nil
}

// seal makes a flattened JWS (RFC 7515 section 7.2.2, RFC 8555 section 6.2).
func seal(protected, payload []byte, sign func([]byte) ([]byte, error)) ([]byte, error) {
	input := make([]byte, 0, b64.EncodedLen(len(protected))+1+b64.EncodedLen(len(payload)))
	input = b64.AppendEncode(input, protected)
	dot := len(input)
	input = append(input, '.')
	input = b64.AppendEncode(input, payload)
	sig, err := sign(input)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(input)+b64.EncodedLen(len(sig))+48)
	out = append(out, `{"protected":"`...)
	out = append(out, input[:dot]...)
	out = append(out, `","payload":"`...)
	out = append(out, input[dot+1:]...)
	out = append(out, `","signature":"`...)
	out = b64.AppendEncode(out, sig)
	return append(out, `"}`...), nil
}

// identity is who signs: a key known by itself (jwk) or by its account (kid).
type identity struct {
	key  *jwsKey
	kid  string // the account URL, or "" for jwk
	head string // the protected header up to where nonce and url follow
}

// byKey signs with the key in the header, as newAccount needs it.
func (k *jwsKey) byKey() *identity {
	return &identity{key: k, head: `{"alg":"` + k.alg + `","jwk":` + k.jwk}
}

// byAccount signs as the account at kid, which has passed checkURL and so
// needs no escaping.
func (k *jwsKey) byAccount(kid string) *identity {
	return &identity{key: k, kid: kid, head: `{"alg":"` + k.alg + `","kid":"` + kid + `"`}
}

// seal signs a request to url. Nonce and url are checked: neither holds a
// character that JSON would have to escape. The inner JWS of a key change has
// no nonce (RFC 8555 section 7.3.5).
func (id *identity) seal(nonce, url string, payload []byte) ([]byte, error) {
	protected := make([]byte, 0, len(id.head)+len(nonce)+len(url)+24)
	protected = append(protected, id.head...)
	if nonce != "" {
		protected = append(protected, `,"nonce":"`...)
		protected = append(protected, nonce...)
		protected = append(protected, '"')
	}
	protected = append(protected, `,"url":"`...)
	protected = append(protected, url...)
	protected = append(protected, `"}`...)
	return seal(protected, payload, id.key.sign)
}

// ExternalAccount binds a new account to one the server knows by other means
// (RFC 8555 section 7.3.4).
type ExternalAccount struct {
	KeyID  string
	MACKey []byte // decoded; servers hand it out in base64url
	Alg    string // HS256 (the default), HS384 or HS512
}

// seal signs the account's key with the MAC key.
func (e *ExternalAccount) seal(url string, account *jwsKey) (json.RawMessage, error) {
	hashes := map[string]crypto.Hash{"": crypto.SHA256, "HS256": crypto.SHA256, "HS384": crypto.SHA384, "HS512": crypto.SHA512}
	hash, ok := hashes[e.Alg]
	switch {
	case !ok:
		return nil, fmt.Errorf("acme: EAB algorithm %q is not HS256, HS384 or HS512", e.Alg)
	case e.KeyID == "" || len(e.MACKey) == 0:
		return nil, errors.New("acme: an external account needs a key id and a MAC key")
	}
	protected, err := json.Marshal(map[string]string{"alg": fmt.Sprintf("HS%d", hash.Size()*8), "kid": e.KeyID, "url": url})
	if err != nil {
		return nil, err
	}
	return seal(protected, []byte(account.jwk), func(input []byte) ([]byte, error) {
		mac := hmac.New(hash.New, e.MACKey)
		mac.Write(input)
		return mac.Sum(nil), nil
	})
}
