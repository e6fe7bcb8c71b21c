package signer

import (
	"context"
	"crypto"
	"fmt"
	"net/url"
	"runtime"
	"strings"
)

// Signer is one private key. It is safe for concurrent use.
type Signer struct {
	crypto.Signer
	// URI names the key as the configuration does; it holds no secret.
	URI string
	// Parallel is how many signatures the key makes at once: GOMAXPROCS for
	// a key in memory, 1 for a card.
	Parallel int
}

// Options say how to open a key. The zero value opens keys without password.
type Options struct {
	// Password is asked once, and only when the key is encrypted; see
	// [PasswordFile]. It may block on a person.
	Password func(context.Context) ([]byte, error)
}

// schemes lists what this build can open, in the words of the error message.
const schemes = "file:PATH (a PEM file)"

// Open finds the private key that a URI names: "file:/etc/chancery/issuing.key",
// a relative "file:issuing.key", or RFC 8089's "file:///etc/…"; characters may
// be percent-encoded. It reads the disk, and asks for the password of an
// encrypted key.
//
// Its errors name the file and what to do, and never hold key material: a
// scheme this build doesn't know, a key that group or others can read, no or
// the wrong password (ErrPassword), a key type that can't sign certificates.
func Open(ctx context.Context, uri string, o Options) (*Signer, error) {
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok {
		return nil, fmt.Errorf("key %q is not a URI; this build opens %s: write file:%s for a file", uri, schemes, uri)
	}
	if scheme != "file" {
		return nil, fmt.Errorf("key URI scheme %q is not supported by this build, which opens %s", scheme, schemes)
	}
	path, err := filePath(rest)
	if err != nil {
		return nil, fmt.Errorf("key URI %q: %w", uri, err)
	}
	key, err := readKey(ctx, path, o.Password)
	if err != nil {
		return nil, err
	}
	return &Signer{Signer: key, URI: uri, Parallel: runtime.GOMAXPROCS(0)}, nil
}

// CheckURI reports what is wrong with a key's URI, by its syntax alone: nothing
// is opened.
func CheckURI(uri string) error {
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok {
		return fmt.Errorf("key %q is not a URI; this build opens %s: write file:%s for a file", uri, schemes, uri)
	}
	if scheme != "file" {
		return fmt.Errorf("key URI scheme %q is not supported by this build, which opens %s", scheme, schemes)
	}
	if _, err := filePath(rest); err != nil {
		return fmt.Errorf("key URI %q: %w", uri, err)
	}
	return nil
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
