package login

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"

	"golang.org/x/crypto/ssh"
)

// A certificate that is good for everybody (PROTOCOL.certkeys: no principals),
// that sshd may read as such, or that was changed after it was signed is none.
func TestCheckSSH(t *testing.T) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		principals []string
		change     func(*ssh.Certificate)
		good       bool
	}{
		"one":                {[]string{"alice"}, nil, true},
		"two and an option":  {[]string{"alice", "admin"}, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "true"} }, true},
		"none":               {nil, nil, false},
		"an empty one":       {[]string{"alice", ""}, nil, false},
		"a wildcard":         {[]string{"*"}, nil, false},
		"ends before begins": {[]string{"alice"}, func(c *ssh.Certificate) { c.ValidBefore = c.ValidAfter }, false},
	} {
		cert := &ssh.Certificate{Key: signer.PublicKey(), CertType: ssh.UserCert, Serial: 1, ValidPrincipals: c.principals, ValidAfter: 1000, ValidBefore: 2000}
		if c.change != nil {
			c.change(cert)
		}
		if err := cert.SignCert(rand.Reader, signer); err != nil {
			t.Fatal(err)
		}
		if err := checkSSH(cert); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
		cert.Serial++
		if checkSSH(cert) == nil {
			t.Errorf("%s: it was changed after it was signed", name)
		}
	}
}
