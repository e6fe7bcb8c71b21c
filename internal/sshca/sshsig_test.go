package sshca_test

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/chancery-pki/chancery/internal/protocol"
	"github.com/chancery-pki/chancery/internal/sshca"
)

const orderURL = "https://ca.example.com/acme/people/order/Zm9v"

// sshSigners are the keys that can make an SSHSIG, tokens among them.
func sshSigners() map[string]ssh.Signer {
	all := map[string]ssh.Signer{}
	for name, key := range signers() {
		all[name] = must(ssh.NewSignerFromSigner(key))
	}
	for name, key := range fidos() {
		all[name] = key
	}
	return all
}

func TestPossession(t *testing.T) {
	for name, signer := range sshSigners() {
		p, err := sshca.SignPossession(signer, orderURL)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := sshca.VerifyPossession(signer.PublicKey(), orderURL, p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for what, err := range map[string]error{
			"another order":  sshca.VerifyPossession(signer.PublicKey(), orderURL+"x", p),
			"a certificate":  sshca.VerifyPossession(issue(t, newEd25519(), request(signer.PublicKey())), orderURL, p),
			"another key":    sshca.VerifyPossession(public(newEd25519()), orderURL, p),
			"no signature":   sshca.VerifyPossession(signer.PublicKey(), orderURL, ""),
			"no order":       sshca.VerifyPossession(signer.PublicKey(), "", p),
			"one of two":     sshca.VerifyPossession(signer.PublicKey(), orderURL, p+p),
			"a KRL's":        sshca.VerifyPossession(signer.PublicKey(), orderURL, string(must(sshca.Sign(signer, sshca.KRLNamespace, []byte(orderURL))))),
			"in DOS's lines": sshca.VerifyPossession(signer.PublicKey(), orderURL, strings.ReplaceAll(p, "\n", "\r\n")),
		} {
			if q, ok := errors.AsType[*protocol.Problem](err); !ok || q.Type != protocol.BadCSR {
				t.Errorf("%s: %s: got %v, want a badCSR problem", name, what, err)
			}
		}
	}
}

// ssh-keygen -Y verify takes ours, of every key; ours takes ssh-keygen -Y sign's.
func TestOpenSSHSignatures(t *testing.T) {
	dir := t.TempDir()
	for name, signer := range sshSigners() {
		writeFile(t, dir, "allowed", []byte("alice "+line(signer.PublicKey())+"\n"))
		writeFile(t, dir, "sig", must(sshca.Sign(signer, sshca.OrderNamespace, []byte(orderURL))))
		verify := func(namespace, message string) error {
			_, err := keygen(t, dir, message, "-Y", "verify", "-f", "allowed", "-I", "alice", "-n", namespace, "-s", "sig")
			return err
		}
		if err := verify(sshca.OrderNamespace, orderURL); err != nil {
			t.Errorf("%s: OpenSSH doesn't verify our signature", name)
		}
		if verify(sshca.KRLNamespace, orderURL) == nil || verify(sshca.OrderNamespace, "x") == nil {
			t.Errorf("%s: OpenSSH verifies anything", name)
		}
	}
	for name, key := range signers() {
		writePrivate(t, dir, name, key)
		for _, hash := range []string{"sha512", "sha256"} {
			writeFile(t, dir, "message", []byte(orderURL))
			if err := os.Remove(filepath.Join(dir, "message.sig")); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			mustKeygen(t, dir, "", "-Y", "sign", "-n", sshca.OrderNamespace, "-f", name, "-O", "hashalg="+hash, "message")
			if err := sshca.VerifyPossession(public(key), orderURL, string(readFile(t, dir, "message.sig"))); err != nil {
				t.Errorf("%s, %s: %v", name, hash, err)
			}
		}
	}
}

// A real ssh-agent signs as well, RSA with SHA-2.
func TestAgent(t *testing.T) {
	path, err := exec.LookPath("ssh-agent")
	if err != nil {
		t.Fatal("this test needs the ssh-agent command (openssh-client): ", err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	// The command begins when the agent listens; the agent ends with it.
	cmd := exec.CommandContext(t.Context(), path, "-a", socket, "sh", "-c", "echo ready; read end")
	stdin, stdout := must(cmd.StdinPipe()), must(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	if _, err := io.ReadFull(stdout, make([]byte, len("ready"))); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := agent.NewClient(conn)
	for name, key := range signers() {
		if err := client.Add(agent.AddedKey{PrivateKey: key}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	all, err := client.Signers()
	if err != nil || len(all) != len(signers()) {
		t.Fatalf("%d keys, %v", len(all), err)
	}
	for _, signer := range all {
		key := must(ssh.ParsePublicKey(signer.PublicKey().Marshal()))
		p, err := sshca.SignPossession(signer, orderURL)
		if err == nil {
			err = sshca.VerifyPossession(key, orderURL, p)
		}
		if err != nil {
			t.Errorf("%s: %v", key.Type(), err)
		}
	}
}

// parts are an SSHSIG's fields, to be spoiled (PROTOCOL.sshsig section 2).
type parts struct {
	Magic                     [6]byte
	Version                   uint32
	Key, Namespace, Res, Hash string
	Signature                 []byte
	Rest                      []byte `ssh:"rest"`
}

func armored(p parts) []byte {
	text := base64.StdEncoding.EncodeToString(ssh.Marshal(p))
	return []byte("-----BEGIN SSH SIGNATURE-----\n" + wrap(text, 76) + "\n-----END SSH SIGNATURE-----\n")
}

func wrap(text string, width int) string {
	var lines []string
	for len(text) > width {
		lines, text = append(lines, text[:width]), text[width:]
	}
	return strings.Join(append(lines, text), "\n")
}

// signParts makes a signature as PROTOCOL.sshsig says, with fields of one's own.
func signParts(signer ssh.Signer, p parts, message []byte, change func(*ssh.Signature)) []byte {
	sum := sha256.Sum256(message)
	data := append([]byte("SSHSIG"), ssh.Marshal(struct{ Namespace, Res, Hash, Sum string }{p.Namespace, p.Res, p.Hash, string(sum[:])})...)
	s := must(signer.Sign(nil, data))
	if change != nil {
		change(s)
	}
	p.Signature = ssh.Marshal(s)
	return armored(p)
}

func TestSignatureRefuses(t *testing.T) {
	key := must(ssh.NewSignerFromSigner(newEd25519()))
	token := fidos()["sk-ed25519"]
	untouched := fidos()["sk-p256"]
	untouched.flags = 4
	rsaKey := must(ssh.NewSignerFromSigner(softRSA()))
	message := []byte("message")
	of := func(signer ssh.Signer) parts {
		return parts{Magic: [6]byte([]byte("SSHSIG")), Version: 1, Key: string(signer.PublicKey().Marshal()), Namespace: "n", Hash: "sha256"}
	}
	spoiled := func(change func(*parts)) []byte {
		p := of(key)
		change(&p)
		return signParts(key, p, message, nil)
	}
	verify := func(signer ssh.Signer, armored []byte) error {
		s, err := sshca.ParseSignature(armored)
		if err != nil {
			return err
		}
		return s.Verify(signer.PublicKey(), "n", message)
	}
	good := signParts(key, of(key), message, nil)
	for name, signer := range map[string]ssh.Signer{"ed25519": key, "sk-ed25519": token} {
		if err := verify(signer, signParts(signer, of(signer), message, nil)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	text := strings.TrimSuffix(strings.TrimPrefix(string(good), "-----BEGIN SSH SIGNATURE-----\n"), "\n-----END SSH SIGNATURE-----\n")
	inArmor := func(text string) []byte {
		return []byte("-----BEGIN SSH SIGNATURE-----\n" + text + "\n-----END SSH SIGNATURE-----\n")
	}
	joined := strings.ReplaceAll(text, "\n", "")
	for name, bad := range map[string][]byte{
		"nothing":                 nil,
		"an empty armor":          inArmor(""),
		"text before":             append([]byte("\n"), good...),
		"text after":              append(bytes.Clone(good), '\n'),
		"no footer":               good[:len(good)-10],
		"PEM of another kind":     bytes.ReplaceAll(good, []byte("SSH SIGNATURE"), []byte("SIGNATURE")),
		"one long line":           inArmor(joined),
		"an empty line":           inArmor(strings.Replace(text, "\n", "\n\n", 1)),
		"a space":                 inArmor(strings.Replace(text, "\n", " \n", 1)),
		"a carriage return":       inArmor(strings.Replace(text, "\n", "\r\n", 1)),
		"bits beyond":             inArmor(wrap(joined[:len(joined)-2]+"x=", 76)),
		"far too long":            inArmor(wrap(strings.Repeat("A", 9000), 76)),
		"another magic":           spoiled(func(p *parts) { p.Magic[0] = 's' }),
		"version 0":               spoiled(func(p *parts) { p.Version = 0 }),
		"version 2":               spoiled(func(p *parts) { p.Version = 2 }),
		"no namespace":            spoiled(func(p *parts) { p.Namespace = "" }),
		"another namespace":       spoiled(func(p *parts) { p.Namespace = "file" }),
		"a namespace, but NUL":    spoiled(func(p *parts) { p.Namespace = "n\x00" }),
		"reserved bytes":          spoiled(func(p *parts) { p.Res = "x" }),
		"hash sha1":               spoiled(func(p *parts) { p.Hash = "sha1" }),
		"hash SHA256":             spoiled(func(p *parts) { p.Hash = "SHA256" }),
		"the other hash":          spoiled(func(p *parts) { p.Hash = "sha512" }),
		"no key":                  spoiled(func(p *parts) { p.Key = "" }),
		"another key":             spoiled(func(p *parts) { p.Key = string(public(newEd25519()).Marshal()) }),
		"a certificate for a key": spoiled(func(p *parts) { p.Key = string(issue(t, newEd25519(), request(key.PublicKey())).Marshal()) }),
		"a byte after the key":    spoiled(func(p *parts) { p.Key += "\x00" }),
		"bytes at the end":        spoiled(func(p *parts) { p.Rest = []byte{0} }),
		"bytes after the raw one": signParts(key, of(key), message, func(s *ssh.Signature) { s.Rest = []byte{1, 0, 0, 0, 1} }),
		"a shorter raw one":       signParts(key, of(key), message, func(s *ssh.Signature) { s.Blob = s.Blob[:63] }),
		"another format":          signParts(key, of(key), message, func(s *ssh.Signature) { s.Format = "ecdsa-sha2-nistp256" }),
		"a wrong bit":             signParts(key, of(key), message, func(s *ssh.Signature) { s.Blob[0] ^= 1 }),
		"no raw signature":        armored(of(key)),
		"the message itself signed": signParts(key, of(key), message, func(s *ssh.Signature) {
			*s = *must(key.Sign(nil, message))
		}),
	} {
		if err := verify(key, bad); err == nil {
			t.Errorf("%s: verifies", name)
		}
	}
	for name, c := range map[string]struct {
		signer ssh.Signer
		change func(*ssh.Signature)
	}{
		"RSA with SHA-1":           {rsaKey, nil}, // x/crypto's default for ssh-rsa
		"a token not touched":      {untouched, nil},
		"a token's flags changed":  {token, func(s *ssh.Signature) { s.Rest[0] |= 4 }},
		"a token's counter":        {token, func(s *ssh.Signature) { s.Rest[4]++ }},
		"a token without counter":  {token, func(s *ssh.Signature) { s.Rest = s.Rest[:1] }},
		"a token with more":        {token, func(s *ssh.Signature) { s.Rest = append(s.Rest, 0) }},
		"a token as a plain key":   {token, func(s *ssh.Signature) { s.Format, s.Rest = ssh.KeyAlgoED25519, nil }},
		"a token through webauthn": {token, func(s *ssh.Signature) { s.Format = "webauthn-sk-ecdsa-sha2-nistp256@openssh.com" }},
	} {
		if err := verify(c.signer, signParts(c.signer, of(c.signer), message, c.change)); err == nil {
			t.Errorf("%s: verifies", name)
		}
	}
	if s := must(rsaKey.Sign(nil, message)); s.Format != "ssh-rsa" { // else the case above proves nothing
		t.Errorf("x/crypto signs with %s", s.Format)
	}
}

// sha1Only is a key of an agent that is too old for RSA with SHA-2.
type sha1Only struct{ ssh.Signer }

func (s sha1Only) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	sum := sha1.Sum(data)
	return &ssh.Signature{Format: "ssh-rsa", Blob: sum[:]}, nil
}

func TestSignRefuses(t *testing.T) {
	weak := must(ssh.NewSignerFromSigner(newEd25519()))
	certSigner := must(ssh.NewCertSigner(issue(t, newEd25519(), request(weak.PublicKey())), weak))
	for name, signer := range map[string]ssh.Signer{"a certificate": certSigner, "RSA with SHA-1": sha1Only{must(ssh.NewSignerFromSigner(softRSA()))}} {
		if _, err := sshca.Sign(signer, "n", nil); err == nil {
			t.Errorf("%s signs", name)
		}
	}
}

func FuzzParseSignature(f *testing.F) {
	keys := map[string]ssh.Signer{}
	for _, signer := range sshSigners() {
		keys[string(signer.PublicKey().Marshal())] = signer
		f.Add(must(sshca.Sign(signer, "n", []byte("message"))))
		p := parts{Magic: [6]byte([]byte("SSHSIG")), Version: 1, Key: string(signer.PublicKey().Marshal()), Namespace: "n", Hash: "sha256"}
		f.Add(signParts(signer, p, []byte("message"), nil))
	}
	f.Fuzz(func(t *testing.T, armored []byte) {
		s, err := sshca.ParseSignature(armored)
		if err != nil {
			return
		}
		if s.Namespace == "" || s.Key == nil {
			t.Fatal("parsed without a key or a namespace")
		}
		if s.Verify(s.Key, "other", []byte("message")) == nil || s.Verify(s.Key, "n", []byte("other")) == nil && keys[string(s.Key.Marshal())] != nil {
			t.Fatal("verifies what nobody signed")
		}
	})
}
