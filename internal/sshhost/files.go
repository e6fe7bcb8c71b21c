package sshhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// replace writes a file whole or not at all, durably.
func replace(path string, data []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".chancery-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing is there any more after the rename
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// files are what sshd reads, by path. nil removes one.
type files map[string][]byte

// changed are those whose content isn't what it should be, with what is there
// now (nil: nothing).
func (f files) changed() (old files, err error) {
	old = files{}
	for path, want := range f {
		have, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			have, err = nil, nil
		} else if err == nil && have == nil {
			have = []byte{}
		}
		if err != nil {
			return nil, err
		}
		if (have == nil) != (want == nil) || !bytes.Equal(have, want) {
			old[path] = have
		}
	}
	return old, nil
}

// write puts the files in place, those last that begin with last: the
// configuration must not name what isn't there.
func (f files) write(last string) error {
	paths := slices.Sorted(maps.Keys(f))
	slices.SortStableFunc(paths, func(a, b string) int {
		switch {
		case a == last && b != last:
			return 1
		case b == last && a != last:
			return -1
		}
		return 0
	})
	for _, path := range paths {
		if f[path] == nil {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := replace(path, f[path], 0o644); err != nil { // all of it is public
			return err
		}
	}
	return nil
}

// commandTime bounds sshd -t, the reload and hooks that don't say otherwise.
const commandTime = time.Minute

// maxOutput bounds what is kept of a program's words.
const maxOutput = 4 << 10

// shell runs a command of the operator's, with more in its environment.
func shell(ctx context.Context, command string, env ...string) error {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	return run(exec.CommandContext(ctx, "/bin/sh", "-c", command), env...)
}

// run runs a program; the error has what it said.
func run(cmd *exec.Cmd, env ...string) error {
	var said tail
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = time.Second // for children that hold its output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd.Args[len(cmd.Args)-1], err, strings.Join(strings.Fields(string(said.b)), " "))
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if n := len(t.b) - maxOutput; n > 0 {
		t.b = t.b[n:]
	}
	return len(p), nil
}
