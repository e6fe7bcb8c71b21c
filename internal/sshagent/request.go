package sshagent

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/ssh"
)

// Request is what an SSH program wants a key to sign, understood to the last
// byte.
type Request struct {
	Algorithm string // of the signature, as in "ecdsa-sha2-nistp256"

	// Of a user authentication.
	User      string
	SessionID []byte
	Host      ssh.PublicKey // the server's key, where the request is bound to it

	// Of an SSHSIG; "" for a user authentication.
	Namespace string
}

// String says what the signature is for, to the person who is asked to touch the
// key. What others chose is quoted.
func (r *Request) String() string {
	switch {
	case r.Namespace != "":
		return fmt.Sprintf("a signature for %q", r.Namespace)
	case r.Host != nil:
		return fmt.Sprintf("ssh login as %q at the host with key %s", r.User, ssh.FingerprintSHA256(r.Host))
	}
	return fmt.Sprintf("ssh login as %q at an unnamed host", r.User)
}

// Flags of a request to sign (draft-ietf-sshm-ssh-agent section 4.5.1).
const (
	flagRSA256 = 2
	flagRSA512 = 4
)

const (
	msgUserAuthRequest = 50 // RFC 4252 section 6
	serviceName        = "ssh-connection"
	methodPublicKey    = "publickey"
	methodHostbound    = "publickey-hostbound-v00@openssh.com"
	certSuffix         = "-cert-v01@openssh.com"

	// maxData bounds what is signed: a request holds two keys or certificates
	// and some names.
	maxData = 64 << 10
	maxName = 1024

	sigMagic = "SSHSIG" // PROTOCOL.sshsig section 3
	// ours ends the namespaces of our own protocol: proofs to the CA are
	// login's business, and what a CA signs is never a person's.
	ours = "@chancery-pki.github.io"
)

// errNotSSH is for bytes that are neither of the two things that are signed.
var errNotSSH = errors.New("neither a request of SSH user authentication (RFC 4252 section 7) nor an SSHSIG")

// Parse understands what a plain key is asked to sign, or says why it must not.
// flags are the agent protocol's.
func Parse(data []byte, key ssh.PublicKey, flags uint32) (*Request, error) {
	algorithm, err := algorithmOf(key, flags)
	if err != nil {
		return nil, err
	}
	if len(data) > maxData {
		return nil, fmt.Errorf("%d bytes to sign; at most %d", len(data), maxData)
	}
	r := &Request{Algorithm: algorithm}
	if bytes.HasPrefix(data, []byte(sigMagic)) {
		return r, r.readSSHSIG(data)
	}
	return r, r.readUserAuth(data, key)
}

// algorithmOf is the signature algorithm that the flags choose. RSA with SHA-1
// isn't signed (RFC 8332).
func algorithmOf(key ssh.PublicKey, flags uint32) (string, error) {
	switch t := key.Type(); {
	case t != ssh.KeyAlgoRSA:
		return t, nil
	case flags&flagRSA512 != 0:
		return ssh.KeyAlgoRSASHA512, nil
	case flags&flagRSA256 != 0:
		return ssh.KeyAlgoRSASHA256, nil
	}
	return "", errors.New("an RSA signature with SHA-1, which no one should accept")
}

// readUserAuth is RFC 4252 section 7.
func (r *Request) readUserAuth(data []byte, key ssh.PublicKey) error {
	s := cryptobyte.String(data)
	var kind, has uint8
	var user, service, method, algorithm, blob []byte
	if !readString(&s, &r.SessionID) || !s.ReadUint8(&kind) || !readString(&s, &user) || !readString(&s, &service) ||
		!readString(&s, &method) || !s.ReadUint8(&has) || !readString(&s, &algorithm) || !readString(&s, &blob) {
		return errNotSSH
	}
	switch len(r.SessionID) {
	case 20, 32, 48, 64: // a hash of the key exchange (RFC 4253 section 7.2): SHA-1 to SHA-512
	default:
		return errNotSSH
	}
	if kind != msgUserAuthRequest || string(service) != serviceName || has != 1 {
		return errNotSSH
	}
	if len(user) == 0 || len(user) > maxName || !utf8.Valid(user) {
		return errors.New("a user name that is empty, long or not UTF-8")
	}
	r.User = string(user)
	switch string(method) {
	case methodPublicKey:
	case methodHostbound:
		var host []byte
		if !readString(&s, &host) {
			return errNotSSH
		}
		var err error
		if r.Host, err = ssh.ParsePublicKey(host); err != nil {
			return errors.New("a host key that can't be read")
		}
	default:
		return errNotSSH
	}
	if !s.Empty() {
		return errors.New("bytes after the request's end")
	}
	return r.checkKey(string(algorithm), blob, key)
}

// checkKey makes sure that the request is one of this very key: plain, or in a
// user certificate. ssh asks for the plain key to sign for a certificate that lies
// in a file.
func (r *Request) checkKey(algorithm string, blob []byte, key ssh.PublicKey) error {
	named, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return errors.New("a public key that can't be read")
	}
	want := r.Algorithm
	if cert, ok := named.(*ssh.Certificate); ok {
		if cert.CertType != ssh.UserCert {
			return errors.New("the certificate isn't a user's")
		}
		named, want = cert.Key, want+certSuffix
	}
	switch {
	case !bytes.Equal(named.Marshal(), key.Marshal()):
		return errors.New("the request names another key")
	case algorithm != want:
		return fmt.Errorf("the request names algorithm %.60q, the signature would be %s", algorithm, want)
	}
	return nil
}

// readSSHSIG is PROTOCOL.sshsig section 3, the signed data.
func (r *Request) readSSHSIG(data []byte) error {
	s := cryptobyte.String(data[len(sigMagic):])
	var namespace, reserved, hash, digest []byte
	if !readString(&s, &namespace) || !readString(&s, &reserved) || !readString(&s, &hash) || !readString(&s, &digest) || !s.Empty() {
		return errNotSSH
	}
	sizes := map[string]int{"sha256": 32, "sha512": 64}
	if size, ok := sizes[string(hash)]; !ok || len(digest) != size || len(reserved) > 0 {
		return errNotSSH
	}
	if len(namespace) == 0 || len(namespace) > maxName || !utf8.Valid(namespace) {
		return errors.New("an SSHSIG namespace that is empty, long or not UTF-8")
	}
	if strings.HasSuffix(strings.ToLower(string(namespace)), ours) {
		return fmt.Errorf("namespace %q is for the CA's own protocol: chancery login signs there, an agent doesn't", namespace)
	}
	r.Namespace = string(namespace)
	return nil
}

// readString takes RFC 4251 section 5's string off the front of s.
func readString(s *cryptobyte.String, out *[]byte) bool {
	var n uint32
	return s.ReadUint32(&n) && uint64(n) <= uint64(len(*s)) && s.ReadBytes(out, int(n))
}
