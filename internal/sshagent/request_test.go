package sshagent_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/sshagent"
	"github.com/chancery-pki/chancery/internal/yubikey"
)

// str is RFC 4251's string.
func str(s string) string { return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s }

var session = strings.Repeat("s", 32)

// auth is what ssh has signed (RFC 4252 section 7), for tests to spoil.
func auth(algorithm string, key ssh.PublicKey) string {
	return str(session) + "\x32" + str("bob") + str("ssh-connection") + str("publickey") + "\x01" + str(algorithm) + str(string(key.Marshal()))
}

func hostbound(algorithm string, key, host ssh.PublicKey) string {
	return strings.Replace(auth(algorithm, key), str("publickey"), str("publickey-hostbound-v00@openssh.com"), 1) + str(string(host.Marshal()))
}

// sshsig is PROTOCOL.sshsig section 3.
func sshsig(namespace, reserved, hash string, size int) string {
	return "SSHSIG" + str(namespace) + str(reserved) + str(hash) + str(strings.Repeat("h", size))
}

func newKey() ssh.PublicKey {
	return must(ssh.NewPublicKey(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Public()))
}

// responseMessage is what answers a yubikey-01 challenge: the very thing that must
// never come out of an agent.
func responseMessage() string {
	print := sha256.Sum256([]byte("account"))
	return string(must(yubikey.ResponseMessage(yubikey.NewChallenge("yubikey-01", "token"), base64.RawURLEncoding.EncodeToString(print[:]), "yubikey-01", "https://ca/chall/1")))
}

