package place

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// maxFile bounds what is read back.
const maxFile = 1 << 20

// file is one to write; all are for their owner alone.
type file struct {
	name string
	data []byte
}

// folder makes the folder of a name: in memory where there is such a place,
// else among the state.
func (o Options) folder(name string) (string, error) {
	base := o.RuntimeDir
	if base == "" || !isDir(base) {
		base = o.StateDir
		if err := os.MkdirAll(base, 0o700); err != nil {
			return "", err
		}
	}
	// Who can write to a folder can put another one in the place of those below.
	info, err := os.Stat(base)
	if err != nil {
		return "", err
	}
	if err := ours(base, info); err != nil {
		return "", err
	}
	dir := filepath.Join(base, "chancery")
	if err := privateDir(dir); err != nil {
		return "", err
	}
	if name == "" {
		return dir, nil
	}
	dir = filepath.Join(dir, name)
	return dir, privateDir(dir)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// privateDir makes a folder, or checks one that is there.
func privateDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s is a symbolic link, which isn't followed: remove it", dir)
	case !info.IsDir():
		return fmt.Errorf("%s is in the way: remove it", dir)
	}
	return ours(dir, info)
}

// replace writes files into a folder that privateDir made, whole or not at all,
// and removes those that belong to an earlier set. What is written lies under
// another name until all of it is on disk; renaming follows no link.
func replace(dir string, write []file, remove ...string) error {
	if err := sweep(dir); err != nil {
		return err
	}
	for _, f := range write { // a file can't be renamed over a folder
		if info, err := os.Lstat(filepath.Join(dir, f.name)); err == nil && info.IsDir() {
			return fmt.Errorf("%s is a folder and in the way: remove it", info.Name())
		}
	}
	var fresh []string
	defer func() {
		for _, name := range fresh {
			os.Remove(name) // what was renamed isn't there
		}
	}()
	for _, f := range write {
		name, err := writeNew(dir, f.data)
		if err != nil {
			return err
		}
		fresh = append(fresh, name)
	}
	for i, f := range write {
		if err := os.Rename(fresh[i], filepath.Join(dir, f.name)); err != nil {
			return err
		}
	}
	for _, name := range remove {
		if err := unlink(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// newFile is how the names of files begin that aren't finished.
const newFile = ".new-"

// writeNew writes a file that nobody else can read at any moment:
// os.CreateTemp makes it anew with mode 0600.
func writeNew(dir string, data []byte) (string, error) {
	f, err := os.CreateTemp(dir, newFile+"*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// sweep removes what was cut off: files of a login that runs beside us aren't a
// minute old, and folders, which may wait for a person, not ten.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !strings.HasPrefix(e.Name(), newFile) {
			continue
		}
		most := time.Minute
		if e.IsDir() {
			most = 10 * time.Minute
		}
		if time.Since(info.ModTime()) < most {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// unlink removes a file, if it is there.
func unlink(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// read reads a file of bounded size, not through a link; it returns nil where
// there is none.
func read(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s isn't a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxFile)
	}
	return data, err
}

// within checks that a record, which comes from a file, names nothing but these
// files in a folder of ours, and returns that folder.
func within(p Placed, names ...string) (string, error) {
	if len(p.Where) == 0 {
		return "", fmt.Errorf("%s: the record names no file", p.Target)
	}
	dir := filepath.Dir(p.Where[0])
	if !filepath.IsAbs(dir) || filepath.Base(dir) != p.Name || filepath.Base(filepath.Dir(dir)) != "chancery" {
		return "", fmt.Errorf("%s isn't where a certificate is put: it is left alone", p.Where[0])
	}
	for _, path := range p.Where {
		known := false
		for _, n := range names {
			known = known || path == filepath.Join(dir, n)
		}
		if !known {
			return "", fmt.Errorf("%s isn't where a certificate is put: it is left alone", path)
		}
	}
	if info, err := os.Lstat(dir); err == nil && !info.IsDir() {
		return "", fmt.Errorf("%s isn't a folder: it is left alone", dir)
	}
	return dir, nil
}

// empty removes files and then their folder, unless something else is in it.
func empty(dir string, names ...string) error {
	for _, n := range names {
		if err := unlink(filepath.Join(dir, n)); err != nil {
			return err
		}
	}
	if err := sweep(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	os.Remove(dir) // fails where there is more in it, which is another's
	return nil
}

// scratch makes a folder for the time of f, private as all of them.
func (o Options) scratch(f func(dir string) error) error {
	parent, err := o.folder("")
	if err != nil {
		return err
	}
	if err := sweep(parent); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(parent, newFile+"*")
	if err != nil {
		return err
	}
	err = f(dir)
	if e := os.RemoveAll(dir); err == nil {
		err = e
	}
	return err
}

func encode(typ string, ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})...)
	}
	return out
}
