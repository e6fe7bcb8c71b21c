// Package sealed keeps a few named secrets in one encrypted file: AES-256-GCM
// with a new random nonce at every write, replaced as a whole, so that a crash
// leaves the old file or the new one.
//
// It imports the standard library only. Sources: NIST SP 800-38D (GCM).
package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
)

const (
	// magic begins each file and is authenticated with it.
	magic = "chancery sealed file 1\n"
	// maxFile bounds a file; a certificate with its key has about 4 KiB.
	maxFile = 1 << 20
)

// File is an encrypted file. Its methods may be called from many goroutines;
// of several processes the last writer wins.
type File struct {
	path string
	aead cipher.AEAD
	err  error // why it can't be used

	mu sync.Mutex // held while the file is read and written
}

// New returns the file at path under a key of 32 random bytes, which it
// doesn't touch yet.
func New(path string, key []byte) *File {
	f := &File{path: path}
	if len(key) != 32 {
		f.err = fmt.Errorf("the key has %d bytes, not 32 random ones", len(key))
		return f
	}
	block, err := aes.NewCipher(key)
	if err == nil {
		f.aead, err = cipher.NewGCMWithRandomNonce(block)
	}
	f.err = err
	if path == "" {
		f.err = errors.New("the path is empty")
	}
	return f
}

// Err says why the file can never be used.
func (f *File) Err() error { return f.err }

// Load returns what is kept under a name, nil if nothing. A file that isn't
// there is an empty one; one that was tampered with, or sealed under another
// key, is an error.
func (f *File) Load(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all, err := f.read()
	return all[name], err
}

// Store replaces what is kept under a name; nil data removes it. A file that
// can't be read is replaced.
func (f *File) Store(name string, data []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	all, err := f.read()
	if f.err != nil {
		return f.err
	}
	if err != nil || all == nil {
		all = map[string][]byte{}
	}
	if all[name] = data; data == nil {
		delete(all, name)
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	defer clear(text)
	out := f.aead.Seal([]byte(magic), nil, text, []byte(magic))
	if len(out) > maxFile {
		return fmt.Errorf("%s would have %d bytes, more than %d", f.path, len(out), maxFile)
	}
	return replace(f.path, out)
}

func (f *File) read() (map[string][]byte, error) {
	if f.err != nil {
		return nil, f.err
	}
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile || len(data) < len(magic) || string(data[:len(magic)]) != magic {
		return nil, fmt.Errorf("%s is not a sealed file", f.path)
	}
	text, err := f.aead.Open(nil, nil, data[len(magic):], []byte(magic))
	if err != nil {
		return nil, fmt.Errorf("%s was sealed with another key, or was changed since", f.path)
	}
	defer clear(text)
	var all map[string][]byte
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	return all, nil
}

// replace writes a file that is readable by its owner only and puts it in the
// place of the old one, on disk before it is seen.
func replace(path string, data []byte) error {
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	if runtime.GOOS == "windows" { // knows no sync of a directory
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
