package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxTyped bounds a typed line: terminals cut at 4 KiB.
const maxTyped = 4 << 10

// terminal is the one that the command was started on, whatever standard
// input and output are.
type terminal struct{ *os.File }

func openTerminal() (terminal, error) {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return terminal{}, errNoTerminal
	}
	return terminal{f}, nil
}

// readHidden asks for a line that isn't shown. The terminal is as it was when
// readHidden returns, also when ctx ends first.
func (t terminal) readHidden(ctx context.Context, prompt string) ([]byte, error) {
	restore, err := hideTyping(int(t.Fd()))
	if err != nil {
		return nil, errNoTerminal
	}
	defer restore()
	line, err := t.read(ctx, prompt)
	io.WriteString(t, "\n") // the one that was typed wasn't shown
	return line, err
}

// read asks for a line. When ctx ends first, the reader is left to the end of
// the process, which is near.
func (t terminal) read(ctx context.Context, prompt string) ([]byte, error) {
	if _, err := io.WriteString(t, prompt); err != nil {
		return nil, err
	}
	type typed struct {
		line []byte
		err  error
	}
	done := make(chan typed, 1)
	go func() {
		line, err := bufio.NewReaderSize(io.LimitReader(t, maxTyped), maxTyped).ReadBytes('\n')
		done <- typed{line, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case got := <-done:
		if got.err != nil {
			return nil, errors.New("no whole line was typed")
		}
		line := got.line[:len(got.line)-1]
		if n := len(line); n > 0 && line[n-1] == '\r' {
			line = line[:n-1]
		}
		return line, nil
	}
}

// hideTyping keeps a terminal from showing what is typed, until restore
// (termios(3)).
func hideTyping(fd int) (restore func(), err error) {
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	hidden := *before
	hidden.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &hidden); err != nil {
		return nil, err
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, before) }, nil // nobody is left to tell
}
