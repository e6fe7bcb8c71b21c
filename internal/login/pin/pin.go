package pin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"golang.org/x/term"
)

// maxPIN bounds what is taken as a PIN: those of PIV have 8 bytes at most, and
// who types a long passphrase by mistake is told by the card.
const maxPIN = 128

// errNone is where nobody can be asked.
var errNone = errors.New("nobody can be asked for the PIN: run it in a terminal, install a pinentry program (PINENTRY names it), or give --pin-stdin")

// errRefused is wrapped where a person who was asked gave none.
var errRefused = errors.New("no PIN was given")

// Ask asks for a PIN: by the program that the environment's PINENTRY names, else
// on the terminal, else by the program pinentry. It blocks on the person until
// ctx ends. The caller clears what it gets.
func Ask(ctx context.Context, prompt string) ([]byte, error) {
	if program := os.Getenv("PINENTRY"); program != "" {
		return Pinentry(ctx, program, prompt)
	}
	in, out, err := openTerminal()
	if err == nil {
		defer in.Close()
		defer out.Close()
		return typed(ctx, in, out, prompt)
	}
	program, err := exec.LookPath("pinentry")
	if err != nil {
		return nil, errNone
	}
	return orNobody(ctx, program, prompt)
}

// orNobody asks by a program that nobody named: where it fails there may be
// neither a terminal nor a display for it.
func orNobody(ctx context.Context, program, prompt string) ([]byte, error) {
	pin, err := Pinentry(ctx, program, prompt)
	if err != nil && ctx.Err() == nil && !errors.Is(err, errRefused) {
		return nil, fmt.Errorf("%w (%w)", errNone, err)
	}
	return pin, err
}

// typed reads a line that the terminal doesn't show. The terminal is as it was
// when typed returns, also when ctx ends first; then the reader is left to the
// end of the process, which is near.
func typed(ctx context.Context, in, out *os.File, prompt string) ([]byte, error) {
	fd := int(in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, errNone
	}
	fmt.Fprint(out, prompt, ": ")
	type line struct {
		pin []byte
		err error
	}
	done := make(chan line, 1)
	go func() {
		pin, err := term.ReadPassword(fd)
		done <- line{pin, err}
	}()
	select {
	case <-ctx.Done():
		_ = term.Restore(fd, before) // nobody is left to tell
		fmt.Fprintln(out)
		return nil, ctx.Err()
	case got := <-done:
		fmt.Fprintln(out) // the one that was typed wasn't shown
		if got.err != nil {
			return nil, fmt.Errorf("no PIN was typed: %w", got.err)
		}
		return checked(got.pin)
	}
}

// Read reads a PIN as one line, as from a program's standard input.
func Read(in io.Reader) ([]byte, error) {
	line, err := bufio.NewReaderSize(io.LimitReader(in, maxPIN+2), maxPIN+2).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for n := len(line); n > 0 && (line[n-1] == '\n' || line[n-1] == '\r'); n-- {
		line = line[:n-1]
	}
	return checked(line)
}

// checked refuses what can't be a PIN.
func checked(pin []byte) ([]byte, error) {
	if len(pin) == 0 || len(pin) > maxPIN {
		clear(pin)
		return nil, errRefused
	}
	return pin, nil
}
