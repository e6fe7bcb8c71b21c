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
	open := write("open", "1234", 0o644)
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

// Root may lend a secret to one group to read, as Kubernetes does for a pod's
// fsGroup; nobody else may, and never to write.
func TestLent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lent")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	for _, c := range []struct {
		owner int
		mode  os.FileMode
		ok    bool
	}{
		{0, 0o640, true}, {0, 0o440, true}, {0, 0o600, true},
		{0, 0o660, false}, {0, 0o644, false}, {0, 0o444, false}, {0, 0o604, false}, {0, 0o620, false}, {0, 0o650, false},
		{nobody, 0o640, false}, {nobody, 0o440, false}, {nobody, 0o600, true},
	} {
		if err := os.Chown(path, c.owner, -1); err != nil && os.Geteuid() != 0 {
			continue // only root gives files away
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path, 8); (err == nil) != c.ok {
			t.Errorf("owner %d, mode %04o: %v", c.owner, c.mode, err)
		}
	}
}
