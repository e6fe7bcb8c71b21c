package sshca

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// Our namespaces (PROTOCOL.sshsig section 2): a signature made for one purpose
// never counts for another.
const (
	// OrderNamespace is for the proof of possession in finalize: the message
	// is the order's URL. By hand:
	//
	//	printf %s "$ORDER_URL" | ssh-keygen -Y sign -n chancery-order@chancery-pki.github.io -f ~/.ssh/id_ed25519
	OrderNamespace = "chancery-order@chancery-pki.github.io"
	// KRLNamespace is for the CA's signature over a KRL: the message is the file.
	KRLNamespace = "chancery-krl@chancery-pki.github.io"
)

// PROTOCOL.sshsig sections 1 to 3.
const (
	sigBegin    = "-----BEGIN SSH SIGNATURE-----\n"
	sigEnd      = "\n-----END SSH SIGNATURE-----"
	sigMagic    = "SSHSIG"
	sigVersion  = 1
	sigLine     = 76   // characters of base64 a line, at most
	maxSigArmor = 8192 // RSA-4096's has about 1,600 characters
)

// errSignature tells a stranger no more than that.
var errSignature = errors.New("the signature doesn't verify")

// Signature is a detached signature (SSHSIG), parsed but not verified.
type Signature struct {
	Key       ssh.PublicKey // that it claims to be from
	Namespace string
	hash      string
	signature *ssh.Signature
}

// sigBlob is PROTOCOL.sshsig section 2.
type sigBlob struct {
	Magic     [6]byte
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  []byte
	Hash      string
	Signature []byte
}

// ParseSignature reads an SSHSIG in its armor, as ssh-keygen -Y sign writes it.
// It takes nothing around it but one newline at the end, and no field that we
// can't give a meaning to.
func ParseSignature(armored []byte) (*Signature, error) {
	wire, err := dearmor(armored)
	if err != nil {
		return nil, err
	}
	var b sigBlob
	if err := ssh.Unmarshal(wire, &b); err != nil {
		return nil, errors.New("an SSH signature that can't be read")
	}
	switch {
	case string(b.Magic[:]) != sigMagic || b.Version != sigVersion:
		return nil, fmt.Errorf("an SSH signature must be an SSHSIG of version %d", sigVersion)
	case b.Namespace == "":
		return nil, errors.New("an SSH signature without a namespace")
	case len(b.Reserved) > 0:
		return nil, errors.New("an SSH signature with bytes in its reserved field")
	case digest(b.Hash, nil) == nil:
		return nil, fmt.Errorf("an SSH signature with hash %.20q; use sha512 or sha256", b.Hash)
	}
	key, err := ssh.ParsePublicKey(b.PublicKey)
	if err != nil || !bytes.Equal(key.Marshal(), b.PublicKey) {
		return nil, errors.New("an SSH signature whose key can't be read")
	}
	s := &Signature{Key: key, Namespace: b.Namespace, hash: b.Hash, signature: new(ssh.Signature)}
	if err := ssh.Unmarshal(b.Signature, s.signature); err != nil {
		return nil, errors.New("an SSH signature that can't be read")
	}
	if err := s.checkRest(); err != nil {
		return nil, err
	}
	return s, nil
}

// checkRest holds what may follow a signature: with keys on FIDO tokens flags
// (one byte) and a counter (four; PROTOCOL.u2f), with others nothing.
func (s *Signature) checkRest() error {
	want := 0
	switch s.signature.Format {
	case ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		want = 5
	}
	if len(s.signature.Rest) != want {
		return errors.New("an SSH signature with bytes missing or too many")
	}
	return nil
}

