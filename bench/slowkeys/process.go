package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// process is a server that we started.
type process struct {
	cmd  *exec.Cmd
	log  string // file with what it printed
	done chan error
}

// start runs a server with its output in a file. Call it from the main
// goroutine only: the death signal, by which nothing survives us, is bound to
// the thread that starts it.
func start(log, name string, args ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own copy
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // Ctrl-C is for us; we stop it in order
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: log, done: make(chan error, 1)}
	go func() { p.done <- cmd.Wait() }()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process politely, after half a minute by force.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-p.done:
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", filepath.Base(p.cmd.Path), err, p.tail())
		}
		return nil
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not stop in 30 s and was killed\n%s", filepath.Base(p.cmd.Path), p.tail())
	}
}

// startTime bounds how long a server may take until it answers.
const startTime = 30 * time.Second

// listens waits until the process accepts connections at the address.
func (p *process) listens(ctx context.Context, addr string) error {
	for end := time.Now().Add(startTime); ; {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return c.Close()
		}
		select {
		case ended := <-p.done:
			p.done <- ended
			return fmt.Errorf("%s ended: %v\n%s", filepath.Base(p.cmd.Path), ended, p.tail())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s is not ready: %w\n%s", filepath.Base(p.cmd.Path), err, p.tail())
		}
	}
}

func (p *process) tail() string {
	text, _ := os.ReadFile(p.log)
	return string(text[max(0, len(text)-2000):])
}

// freeAddress finds a TCP port that was free a moment ago, below those that
// Linux gives to outgoing connections.
func freeAddress() (string, error) {
	for try := 1; ; try++ {
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(20000+rand.IntN(12000)))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
		if try == 100 {
			return "", err
		}
	}
}

// output runs a command to its end and returns what it printed.
func output(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, out, said.Bytes())
	}
	return out, nil
}

// cpuTime reads a process's CPU clock (clock_getcpuclockid(3)), which tells
// nanoseconds where /proc/PID/stat tells ticks of 10 ms.
func cpuTime(pid int) time.Duration {
	var ts syscall.Timespec
	clock := uintptr(^pid<<3 | 2)
	if _, _, e := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&ts)), 0); e != 0 {
		return 0
	}
	return time.Duration(ts.Nano())
}

// resetPeak starts a new measurement of peak memory (proc(5), clear_refs).
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// memory reads a line of /proc/PID/status in bytes: VmHWM is the most that was
// resident since resetPeak, VmRSS what is now.
func memory(pid int, what string) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, after, _ := strings.Cut(string(text), what+":")
	line, _, _ := strings.Cut(after, "kB")
	kib, _ := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	return kib << 10
}

// metrics is a page of Prometheus metrics: values by name with labels.
type metrics struct {
	at     time.Time
	values map[string]float64
}

func scrape(addr string) (metrics, error) {
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + addr + "/metrics")
	if err != nil {
		return metrics{}, err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return metrics{}, err
	}
	m := metrics{time.Now(), map[string]float64{}}
	for line := range strings.Lines(string(page)) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		if v, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
			m.values[line[:at]] = v
		}
	}
	return m, nil
}

// sum adds up a metric over all labels that have the parts, as `class="ocsp"`.
func (m metrics) sum(name string, parts ...string) (sum float64) {
	for metric, v := range m.values {
		labels, ok := strings.CutPrefix(metric, name)
		if ok && (labels == "" || labels[0] == '{') && !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(labels, p) }) {
			sum += v
		}
	}
	return sum
}

// since is how much more of a metric there is than at another time.
func (m metrics) since(before metrics, name string, parts ...string) float64 {
	return m.sum(name, parts...) - before.sum(name, parts...)
}

// rate is that by the second.
func (m metrics) rate(before metrics, name string, parts ...string) float64 {
	return m.since(before, name, parts...) / m.at.Sub(before.at).Seconds()
}
