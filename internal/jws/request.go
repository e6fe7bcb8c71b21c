package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.SHA256.New
	_ "crypto/sha512" // for crypto.SHA384.New and SHA512.New
	"hash"
	"math/big"
	"slices"
)

// algorithm is one value of alg (RFC 7518 section 3.1, RFC 8037 section 3.1).
type algorithm struct {
	name  string
	hash  crypto.Hash    // of the signing input; 0 for Ed25519, which hashes by itself
	curve elliptic.Curve // ECDSA: the one curve that goes with it
	width int            // ECDSA: bytes of a coordinate, and of half a signature
}

// The algorithms for requests. A MAC or "none" is never among them (RFC 8555
// section 6.2).
var (
	es256 = algorithm{"ES256", crypto.SHA256, elliptic.P256(), 32}
	es384 = algorithm{"ES384", crypto.SHA384, elliptic.P384(), 48}
	es512 = algorithm{"ES512", crypto.SHA512, elliptic.P521(), 66}
	eddsa = algorithm{name: "EdDSA"}
	rs256 = algorithm{name: "RS256", hash: crypto.SHA256}

	algorithms = [...]*algorithm{&es256, &es384, &es512, &eddsa, &rs256}
)

// Algorithms lists the values of alg that requests may have. The slice is the caller's.
func Algorithms() []string {
	names := make([]string, len(algorithms))
	for i, a := range algorithms {
		names[i] = a.name
	}
	return names
}

// Request is one ACME request, well formed but not verified: believe nothing
// in it before Verify has returned nil. It keeps the body it was parsed from.
type Request struct {
	Alg   string // one of Algorithms
	Nonce string // base64url characters; "" where there is none
	URL   string // never empty
	KID   string // the account URL; "" where JWK is set
	JWK   *JWK   // nil where KID is set
	// Payload is a JSON object without duplicate members, not deeply nested;
	// empty for POST-as-GET. Members that a resource doesn't know are for the
	// caller to ignore.
	Payload []byte

	alg       *algorithm
	signed    [2][]byte // protected and payload as sent
	signature []byte
	hasNonce  bool // true for an empty one too
}

// Parse reads the body of a POST. It takes a nonce that is missing (or empty,
// which is the same), so that the caller can answer badNonce, which makes
// clients try again. All errors are *Error of kind Malformed,
// BadSignatureAlgorithm or BadPublicKey. The body must not change afterwards.
func Parse(body []byte) (*Request, error) {
	return parse(body, "request body")
}

// ParseInner reads the JWS that is the payload of a keyChange request (RFC
// 8555 section 7.3.5): a request with jwk, without nonce. The caller must still
// Verify it with its JWK.Key and check that its URL is the outer one's. Errors
// are as Parse's.
func ParseInner(payload []byte) (*Request, error) {
	r, err := parse(payload, "inner JWS")
	if err != nil {
		return nil, err
	}
	if r.JWK == nil {
		return nil, malformed("the inner JWS must carry the new key as jwk, not kid (RFC 8555 section 7.3.5)")
	}
	if r.hasNonce {
		return nil, malformed("the inner JWS must not have a nonce (RFC 8555 section 7.3.5)")
	}
	return r, nil
}

func parse(text []byte, what string) (*Request, error) {
	m, err := open(text, what)
	if err != nil {
		return nil, err
	}
	h := &m.header
	r := &Request{
		Nonce:     string(h.nonce),
		URL:       string(h.url),
		KID:       string(h.kid),
		Payload:   m.content,
		signed:    [2][]byte{m.protected, m.payload},
		signature: m.signature,
		hasNonce:  h.nonce != nil,
	}
	i := slices.IndexFunc(algorithms[:], func(a *algorithm) bool { return a.name == string(h.alg) })
	if i < 0 {
		return nil, badAlgorithm(Algorithms(), "the %s is signed with alg %.40q", what, h.alg)
	}
	r.alg, r.Alg = algorithms[i], algorithms[i].name
	if (h.kid == nil) == (h.jwk == nil) {
		return nil, malformed("the protected header must have either jwk or kid (RFC 8555 section 6.2)")
	}
	if h.jwk != nil {
		if r.JWK, err = h.jwk.key(); err != nil {
			return nil, err
		}
	}
	if err := m.checkPayload(); err != nil {
		return nil, err
	}
	return r, nil
}

// IsPostAsGet reports whether the payload is empty (RFC 8555 section 6.3),
// which isn't the same as an empty object.
func (r *Request) IsPostAsGet() bool { return len(r.Payload) == 0 }

// Verify reports whether key signed the request: nil, or an *Error of kind
// BadPublicKey (we don't take such keys), BadSignatureAlgorithm (alg isn't the
// key's), Malformed (a signature of the wrong form) or Unauthorized. key is
// r.JWK.Key or the stored key of r.KID: an *ecdsa.PublicKey, ed25519.PublicKey
// or *rsa.PublicKey.
func (r *Request) Verify(key crypto.PublicKey) error {
	fit, err := algorithmOf(key)
	if err != nil {
		return err
	}
	if fit != r.alg {
		return badAlgorithm(Algorithms(), "alg is %s, but this key signs with %s", r.Alg, fit.name)
	}
	ok := false
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		// RFC 7518 section 3.4: r and s, each at full width. Anything else
		// would give one signature many forms.
		if len(r.signature) != 2*fit.width {
			return malformed("a signature with %s has %d bytes, r and s side by side and not ASN.1 (RFC 7518 section 3.4); this one has %d",
				r.Alg, 2*fit.width, len(r.signature))
		}
		R := new(big.Int).SetBytes(r.signature[:fit.width])
		S := new(big.Int).SetBytes(r.signature[fit.width:])
		ok = ecdsa.Verify(key, r.digest(), R, S)
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(key, fit.hash, r.digest(), r.signature) == nil
	case ed25519.PublicKey:
		ok = ed25519.Verify(key, slices.Concat(r.signed[0], []byte{'.'}, r.signed[1]), r.signature)
	}
	if !ok {
		return &Error{Kind: Unauthorized, Detail: "the signature does not verify; sign protected and payload, exactly as sent, with the key of this account or jwk"}
	}
	return nil
}

// digest hashes the signing input (RFC 7515 section 5.2).
func (r *Request) digest() []byte {
	h := r.alg.hash.New()
	writeSigned(h, r.signed)
	return h.Sum(nil)
}

func writeSigned(h hash.Hash, signed [2][]byte) {
	h.Write(signed[0])
	h.Write([]byte{'.'})
	h.Write(signed[1])
}
