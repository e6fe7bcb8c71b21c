package ceremony

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/issuer"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// Key names a private key and where its password or PIN comes from.
type Key struct {
	URI          string
	PasswordFile string // of an encrypted key file; "" for none
	PINFile      string // of a token; "" for none
	// Cards are the process's YubiKeys; nil: this key is the only one in them.
	Cards *yubikey.Cards
	// Ask asks a person for the password or the PIN where no file is named.
	// nil: there is nobody to ask.
	Ask func(ctx context.Context, what string) ([]byte, error)
}

// isFile reports whether the key is in a file, so that its secret is a
// password and not a PIN.
func (k Key) isFile() bool { return InFile(k.URI) }

// InFile reports whether a URI names a key in a file and not on a token.
func InFile(uri string) bool { return strings.HasPrefix(uri, "file:") }

func (k Key) check() error {
	switch {
	case k.URI == "":
		return errors.New("no key is named")
	case k.isFile() && k.PINFile != "":
		return fmt.Errorf("%s: a key in a file has a password and no PIN", k.URI)
	case !k.isFile() && k.PasswordFile != "":
		return fmt.Errorf("%s: a token has a PIN and no password", k.URI)
	}
	return nil
}

// secret is where the password or the PIN comes from; nil: nowhere.
func (k Key) secret() func(context.Context) ([]byte, error) {
	switch {
	case k.PasswordFile != "":
		return signer.PasswordFile(k.PasswordFile)
	case k.PINFile != "":
		return signer.PasswordFile(k.PINFile)
	case k.Ask == nil:
		return nil
	case k.isFile():
		return func(ctx context.Context) ([]byte, error) { return k.Ask(ctx, "Password of "+k.URI) }
	}
	return func(ctx context.Context) ([]byte, error) { return k.Ask(ctx, "PIN for "+k.URI) }
}

// Open opens the key; [Close] it when it has signed. It may block on a person
// and on the token.
func (k Key) Open(ctx context.Context) (crypto.Signer, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	s, err := signer.Open(ctx, k.URI, signer.Options{Password: k.secret(), Cards: k.Cards})
	if err != nil {
		return nil, err
	}
	return s.Signer, nil
}

// Close lets go of a key on a token, so that others can use it; keys in files
// need nothing.
func Close(key crypto.Signer) {
	if token, ok := key.(io.Closer); ok {
		token.Close() // it has signed, so nothing is lost
	}
}

// KeyFacts is what can be said of a key.
type KeyFacts struct {
	URI         string       `json:"uri"`
	Type        cert.KeyType `json:"type"`
	KeyID       string       `json:"key_id"`          // hex; what certificates and lists call it
	Fingerprint string       `json:"sha256"`          // hex, of the SubjectPublicKeyInfo
	Token       string       `json:"token,omitempty"` // where the key is; "" for a file
}

// Facts describes the key at a URI.
func Facts(uri string, key crypto.Signer) (KeyFacts, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return KeyFacts{}, err
	}
	typ, _ := issuer.KeyTypeOf(key.Public())
	f := KeyFacts{URI: uri, Type: typ, KeyID: subjectKeyID(spki), Fingerprint: Fingerprint(spki)}
	if t, ok := key.(interface{ Token() string }); ok {
		f.Token = t.Token()
	}
	return f, nil
}

// SSHLine is a public key as one line of authorized_keys, with its newline.
func SSHLine(public crypto.PublicKey, comment string) (string, error) {
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("SSH knows no such key: %w", err)
	}
	return strings.TrimSpace(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))+" "+comment) + "\n", nil
}

// Fingerprint is what people compare over the telephone: the hex SHA-256 of a
// SubjectPublicKeyInfo.
func Fingerprint(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// subjectKeyID is the identifier that certificates of a key will have: the
// hash of the bits of the key, by RFC 7093 section 2 method 1. "" for what is
// no SubjectPublicKeyInfo.
func subjectKeyID(spki []byte) string {
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &info); err != nil {
		return ""
	}
	sum := sha256.Sum256(info.Key.Bytes)
	return hex.EncodeToString(sum[:20])
}
