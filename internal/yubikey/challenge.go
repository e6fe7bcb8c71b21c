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
	"encoding/base64"
	"encoding/binary"
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
	print, err := base64.RawURLEncoding.Strict().DecodeString(thumbprint)
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
