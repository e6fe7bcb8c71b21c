// Package secret reads small files that hold secrets: keys, passwords, PINs.
// Only their owner may be able to read them.
//
// It imports the standard library only.
package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrPermissions is wrapped when group or others may read a secret file.
var ErrPermissions = errors.New("readable by others than its owner")

// Read reads a regular file of at most so many bytes that only its owner may
// read. Its errors name the file and what to do.
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
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s is %w (mode %04o); run: chmod 0600 %s", path, ErrPermissions, mode, path)
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
