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
		res.Syncs[srv.name] = map[mode]float64{}
		for _, m := range []mode{throwaway, kept} {
			n, err := l.traceSyncs(ctx, srv, m, o.syncs, js)
			if err != nil {
				return err
			}
			res.Syncs[srv.name][m] = n
			fmt.Fprintf(o.progress, "strace  %-18s %-22s %6.1f syncs for a certificate\n", m, srv.name, n)
		}
	}
	return nil
}

func (l *lab) traceSyncs(ctx context.Context, srv *server, m mode, n int, js *jobs) (float64, error) {
	c := newCaller(srv, l.answers)
	defer c.wire.close()
	if err := l.warm(ctx, c, scenario{m, 1}, js); err != nil {
		return 0, err
	}
	args := []string{"-f", "-qq", "-e", "trace=fsync,fdatasync,msync,sync_file_range"}
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
	failed := error(nil)
	for range n {
		j, err := js.at(srv.next)
		if err == nil {
			srv.next++
			err = c.issue(ctx, j, m.keepsAccount())
		}
		if err != nil {
			failed = err
			break
		}
	}
	time.Sleep(settle)
	_ = cmd.Process.Signal(os.Interrupt) // strace lets go of them and ends
	_ = cmd.Wait()
	calls := 0
	for line := range strings.Lines(trace.String()) {
		if strings.Contains(line, "sync(") || strings.Contains(line, "sync_file_range(") {
			calls++
		}
	}
	if calls == 0 && failed == nil {
		failed = fmt.Errorf("%s: strace saw no sync: %s", srv.name, trace.String())
	}
	return float64(calls) / float64(n), failed
}
