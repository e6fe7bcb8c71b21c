//go:build unix

package place

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// ours refuses a folder of somebody else, or one that others can write to.
func ours(dir string, info fs.FileInfo) error {
	if s, ok := info.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d: no key is put there", dir, s.Uid)
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("others can write to %s (mode %#o): no key is put there; chmod go-w %s", dir, perm, dir)
	}
	return nil
}
