package sshca

import (
	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/protocol"
)

// SignPossession makes finalize's "possession": the key signs the URL of the
// order that the certificate is for. The caller has checked that the URL is its
// own directory's. It may block on a person.
func SignPossession(signer ssh.Signer, orderURL string) (string, error) {
	s, err := Sign(signer, OrderNamespace, []byte(orderURL))
	return string(s), err
}

// VerifyPossession checks finalize's "possession" for a key. Its errors are
// badCSR problems, as those of a CSR whose own signature is bad.
func VerifyPossession(key ssh.PublicKey, orderURL, possession string) error {
	s, err := ParseSignature([]byte(possession))
	if err == nil {
		err = s.Verify(key, OrderNamespace, []byte(orderURL))
	}
	if err != nil {
		return protocol.NewProblem(protocol.BadCSR, "possession: %v; sign the order's URL with the key of sshPublicKey: ssh-keygen -Y sign -n %s", err, OrderNamespace)
	}
	return nil
}
