package signer

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"strings"

	"github.com/chancery-pki/chancery/internal/signer/pkcs11"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// Signer is one private key. It is safe for concurrent use.
type Signer struct {
	crypto.Signer
	// URI names the key as the configuration does; it holds no secret.
	URI string
	// Parallel is how many signatures the key makes at once: GOMAXPROCS for
	// a key in memory, 1 for a card.
	Parallel int
	// Away says why a key on a token isn't there yet, nil if it is: a queue
	// then leaves it to Watch to open it.
	Away error
}

// Options say how to open a key. The zero value opens keys without password.
type Options struct {
	// Password is asked for an encrypted file's password, and for a token's
	// PIN, when one is needed; see [PasswordFile]. It may block on a person.
	Password func(context.Context) ([]byte, error)
	// Cards are the process's YubiKeys, of which it should have one value: a
	// card can be open once only. nil: this key is the only one on its card.
	Cards *yubikey.Cards
}

// schemes lists what can be opened, in the words of error messages.
const schemes = "file:PATH (a PEM file), pkcs11:… (RFC 7512) and yubikey:serial=…;slot=…"

// Open finds the private key that a URI names: "file:/etc/chancery/issuing.key",
// a relative "file:issuing.key", or RFC 8089's "file:///etc/…" with characters
// percent-encoded; "pkcs11:token=…;object=…" as in package pkcs11; or
// "yubikey:serial=…;slot=9c" as in package yubikey. It reads the disk or talks
// to the token, and asks for a password or PIN where one is needed; a PIN that
// was refused is not tried again.
//
// Its errors name the file or token and what to do, and never hold key material
// or a PIN. They wrap [ErrAway] for a token that isn't there, which may come
// yet, [ErrPassword] and [ErrPermissions] for files.
func Open(ctx context.Context, uri string, o Options) (*Signer, error) {
	if err := CheckURI(uri); err != nil {
		return nil, err
	}
	scheme, rest, _ := strings.Cut(uri, ":")
	switch scheme {
	case "pkcs11":
		key, err := pkcs11.Open(ctx, uri, o.Password)
		if err != nil {
			return nil, absent(err, pkcs11.ErrAbsent, pkcs11.ErrGone)
		}
		return &Signer{Signer: key, URI: uri, Parallel: key.Parallel()}, nil
	case "yubikey":
		cards := o.Cards
		if cards == nil {
			cards = new(yubikey.Cards)
		}
		key, err := cards.Open(ctx, uri, o.Password)
		if err != nil {
			return nil, absent(err, yubikey.ErrAbsent, yubikey.ErrGone)
		}
		return &Signer{Signer: key, URI: uri, Parallel: key.Parallel()}, nil
	}
	path, err := filePath(rest)
	if err != nil {
		return nil, err
	}
	key, err := readKey(ctx, path, o.Password)
	if err != nil {
		return nil, err
	}
	return &Signer{Signer: key, URI: uri, Parallel: runtime.GOMAXPROCS(0)}, nil
}

// absent wraps ErrAway around the errors that say that a key isn't there.
func absent(err error, kinds ...error) error {
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			return fmt.Errorf("%w: %w", ErrAway, err)
		}
	}
	return err
}

// CheckURI reports what is wrong with a key's URI, by its syntax alone: nothing
// is opened. Its errors don't quote what may be a PIN.
func CheckURI(uri string) error {
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok {
		return fmt.Errorf("key %q is not a URI, which begins with %s; write file:%s for a file", uri, schemes, uri)
	}
	var err error
	switch scheme {
	case "file":
		if _, err = filePath(rest); err != nil {
			err = fmt.Errorf("key URI %q: %w", uri, err)
		}
	case "pkcs11":
		_, err = pkcs11.ParseURI(uri)
	case "yubikey":
		_, err = yubikey.ParseURI(uri)
	default:
		err = fmt.Errorf("key URI scheme %q is not one of %s", scheme, schemes)
	}
	return err
}

// filePath takes what follows "file:" apart (RFC 8089 section 2): an optional
// empty or "localhost" authority, then a percent-encoded path.
func filePath(rest string) (string, error) {
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		host, path, _ := strings.Cut(after, "/")
		if host != "" && host != "localhost" {
			return "", fmt.Errorf("host %q: only files of this machine can be opened; use file:/path", host)
		}
		rest = "/" + path
	}
	if strings.ContainsAny(rest, "?#") {
		return "", fmt.Errorf("a file URI has no query or fragment; write ? as %%3F and # as %%23")
	}
	path, err := url.PathUnescape(rest)
	switch {
	case err != nil:
		return "", fmt.Errorf("%w; write %% as %%25", err)
	case path == "" || path == "/":
		return "", fmt.Errorf("no path")
	case strings.ContainsRune(path, 0):
		return "", fmt.Errorf("a path can't contain NUL")
	}
	return path, nil
}
