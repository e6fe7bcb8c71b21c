package acl

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// settling is how long after a change was seen the file is read again for every
// decision. Times of files are as coarse as 10 ms: until they have moved on,
// another change need not show.
const settling = 100 * time.Millisecond

// File is a policy: the rules in a file, followed while the program runs.
// Every decision looks whether the file has changed (one stat, nothing
// allocated on Linux, no goroutine) and obeys what it finds. While one goroutine
// reads a new version, decisions that have seen it wait for that. For a tenth
// of a second after a change each decision reads the file, because a second
// change so soon may not show in its times.
//
// A version that is missing or has a fault is logged, once, and not obeyed:
// the last good one stays in force, and Err says why. Put a new version in
// place with rename(2), as `mv` within a directory does, or by turning a
// symbolic link: then nobody sees half of it. Against halves written in
// place there is some protection: an empty file, one whose last line has no
// end, and one that changes while it is read are not obeyed; a file cut
// between two lines can't be told from a whole one. To let nobody in, write
// "deny *".
//
// On file systems that keep times in seconds (FAT, some on networks), and with
// other systems than Linux where a program sets the file's time back, a change
// in place that leaves the length as it was may go unseen.
type File struct {
	name    string // as it was given, for texts
	path    string // the same, absolute
	log     *slog.Logger
	stamp   func() stamp            // looks at the path; for tests, a field
	current atomic.Pointer[version] // never nil
	reading sync.Mutex              // held by the one who replaces current
}

// version is the file as it was last seen, and the rules in force. It doesn't
// change.
type version struct {
	seen    stamp
	text    string    // what was read; "" if nothing could be
	since   time.Time // when it was first seen so
	settled bool      // it need not be read again while its stamp is the same
	rules   *Rules    // of the last good version
	err     error     // why they are not this one's
}

// Open reads a file of rules (see the package comment for their form) and
// fails if it is missing or wrong, with a [*ParseError] where it is; later the
// file may come and go. A nil logger is slog.Default().
func Open(path string, log *slog.Logger) (*File, error) {
	if log == nil {
		log = slog.Default()
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("acl: %w", err)
	}
	f := &File{name: path, path: absolute, log: log, stamp: newStatter(absolute).stamp}
	f.current.Store(&version{})
	if f.reload() != nil {
		return f, nil
	}
	if err := f.current.Load().err; err != nil {
		return nil, fmt.Errorf("acl: %w", err)
	}
	return nil, fmt.Errorf("acl: %s is being written just now; write it under another name and rename it", path)
}

// Allow says whether the peer may connect, by the rules as they are now.
func (f *File) Allow(p *Peer) error { return f.Rules().Allow(p) }

// AllowRequest says whether the peer may make the request, by the rules as
// they are now.
func (f *File) AllowRequest(p *Peer, r Request) error { return f.Rules().AllowRequest(p, r) }

// Rules returns the rules as they are now.
func (f *File) Rules() *Rules {
	if f == nil {
		return nil
	}
	if v := f.current.Load(); v.settled && f.stamp() == v.seen {
		return v.rules
	}
	return f.reload()
}

// Err says why the file as it is now isn't obeyed; nil if it is.
func (f *File) Err() error {
	if f == nil {
		return errors.New("acl: there is no file")
	}
	f.Rules()
	return f.current.Load().err
}

// reload looks at the file, reads it if it must, and returns the rules in
// force.
func (f *File) reload() *Rules {
	f.reading.Lock()
	defer f.reading.Unlock()
	old := f.current.Load()
	seen := f.stamp()
	now := time.Now()
	if old.settled && seen == old.seen {
		return old.rules // somebody else has just done it
	}
	text, err := readText(f.path)
	if f.stamp() != seen {
		return old.rules // it is being written; the next decision looks again
	}
	next := &version{seen: seen, text: text, since: now, rules: old.rules, err: err}
	if seen == old.seen && text == old.text && !old.since.IsZero() {
		*next = *old
		next.settled = now.Sub(old.since) >= settling
	} else if err == nil {
		f.parse(next)
	}
	if next.err != nil && (next.text != old.text || old.err == nil || next.err.Error() != old.err.Error()) && old.rules != nil {
		f.log.Error("acl: the rules file is not obeyed; the last good rules stay in force", "file", f.name, "error", next.err)
	}
	f.current.Store(next)
	return next.rules
}

// parse puts the rules of a new version in force, if they are good.
func (f *File) parse(v *version) {
	if !strings.HasSuffix(v.text, "\n") {
		lines := strings.Count(v.text, "\n") + 1
		v.err = &ParseError{f.name, lines, len(v.text) - strings.LastIndexByte(v.text, '\n'),
			"the last line has no end, as in a file half written; end it with a newline (to let nobody in write \"deny *\")"}
		return
	}
	rules, err := Parse(f.name, []byte(v.text))
	if err != nil {
		v.err = err
		return
	}
	v.rules = rules
	f.log.Info("acl: rules read", "file", f.name, "rules", len(rules.rules))
	for i, warning := range rules.Warnings() {
		if i == maxShown {
			break
		}
		f.log.Warn("acl: " + warning)
	}
}

// readText reads the file, bounded.
func readText(path string) (string, error) {
	// Not opened before it is known to be a file: a named pipe would block.
	if info, err := os.Stat(path); err != nil {
		return "", err
	} else if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxText+1)) // one more, so that Parse sees that it is too long
	if err != nil {
		return "", err
	}
	return string(text), nil
}