func TestParse(t *testing.T) {
	key, host := newKey(), newKey()
	const alg = ssh.KeyAlgoECDSA256
	ca := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	cert := certify(t, ca, key, time.Now().Add(time.Hour))
	rsaKey := must(ssh.NewPublicKey(must(rsa.GenerateKey(rand.Reader, 2048)).Public()))
	for name, c := range map[string]struct {
		data  string
		key   ssh.PublicKey
		flags uint32
		want  string // of Request.String
	}{
		"plain":              {auth(alg, key), key, 0, `ssh login as "bob" at an unnamed host`},
		"certificate":        {auth(alg+"-cert-v01@openssh.com", cert), key, 0, `ssh login as "bob" at an unnamed host`},
		"hostbound":          {hostbound(alg, key, host), key, 0, `ssh login as "bob" at the host with key ` + ssh.FingerprintSHA256(host)},
		"SHA-1 session":      {strings.Replace(auth(alg, key), str(session), str(session[:20]), 1), key, 0, `ssh login as "bob" at an unnamed host`},
		"escapes in a name":  {strings.Replace(auth(alg, key), str("bob"), str("b\x1b[2Job\n"), 1), key, 0, `ssh login as "b\x1b[2Job\n" at an unnamed host`},
		"RSA with SHA-256":   {auth(ssh.KeyAlgoRSASHA256, rsaKey), rsaKey, 2, `ssh login as "bob" at an unnamed host`},
		"RSA with SHA-512":   {auth(ssh.KeyAlgoRSASHA512, rsaKey), rsaKey, 4, `ssh login as "bob" at an unnamed host`},
		"SSHSIG":             {sshsig("git", "", "sha512", 64), key, 0, `a signature for "git"`},
		"SSHSIG with SHA256": {sshsig("file", "", "sha256", 32), key, 0, `a signature for "file"`},
	} {
		r, err := sshagent.Parse([]byte(c.data), c.key, c.flags)
		if err != nil || r.String() != c.want {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	key, host := newKey(), newKey()
	const alg = ssh.KeyAlgoECDSA256
	good := auth(alg, key)
	swap := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	ca := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	cert := certify(t, ca, key, time.Now().Add(time.Hour))
	other := certify(t, ca, host, time.Now().Add(time.Hour))
	hostCert := *cert
	hostCert.CertType = ssh.HostCert
	rsaKey := must(ssh.NewPublicKey(must(rsa.GenerateKey(rand.Reader, 2048)).Public()))
	tls13 := strings.Repeat(" ", 64) + "TLS 1.3, client CertificateVerify\x00" + strings.Repeat("h", 32) // RFC 8446 section 4.4.3
	for name, c := range map[string]struct {
		data  string
		key   ssh.PublicKey
		flags uint32
	}{
		"nothing":                      {"", key, 0},
		"anything":                     {"please sign this", key, 0},
		"a digest":                     {strings.Repeat("d", 32), key, 0},
		"a TLS CertificateVerify":      {tls13, key, 0},
		"an answer to a challenge":     {responseMessage(), key, 0},
		"an enrolment":                 {"chancery-enrol-1" + strings.Repeat("h", 80), key, 0},
		"an X.509 certificate":         {"\x30\x82\x01\x00" + strings.Repeat("h", 256), key, 0},
		"another key":                  {auth(alg, host), key, 0},
		"a certificate of another key": {auth(alg+"-cert-v01@openssh.com", other), key, 0},
		"a host certificate":           {auth(alg+"-cert-v01@openssh.com", &hostCert), key, 0},
		"no key":                       {swap(str(string(key.Marshal())), str("key")), key, 0},
		"another algorithm":            {swap(alg, ssh.KeyAlgoECDSA384), key, 0},
		"a certificate's algorithm":    {auth(alg+"-cert-v01@openssh.com", key), key, 0},
		"a plain algorithm":            {auth(alg, cert), key, 0},
		"RSA with SHA-1":               {auth(ssh.KeyAlgoRSA, rsaKey), rsaKey, 0},
		"RSA, another hash":            {auth(ssh.KeyAlgoRSASHA512, rsaKey), rsaKey, 2},
		"cut short":                    {good[:len(good)-1], key, 0},
		"bytes behind":                 {good + "\x00", key, 0},
		"bytes behind a hostbound":     {hostbound(alg, key, host) + str(""), key, 0},
		"hostbound without a host":     {swap(str("publickey"), str("publickey-hostbound-v00@openssh.com")), key, 0},
		"hostbound with no key":        {swap(str("publickey"), str("publickey-hostbound-v00@openssh.com")) + str("host"), key, 0},
		"another message":              {swap("\x32"+str("bob"), "\x33"+str("bob")), key, 0},
		"another service":              {swap("ssh-connection", "ssh-userauth00"), key, 0},
		"another method":               {swap(str("publickey"), str("hostbased")), key, 0},
		"no signature":                 {swap("publickey\x01", "publickey\x00"), key, 0},
		"a boolean of 2":               {swap("publickey\x01", "publickey\x02"), key, 0},
		"no session":                   {swap(str(session), str("")), key, 0},
		"an odd session":               {swap(str(session), str(session+"s")), key, 0},
		"no user":                      {swap(str("bob"), str("")), key, 0},
		"a user not in UTF-8":          {swap(str("bob"), str("b\xffb")), key, 0},
		"a long user":                  {swap(str("bob"), str(strings.Repeat("b", 1025))), key, 0},
		"too much":                     {swap(str("bob"), str(strings.Repeat("b", 1<<17))), key, 0},
		"SSHSIG, no namespace":         {sshsig("", "", "sha512", 64), key, 0},
		"SSHSIG, reserved bytes":       {sshsig("git", "x", "sha512", 64), key, 0},
		"SSHSIG, SHA-384":              {sshsig("git", "", "sha384", 48), key, 0},
		"SSHSIG, a short digest":       {sshsig("git", "", "sha512", 63), key, 0},
		"SSHSIG, bytes behind":         {sshsig("git", "", "sha512", 64) + "x", key, 0},
		"SSHSIG, cut short":            {sshsig("git", "", "sha512", 64)[:40], key, 0},
		"SSHSIG for an order":          {sshsig("chancery-order@chancery-pki.github.io", "", "sha512", 64), key, 0},
		"SSHSIG for a KRL":             {sshsig("chancery-krl@chancery-pki.github.io", "", "sha512", 64), key, 0},
		"SSHSIG, the whole signature":  {"SSHSIG\x00\x00\x00\x01" + str(string(key.Marshal())), key, 0},
	} {
		if r, err := sshagent.Parse([]byte(c.data), c.key, c.flags); err == nil {
			t.Errorf("%s: would be signed: %v", name, r)
		}
	}
}

// What is understood has one form: no two of them say the same, and nothing is
// left unread.
func FuzzParse(f *testing.F) {
	key := must(ssh.NewPublicKey(fixedKey().Public()))
	f.Add([]byte(auth(ssh.KeyAlgoECDSA256, key)), uint32(0))
	f.Add([]byte(hostbound(ssh.KeyAlgoECDSA256, key, newKey())), uint32(2))
	f.Add([]byte(sshsig("git", "", "sha512", 64)), uint32(4))
	f.Add([]byte(responseMessage()), uint32(0))
	f.Fuzz(func(t *testing.T, data []byte, flags uint32) {
		r, err := sshagent.Parse(data, key, flags)
		if err != nil {
			return
		}
		if r.Namespace != "" {
			for hash, size := range map[string]int{"sha256": 32, "sha512": 64} {
				again := "SSHSIG" + str(r.Namespace) + str("") + str(hash) + str(string(data[max(0, len(data)-size):]))
				if again == string(data) {
					return
				}
			}
			t.Fatalf("%q is understood as %v, which is said otherwise", data, r)
		}
		if !strings.HasPrefix(string(data), str(string(r.SessionID))+"\x32"+str(r.User)+str("ssh-connection")) || !strings.Contains(string(data), string(key.Marshal())) {
			t.Fatalf("%q is understood as %v", data, r)
		}
	})
}
