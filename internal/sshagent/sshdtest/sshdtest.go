// Package sshdtest runs a real sshd for tests, on a port of its own. It wants
// root and Debian's packages openssh-server and openssh-client. It may import the
// standard library.
package sshdtest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server is a running sshd.
type Server struct {
	Dir     string // with host keys, and the configuration sshd_config
	Port    int
	HostKey string // the Ed25519 host key's public half, one line
	Config  string // the path of sshd_config
	log     *syncBuffer
	process *os.Process
}

// Start runs sshd until the test ends, with these lines in its configuration.
// %D in them is the server's folder, which may lie in one that everybody writes to.
func Start(t testing.TB, lines ...string) *Server {
	t.Helper()
	sshd, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		t.Fatal("this test needs sshd (openssh-server): ", err)
	}
	dir, err := os.MkdirTemp("", "sshd-") // not t.TempDir: the name is long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{Dir: dir, Port: freePort(t), Config: filepath.Join(dir, "sshd_config"), log: new(syncBuffer)}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // where sshd puts who isn't logged in yet
		t.Fatal(err)
	}
	key := filepath.Join(dir, "ssh_host_ed25519_key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	s.HostKey = strings.TrimSpace(string(public))
	config := fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %s\nPidFile none\nUsePAM no\nPasswordAuthentication no\n"+
		"KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nStrictModes no\nLogLevel VERBOSE\n%s\n",
		s.Port, key, strings.ReplaceAll(strings.Join(lines, "\n"), "%D", dir))
	if err := os.WriteFile(s.Config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(sshd, "-D", "-e", "-f", s.Config)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.process = cmd.Process
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-done
		if t.Failed() {
			t.Logf("sshd's log:\n%s", s.log)
		}
	})
	s.Wait(t, "Server listening on")
	return s
}

// Listening waits until sshd listens for the nth time: it does so anew when it
// reads its configuration again.
func (s *Server) Listening(t testing.TB, n int) {
	t.Helper()
	poll(t, "sshd to listen again", func() bool { return s.Listened() >= n })
}

// Listened is how often sshd began to listen.
func (s *Server) Listened() int { return strings.Count(s.Log(), "Server listening on") }

// Pid is sshd's.
func (s *Server) Pid() int { return s.process.Pid }

// Log is what sshd has logged until now.
func (s *Server) Log() string { return s.log.String() }

// Wait waits until the log has a text.
func (s *Server) Wait(t testing.TB, text string) {
	t.Helper()
	poll(t, fmt.Sprintf("sshd to log %q", text), func() bool { return strings.Contains(s.Log(), text) })
}

// SSH runs ssh to the server as root, with these arguments before the command
// true, and returns what it said.
func (s *Server) SSH(t testing.TB, env []string, args ...string) (string, error) {
	t.Helper()
	all := []string{
		"-F", "none", "-p", fmt.Sprint(s.Port), "-o", "BatchMode=yes", "-o", "GlobalKnownHostsFile=none", "-o", "IdentityFile=none",
		"-o", "ConnectTimeout=60",
	}
	all = append(all, args...)
	cmd := exec.CommandContext(t.Context(), "ssh", append(all, "root@127.0.0.1", "true")...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// KnownHosts writes a file that knows the server by its key, and returns the
// arguments for SSH.
func (s *Server) KnownHosts(t testing.TB) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "known_hosts")
	line := fmt.Sprintf("[127.0.0.1]:%d %s\n", s.Port, s.HostKey)
	if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"-o", "UserKnownHostsFile=" + path}
}

func poll(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// syncBuffer is a bytes.Buffer that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
