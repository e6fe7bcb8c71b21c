package prove

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/mtls/acme"
)

func jwt(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

func TestKubernetes(t *testing.T) {
	const directory = "https://ca.test/acme/pods/directory"
	good := jwt(`{"aud":["https://kubernetes.default.svc","` + directory + `"],"sub":"x"}`)
	for _, tc := range []struct {
		name, content, challenge string
		check                    bool
		want                     string // error; "" sends the token
	}{
		{"a token", good + "\n", "https://ca.test/c/1", false, ""},
		{"a token for us", good, "https://ca.test/c/1", true, ""},
		{"one audience", jwt(`{"aud":"` + directory + `"}`), "https://ca.test/c/1", true, ""},
		{"another directory's, not looked at", jwt(`{"aud":"https://other.test"}`), "https://ca.test/c/1", false, ""},
		{"another directory's", jwt(`{"aud":"https://other.test"}`), "https://ca.test/c/1", true, `["https://other.test"], not for`},
		{"a prefix of us", jwt(`{"aud":"https://ca.test/acme/pods"}`), "https://ca.test/c/1", true, "not for"},
		{"no audience", jwt(`{"sub":"x"}`), "https://ca.test/c/1", true, "names no audience"},
		{"audience of a wrong type", jwt(`{"aud":[1]}`), "https://ca.test/c/1", true, "names no audience"},
		{"claims that are no JSON", jwt(`x`), "https://ca.test/c/1", true, "not JSON"},
		{"a challenge elsewhere", good, "https://evil.test/c/1", false, `"evil.test"`},
		{"a challenge at another port", good, "https://ca.test:8443/c/1", false, `"ca.test:8443"`},
		{"a host that begins like ours", good, "https://ca.test.evil.test/", false, `"ca.test.evil.test"`},
		{"our host as user name", good, "https://ca.test@evil.test/", false, `"evil.test"`},
		{"a challenge in clear", good, "http://ca.test/c/1", false, "only"},
		{"an empty file", "", "https://ca.test/c/1", false, "doesn't hold"},
		{"another file", "-----BEGIN PRIVATE KEY-----\n", "https://ca.test/c/1", false, "doesn't hold"},
		{"no signature", "e30.e30.", "https://ca.test/c/1", false, "doesn't hold"},
		{"endless", strings.Repeat("a", maxToken+10), "https://ca.test/c/1", false, "more than 65536 bytes"},
	} {
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(tc.content), 0o600); err != nil {
			t.Fatal(err)
		}
		k := Kubernetes{Directory: directory, File: file, CheckAudience: tc.check}
		payload, err := k.Present(t.Context(), acme.Proof{Challenge: acme.Challenge{URL: tc.challenge}})
		if tc.want != "" {
			if err == nil || !strings.Contains(err.Error(), tc.want) || payload != nil {
				t.Errorf("%s: %v, %v; want %q", tc.name, payload, err, tc.want)
			}
			continue
		}
		if m, ok := payload.(map[string]string); err != nil || !ok || len(m) != 1 || m["serviceAccountToken"] != strings.TrimSpace(tc.content) {
			t.Errorf("%s: %v, %v", tc.name, payload, err)
		}
	}
	if payload, err := (Kubernetes{Directory: directory}).Present(t.Context(), acme.Proof{}); payload != nil || err != nil {
		t.Errorf("without a file: %v, %v", payload, err)
	}
	if _, err := (Kubernetes{Directory: directory, File: "/nowhere"}).Present(t.Context(), acme.Proof{Challenge: acme.Challenge{URL: directory}}); err == nil {
		t.Error("a missing file is no error")
	}
}

// TestTokenIsReadAnew: kubelet replaces it while the program runs.
func TestTokenIsReadAnew(t *testing.T) {
	k := Kubernetes{Directory: "https://ca.test/d", File: filepath.Join(t.TempDir(), "token")}
	for _, token := range []string{jwt(`{"n":1}`), jwt(`{"n":2}`)} {
		os.WriteFile(k.File, []byte(token), 0o600)
		payload, err := k.Present(t.Context(), acme.Proof{Challenge: acme.Challenge{URL: "https://ca.test/c"}})
		if err != nil || payload.(map[string]string)["serviceAccountToken"] != token {
			t.Errorf("%v, %v", payload, err)
		}
	}
}

// FuzzToken: what is sent is on one line, and only to those it names.
func FuzzToken(f *testing.F) {
	f.Add(jwt(`{"aud":"https://ca.test/d"}`))
	f.Add(jwt(`{"aud":["a","https://ca.test/d"]}`))
	f.Add("e30.e3\n0.e30")
	f.Fuzz(func(t *testing.T, content string) {
		file := filepath.Join(t.TempDir(), "token")
		os.WriteFile(file, []byte(content), 0o600)
		token, err := readToken(file)
		if err != nil {
			return
		}
		if strings.ContainsAny(token, " \r\n\"") || strings.Count(token, ".") != 2 {
			t.Errorf("%q was read as a token", token)
		}
		if meantFor(token, "https://ca.test/d") == nil {
			claims, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
			var all map[string]any
			json.Unmarshal(claims, &all)
			if text, _ := json.Marshal(all); !strings.Contains(string(text), `"https://ca.test/d"`) {
				t.Errorf("%s is sent to https://ca.test/d", claims)
			}
		}
	})
}

func TestListenALPN(t *testing.T) {
	var solver acme.TLSALPN01Solver
	proof := acme.Proof{Authorization: acme.Authorization{Identifier: acme.Identifier{Type: "dns", Value: "a.test"}}, KeyAuthorization: "t.k"}
	addr, stop, err := ListenALPN("127.0.0.1:0", &solver)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := solver.Present(t.Context(), proof); err != nil {
		t.Fatal(err)
	}
	dial := func(name string, protos ...string) error {
		conn, err := tls.Dial("tcp", addr.String(), &tls.Config{ServerName: name, NextProtos: protos, InsecureSkipVerify: true})
		if err == nil {
			conn.Close()
		}
		return err
	}
	if err := dial("a.test", "acme-tls/1"); err != nil {
		t.Errorf("the challenge: %v", err)
	}
	for name, err := range map[string]error{
		"another name":     dial("b.test", "acme-tls/1"),
		"another protocol": dial("a.test", "h2"),
		"no protocol":      dial("a.test"),
		"two protocols":    dial("a.test", "acme-tls/1", "h2"),
	} {
		if err == nil {
			t.Errorf("%s: got a certificate", name)
		}
	}
	stop()
	if err := dial("a.test", "acme-tls/1"); err == nil {
		t.Error("still listens after stop")
	}
	if _, _, err := ListenALPN("127.0.0.1:99999", &solver); err == nil {
		t.Error("a bad address is no error")
	}
}
