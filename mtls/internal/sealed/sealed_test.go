package sealed

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

var key = bytes.Repeat([]byte{7}, 32)

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	f := New(path, key)
	if got, err := f.Load("a"); got != nil || err != nil {
		t.Fatalf("no file: %q, %v", got, err)
	}
	for name, data := range map[string]string{"a": "secret of a", "b": "secret of b"} {
		if err := f.Store(name, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	f = New(path, key) // after a restart
	if got, err := f.Load("a"); string(got) != "secret of a" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if err := f.Store("a", nil); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Load("a"); got != nil || err != nil {
		t.Errorf("after removal: %q, %v", got, err)
	}
	if got, _ := f.Load("b"); string(got) != "secret of b" {
		t.Errorf("the other one: %q", got)
	}
	raw, _ := os.ReadFile(path)
	if bytes.Contains(raw, []byte("secret")) {
		t.Error("the file holds the secret in clear")
	}
	info, _ := os.Stat(path)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	f.Store("b", []byte("secret of b"))
	again, _ := os.ReadFile(path)
	if bytes.Equal(raw, again) {
		t.Error("the same nonce twice")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestTampering changes every byte once.
func TestTampering(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	if err := New(path, key).Store("a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	good, _ := os.ReadFile(path)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		os.WriteFile(path, bad, 0o600)
		if got, err := New(path, key).Load("a"); err == nil || got != nil {
			t.Fatalf("byte %d: %q", i, got)
		}
	}
	for name, bad := range map[string][]byte{"truncated": good[:len(good)-1], "longer": append(bytes.Clone(good), 0), "empty": {}, "huge": make([]byte, maxFile+1)} {
		os.WriteFile(path, bad, 0o600)
		if _, err := New(path, key).Load("a"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	os.WriteFile(path, good, 0o600)
	other := New(path, bytes.Repeat([]byte{8}, 32))
	if got, err := other.Load("a"); err == nil || got != nil {
		t.Errorf("another key: %q", got)
	}
	// What can't be read is replaced, not kept for ever.
	if err := other.Store("a", []byte("y")); err != nil {
		t.Fatal(err)
	}
	if got, err := other.Load("a"); string(got) != "y" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestBadUse(t *testing.T) {
	for _, f := range []*File{New("x", nil), New("x", make([]byte, 16)), New("", key)} {
		if f.Err() == nil || f.Store("a", nil) == nil {
			t.Error("no error")
		}
		if _, err := f.Load("a"); err == nil {
			t.Error("no error")
		}
	}
	f := New(filepath.Join(t.TempDir(), "no", "such", "directory"), key)
	if f.Store("a", []byte("x")) == nil {
		t.Error("no directory is no error")
	}
	f = New(filepath.Join(t.TempDir(), "f"), key)
	if f.Store("a", make([]byte, maxFile)) == nil {
		t.Error("too large is no error")
	}
}

// FuzzLoad: what nobody sealed is never read.
func FuzzLoad(f *testing.F) {
	path := filepath.Join(f.TempDir(), "cache")
	if err := New(path, key).Store("a", []byte("x")); err != nil {
		f.Fatal(err)
	}
	good, _ := os.ReadFile(path)
	f.Add(good)
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "cache")
		os.WriteFile(path, data, 0o600)
		if got, err := New(path, key).Load("a"); err == nil && !bytes.Equal(data, good) {
			t.Errorf("read %q", got)
		}
	})
}
