// Package secret reads small files that hold secrets: keys, passwords, PINs.
// Only their owner may be able to read them; root's may be lent to one group
// (0640, 0440), as Kubernetes and systemd do it.
//
// It imports the standard library only.
package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ErrPermissions is wrapped when others may read a secret file.
var ErrPermissions = errors.New("readable by others than its owner")

// Check refuses a file that others than its owner may read or write. One that
// belongs to root may be read by its group: who made it so is the machine's
// administrator. Its errors name the file and what to do.
func Check(path string, info os.FileInfo) error {
	mode, lent := info.Mode().Perm(), fs.FileMode(0)
	if roots(info) {
		lent = 0o040
	}
	if modesTell && mode&0o077&^lent != 0 {
		return fmt.Errorf("%s is %w (mode %04o); run: chmod 0600 %s", path, ErrPermissions, mode, path)
	}
	return nil
}

// Read reads a regular file of at most so many bytes that [Check] takes. Its
// errors name the file and what to do.
func Read(path string, most int) ([]byte, error) {
	// The first look keeps a named pipe from blocking us in Open; the one
	// that counts is Fstat, on what was really opened.
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := Check(path, info); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err != nil {
		return nil, err
	}
	if len(b) > most {
		clear(b)
		return nil, fmt.Errorf("%s is over %d bytes, which no secret of this kind is", path, most)
	}
	return b, nil
}

// Line is Read for a password or a PIN: one trailing line end is not part of
// it.
func Line(path string, most int) ([]byte, error) {
	b, err := Read(path, most)
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r")), err
}
