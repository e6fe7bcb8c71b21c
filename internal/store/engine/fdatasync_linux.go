package engine

import (
	"os"
	"syscall"
)

// fdatasync brings a file's content to the disk, and of the rest only what is
// needed to find it.
func fdatasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return err
		}
	}
}
