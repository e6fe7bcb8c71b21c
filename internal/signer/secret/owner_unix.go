//go:build unix

package secret

import (
	"os"
	"syscall"
)

// modesTell says that a file's mode tells who may read it.
const modesTell = true

// roots reports whether the file belongs to root.
func roots(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == 0
}
