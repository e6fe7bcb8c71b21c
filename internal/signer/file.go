package signer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/signer/secret"
)

// maxKeyFile bounds a key file: RSA-16384 in PEM is 13 KB, and a chain may
// stand in the same file.
const maxKeyFile = 64 << 10

// Errors that callers tell apart.
var (
	// ErrPassword is wrapped by errors about a missing or wrong password.
	ErrPassword = errors.New("password")
	// ErrPermissions is wrapped when group or others may read a secret file.
	ErrPermissions = secret.ErrPermissions
)

// PasswordFile returns an Options.Password that reads a file. The file must be
// readable by its owner only; one trailing line end is not part of the password.
func PasswordFile(path string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		b, err := secret.Line(path, maxKeyFile)
		if err != nil {
			return nil, err
		}
		if len(b) == 0 {
			return nil, fmt.Errorf("%w file %s is empty", ErrPassword, path)
		}
		return b, nil
	}
}

// readPEM returns the one private key block of a file.
func readPEM(path string) (*pem.Block, error) {
	b, err := secret.Read(path, maxKeyFile)
	if err != nil {
		return nil, err
	}
	block, err := findKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return block, nil
}

// findKey picks the private key from PEM text. Certificates and EC PARAMETERS
// may stand beside it; a second key may not, since we'd have to guess.
func findKey(text []byte) (*pem.Block, error) {
	var key *pem.Block
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		if block == nil {
			break
		}
		switch block.Type {
		case "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
			if key != nil {
				return nil, errors.New("more than one private key; put each in its own file")
			}
			key = block
		case "OPENSSH PRIVATE KEY":
			return nil, errors.New("an OpenSSH private key; convert a copy with: ssh-keygen -p -m PKCS8 -f COPY")
		}
	}
	if key == nil {
		return nil, errors.New("no private key in PEM form (PRIVATE KEY, EC PRIVATE KEY, RSA PRIVATE KEY or ENCRYPTED PRIVATE KEY)")
	}
	if key.Headers["DEK-Info"] != "" || key.Headers["Proc-Type"] != "" {
		// RFC 1421 encryption derives the key with one round of MD5.
		return nil, errors.New("encrypted in the old, weak way; convert it with: openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256")
	}
	return key, nil
}

func readKey(ctx context.Context, path string, password func(context.Context) ([]byte, error)) (crypto.Signer, error) {
	block, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	if block.Type == "ENCRYPTED PRIVATE KEY" {
		if password == nil {
			return nil, fmt.Errorf("%s is encrypted and no %w was given; name a password file", path, ErrPassword)
		}
		secret, err := password(ctx)
		if err != nil {
			return nil, fmt.Errorf("password for %s: %w", path, err)
		}
		der, err := decryptPKCS8(block.Bytes, secret)
		clear(secret)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		block = &pem.Block{Type: "PRIVATE KEY", Bytes: der}
	}
	key, err := parseKey(block)
	clear(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// parseKey parses an unencrypted block. The errors of crypto/x509 may quote
// what they parse, so they are not passed on.
func parseKey(block *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch block.Type {
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("the %s block is damaged or of an unknown kind; check it with: openssl pkey -check -noout", block.Type)
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		if key.Curve == elliptic.P224() {
			return nil, errors.New("P-224 is too weak for a CA; use P-256 or P-384")
		}
		return key, nil
	case *rsa.PrivateKey:
		if bits := key.N.BitLen(); bits < 2048 || bits > 8192 {
			return nil, fmt.Errorf("an RSA key of %d bits; use 2048 to 8192", bits)
		}
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, fmt.Errorf("a key of type %T can't sign certificates here; use ECDSA, RSA or Ed25519", key)
}

// Generate makes a key and writes it to path as PKCS#8 in PEM, encrypted when
// there is a password (which it leaves as it is). The file appears whole or not
// at all, with mode 0600, and is on disk when Generate returns. It never
// replaces a file: then the error is fs.ErrExist. Large RSA keys take seconds.
func Generate(keyType cert.KeyType, path string, password []byte) (crypto.Signer, error) {
	key, err := newKey(keyType)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a %s key: %w", keyType, err)
	}
	block := &pem.Block{Type: "PRIVATE KEY", Bytes: der}
	if len(password) > 0 {
		sealed, err := encryptPKCS8(der, password)
		clear(der)
		if err != nil {
			return nil, err
		}
		block = &pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: sealed}
	}
	text := pem.EncodeToMemory(block)
	clear(block.Bytes)
	defer clear(text)
	if err := writeNew(path, text); err != nil {
		return nil, fmt.Errorf("write key %s: %w", path, err)
	}
	return key, nil
}

func newKey(keyType cert.KeyType) (crypto.Signer, error) {
	switch keyType {
	case cert.P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case cert.P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case cert.P521:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case cert.Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case cert.RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case cert.RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case cert.RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return nil, fmt.Errorf("a CA key can't be %q here; use one of %s, %s, %s, %s, %s, %s, %s", keyType,
		cert.P256, cert.P384, cert.P521, cert.Ed25519, cert.RSA2048, cert.RSA3072, cert.RSA4096)
}

// writeNew makes a file that wasn't there: written and synced under another
// name, then linked, which unlike rename fails when the name is taken; then
// the directory is synced, so that a power cut can't lose the name.
func writeNew(path string, text []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%w; a key is never overwritten", fs.ErrExist)
		}
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
