package prove

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"

	"github.com/chancery-pki/chancery/mtls/acme"
)

// Kubernetes01 is the challenge type.
const Kubernetes01 = "kubernetes-01"

// maxToken bounds a token's file; real ones have one to two KiB.
const maxToken = 64 << 10

// Kubernetes answers kubernetes-01 at one directory.
type Kubernetes struct {
	Directory string // its URL
	// File holds a projected service account token, read anew for each proof.
	// "": none is sent, and the source address is the proof.
	File string
	// CheckAudience sends the token only where it is meant for Directory. It
	// is for files that several directories share: one that is run by
	// somebody else must not get a token that another would believe.
	CheckAudience bool
}

// Type returns Kubernetes01.
func (k Kubernetes) Type() string { return Kubernetes01 }

// CleanUp does nothing.
func (k Kubernetes) CleanUp(context.Context, acme.Proof) error { return nil }

// Present returns the payload with the token. The token goes to the directory's
// own host only, whatever URL the challenge names.
func (k Kubernetes) Present(_ context.Context, proof acme.Proof) (any, error) {
	if k.File == "" {
		return nil, nil
	}
	if err := sameHost(k.Directory, proof.Challenge.URL); err != nil {
		return nil, err
	}
	token, err := readToken(k.File)
	if err != nil {
		return nil, err
	}
	if k.CheckAudience {
		if err := meantFor(token, k.Directory); err != nil {
			return nil, fmt.Errorf("the token in %s: %w", k.File, err)
		}
	}
	return map[string]string{"serviceAccountToken": token}, nil
}

func sameHost(directory, challenge string) error {
	d, err := url.Parse(directory)
	if err != nil {
		return err
	}
	c, err := url.Parse(challenge)
	if err != nil {
		return err
	}
	if c.Scheme != d.Scheme || c.Host != d.Host {
		return fmt.Errorf("the challenge is at %q, but the token is for %q only", c.Host, d.Host)
	}
	return nil
}

// readToken reads a token and holds it to the form of a JWT, so that no other
// file is sent by mistake.
func readToken(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("the service account token: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", fmt.Errorf("the service account token: %w", err)
	}
	data = bytes.TrimSpace(data)
	if len(data) > maxToken {
		return "", fmt.Errorf("%s has more than %d bytes: that is no service account token", file, maxToken)
	}
	parts := bytes.Split(data, []byte("."))
	if len(parts) != 3 || slices.ContainsFunc(parts, func(p []byte) bool { return !isBase64URL(p) }) {
		return "", fmt.Errorf("%s doesn't hold a service account token, which is three parts of base64url with dots between", file)
	}
	return string(data), nil
}

func isBase64URL(p []byte) bool {
	_, err := base64.RawURLEncoding.Decode(make([]byte, base64.RawURLEncoding.DecodedLen(len(p))), p)
	return err == nil && len(p) > 0 && !bytes.ContainsAny(p, "\r\n") // which Decode skips
}

// meantFor looks for the audience in a token (RFC 7519 section 4.1.3: a string
// or several). It doesn't verify the token: that is for those who believe it.
func meantFor(token, directory string) error {
	part := bytes.Split([]byte(token), []byte("."))[1]
	payload := make([]byte, base64.RawURLEncoding.DecodedLen(len(part)))
	if _, err := base64.RawURLEncoding.Decode(payload, part); err != nil {
		return err
	}
	var claims struct {
		Audience json.RawMessage `json:"aud"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return errors.New("its claims are not JSON")
	}
	var several []string
	if err := json.Unmarshal(claims.Audience, &several); err != nil {
		var one string
		if err := json.Unmarshal(claims.Audience, &one); err != nil {
			return errors.New("it names no audience")
		}
		several = []string{one}
	}
	if !slices.Contains(several, directory) {
		return fmt.Errorf("it is meant for %q, not for %q: give each CA a token of its own, with its directory's URL as the audience", several, directory)
	}
	return nil
}
