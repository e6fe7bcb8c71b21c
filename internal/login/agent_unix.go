//go:build unix

package login

import (
	"errors"
	"io"
	"net"
	"os"
)

// dialAgent connects to the user's agent (PROTOCOL.agent; ssh-agent(1)).
func dialAgent() (io.ReadWriteCloser, error) {
	socket := os.Getenv("SSH_AUTH_SOCK")
	if socket == "" {
		return nil, errors.New("SSH_AUTH_SOCK is not set")
	}
	return net.Dial("unix", socket)
}

// agentThere reports whether there is an agent to ask.
func agentThere() bool {
	conn, err := dialAgent()
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
