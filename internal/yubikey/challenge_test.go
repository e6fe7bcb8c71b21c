package yubikey_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/yubikey"
)

const challengeURL = "https://ca.example/acme/people/challenge/abc/yubikey-01"

// print is a thumbprint as RFC 7638 has it.
func print(of string) string {
	sum := sha256.Sum256([]byte(of))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func message(t *testing.T, challenge []byte, thumbprint, typ, url string) []byte {
	t.Helper()
	m, err := yubikey.ResponseMessage(challenge, thumbprint, typ, url)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestNewChallenge(t *testing.T) {
	c := yubikey.NewChallenge("yubikey-01", "token")
	if len(c) != 64 || !bytes.HasPrefix(c, []byte("chancery-yubikey")) || yubikey.CheckChallenge(c) != nil {
		t.Errorf("%q", c)
	}
	if !bytes.Equal(c, yubikey.NewChallenge("yubikey-01", "token")) {
		t.Error("it isn't the token's")
	}
	for _, other := range [][2]string{{"yubikey-02", "token"}, {"yubikey-01", "token2"}, {"yubikey-01\x00", "token"}, {"yubikey-0", "1token"}} {
		if bytes.Equal(c, yubikey.NewChallenge(other[0], other[1])) {
			t.Errorf("%q has the same", other)
		}
	}
}

// A server that sends something else to sign gets nothing.
func TestCheckChallenge(t *testing.T) {
	good := yubikey.NewChallenge("yubikey-01", "token")
	for name, bad := range map[string][]byte{
		"nothing":        nil,
		"one less":       good[:63],
		"one more":       append(bytes.Clone(good), 0),
		"another magic":  append([]byte("chancery-enrol-1"), good[16:]...),
		"magic in caps":  append([]byte("Chancery-yubikey"), good[16:]...),
		"magic further":  append([]byte{0}, good[:63]...),
		"an SSH request": append([]byte("\x00\x00\x00\x20"), make([]byte, 60)...),
		"the magic only": []byte("chancery-yubikey"),
	} {
		if yubikey.CheckChallenge(bad) == nil {
			t.Errorf("%s: passed", name)
		}
		if _, err := yubikey.ResponseMessage(bad, print("key"), "yubikey-01", challengeURL); err == nil {
			t.Errorf("%s: there is something to sign", name)
		}
	}
}

// The bytes that are signed, as DESIGN section 6 has them.
func TestResponseMessage(t *testing.T) {
	challenge := yubikey.NewChallenge("yubikey-01", "token")
	key, where := sha256.Sum256([]byte("key")), sha256.Sum256([]byte("yubikey-01\x00"+challengeURL))
	want := append(append(bytes.Clone(challenge), key[:]...), where[:]...)
	if got := message(t, challenge, print("key"), "yubikey-01", challengeURL); !bytes.Equal(got, want) {
		t.Errorf("%x", got)
	}
	for _, bad := range []string{"", "key", print("key") + "=", print("key")[:42], print("key")[:42] + "/", strings.Repeat("A", 44), print("key")[:42] + "1"} {
		if _, err := yubikey.ResponseMessage(challenge, bad, "yubikey-01", challengeURL); err == nil {
			t.Errorf("thumbprint %q was taken", bad)
		}
	}
}

func signers(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	all := map[string]crypto.Signer{}
	for name, make := range map[string]func() (crypto.Signer, error){
		"P-256":    func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
		"P-384":    func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) },
		"RSA-2048": func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) },
		"Ed25519":  func() (crypto.Signer, error) { _, k, err := ed25519.GenerateKey(rand.Reader); return k, err },
	} {
		k, err := make()
		if err != nil {
			t.Fatal(err)
		}
		all[name] = k
	}
	return all
}

func TestSignMessage(t *testing.T) {
	challenge := yubikey.NewChallenge("yubikey-01", "token")
	m := message(t, challenge, print("key"), "yubikey-01", challengeURL)
	other := signers(t)
	for name, key := range signers(t) {
		signature, err := yubikey.SignMessage(key, m)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := yubikey.VerifyMessage(key.Public(), m, signature); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for why, bad := range map[string][]byte{
			"another challenge": message(t, yubikey.NewChallenge("yubikey-01", "token2"), print("key"), "yubikey-01", challengeURL),
			"another account":   message(t, challenge, print("mallory"), "yubikey-01", challengeURL),
			"another type":      message(t, challenge, print("key"), "yubikey-02", challengeURL),
			"another URL":       message(t, challenge, print("key"), "yubikey-01", challengeURL+"2"),
			"one byte more":     append(bytes.Clone(m), 0),
			"nothing":           nil,
		} {
			if yubikey.VerifyMessage(key.Public(), bad, signature) == nil {
				t.Errorf("%s: the signature is good for %s", name, why)
			}
		}
		for why, bad := range map[string][]byte{"none": nil, "cut": signature[:len(signature)-1], "longer": append(bytes.Clone(signature), 0)} {
			if yubikey.VerifyMessage(key.Public(), m, bad) == nil {
				t.Errorf("%s: a signature that is %s verified", name, why)
			}
		}
		if yubikey.VerifyMessage(other[name].Public(), m, signature) == nil {
			t.Errorf("%s: it is good for another key", name)
		}
	}
}

