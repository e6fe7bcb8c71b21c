package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// process is a program of the cluster that runs, or ran.
type process struct {
	t    testing.TB // of who started the cluster
	name string
	args []string
	dir  string
	log  string // the file of what it printed, in every run
	pid  int
	done chan struct{}
}

// start starts a program of bin. It is killed when the test ends, and what it
// printed last is shown if the test failed.
func start(t testing.TB, dir, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, args: args, dir: dir, log: filepath.Join(dir, name+".log")}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the end of what %s printed:\n%s", name, p.tail())
		}
	})
	p.start()
	return p
}

// start starts the process, again where it has ended.
func (p *process) start() {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program(p.t, p.name), p.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.run(cmd); err != nil {
		p.t.Fatal(err)
	}
}

// run starts the command, which is killed should this process die.
func (p *process) run(cmd *exec.Cmd) error {
	started, done := make(chan error), make(chan struct{})
	go func() {
		// The death signal comes when the thread ends that started the process:
		// this thread does nothing else until that process is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is seen from its output
		}
	}()
	err := <-started
	if err == nil {
		p.pid, p.done = cmd.Process.Pid, done
	}
	return err
}

// kill ends the process at once, also a stopped one: nothing that it would
// still do matters, for etcd has what was acknowledged.
func (p *process) kill() {
	p.t.Helper()
	if p.ended() {
		return
	}
	p.signal(syscall.SIGKILL)
	select {
	case <-p.done:
	case <-time.After(startLimit):
		p.t.Errorf("%s (pid %d) does not end on SIGKILL", p.name, p.pid)
	}
}

// ended says whether the process has ended, or never began.
func (p *process) ended() bool {
	if p.done == nil {
		return true
	}
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := syscall.Kill(p.pid, s); err != nil && err != syscall.ESRCH {
		p.t.Errorf("%s (pid %d): %v", p.name, p.pid, err)
	}
}

// tail is the end of what the process has printed.
func (p *process) tail() string {
	const most = 8 << 10
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	if len(text) > most {
		return "[...] " + string(text[len(text)-most:])
	}
	return string(text)
}

// program is the path of what e2e/kubernetes/install put into bin.
func program(t testing.TB, name string) string {
	t.Helper()
	for dir := workingDir(t); dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
			continue
		}
		file := filepath.Join(dir, "bin", name)
		if _, err := os.Stat(file); err != nil {
			t.Fatalf("%v: run e2e/kubernetes/install", err)
		}
		return file
	}
	t.Fatal("no go.mod above the working folder: where is bin?")
	return ""
}

func workingDir(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