// Verify checks that the key made the signature over the message, in the
// namespace. Certificates, weak keys and RSA with SHA-1 never verify; a key on a
// FIDO token must have been touched.
func (s *Signature) Verify(key ssh.PublicKey, namespace string, message []byte) error {
	switch {
	case CheckKey(key, nil) != nil:
		return errors.New("no signature counts that was made with such a key")
	case !sameKey(s.Key, key):
		return errors.New("the signature was made with another key")
	case s.Namespace != namespace:
		return fmt.Errorf("the signature was made in namespace %.80q, not %q", s.Namespace, namespace)
	case !accepts(key, s.signature.Format):
		return fmt.Errorf("a signature with %.40q is not accepted from a key of type %s", s.signature.Format, key.Type())
	}
	if err := key.Verify(signedData(namespace, s.hash, message), s.signature); err != nil {
		return errSignature
	}
	return nil
}

// Sign makes a detached signature in its armor. signer may be an ssh-agent's
// key, or any crypto.Signer by way of ssh.NewSignerFromSigner; it may block on a
// person.
func Sign(signer ssh.Signer, namespace string, message []byte) ([]byte, error) {
	key, err := ssh.ParsePublicKey(signer.PublicKey().Marshal()) // an agent's keys are but bytes
	if err == nil {
		err = CheckKey(key, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("this key can't sign: %w", err)
	}
	data := signedData(namespace, sigHash, message)
	var signature *ssh.Signature
	if key.Type() != ssh.KeyAlgoRSA {
		signature, err = signer.Sign(rand.Reader, data)
	} else if s, ok := signer.(ssh.AlgorithmSigner); ok {
		signature, err = s.SignWithAlgorithm(rand.Reader, data, ssh.KeyAlgoRSASHA512)
	} else {
		err = errors.New("an RSA key that can sign with SHA-1 only")
	}
	if err != nil {
		return nil, err
	}
	return armor(key, namespace, signature), nil
}

// sigHash is what we hash messages with, as ssh-keygen does.
const sigHash = "sha512"

// signedData is PROTOCOL.sshsig section 3.
func signedData(namespace, hash string, message []byte) []byte {
	b := []byte(sigMagic)
	b = appendString(b, namespace)
	b = appendString(b, "") // reserved
	b = appendString(b, hash)
	return appendString(b, digest(hash, message))
}

// digest is nil for a hash that the protocol doesn't know.
func digest(hash string, message []byte) []byte {
	switch hash {
	case "sha512":
		sum := sha512.Sum512(message)
		return sum[:]
	case "sha256":
		sum := sha256.Sum256(message)
		return sum[:]
	}
	return nil
}

// armor is PROTOCOL.sshsig sections 1 and 2.
func armor(key ssh.PublicKey, namespace string, signature *ssh.Signature) []byte {
	wire := ssh.Marshal(sigBlob{
		Magic: [6]byte([]byte(sigMagic)), Version: sigVersion, PublicKey: key.Marshal(),
		Namespace: namespace, Hash: sigHash, Signature: ssh.Marshal(signature),
	})
	text := base64.StdEncoding.EncodeToString(wire)
	out := []byte(sigBegin[:len(sigBegin)-1])
	for len(text) > 0 {
		n := min(sigLine, len(text))
		out = append(append(out, '\n'), text[:n]...)
		text = text[n:]
	}
	return append(append(out, sigEnd...), '\n')
}

func dearmor(armored []byte) ([]byte, error) {
	if len(armored) > maxSigArmor {
		return nil, fmt.Errorf("an SSH signature longer than %d bytes", maxSigArmor)
	}
	text, ok1 := bytes.CutPrefix(armored, []byte(sigBegin))
	text, ok2 := bytes.CutSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte(sigEnd))
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("an SSH signature must begin with %q and end with %q", sigBegin, sigEnd)
	}
	var joined []byte
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		if len(line) == 0 || len(line) > sigLine || bytes.IndexByte(line, '\r') >= 0 { // which the decoder would leave out
			return nil, fmt.Errorf("an SSH signature has lines of 1 to %d characters that end with a newline", sigLine)
		}
		joined = append(joined, line...)
	}
	wire, err := base64.StdEncoding.Strict().AppendDecode(nil, joined)
	if err != nil {
		return nil, errors.New("an SSH signature that isn't base64")
	}
	return wire, nil
}
