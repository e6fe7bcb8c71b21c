package jws

import (
	"bytes"
	"encoding/base64"
	"slices"
)

// message is one flattened JWS, opened but not verified.
type message struct {
	protected []byte // as sent, base64url: signed
	payload   []byte // as sent, base64url: signed
	signature []byte // decoded
	content   []byte // the payload, decoded; empty for POST-as-GET
	header    header
}

// header is the protected header (RFC 8555 section 6.2). Absent is nil.
type header struct {
	alg, nonce, url, kid []byte
	jwk                  *keyText
}

// open reads a message. The payload's bytes are decoded and not looked at.
func open(text []byte, what string) (*message, error) {
	if len(text) > MaxBody {
		return nil, malformed("the %s is longer than %d bytes", what, MaxBody)
	}
	m := new(message)
	signature, err := m.readFrame(&scanner{data: text, what: what})
	if err != nil {
		return nil, err
	}
	head, err := decode("protected", m.protected)
	if err != nil {
		return nil, err
	}
	if len(head) > maxHeader {
		return nil, malformed("the protected header is longer than %d bytes", maxHeader)
	}
	if m.content, err = decode("payload", m.payload); err != nil {
		return nil, err
	}
	if m.signature, err = decode("signature", signature); err != nil {
		return nil, err
	}
	if len(m.signature) == 0 {
		return nil, malformed("the signature is empty; every request must be signed (RFC 8555 section 6.2)")
	}
	if err := m.header.read(&scanner{data: head, what: "protected header"}); err != nil {
		return nil, err
	}
	return m, nil
}

// readFrame reads RFC 7515 section 7.2.2 less what RFC 8555 section 6.2
// forbids: three members, all strings, no more.
func (m *message) readFrame(s *scanner) (signature []byte, err error) {
	err = s.document(func(name []byte) (err error) {
		switch string(name) {
		case "protected":
			m.protected, err = s.str()
		case "payload":
			m.payload, err = s.str()
		case "signature":
			signature, err = s.str()
		case "signatures":
			err = s.fail("has several signatures; send one, in the flattened JSON form")
		case "header":
			err = s.fail("has an unprotected header; put its members into protected")
		default:
			err = malformed("the %s has the unknown member %.40q; a flattened JWS has protected, payload and signature", s.what, name)
		}
		return err
	})
	if err == nil && (m.protected == nil || m.payload == nil || signature == nil) {
		err = s.fail("must be a flattened JWS with protected, payload and signature (RFC 7515 section 7.2.2)")
	}
	return signature, err
}

// headerNames are the header members that mean something here or would elsewhere.
var headerNames = []string{
	"alg", "nonce", "url", "kid", "jwk",
	"crit", "b64", "jku", "x5u", "x5c", "x5t", "x5t#S256",
}

func (h *header) read(s *scanner) error {
	err := s.document(func(name []byte) (err error) {
		switch string(name) {
		case "alg":
			h.alg, err = s.str()
		case "nonce":
			h.nonce, err = s.str()
		case "url":
			h.url, err = s.str()
		case "kid":
			h.kid, err = s.str()
		case "jwk":
			h.jwk = new(keyText)
			err = h.jwk.read(s)
		default:
			if lookalike(name, headerNames) {
				return malformed("the protected header must not have the member %.40q", name)
			}
			err = s.skip() // typ and the like
		}
		return err
	})
	if err != nil {
		return err
	}
	if h.alg == nil {
		return s.fail("has no alg")
	}
	if len(h.url) == 0 {
		return s.fail("has no url; it must be the URL that the request is sent to (RFC 8555 section 6.4)")
	}
	if h.kid != nil && len(h.kid) == 0 {
		return s.fail("has an empty kid")
	}
	for _, c := range h.nonce {
		if !isBase64URL(c) {
			return s.fail("has a nonce that is not base64url; send a Replay-Nonce of ours as it is (RFC 8555 section 6.5.2)")
		}
	}
	return nil
}

// lookalike reports whether encoding/json, which folds case, would take name
// for one in the list.
func lookalike(name []byte, list []string) bool {
	return slices.ContainsFunc(list, func(known string) bool { return bytes.EqualFold(name, []byte(known)) })
}

// checkPayload refuses a payload other than "" or one JSON object.
func (m *message) checkPayload() error {
	if len(m.payload) == 0 {
		return nil
	}
	s := &scanner{data: m.content, what: "payload"}
	return s.document(func([]byte) error { return s.skip() })
}

// base64URL refuses padding and spare bits, but skips line breaks.
var base64URL = base64.RawURLEncoding.Strict()

// decode reads base64url in its one canonical form (RFC 7515 section 2).
func decode(name string, text []byte) ([]byte, error) {
	out := make([]byte, base64URL.DecodedLen(len(text)))
	n, err := base64URL.Decode(out, text)
	if err != nil || bytes.IndexByte(text, '\n') >= 0 || bytes.IndexByte(text, '\r') >= 0 {
		return nil, malformed("%s must be base64url without padding, white space or spare bits (RFC 7515 section 2)", name)
	}
	return out[:n], nil
}

func isBase64URL(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}
