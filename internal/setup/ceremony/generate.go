package ceremony

import (
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/signer"
	"github.com/chancery-pki/chancery/internal/signer/pkcs11"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// Generation says what key to make. All but Type is for YubiKeys.
type Generation struct {
	Type              cert.KeyType
	ManagementKeyFile string // hex; "": the one that the card keeps under its PIN, or the factory's
	PINPolicy         string // never, once or always; "": once
	TouchPolicy       string // never, always or cached; "": never
	Overwrite         bool   // destroy the key that the slot holds
	Attestation       string // a new file for the card's evidence that it made the key; "": not written
}

// Generate makes a key where the URI says: a file of mode 0600 (encrypted if
// there is a password file), or a token, which never gives it out. A key
// that is there already is an error. It may block on a person, and up to a
// minute on a token that makes RSA keys.
func (k Key) Generate(ctx context.Context, g Generation) (crypto.Signer, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	if err := signer.CheckURI(k.URI); err != nil {
		return nil, err
	}
	isYubiKey := strings.HasPrefix(k.URI, "yubikey:")
	if !isYubiKey && g != (Generation{Type: g.Type}) {
		return nil, fmt.Errorf("%s: attestation, policies and management key are a YubiKey's", k.URI)
	}
	switch {
	case k.isFile():
		return k.generateFile(ctx, g.Type)
	case isYubiKey:
		return k.generateYubiKey(ctx, g)
	}
	key, err := pkcs11.Generate(ctx, k.URI, g.Type, k.secret())
	if err != nil {
		return nil, err
	}
	return key, nil
}

func (k Key) generateFile(ctx context.Context, typ cert.KeyType) (crypto.Signer, error) {
	path, err := filePath(k.URI)
	if err != nil {
		return nil, err
	}
	var password []byte
	if k.PasswordFile != "" {
		if password, err = k.secret()(ctx); err != nil {
			return nil, err
		}
		defer clear(password)
	}
	return signer.Generate(typ, path, password)
}

func (k Key) generateYubiKey(ctx context.Context, g Generation) (crypto.Signer, error) {
	o := yubikey.GenerateOptions{KeyType: g.Type, PIN: k.secret(), Overwrite: g.Overwrite}
	var err error
	if g.PINPolicy != "" {
		if o.PINPolicy, err = yubikey.ParsePINPolicy(g.PINPolicy); err != nil {
			return nil, err
		}
	}
	if g.TouchPolicy != "" {
		if o.TouchPolicy, err = yubikey.ParseTouchPolicy(g.TouchPolicy); err != nil {
			return nil, err
		}
	}
	if g.ManagementKeyFile != "" {
		if o.ManagementKey, err = managementKey(ctx, g.ManagementKeyFile); err != nil {
			return nil, err
		}
	}
	if g.Attestation != "" {
		if err := free(g.Attestation); err != nil {
			return nil, err
		}
	}
	cards := k.Cards
	if cards == nil {
		cards = new(yubikey.Cards)
	}
	key, attestation, err := cards.Generate(ctx, k.URI, o)
	if err != nil {
		return nil, err
	}
	if g.Attestation != "" {
		if err := WriteNew(g.Attestation, attestation.PEM(), 0o644); err != nil {
			Close(key)
			return nil, fmt.Errorf("the key was made, but its attestation was not written: %w", err)
		}
	}
	return key, nil
}

func managementKey(ctx context.Context, path string) ([]byte, error) {
	text, err := signer.PasswordFile(path)(ctx)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(string(text))
	if n := len(key); err != nil || n != 16 && n != 24 && n != 32 {
		return nil, fmt.Errorf("%s: a management key is 32, 48 or 64 hex digits", path)
	}
	return key, nil
}

// filePath is the path in a file: URI (RFC 8089), which is in order.
func filePath(uri string) (string, error) {
	rest := strings.TrimPrefix(uri, "file:")
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		_, path, _ := strings.Cut(after, "/")
		rest = "/" + path
	}
	path, err := url.PathUnescape(rest)
	if err != nil || path == "" {
		return "", errors.New(uri + " has no path")
	}
	return path, nil
}
