// Package slowhsm builds, for tests, a PKCS#11 module that stands before a
// real one, as package softhsm's, and makes its tokens behave like smart cards:
// one signature at a time, as slow as wanted, pulled out and plugged in. It
// counts logins and signatures. module/slowhsm.c says how it is steered; the
// methods here do so from this process or another.
//
// It may import the standard library only, and needs gcc; it is for tests.
package slowhsm

import (
	"bytes"
	_ "embed" // for the source of the module
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

//go:embed module/slowhsm.c
var source []byte

// Flags that a token may be told to show (CK_TOKEN_INFO, base specification
// 2.40, section 3.3), for SetFlags.
const (
	PINCountLow = 0x10000
	PINFinalTry = 0x20000
	PINLocked   = 0x40000
)

// Module is one built module. Its methods take the label of a token, work at
// once, and panic when its folder can't be written.
type Module struct {
	Path string // of the shared library
	dir  string
}

// New builds a module before the real one, in a temporary folder. env are
// NAME=VALUE that the real module needs, such as softhsm's HSM.Env: whoever
// loads the module then needs nothing in its environment.
func New(t testing.TB, real string, env ...string) *Module {
	t.Helper()
	m, err := In(t.TempDir(), real, env...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// In is New with a folder of one's own, which must be empty, and an error. It
// runs gcc, for some 0.2 s.
func In(dir, real string, env ...string) (*Module, error) {
	m := &Module{Path: filepath.Join(dir, "slowhsm.so"), dir: dir}
	c := filepath.Join(dir, "slowhsm.c")
	files := map[string][]byte{c: source, m.file("real", ""): []byte(real), m.file("env", ""): []byte(strings.Join(env, "\n"))}
	for name, text := range files {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			return nil, err
		}
	}
	// gnu11: in newer C an empty parameter list means none.
	cmd := exec.Command("gcc", "-std=gnu11", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-o", m.Path, c, "-ldl", "-lpthread")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("gcc: %w: %s (install it: apt-get install gcc libc6-dev)", err, bytes.TrimSpace(out))
	}
	return m, nil
}

// SetDelay makes each signature of a token take d from now on; a label of ""
// stands for all tokens that weren't given one of their own.
func (m *Module) SetDelay(label string, d time.Duration) {
	m.write("delay", label, strconv.FormatInt(d.Microseconds(), 10))
}

// Unplug pulls a token out: a signature under way fails within 20 ms, its
// sessions end, and it is shown no more.
func (m *Module) Unplug(label string) {
	n := m.plugged(label)
	m.write("state", label, fmt.Sprintf("%d out", n))
}

// Plug puts a token back in, logged out. A token that was never pulled is
// pulled for an instant.
func (m *Module) Plug(label string) {
	n := m.plugged(label)
	m.write("state", label, fmt.Sprintf("%d in", n+1))
}

// SetFlags adds flags to those the token shows; 0 takes them away again.
func (m *Module) SetFlags(label string, flags uint) {
	m.write("flags", label, strconv.FormatUint(uint64(flags), 10))
}

// Logins is how often C_Login was called for a token, by any process.
func (m *Module) Logins(label string) int { return m.count("logins", label) }

// Signatures is how many signatures a token made, in all processes.
func (m *Module) Signatures(label string) int { return m.count("signs", label) }

// plugged is how often the token was plugged in again.
func (m *Module) plugged(label string) (n int) {
	text, err := os.ReadFile(m.file("state", label))
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err == nil {
		_, err = fmt.Sscan(string(text), &n)
	}
	if err != nil {
		panic(fmt.Sprintf("slowhsm: %v", err))
	}
	return n
}

// file names a file as the module does.
func (m *Module) file(kind, label string) string {
	if label == "" {
		return filepath.Join(m.dir, kind)
	}
	var plain strings.Builder
	for _, c := range []byte(label) {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' {
			plain.WriteByte(c)
		} else {
			plain.WriteByte('_')
		}
	}
	return filepath.Join(m.dir, kind+"."+plain.String())
}

// write replaces a file at once, so that the module never reads half of it.
func (m *Module) write(kind, label, text string) {
	name := m.file(kind, label)
	err := os.WriteFile(name+".new", []byte(text), 0o600)
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		panic(fmt.Sprintf("slowhsm: %v", err))
	}
}

func (m *Module) count(kind, label string) int {
	info, err := os.Stat(m.file(kind, label))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0
	case err != nil:
		panic(fmt.Sprintf("slowhsm: %v", err))
	}
	return int(info.Size())
}
