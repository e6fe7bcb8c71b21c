package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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

// start runs a server with its output in a file, since logging is part of
// what is measured. Call it from the main goroutine only: the death signal,
// by which nothing survives us, is bound to the thread that starts it.
func start(cmd *exec.Cmd, log string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own copy
	if cmd.Stdout == nil {
		cmd.Stdout = out
	}
	cmd.Stderr = out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr.Setpgid = true // Ctrl-C is for us; we stop them in order
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: log, done: make(chan error, 1)}
	go func() { p.done <- cmd.Wait() }()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process politely, after ten seconds by force.
func (p *process) stop(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-p.done:
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Sys().(syscall.WaitStatus).Signaled() {
			return nil // Pebble and step-ca die of the signal
		}
		return err
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("pid %d did not stop in 10 s and was killed", p.pid())
	}
}

// ready waits until probe succeeds or the process has ended.
func (p *process) ready(ctx context.Context, probe func() error) error {
	for {
		err := probe()
		if err == nil {
			return nil
		}
		select {
		case end := <-p.done:
			p.done <- end
			return fmt.Errorf("%s ended: %v\n%s", filepath.Base(p.cmd.Path), end, tail(p.log))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", filepath.Base(p.cmd.Path), err, tail(p.log))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// listening is the probe for a TCP port.
func listening(addr string) func() error {
	return func() error {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	}
}

// tail returns the last lines of a log.
func tail(file string) string {
	text, _ := os.ReadFile(file)
	return string(text[max(0, len(text)-2000):])
}

// freePort finds a TCP port that was free a moment ago.
func freePort() (int, error) {
	l, err := listenLow()
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// listenLow listens on a port below those that Linux gives to outgoing
// connections, of which there are thousands here.
func listenLow() (net.Listener, error) {
	for try := 1; ; try++ {
		port := 20000 + rand.IntN(12000)
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil || try == 100 {
			return l, err
		}
	}
}

// cpuTime returns the CPU time of processes and all their children, the dead
// ones that were waited for included: PostgreSQL has one for each connection.
func cpuTime(roots ...int) time.Duration {
	var sum time.Duration
	for _, root := range roots {
		for _, pid := range tree(root) {
			sum += processClock(pid) + deadChildren(pid)
		}
	}
	return sum
}

// processClock reads a process's CPU clock (clock_getcpuclockid(3)). It says
// the same as utime and stime in /proc/PID/stat, in nanoseconds, not in ticks
// of 10 ms.
func processClock(pid int) time.Duration {
	var ts syscall.Timespec
	clock := uintptr(^pid<<3 | 2)
	if _, _, e := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&ts)), 0); e != 0 {
		return 0
	}
	return time.Duration(ts.Nano())
}

// deadChildren is cutime and cstime of /proc/PID/stat (proc(5)).
func deadChildren(pid int) time.Duration {
	fields := stat(pid)
	if len(fields) < 15 {
		return 0
	}
	user, _ := strconv.Atoi(fields[13])
	system, _ := strconv.Atoi(fields[14])
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go knows
	return time.Duration(user+system) * tick
}

// stat returns the fields of /proc/PID/stat after the command's name, which
// may hold spaces: so the state is the first, the parent the second.
func stat(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// tree lists a process and its descendants.
func tree(root int) []int {
	children := map[int][]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if fields := stat(pid); len(fields) > 1 {
			parent, _ := strconv.Atoi(fields[1])
			children[parent] = append(children[parent], pid)
		}
	}
	all := []int{root}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// resetPeak starts a new measurement of peak memory (proc(5), clear_refs).
func resetPeak(pid int) {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// peakRSS is the most memory a process had resident since resetPeak, in bytes.
func peakRSS(pid int) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	line, _, _ := strings.Cut(after, "kB")
	kib, _ := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	return kib << 10
}

// ownCPU is the CPU time of this process: the clients, the web server that
// answers validations, and the DNS server.
func ownCPU() time.Duration {
	var ru syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// scrape reads a page of Prometheus metrics into sums by name; a server
// without metrics has none.
func scrape(url string) map[string]float64 {
	if url == "" {
		return nil
	}
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var page bytes.Buffer
	if _, err := page.ReadFrom(http.MaxBytesReader(nil, resp.Body, 8<<20)); err != nil {
		return nil
	}
	sums := map[string]float64{}
	for line := range strings.Lines(page.String()) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || name == "#" {
			continue
		}
		name, labels, _ := strings.Cut(name, "{")
		if _, after, ok := strings.Cut(labels+" "+rest, "} "); ok {
			rest = after
		}
		if v, err := strconv.ParseFloat(rest, 64); err == nil {
			sums[name] += v
		}
	}
	return sums
}

// fileBytes is the size of all files below dir.
func fileBytes(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil
	})
	return sum
}

// realDisk refuses a folder in memory, where a sync costs nothing.
func realDisk(dir string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return err
	}
	const tmpfs, ramfs = 0x01021994, 0x858458f6
	if fs.Type == tmpfs || fs.Type == ramfs {
		return fmt.Errorf("%s is in memory, where syncing costs nothing: choose a folder on a disk with --dir", dir)
	}
	return nil
}
