//go:build unix

package acl_test

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/chancery-pki/chancery/mtls/acl"
)

// A named pipe without a writer would block whoever opens it.
func TestNamedPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := acl.Open(path, nil); err == nil {
		t.Error("a named pipe is opened")
	}
}
