package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// fill makes a CA whose database holds many certificates already: a demo
// makes its folder, then the store's own code fills the database in bulk. It
// returns the bytes that one certificate takes there.
func (l *lab) fill(ctx context.Context, o *options) (float64, error) {
	srv, err := l.start(ctx, chanceryMillion)
	if err != nil {
		return 0, err
	}
	empty, err := srv.stop()
	if err != nil {
		return 0, err
	}
	file := databaseFile(filepath.Join(l.dir, "filled"))
	if file == "" {
		return 0, errors.New("no SQLite database below the demo's folder")
	}
	begin := time.Now()
	cmd := exec.CommandContext(ctx, "go", "run", "./internal/store/storetest/fill", "--database", file, "--certificates", strconv.Itoa(o.stored))
	cmd.Dir = l.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("filling the database: %w\n%s", err, out)
	}
	full := databaseBytes(filepath.Join(l.dir, "filled"))
	fmt.Fprintf(o.progress, "filled with %d certificates in %.0f s\n", o.stored, time.Since(begin).Seconds())
	return float64(full-empty) / float64(o.stored), nil
}

// countSyncs counts the system calls that wait for a disk, in turns of their
// own, since strace makes everything slow: one client, one certificate after
// another, so that nobody shares a commit. The server's own counter of
// commits is held against this.
func (l *lab) countSyncs(ctx context.Context, o *options, servers []*server, res *results) error {
	if o.syncs == 0 {
		return nil
	}
	if _, err := exec.LookPath("strace"); err != nil {
		fmt.Fprintln(o.progress, "strace is missing (apt-get install strace): fsync calls are not counted")
		return nil
	}
	js := new(jobs)
	for _, srv := range servers {
		if srv.name == floorName || srv.name == pebbleName {
			continue // neither has a disk
		}
		for _, sc := range []scenario{{throwaway, 1}, {kept, 1}, {throwaway, 8}} {
			n, err := l.traceSyncs(ctx, srv, sc, o.syncs, js)
			if err != nil {
				return err
			}
			res.Syncs[srv.name] = append(res.Syncs[srv.name], syncCount{sc, n})
			fmt.Fprintf(o.progress, "strace     %-18s %3d clients  %-22s %6.1f syncs for a certificate\n", sc.Mode, sc.Clients, srv.name, n)
		}
	}
	return nil
}

// syncCount is what strace saw.
type syncCount struct {
	Scenario scenario `json:"scenario"`
	Calls    float64  `json:"callsPerCertificate"`
}

// traceSyncs counts during at least n issuances.
func (l *lab) traceSyncs(ctx context.Context, srv *server, sc scenario, n int, js *jobs) (float64, error) {
	callers := make([]*caller, sc.Clients)
	for i := range callers {
		callers[i] = newCaller(srv, l.answers)
		defer callers[i].wire.close()
		if err := l.warm(ctx, callers[i], sc, js); err != nil {
			return 0, err
		}
	}
	args := []string{"-f", "-qq", "-s", "0", "-e", "signal=none", "-e", "trace=fsync,fdatasync,msync,sync_file_range,write,pwrite64,writev"}
	for _, p := range srv.processes {
		for _, pid := range tree(p.pid()) {
			args = append(args, "-p", strconv.Itoa(pid))
		}
	}
	var trace bytes.Buffer
	cmd := exec.Command("strace", args...)
	cmd.Stderr = &trace
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	time.Sleep(time.Second) // until it has attached to every thread
	r := &run{jobs: js, srv: srv, mode: sc.Mode}
	r.drive(ctx, callers, func() bool { return r.done() < n })
	time.Sleep(settle)
	_ = cmd.Process.Signal(os.Interrupt) // strace lets go of them and ends
	_ = cmd.Wait()
	if r.sample.Failures > 0 {
		return 0, fmt.Errorf("%s: under strace: %s", srv.name, r.sample.FirstError)
	}
	calls := syncCalls(trace.String(), syncedFiles(srv.pid()))
	if calls == 0 {
		return 0, fmt.Errorf("%s: strace saw no sync: %.2000s", srv.name, trace.String())
	}
	return r.sample.per(float64(calls)), nil
}

// syncCalls counts the calls that wait for the disk: syncs by name, and
// writes to files that are open with O_DSYNC, which is how badger does it.
func syncCalls(trace string, synced map[string]bool) int {
	calls := 0
	for line := range strings.Lines(trace) {
		if rest, ok := strings.CutPrefix(line, "[pid"); ok {
			_, line, _ = strings.Cut(rest, "] ")
		}
		name, args, _ := strings.Cut(line, "(")
		switch name {
		case "fsync", "fdatasync", "msync", "sync_file_range":
			calls++
		case "write", "pwrite64", "writev":
			if fd, _, _ := strings.Cut(args, ","); synced[fd] {
				calls++
			}
		}
	}
	return calls
}

// syncedFiles lists a process's file descriptors that are open with O_DSYNC.
func syncedFiles(pid int) map[string]bool {
	dir := fmt.Sprintf("/proc/%d/fdinfo", pid)
	entries, _ := os.ReadDir(dir)
	synced := map[string]bool{}
	for _, e := range entries {
		text, _ := os.ReadFile(filepath.Join(dir, e.Name()))
		_, after, _ := strings.Cut(string(text), "flags:")
		line, _, _ := strings.Cut(after, "\n")
		flags, _ := strconv.ParseInt(strings.TrimSpace(line), 8, 64)
		if flags&syscall.O_DSYNC != 0 {
			synced[e.Name()] = true
		}
	}
	return synced
}
