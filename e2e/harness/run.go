package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// runLimit bounds one command and one wait: the slowest clients poll for some
// ten seconds, and what takes longer than this won't come. It is well below the
// limits of whole tests, so that what went wrong is still shown.
const runLimit = 40 * time.Second

// Cmd is a command to come: a client, or a server that clients need.
type Cmd struct {
	w    *World
	args []string
	env  []string
	in   string
	cred *syscall.Credential
}

// Cmd prepares a command, found by PATH or by its own path.
func (w *World) Cmd(name string, args ...string) *Cmd {
	return &Cmd{w: w, args: append([]string{name}, args...)}
}

// Env adds KEY=VALUE settings.
func (c *Cmd) Env(kv ...string) *Cmd {
	c.env = append(c.env, kv...)
	return c
}

// Stdin gives the command its input.
func (c *Cmd) Stdin(text string) *Cmd {
	c.in = text
	return c
}

// Run runs a command to its end and returns what it printed on both outputs.
// The test ends there if the command fails.
func (w *World) Run(name string, args ...string) string {
	w.Helper()
	return w.Cmd(name, args...).OK()
}

// OK runs the command; the test ends there if it fails.
func (c *Cmd) OK() string {
	c.w.Helper()
	out, err := c.do()
	if err != nil {
		c.w.Fatalf("%s\n%s\n%v", strings.Join(c.args, " "), out, err)
	}
	return out
}

// Fails runs a command that must fail by itself (not by running out of time)
// and returns what it printed.
func (c *Cmd) Fails() string {
	c.w.Helper()
	out, err := c.do()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || !exit.Exited() {
		c.w.Fatalf("%s\n%s\nended with %v; it should have failed", strings.Join(c.args, " "), out, err)
	}
	return out
}

func (c *Cmd) do() (string, error) {
	ctx, cancel := context.WithTimeout(c.w.Context(), runLimit)
	defer cancel()
	var out bytes.Buffer
	cmd := c.build(ctx)
	cmd.Stdin = strings.NewReader(c.in)
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("still running after %v", runLimit)
	}
	if name := filepath.Base(c.args[0]); name != "openssl" && name != "cp" {
		c.w.Logf("%6.2fs  %s", time.Since(start).Seconds(), strings.Join(append([]string{name}, c.args[1:]...), " "))
	}
	return out.String(), err
}

// build makes the command lead its own process group, so that what it started
// ends with it.
func (c *Cmd) build(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Dir = c.w.Dir
	cmd.Env = append(os.Environ(), c.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.cred}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd
}

// Proc is a running server.
type Proc struct {
	w    *World
	cmd  *exec.Cmd
	name string
	out  *buffer
	done chan struct{}
}

// Start starts a server and stops it when the test ends; what it printed is
// shown if the test failed.
func (c *Cmd) Start() *Proc {
	c.w.Helper()
	return c.start(nil)
}

// start starts a server whose standard output goes to the file, if there is
// one, and else to where standard error goes.
func (c *Cmd) start(stdout *os.File) *Proc {
	c.w.Helper()
	p := &Proc{w: c.w, name: filepath.Base(c.args[0]), out: &buffer{}, done: make(chan struct{})}
	p.cmd = c.build(context.WithoutCancel(c.w.Context()))
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if stdout != nil {
		p.cmd.Stdout = stdout
	}
	if err := p.cmd.Start(); err != nil {
		c.w.Fatalf("%s: %v", c.args[0], err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is seen from its output
		close(p.done)
	}()
	c.w.Cleanup(func() {
		p.Stop()
		if c.w.Failed() {
			c.w.Logf("output of %s:\n%s", p.name, tail(p.Output()))
		}
	})
	return p
}

// Stop asks the server to end, and kills its process group where it doesn't
// within five seconds.
func (p *Proc) Stop() {
	_ = syscall.Kill(p.cmd.Process.Pid, syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		p.w.Errorf("%s did not stop on SIGTERM", p.name)
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// tail is the end of a long text.
func tail(s string) string {
	const most = 8 << 10
	if len(s) <= most {
		return s
	}
	return "[...] " + s[len(s)-most:]
}

// Signal sends the server a signal.
func (p *Proc) Signal(s syscall.Signal) {
	p.w.Helper()
	if err := syscall.Kill(p.cmd.Process.Pid, s); err != nil {
		p.w.Fatal(err)
	}
}

// Pid is the server's process.
func (p *Proc) Pid() int { return p.cmd.Process.Pid }

// Output is what the server has printed so far.
func (p *Proc) Output() string { return p.out.String() }

// Listens waits until something accepts connections at the TCP address.
func (p *Proc) Listens(addr string) *Proc {
	p.w.Helper()
	p.Until(addr+" accepts connections", func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return false
		}
		_ = c.Close()
		return true
	})
	return p
}

// Says waits until the server has printed the text.
func (p *Proc) Says(text string) *Proc {
	p.w.Helper()
	p.Until(fmt.Sprintf("it says %q", text), func() bool { return strings.Contains(p.Output(), text) })
	return p
}

// Until waits until the condition holds, as long as the server runs.
func (p *Proc) Until(what string, ok func() bool) {
	p.w.Helper()
	p.w.until(what, func() bool {
		select {
		case <-p.done:
			p.w.Fatalf("%s ended before %s\n%s", p.name, what, p.Output())
		default:
		}
		return ok()
	}, func() string { return p.Output() })
}

// Until waits until the condition holds; the test ends where it doesn't in
// time.
func (w *World) Until(what string, ok func() bool) {
	w.Helper()
	w.until(what, ok, func() string { return "" })
}

func (w *World) until(what string, ok func() bool, why func() string) {
	w.Helper()
	for end := time.Now().Add(runLimit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("not within %v: %s\n%s", runLimit, what, why())
		}
	}
}

// buffer is a bytes.Buffer that one goroutine writes and another reads.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
