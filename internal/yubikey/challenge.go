package yubikey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// The magics begin everything that a key signs for us, so that a signature
// for one purpose never counts for another (DESIGN section 6).
const (
	challengeMagic = "chancery-yubikey"
	enrolmentMagic = "chancery-enrol-1"
)

// ChallengeSize is the length of a challenge of yubikey-01 and yubikey-02: the
// magic, and 48 bytes that nobody could guess.
const ChallengeSize = len(challengeMagic) + sha512.Size384

// NewChallenge makes the challenge of a type (as in "yubikey-01") from the
// challenge's token, which is random and used once; so nothing has to be
// stored beside it.
func NewChallenge(typ, token string) []byte {
	random := sha512.Sum384([]byte(challengeMagic + "\x00" + typ + "\x00" + token))
	return append([]byte(challengeMagic), random[:]...)
}

// CheckChallenge refuses what isn't a challenge of ours. Clients ask before
// they let the key sign, so that no server makes them sign something else.
func CheckChallenge(challenge []byte) error {
	switch {
	case len(challenge) != ChallengeSize:
		return fmt.Errorf("the challenge has %d bytes, want %d", len(challenge), ChallengeSize)
	case !bytes.HasPrefix(challenge, []byte(challengeMagic)):
		return errors.New("the challenge doesn't begin with " + challengeMagic)
	}
	return nil
}

// ResponseMessage is what the key signs to answer a challenge: the challenge,
// the RFC 7638 thumbprint (base64url) of the account key, and a digest of the
// challenge's type and URL. So a response is good for one account at one
// challenge. The error is CheckChallenge's, or about the thumbprint.
func ResponseMessage(challenge []byte, thumbprint, typ, url string) ([]byte, error) {
	if err := CheckChallenge(challenge); err != nil {
		return nil, err
	}
	print, err := decode("thumbprint", thumbprint)
	if err != nil || len(print) != sha256.Size {
		return nil, errors.New("not a thumbprint of a key (RFC 7638 with SHA-256)")
	}
	where := sha256.Sum256([]byte(typ + "\x00" + url))
	return bytes.Join([][]byte{challenge, print, where[:]}, nil), nil
}

// EnrolmentMessage is what the key signs to be enrolled for a person: who
// enrolls it holds it, and for nobody else.
func EnrolmentMessage(a *Attestation, owner string, madeAt time.Time) []byte {
	statement, device := sha256.Sum256(a.Statement.Raw), sha256.Sum256(a.Device.Raw)
	message := append([]byte(enrolmentMagic), statement[:]...)
	message = append(message, device[:]...)
	message = binary.BigEndian.AppendUint64(message, uint64(madeAt.Unix()))
	return append(message, owner...)
}

// messageHash is a hash that SSH never uses with such a key (RFC 5656 section
// 6.2.1, RFC 8332), so that an agent that signs for SSH can't be made to
// answer a challenge. 0: the message itself is signed (Ed25519), which is for
// devices without SSH.
func messageHash(pub crypto.PublicKey) (crypto.Hash, error) {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256():
			return crypto.SHA384, nil
		case elliptic.P384():
			return crypto.SHA512, nil
		}
	case *rsa.PublicKey:
		return crypto.SHA384, nil
	case ed25519.PublicKey:
		return 0, nil
	}
	return 0, fmt.Errorf("keys of type %T are not for challenges", pub)
}

// digest is what the key is given to sign.
func digest(pub crypto.PublicKey, message []byte) ([]byte, crypto.Hash, error) {
	hash, err := messageHash(pub)
	if err != nil || hash == 0 {
		return message, hash, err
	}
	h := hash.New()
	h.Write(message)
	return h.Sum(nil), hash, nil
}

// SignMessage has the key sign a ResponseMessage or an EnrolmentMessage: ECDSA
// in ASN.1 (FIPS 186-5 section 6.4: the leftmost bits of a longer hash count),
// RSA by PKCS #1 v1.5. It blocks on the key, and a person who touches it.
func SignMessage(key crypto.Signer, message []byte) ([]byte, error) {
	d, hash, err := digest(key.Public(), message)
	if err != nil {
		return nil, err
	}
	return key.Sign(rand.Reader, d, hash)
}

// VerifyMessage checks a signature of SignMessage.
func VerifyMessage(pub crypto.PublicKey, message, signature []byte) error {
	d, hash, err := digest(pub, message)
	if err != nil {
		return err
	}
	good := false
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(pub, d, signature)
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(pub, hash, d, signature) == nil
	case ed25519.PublicKey:
		good = ed25519.Verify(pub, d, signature)
	}
	if !good {
		return errors.New("the signature isn't the key's over this message")
	}
	return nil
}

// Response is the payload that answers yubikey-01 and yubikey-02, in JSON with
// base64url without padding.
type Response struct {
	Signature    string `json:"signature"`
	Attestation  string `json:"attestation"`  // the slot's statement, DER
	Intermediate string `json:"intermediate"` // the device's certificate of slot f9, DER
}

// NewResponse makes the payload of a signature over a ResponseMessage.
func NewResponse(a *Attestation, signature []byte) Response {
	b64 := base64.RawURLEncoding.EncodeToString
	return Response{Signature: b64(signature), Attestation: b64(a.Statement.Raw), Intermediate: b64(a.Device.Raw)}
}

// MaxResponse bounds a Response: an RSA-4096 key, a statement of one and a
// device's certificate take 6 KiB.
const MaxResponse = 16 << 10

// Presented are the certificates of a Response; nothing of them is checked.
type Presented struct{ Statement, Device *x509.Certificate }

// ParseResponse reads a Response from its JSON. All three parts must be there,
// in base64url that has one form only, the certificates in DER.
func ParseResponse(payload []byte) (signature []byte, p *Presented, err error) {
	if len(payload) > MaxResponse {
		return nil, nil, fmt.Errorf("the response is longer than %d KiB", MaxResponse>>10)
	}
	var r Response
	if err := json.Unmarshal(payload, &r); err != nil {
		return nil, nil, errors.New("the response is not a JSON object with signature, attestation and intermediate")
	}
	if signature, err = decode("signature", r.Signature); err != nil {
		return nil, nil, err
	}
	p = &Presented{}
	for _, part := range []struct {
		name, text string
		to         **x509.Certificate
	}{{"attestation", r.Attestation, &p.Statement}, {"intermediate", r.Intermediate, &p.Device}} {
		der, err := decode(part.name, part.text)
		if err != nil {
			return nil, nil, err
		}
		if *part.to, err = x509.ParseCertificate(der); err != nil {
			return nil, nil, fmt.Errorf("%s is not one certificate in DER", part.name)
		}
	}
	return signature, p, nil
}

// decode reads base64url without padding (RFC 4648 section 5). The decoder
// would skip line breaks.
func decode(name, text string) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) == 0 || base64.RawURLEncoding.EncodedLen(len(b)) != len(text) {
		return nil, fmt.Errorf("%s is missing, or not base64url without padding", name)
	}
	return b, nil
}
