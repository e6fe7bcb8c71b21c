package secret

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for text, want := range map[string]string{"1234": "1234", "1234\n": "1234", "1234\r\n": "1234", "1234\n\n": "1234\n", " 12 ": " 12 ", "": ""} {
		if got, err := Line(write("pin", text, 0o600), 8); err != nil || string(got) != want {
			t.Errorf("%q reads as %q, %v", text, got, err)
		}
	}
	open := write("open", "1234", 0o640)
	if _, err := Read(open, 8); !errors.Is(err, ErrPermissions) || !strings.Contains(err.Error(), "chmod 0600 "+open) {
		t.Errorf("one that others can read: %v", err)
	}
	if b, err := Read(write("long", "123456789", 0o600), 8); err == nil || b != nil || strings.Contains(err.Error(), "1234") {
		t.Errorf("one that is too long: %q, %v", b, err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, dir, filepath.Join(dir, "none")} { // none of them blocks
		if _, err := Read(path, 8); err == nil {
			t.Errorf("%s was read", path)
		}
	}
}
