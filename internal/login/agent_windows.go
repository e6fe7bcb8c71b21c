package login

import (
	"io"
	"os"
)

// pipe is where the OpenSSH of Windows listens.
const pipe = `\\.\pipe\openssh-ssh-agent`

// dialAgent connects to the user's agent.
func dialAgent() (io.ReadWriteCloser, error) { return os.OpenFile(pipe, os.O_RDWR, 0) }

// agentThere reports whether there is an agent to ask.
func agentThere() bool {
	conn, err := dialAgent()
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
