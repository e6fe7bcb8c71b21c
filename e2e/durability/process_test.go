package durability

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
)

// Bounds of what is waited for, on a machine that does other things too.
const (
	startLimit = 30 * time.Second
	stopLimit  = 40 * time.Second // the server's own grace is 30 s
)

// process is a program that runs until it is ended, by its own process id.
type process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	log  string        // where its output goes, appended to
	done chan struct{} // closed when it has ended
	err  error         // of Wait; read after done
}

// spawn starts a program whose output goes to the log file.
func spawn(t testing.TB, log string, credential *syscall.Credential, name string, args ...string) *process {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close() // the child has its own
	p := &process{t: t, name: filepath.Base(name), cmd: exec.Command(name, args...), log: log, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Dir = filepath.Dir(log)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill ends it at once, as kill -9 does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

// wait waits until it has ended by itself and returns its exit code; the test
// ends where it doesn't in time.
func (p *process) wait(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.signal(syscall.SIGQUIT) // for its goroutines
		time.Sleep(time.Second)
		p.kill()
		p.t.Fatalf("%s did not end within %v\n%s", p.name, limit, p.output())
	}
	if exit, ok := errors.AsType[*exec.ExitError](p.err); ok {
		return exit.ExitCode()
	}
	return 0
}

// output is the end of what it printed, in this life and those before.
func (p *process) output() string { return tail(p.log) }

// tail is the end of a log, without the warnings about the demo's profiles.
func tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := slices.DeleteFunc(strings.Split(string(b), "\n"), func(line string) bool { return strings.Contains(line, ": warning: profiles.") })
	const most, wide = 20, 300
	lines = lines[max(0, len(lines)-most):]
	for i, line := range lines {
		lines[i] = line[:min(len(line), wide)]
	}
	return strings.Join(lines, "\n")
}

// run runs a command to its end and returns what it printed.
func run(w *harness.World, name string, args ...string) string {
	w.Helper()
	return w.Cmd(name, args...).OK()
}

// until waits until the condition holds; the test ends where it doesn't in
// time.
func until(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func listens(network, address string) bool {
	c, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}
