package sshhost_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/admin/client"
	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/sshagent/sshdtest"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/sshhost"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// host looks after a real sshd.
func newHost(t *testing.T, s *sshdtest.Server, a *answers, cas ...*realCA) *sshhost.Host {
	h := &sshhost.Host{
		Names: []string{"web.example"}, Profile: "ssh-host", Keys: []string{filepath.Join(s.Dir, "ssh_host_ed25519_key")},
		Dir: filepath.Join(s.Dir, "chancery"), Snippet: filepath.Join(s.Dir, "conf.d", "chancery.conf"), State: t.TempDir(),
		SSHD: "/usr/sbin/sshd", Config: s.Config, Reload: fmt.Sprintf("kill -HUP %d", s.Pid()), MaxAge: time.Hour,
		Principals: map[string][]string{"root": {"root", "admins"}}, Logger: logger(t), Solvers: []acme.Solver{a},
	}
	for _, ca := range cas {
		h.CAs = append(h.CAs, ca.CA)
	}
	return h
}

// login is a person's key with a certificate of the CA for some principals.
func login(t *testing.T, ca ed25519.PrivateKey, serial uint64, principals ...string) (args []string, cert *ssh.Certificate) {
	t.Helper()
	dir := t.TempDir()
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	block := must(ssh.MarshalPrivateKey(key, ""))
	file := filepath.Join(dir, "id")
	write(t, file, pemBytes(block))
	public := must(ssh.NewPublicKey(key.Public()))
	write(t, file+".pub", ssh.MarshalAuthorizedKey(public))
	cert = certify(t, ca, sshca.User, public, serial, principals, time.Now(), time.Hour)
	write(t, file+"-cert.pub", ssh.MarshalAuthorizedKey(cert))
	return []string{"-o", "IdentityFile=" + file, "-o", "IdentitiesOnly=yes"}, cert
}

// The whole: a real CA, a real sshd, a real ssh that knows the CA and nothing of
// the host; then two of three CAs go.
func TestRealHost(t *testing.T) {
	a := newAnswers(t)
	first, second := startCA(t, "first", a), startCA(t, "second", a)
	s := sshdtest.Start(t, "Include %D/conf.d/*.conf")
	h := newHost(t, s, a, first, second)
	due, err := h.Once(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(due.Renew); left < time.Hour {
		t.Errorf("to be renewed in %v", left)
	}
	s.Listening(t, 2)

	// ssh knows what `chancery ssh trust` prints: the CA for *.example.
	trust := must(sshhost.FetchTrust(t.Context(), first.CA))
	known := filepath.Join(t.TempDir(), "known_hosts")
	write(t, known, []byte(must(sshca.KnownHostsLine(trust.Host[0], []string{"*.example"}, ""))))
	host := []string{"-o", "UserKnownHostsFile=" + known, "-o", "HostKeyAlias=web.example", "-o", "StrictHostKeyChecking=yes"}
	for name, ca := range map[string]*realCA{"first": first, "second": second} {
		id, _ := login(t, ca.userCA, 1, "admins")
		if out, err := s.SSH(t, nil, append(host, id...)...); err != nil {
			t.Fatalf("with a certificate of %s: %v\n%s", name, err, out)
		}
	}
	id, _ := login(t, first.userCA, 2, "guests")
	if out, err := s.SSH(t, nil, append(host, id...)...); err == nil {
		t.Fatalf("a principal that isn't listed gets in: %s", out)
	}

	// Nothing to do, so nothing is done.
	before := s.Listened()
	if _, err := h.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Listened() != before {
		t.Error("reloaded without need")
	}

	// The first CA is lost. The certificate that is lost with it comes from the
	// second; both CAs' users still get in.
	first.stop()
	cert := filepath.Join(h.Dir, "ssh_host_ed25519_key-cert.pub")
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Once(t.Context()); err == nil || !strings.Contains(err.Error(), "CA first") {
		t.Errorf("a lost CA: %v", err)
	}
	s.Listening(t, before+1)
	got := must(ssh.ParsePublicKey(parse(t, must(os.ReadFile(cert))).Marshal())).(*ssh.Certificate)
	if want := must(sshhost.FetchTrust(t.Context(), second.CA)).Host[0]; ssh.FingerprintSHA256(got.SignatureKey) != ssh.FingerprintSHA256(want) {
		t.Error("the certificate is not of the second CA")
	}
	id, _ = login(t, first.userCA, 3, "admins")
	if out, err := s.SSH(t, nil, append(s.KnownHosts(t), id...)...); err != nil {
		t.Errorf("a user of the lost CA: %v\n%s", err, out)
	}
}

// More names, and names that an EAB key approved: nothing answers a challenge.
func TestRealHostByEAB(t *testing.T) {
	ca := startCA(t, "ca", newAnswers(t))
	s := sshdtest.Start(t, "Include %D/conf.d/*.conf")
	operator := must(client.New(client.Options{Address: ca.admin}))
	defer operator.Close()
	one, key := 1, api.EABKey{}
	ask := api.NewEABKey{Directory: "servers", Names: []string{"a.example", "b.example"}, PreApproved: true, Accounts: &one}
	if err := operator.Do(t.Context(), "POST", "/v1/eab-keys", nil, ask, &key); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, s, newAnswers(t), ca)
	h.CAs[0].EAB = &acme.ExternalAccount{KeyID: key.ID, MACKey: must(base64.RawURLEncoding.DecodeString(key.HMACKey))}
	for _, names := range [][]string{{"a.example"}, {"a.example", "b.example"}} { // one account does for both
		h.Names = names
		once(t, h)
		cert := parse(t, must(os.ReadFile(filepath.Join(h.Dir, "ssh_host_ed25519_key-cert.pub")))).(*ssh.Certificate)
		if !slices.Equal(cert.ValidPrincipals, names) {
			t.Errorf("certified for %v", cert.ValidPrincipals)
		}
	}
	h.Names = []string{"c.example"}
	once(t, h, "no certificate for", "c.example")
	if !strings.Contains(string(must(os.ReadFile(h.Snippet))), "HostCertificate") {
		t.Error("the old certificate is given up before there is another")
	}
}

func parse(t *testing.T, data []byte) ssh.PublicKey {
	t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
