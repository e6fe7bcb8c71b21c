package sshca

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/cert"
	"github.com/chancery-pki/chancery/internal/protocol"
)

// Key types that only SSH knows: keys on FIDO tokens (PROTOCOL.u2f).
const (
	SKP256    cert.KeyType = "sk-P-256"
	SKEd25519 cert.KeyType = "sk-Ed25519"
)

// maxKeyLine bounds the line that a client sends: RSA of 4096 bits takes 724
// characters, and a comment is dropped unread.
const maxKeyLine = 4096

// badKey is how RFC 8555 section 6.7 speaks of a certificate's key; finalize's
// sshPublicKey stands in the place of a CSR.
func badKey(format string, args ...any) error {
	return protocol.NewProblem(protocol.BadCSR, "sshPublicKey: "+format, args...)
}

// ParseKey reads a plain public key from one authorized_keys line, the contents
// of an id_….pub file: type, base64, and a comment, which is dropped. Its errors
// are badCSR problems: options, a certificate, several lines, DSA, a weak or an
// oversized RSA key, an encoding that isn't the canonical one.
func ParseKey(line string) (ssh.PublicKey, error) {
	if len(line) > maxKeyLine {
		return nil, badKey("longer than %d characters; send one line such as ssh-keygen writes to id_ed25519.pub", maxKeyLine)
	}
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if strings.ContainsAny(line, "\r\n\x00") {
		return nil, badKey("send one line")
	}
	fields := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
	if len(fields) < 2 {
		return nil, badKey("not a public key; send one line such as ssh-keygen writes to id_ed25519.pub")
	}
	if why := typeFault(fields[0]); why != "" {
		return nil, badKey("%s", why)
	}
	wire, err := base64.StdEncoding.Strict().DecodeString(fields[1])
	if err != nil {
		return nil, badKey("the key isn't base64")
	}
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		return nil, badKey("the key can't be read")
	}
	if key.Type() != fields[0] || !bytes.Equal(key.Marshal(), wire) {
		return nil, badKey("the key isn't encoded as a %.50q is (RFC 4251 section 5)", fields[0])
	}
	if err := CheckKey(key, nil); err != nil {
		return nil, err
	}
	return key, nil
}

// typeFault says what a line's first word is if it isn't a type of plain key
// that we certify; "" if it is.
func typeFault(name string) string {
	switch name {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256, ssh.KeyAlgoRSA,
		ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return ""
	case "ssh-dss":
		return "DSA is too weak; make a new key with ssh-keygen -t ed25519"
	}
	if strings.HasSuffix(name, "-cert-v01@openssh.com") {
		return "this is a certificate; send the plain key, the file without -cert"
	}
	return fmt.Sprintf("%.50q is not a type of key that can be certified: send ssh-ed25519, ecdsa-sha2-nistp256, -nistp384, -nistp521, sk-ssh-ed25519@openssh.com, sk-ecdsa-sha2-nistp256@openssh.com or ssh-rsa, without options before it", name)
}

// NewKey is the SSH form of a key that came another way, such as a YubiKey's
// from its attestation. Its errors are badCSR problems.
func NewKey(pub crypto.PublicKey) (ssh.PublicKey, error) {
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		return nil, badKey("SSH knows no keys of type %T; use ECDSA, Ed25519 or RSA", pub)
	}
	if err := CheckKey(key, nil); err != nil {
		return nil, err
	}
	return key, nil
}

// KeyTypeOf says which of a profile's key types a plain key is; false for any
// other kind. RSA counts by the size that it at least has, as for X.509.
func KeyTypeOf(key ssh.PublicKey) (cert.KeyType, bool) {
	if key == nil {
		return "", false
	}
	switch key.Type() {
	case ssh.KeyAlgoED25519:
		return cert.Ed25519, true
	case ssh.KeyAlgoSKED25519:
		return SKEd25519, true
	case ssh.KeyAlgoSKECDSA256:
		return SKP256, true
	case ssh.KeyAlgoECDSA256:
		return cert.P256, true
	case ssh.KeyAlgoECDSA384:
		return cert.P384, true
	case ssh.KeyAlgoECDSA521:
		return cert.P521, true
	case ssh.KeyAlgoRSA:
		pub, ok := CryptoKey(key).(*rsa.PublicKey)
		if !ok || rsaFault(pub) != "" {
			return "", false
		}
		switch bits := pub.N.BitLen(); {
		case bits < 3072:
			return cert.RSA2048, true
		case bits < 4096:
			return cert.RSA3072, true
		}
		return cert.RSA4096, true
	}
	return "", false
}

// CheckKey refuses a key that isn't of an allowed type, or is weak by its size.
// allowed is the profile's; nil allows all that we know. Its errors are badCSR
// problems.
func CheckKey(key ssh.PublicKey, allowed []cert.KeyType) error {
	if pub, ok := CryptoKey(key).(*rsa.PublicKey); ok {
		if why := rsaFault(pub); why != "" {
			return badKey("%s", why)
		}
	}
	typ, ok := KeyTypeOf(key)
	if !ok {
		return badKey("this kind of key can't be certified; make a new one with ssh-keygen -t ed25519")
	}
	if allowed != nil && !slices.Contains(allowed, typ) {
		return badKey("%s keys are not allowed here; make a key of type %v", typ, allowed)
	}
	return nil
}

// rsaFault bounds RSA keys as the rest of the product does; sshd takes none
// under 1024 bits, and larger ones than 4096 only cost time.
func rsaFault(pub *rsa.PublicKey) string {
	switch bits := pub.N.BitLen(); {
	case pub.N.Sign() <= 0 || pub.N.Bit(0) == 0:
		return "the RSA modulus is not a positive odd number"
	case bits < 2048 || bits > 4096 || bits%8 != 0:
		return fmt.Sprintf("an RSA key of %d bits: want 2048 to 4096, a multiple of 8", bits)
	case pub.E < 65537 || pub.E&1 == 0:
		return fmt.Sprintf("an RSA key with exponent %d: want 65537, or an odd number above it", pub.E)
	}
	return ""
}

// CryptoKey is the key as the standard library knows it; of a key on a FIDO
// token it is the key in it. nil if there is none.
func CryptoKey(key ssh.PublicKey) crypto.PublicKey {
	if k, ok := key.(ssh.CryptoPublicKey); ok {
		return k.CryptoPublicKey()
	}
	return nil
}

// KeyHash is the hex SHA-256 of the SubjectPublicKeyInfo, so that a key blocked
// for its X.509 certificate is the same key here.
func KeyHash(key ssh.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(CryptoKey(key))
	if err != nil {
		return "", fmt.Errorf("a key of type %s has no SubjectPublicKeyInfo: %w", key.Type(), err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// sameKey compares plain keys by their canonical bytes.
func sameKey(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }
