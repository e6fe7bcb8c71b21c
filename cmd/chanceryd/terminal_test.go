package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pty returns both ends of a new terminal.
func pty(t *testing.T) (master *os.File, slave terminal) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return master, terminal{f}
}

// seen is what a terminal shows until the text is there.
func seen(t *testing.T, master *os.File, until string) string {
	t.Helper()
	var all bytes.Buffer
	b := make([]byte, 1024)
	for !strings.Contains(all.String(), until) {
		n, err := master.Read(b)
		if err != nil {
			t.Fatalf("%v after %q", err, all.String())
		}
		all.Write(b[:n])
	}
	return all.String()
}

// What is typed for a secret isn't shown; for a question it is.
func TestTerminal(t *testing.T) {
	master, slave := pty(t)
	type answer struct {
		line []byte
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		line, err := slave.readHidden(t.Context(), "PIN: ")
		got <- answer{line, err}
	}()
	seen(t, master, "PIN: ")
	if _, err := master.WriteString("123456\n"); err != nil {
		t.Fatal(err)
	}
	if a := <-got; a.err != nil || string(a.line) != "123456" {
		t.Fatalf("%q, %v", a.line, a.err)
	}
	go func() {
		line, err := slave.read(t.Context(), "Sure? ")
		got <- answer{line, err}
	}()
	shown := seen(t, master, "Sure? ")
	if _, err := master.WriteString("yes\n"); err != nil {
		t.Fatal(err)
	}
	if a := <-got; a.err != nil || string(a.line) != "yes" {
		t.Fatalf("%q, %v", a.line, a.err)
	}
	if shown += seen(t, master, "yes"); strings.Contains(shown, "123456") {
		t.Errorf("the PIN was shown: %q", shown)
	}
}

// An interrupted question gives the terminal back as it was.
func TestTerminalInterrupted(t *testing.T) {
	master, slave := pty(t)
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := slave.readHidden(ctx, "PIN: "); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS); err != nil || after.Lflag != before.Lflag || after.Lflag&unix.ECHO == 0 {
		t.Errorf("%v: %x, was %x", err, after.Lflag, before.Lflag)
	}
	_, _ = master.WriteString("\n") // lets the reader end
}
