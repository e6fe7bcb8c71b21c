package sshhost

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Line is a line of sshd's log, and where the log goes on behind it, in the
// source's own words.
type Line struct{ Text, Position string }

// A lineReader cuts what is read into lines. What is longer than maxLine is cut
// off; a line that isn't finished waits.
type lineReader struct {
	r    *bufio.Reader
	part []byte
	read int64 // bytes, up to the end of the last whole line and the part
}

func newLineReader(r io.Reader) *lineReader { return &lineReader{r: bufio.NewReader(r)} }

// next returns the next whole line; io.EOF: there is none yet.
func (l *lineReader) next() (string, error) {
	for {
		chunk, err := l.r.ReadSlice('\n')
		l.read += int64(len(chunk))
		if room := maxLine - len(l.part); room > 0 {
			l.part = append(l.part, chunk[:min(len(chunk), room)]...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return "", err
		}
		line := string(bytes.TrimRight(l.part, "\n"))
		l.part = l.part[:0]
		return line, nil
	}
}

// FollowStream gives the lines of a stream until it ends.
func FollowStream(ctx context.Context, r io.Reader, to chan<- Line) error {
	for l := newLineReader(r); ; {
		line, err := l.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !send(ctx, to, Line{Text: line}) {
			return nil
		}
	}
}

func send(ctx context.Context, to chan<- Line, line Line) bool {
	select {
	case to <- line:
		return true
	case <-ctx.Done():
		return false
	}
}

// lookAgain is how often a file is looked at.
const lookAgain = 250 * time.Millisecond

// FollowFile gives the lines of a log file as they are written, also over its
// rotation: the old file is read to its end first. from is a Position of an
// earlier run; "": what is there already is passed over.
func FollowFile(ctx context.Context, path, from string, to chan<- Line) error {
	f, offset, err := openLog(path, from)
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	for {
		if offset, err = drain(ctx, f, offset, to); err != nil || ctx.Err() != nil {
			return err
		}
		now, err := os.Stat(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may be between two names
			return err
		}
		if err == nil {
			held, err := f.Stat()
			switch {
			case err != nil:
				return err
			case !os.SameFile(now, held):
				// Once more: it may have grown until it was renamed.
				if _, err := drain(ctx, f, offset, to); err != nil {
					return err
				}
				f.Close()
				if f, err = os.Open(path); err != nil {
					return err
				}
				offset = 0
				continue
			case held.Size() < offset: // emptied (logrotate's copytruncate)
				offset = 0
				continue
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lookAgain):
		}
	}
}

// openLog opens a log where an earlier run left it, if it is still that file.
func openLog(path, from string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	offset := info.Size()
	if from != "" {
		// Of another file: this one is read from its beginning.
		var id string
		var at int64
		if n, _ := fmt.Sscanf(from, "%s %d", &id, &at); n == 2 && id == fileID(info) && at <= offset {
			offset = at
		} else {
			offset = 0
		}
	}
	return f, offset, nil
}

// drain gives the whole lines that are there now, and returns where they end.
func drain(ctx context.Context, f *os.File, offset int64, to chan<- Line) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return offset, err
	}
	if info.Size() <= offset {
		return offset, nil
	}
	l := newLineReader(io.NewSectionReader(f, offset, 1<<62))
	for end := offset; ; {
		line, err := l.next()
		if errors.Is(err, io.EOF) {
			return end, nil // what has no end yet is read again
		}
		if err != nil {
			return end, err
		}
		end = offset + l.read
		if !send(ctx, to, Line{line, fmt.Sprintf("%s %d", fileID(info), end)}) {
			return end, nil
		}
	}
}

// journalAgain is the pause before journalctl is run again.
const journalAgain = 5 * time.Second

// FollowJournal gives what sshd's units write into systemd's journal. Others can
// call themselves sshd there, but not be in its unit. from is a Position (a
// cursor) of an earlier run; "": from now on.
func FollowJournal(ctx context.Context, from string, to chan<- Line, log *slog.Logger) error {
	for {
		err := journal(ctx, &from, to)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("%w: without systemd's journal, give --log FILE", err)
		}
		log.Error("journalctl ended; it is run again", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(journalAgain):
		}
	}
}

func journal(ctx context.Context, from *string, to chan<- Line) error {
	args := []string{"--follow", "--output=json", "--quiet", "_SYSTEMD_UNIT=ssh.service", "+", "_SYSTEMD_UNIT=sshd.service"}
	if *from == "" {
		args = append(args, "--lines=0")
	} else {
		args = append(args, "--lines=all", "--after-cursor="+*from)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "journalctl", args...)
	var said tail
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	for l := newLineReader(out); ; {
		text, err := l.next()
		if err != nil {
			break
		}
		line, ok := readJournal(text)
		if !ok {
			continue
		}
		*from = line.Position
		if !send(ctx, to, line) {
			break
		}
	}
	cancel()
	return fmt.Errorf("%w: %s", cmd.Wait(), strings.TrimSpace(string(said.b)))
}

// readJournal reads an entry in journalctl's JSON, whose message is an array of
// bytes where it isn't UTF-8.
func readJournal(text string) (Line, bool) {
	var entry struct {
		Cursor  string          `json:"__CURSOR"`
		Message json.RawMessage `json:"MESSAGE"`
	}
	if json.Unmarshal([]byte(text), &entry) != nil || entry.Cursor == "" || len(entry.Cursor) > maxPosition {
		return Line{}, false
	}
	line := Line{Position: entry.Cursor}
	if json.Unmarshal(entry.Message, &line.Text) == nil {
		return line, true
	}
	var codes []uint16 // JSON would take bytes for base64
	if json.Unmarshal(entry.Message, &codes) != nil {
		return Line{}, false
	}
	b := make([]byte, len(codes))
	for i, c := range codes {
		b[i] = byte(c)
	}
	line.Text = string(b)
	return line, true
}
