//go:build unix

package sshhost

import (
	"fmt"
	"io/fs"
	"syscall"
)

// fileID tells a file from the one that took its name.
func fileID(info fs.FileInfo) string {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "-"
	}
	return fmt.Sprintf("%d:%d", s.Dev, s.Ino)
}