// What SSH lets a key sign is hashed otherwise (RFC 5656 section 6.2.1, RFC
// 8332 section 3), so that a forwarded agent can't answer.
func TestHashesAreNotSSHs(t *testing.T) {
	m := message(t, yubikey.NewChallenge("yubikey-01", "token"), print("key"), "yubikey-01", challengeURL)
	for name, hashes := range map[string][]crypto.Hash{
		"P-256": {crypto.SHA256}, "P-384": {crypto.SHA384}, "RSA-2048": {crypto.SHA1, crypto.SHA256, crypto.SHA512},
	} {
		key := signers(t)[name]
		for _, hash := range hashes {
			h := hash.New()
			h.Write(m)
			signature, err := key.Sign(rand.Reader, h.Sum(nil), hash)
			if err != nil {
				t.Fatal(err)
			}
			if yubikey.VerifyMessage(key.Public(), m, signature) == nil {
				t.Errorf("%s with %v is an answer", name, hash)
			}
		}
	}
	// P-521 and others have no hash of their own here.
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := yubikey.SignMessage(p521, m); err == nil {
		t.Error("P-521 signed")
	}
	sum := sha512.Sum512(m)
	signature, err := p521.Sign(rand.Reader, sum[:], crypto.SHA512)
	if err != nil {
		t.Fatal(err)
	}
	if yubikey.VerifyMessage(p521.Public(), m, signature) == nil {
		t.Error("P-521 verified")
	}
}

// A signature for one purpose is none for the other.
func TestEnrolmentIsNoResponse(t *testing.T) {
	statement, device, _ := published(t, "yubikey-5.4.3.pem")
	a, err := yubikey.ParseAttestation(statement, device)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_800_000_000, 0)
	m := yubikey.EnrolmentMessage(a, "alice", at)
	if bytes.HasPrefix(m, []byte("chancery-yubikey")) || yubikey.CheckChallenge(m) == nil {
		t.Error("it could be a challenge")
	}
	for _, other := range [][]byte{yubikey.EnrolmentMessage(a, "alice2", at), yubikey.EnrolmentMessage(a, "", at), yubikey.EnrolmentMessage(a, "alice", at.Add(time.Second))} {
		if bytes.Equal(m, other) {
			t.Error("two enrolments have one message")
		}
	}
}

func TestResponse(t *testing.T) {
	statement, device, _ := published(t, "yubikey-5.4.3.pem")
	a, err := yubikey.ParseAttestation(statement, device)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(yubikey.NewResponse(a, []byte{0xff, 0xfe}))
	if err != nil {
		t.Fatal(err)
	}
	signature, got, err := yubikey.ParseResponse(text)
	if err != nil || !bytes.Equal(signature, []byte{0xff, 0xfe}) || *got != (yubikey.Presented{Statement: got.Statement, Device: got.Device}) ||
		!got.Statement.Equal(statement) || !got.Device.Equal(device) {
		t.Errorf("%x %+v %v", signature, got, err)
	}
	for name, bad := range map[string]string{
		"no JSON": "", "a list": "[]", "an empty object": "{}", "more than JSON": string(text) + "{}",
		"padded":         strings.Replace(string(text), `"__4"`, `"__4="`, 1),
		"plain base64":   strings.Replace(string(text), `"__4"`, `"//4"`, 1),
		"stray bits":     strings.Replace(string(text), `"__4"`, `"__5"`, 1),
		"a line break":   strings.Replace(string(text), `"__4"`, `"__\n4"`, 1),
		"no signature":   strings.Replace(string(text), `"__4"`, `""`, 1),
		"no certificate": strings.Replace(string(text), `"MII`, `"AAA`, 1),
		"too long":       strings.Repeat(" ", yubikey.MaxResponse) + string(text),
	} {
		if bad == string(text) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, _, err := yubikey.ParseResponse([]byte(bad)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzParseResponse(f *testing.F) {
	f.Add([]byte(`{"signature":"__4","attestation":"MIIC","intermediate":"MIIC"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		signature, p, err := yubikey.ParseResponse(payload)
		if err == nil && (len(signature) == 0 || p.Statement == nil || p.Device == nil) {
			t.Errorf("%q was taken as %x %+v", payload, signature, p)
		}
	})
}
