package sshca_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/sshca"
)

// The forms are those of sshd(8), "AUTHORIZED_KEYS FILE FORMAT" and
// "SSH_KNOWN_HOSTS FILE FORMAT"; x/crypto and OpenSSH read them back.
func TestLines(t *testing.T) {
	ca := authority(newEd25519()).PublicKey()
	key := line(ca)
	dir := t.TempDir()
	for want, got := range map[string]string{
		key + "\n":                        must(sshca.KeyLine(ca, "")),
		key + " ca 2026, ours\n":          must(sshca.KeyLine(ca, "ca 2026, ours")),
		"cert-authority " + key + " ca\n": must(sshca.AuthorizedKeysLine(ca, nil, "ca")),
		`cert-authority,principals="alice,bob" ` + key + "\n":                  must(sshca.AuthorizedKeysLine(ca, []string{"alice", "bob"}, "")),
		"@cert-authority *.example.com,[gw.example.com]:2222 " + key + " ca\n": must(sshca.KnownHostsLine(ca, []string{"*.example.com", "[gw.example.com]:2222"}, "ca")),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if strings.HasPrefix(got, "@") {
			marker, hosts, other, _, _, err := ssh.ParseKnownHosts([]byte(got))
			if err != nil || marker != "cert-authority" || len(hosts) != 2 || line(other) != key {
				t.Errorf("%q: %v", got, err)
			}
			writeFile(t, dir, "known_hosts", []byte(got))
			if out := mustKeygen(t, dir, "", "-F", "web.example.com", "-f", "known_hosts"); !strings.Contains(out, "CA") {
				t.Errorf("OpenSSH doesn't find the CA: %s", out)
			}
			continue
		}
		other, _, options, _, err := ssh.ParseAuthorizedKey([]byte(got))
		if err != nil || line(other) != key || strings.HasPrefix(got, "cert-authority") != (len(options) > 0) {
			t.Errorf("%q: %v, options %q", got, err, options)
		}
		writeFile(t, dir, "file", []byte(got))
		if out := mustKeygen(t, dir, "", "-l", "-f", "file"); !strings.Contains(out, ssh.FingerprintSHA256(ca)) {
			t.Errorf("OpenSSH reads %s", out)
		}
	}
	refuse := func(what string, text string, err error) {
		if err == nil {
			t.Errorf("%s: got %q", what, text)
		}
	}
	text, err := sshca.KeyLine(ca, "two\nlines")
	refuse("a comment in two lines", text, err)
	text, err = sshca.KeyLine(issue(t, newEd25519(), request(ca)), "")
	refuse("a certificate", text, err)
	text, err = sshca.AuthorizedKeysLine(ca, []string{`alice" ssh-ed25519`}, "")
	refuse("a quote in a principal", text, err)
	text, err = sshca.AuthorizedKeysLine(ca, []string{"*"}, "")
	refuse("everybody", text, err)
	for i, patterns := range [][]string{nil, {""}, {"a b"}, {"a,b"}, {"@revoked"}, {"|1|x|y"}, {"a\nb"}, {"#"}} {
		text, err = sshca.KnownHostsLine(ca, patterns, "")
		refuse(fmt.Sprint("pattern ", i), text, err)
	}
}
