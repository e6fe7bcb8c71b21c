//go:build !unix

package sshagent

import (
	"errors"
	"net"
)

// Listen says that there is no agent on this system.
func Listen(string) (net.Listener, error) {
	return nil, errors.New("chancery ssh agent needs unix sockets; on Windows let ssh use the key by a PKCS#11 library (PKCS11Provider), or use an SSH certificate for a key in a file")
}
