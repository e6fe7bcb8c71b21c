package jws

import (
	"crypto"
	"crypto/hmac"
	"encoding/json"
	"fmt"
)

// minMACKey is the least length of an EAB key in bytes: RFC 7518 section 3.2
// asks for the hash's size. 256 bits are enough for the longer hashes too, and
// it is the client that picks among them for the one key it was given.
const minMACKey = 32

// MACAlgorithms lists the values of alg that external account bindings may
// have. The slice is the caller's.
func MACAlgorithms() []string { return []string{"HS256", "HS384", "HS512"} }

// EAB is an external account binding (RFC 8555 section 7.3.4), well formed but
// not verified.
type EAB struct {
	KID string // the EAB key's identifier; never empty
	URL string // must be the outer request's
	JWK *JWK   // must be the outer request's

	hash   crypto.Hash
	signed [2][]byte
	mac    []byte
}

// ParseEAB reads the externalAccountBinding member of a newAccount payload.
// The caller must still find the key of KID, Verify, and compare URL and JWK
// with the outer request's. All errors are *Error of kind Malformed,
// BadSignatureAlgorithm or BadPublicKey. raw must not change afterwards.
func ParseEAB(raw json.RawMessage) (*EAB, error) {
	m, err := open(raw, "externalAccountBinding")
	if err != nil {
		return nil, err
	}
	h := &m.header
	if h.jwk != nil || h.kid == nil {
		return nil, malformed("the externalAccountBinding must have the EAB key's identifier as kid, and no jwk, in its protected header (RFC 8555 section 7.3.4)")
	}
	if h.nonce != nil {
		return nil, malformed("the externalAccountBinding must not have a nonce (RFC 8555 section 7.3.4)")
	}
	e := &EAB{KID: string(h.kid), URL: string(h.url), signed: [2][]byte{m.protected, m.payload}, mac: m.signature}
	switch string(h.alg) {
	case "HS256":
		e.hash = crypto.SHA256
	case "HS384":
		e.hash = crypto.SHA384
	case "HS512":
		e.hash = crypto.SHA512
	default:
		return nil, badAlgorithm(MACAlgorithms(), "the externalAccountBinding has alg %.40q", h.alg)
	}
	if e.JWK, err = readKey(m.content, "payload of the externalAccountBinding"); err != nil {
		return nil, err
	}
	return e, nil
}

// Verify reports whether the binding was made with macKey, in constant time:
// nil, or an *Error of kind Unauthorized. A key under 32 bytes gives an
// untyped error, since that is no fault of the client's.
func (e *EAB) Verify(macKey []byte) error {
	if len(macKey) < minMACKey {
		return fmt.Errorf("jws: the EAB key has %d bytes, fewer than %d (RFC 7518 section 3.2)", len(macKey), minMACKey)
	}
	h := hmac.New(e.hash.New, macKey)
	writeSigned(h, e.signed)
	if !hmac.Equal(h.Sum(nil), e.mac) {
		return &Error{Kind: Unauthorized, Detail: "the externalAccountBinding does not verify; check the EAB key identifier and the base64url decoding of its MAC key"}
	}
	return nil
}
