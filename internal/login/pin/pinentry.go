package pin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// maxLine bounds a line of the Assuan protocol (libassuan: LINELENGTH).
const maxLine = 1000

// maxLines bounds how much a program says before it answers.
const maxLines = 100

// cancelled is the number of GPG_ERR_CANCELED, without the part that says
// which library said so (libgpg-error).
const cancelled = 99

// Pinentry asks for a PIN with a pinentry program. It blocks on the person until
// ctx ends, which ends the program.
func Pinentry(ctx context.Context, program, prompt string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program)
	cmd.WaitDelay = time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("pinentry: %w", err)
	}
	c := conversation{in: in, out: bufio.NewReaderSize(out, maxLine+2)}
	pin, err := c.ask(prompt)
	in.Close()
	cmd.Wait() // what it says of its end doesn't matter: it answered, or not
	switch {
	case ctx.Err() != nil:
		clear(pin)
		return nil, ctx.Err()
	case err != nil:
		if r, ok := errors.AsType[*refusal](err); ok && r.code&0xffff == cancelled {
			return nil, fmt.Errorf("pinentry: %w", errRefused)
		}
		return nil, fmt.Errorf("pinentry: %w", err)
	}
	return checked(pin)
}

// conversation is one with a pinentry program.
type conversation struct {
	in  io.Writer
	out *bufio.Reader
}

// ask does it from the greeting to the PIN.
func (c conversation) ask(prompt string) ([]byte, error) {
	if _, err := c.answer(); err != nil { // the greeting
		return nil, err
	}
	if tty := os.Getenv("GPG_TTY"); tty != "" {
		if err := c.try("OPTION ttyname=" + escape(tty)); err != nil {
			return nil, err
		}
	}
	for _, command := range []string{"SETTITLE Chancery", "SETDESC " + escape(prompt), "SETPROMPT PIN:"} {
		if err := c.try(command); err != nil {
			return nil, err
		}
	}
	if err := c.send("GETPIN"); err != nil {
		return nil, err
	}
	pin, err := c.answer()
	if err != nil {
		return nil, err
	}
	return pin, c.send("BYE")
}

// try sends a command that matters little: a program may not know it.
func (c conversation) try(command string) error {
	if err := c.send(command); err != nil {
		return err
	}
	_, err := c.answer()
	if _, refused := errors.AsType[*refusal](err); refused {
		return nil
	}
	return err
}

func (c conversation) send(command string) error {
	_, err := io.WriteString(c.in, command+"\n")
	return err
}

// answer reads up to OK or ERR, and returns the data before it.
func (c conversation) answer() ([]byte, error) {
	var data []byte
	for range maxLines {
		line, err := c.out.ReadSlice('\n') // fails on a longer one than maxLine
		if err != nil {
			clear(data)
			return nil, fmt.Errorf("it answered no whole line: %w", err)
		}
		r, err := parse(line[:len(line)-1])
		clear(line)
		if err == nil && len(data)+len(r.data) > maxPIN {
			err = errors.New("it gave more than a PIN")
		}
		if err != nil {
			clear(data)
			clear(r.data)
			return nil, err
		}
		data = append(data, r.data...)
		clear(r.data)
		if r.done {
			return data, nil
		}
	}
	clear(data)
	return nil, errors.New("it talks without end")
}

// response is one line of the program's.
type response struct {
	done bool   // OK: the command is done
	data []byte // of D
}

// refusal is an ERR line.
type refusal struct {
	code int
	text string
}

// Error says what happened, for people.
func (r *refusal) Error() string {
	if r.code&0xffff == cancelled {
		return "no PIN was given"
	}
	return fmt.Sprintf("it says %q", r.text)
}

// parse reads a line without its end. An ERR line is the error.
func parse(line []byte) (response, error) {
	if len(line) > maxLine {
		return response{}, errors.New("a line is too long")
	}
	word, rest, _ := bytes.Cut(line, []byte(" "))
	switch string(word) {
	case "OK":
		return response{done: true}, nil
	case "D":
		data, err := unescape(rest)
		return response{data: data}, err
	case "S": // how it goes
		return response{}, nil
	case "ERR":
		number, text, _ := strings.Cut(string(rest), " ")
		code, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return response{}, errors.New("its error has no number")
		}
		return response{}, &refusal{int(code), text}
	}
	if len(line) == 0 || line[0] == '#' { // a comment
		return response{}, nil
	}
	return response{}, errors.New("it says something that isn't pinentry's protocol")
}

// escape writes what a line can't hold as %XX.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '%' || c == 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescape reads %XX.
func unescape(text []byte) ([]byte, error) {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			out = append(out, text[i])
			continue
		}
		if i+2 >= len(text) {
			clear(out)
			return nil, errors.New("half an escape")
		}
		n, err := strconv.ParseUint(string(text[i+1:i+3]), 16, 8)
		if err != nil {
			clear(out)
			return nil, errors.New("a bad escape")
		}
		out = append(out, byte(n))
		i += 2
	}
	return out, nil
}
