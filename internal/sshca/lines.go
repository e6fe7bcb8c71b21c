package sshca

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/ssh"
)

// CertificateLine is a certificate as it lies in a file id_….-cert.pub and as
// the certificate resource answers it: one line with its newline. wire is what
// Prepared.Sign returned.
func CertificateLine(wire []byte) (string, error) {
	s := cryptobyte.String(wire)
	var name []byte
	if !readString(&s, &name) || !strings.HasSuffix(string(name), "-cert-v01@openssh.com") {
		return "", errors.New("not an SSH certificate")
	}
	return string(name) + " " + base64.StdEncoding.EncodeToString(wire) + "\n", nil
}

// KeyLine is a plain key as one line: of a file of TrustedUserCAKeys (one CA key
// a line), or of authorized_keys on devices that know no CA. The comment may be
// empty.
func KeyLine(key ssh.PublicKey, comment string) (string, error) {
	if err := CheckKey(key, nil); err != nil {
		return "", err
	}
	if !oneLine(comment, maxValue) {
		return "", fmt.Errorf("a key's comment must be one line of at most %d bytes", maxValue)
	}
	line := strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n")
	if comment != "" {
		line += " " + comment
	}
	return line + "\n", nil
}

// AuthorizedKeysLine trusts the CA's user certificates in one account's
// authorized_keys (sshd(8)): those that name one of the principals, or, without
// any, the account itself.
func AuthorizedKeysLine(ca ssh.PublicKey, principals []string, comment string) (string, error) {
	line, err := KeyLine(ca, comment)
	if err != nil {
		return "", err
	}
	if len(principals) == 0 {
		return "cert-authority " + line, nil
	}
	if err := checkPrincipals(User, principals); err != nil {
		return "", err
	}
	return fmt.Sprintf("cert-authority,principals=%q %s", strings.Join(principals, ","), line), nil
}

// KnownHostsLine trusts the CA's host certificates in a known_hosts file
// (sshd(8)), for hosts that one of the patterns matches: "*.example.com",
// "192.0.2.*", "[gw.example.com]:2222", "!old.example.com".
func KnownHostsLine(ca ssh.PublicKey, patterns []string, comment string) (string, error) {
	if len(patterns) == 0 {
		return "", errors.New("say which hosts the CA speaks for, such as *.example.com")
	}
	for _, p := range patterns {
		if p == "" || len(p) > maxPrincipal || strings.Trim(p, nameChars+"*?![]%") != "" || p[0] == '@' {
			return "", fmt.Errorf("%.60q is not a pattern for host names", p)
		}
	}
	line, err := KeyLine(ca, comment)
	if err != nil {
		return "", err
	}
	return "@cert-authority " + strings.Join(patterns, ",") + " " + line, nil
}
