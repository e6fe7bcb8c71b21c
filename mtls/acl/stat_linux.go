//go:build linux && (amd64 || arm64)

package acl

import (
	"runtime"
	"syscall"
	"unsafe"
)

// stamp is what a file's directory entry and inode say. Two stamps are equal
// if the file is the same and nothing was written to it in between. The time
// of the last status change is among it because nobody can set that one back.
type stamp struct {
	device, inode    uint64
	size             int64
	written, changed syscall.Timespec
	failed           syscall.Errno // there is no file, or nobody may look
}

// statter looks at one path without allocating; syscall.Stat would make a new
// C string of the path every time.
type statter struct{ path []byte } // with its NUL

func newStatter(path string) statter { return statter{append([]byte(path), 0)} }

func (s statter) stamp() stamp {
	number := uintptr(262) // newfstatat(2) on amd64
	if runtime.GOARCH == "arm64" {
		number = 79
	}
	atCWD := -100 // AT_FDCWD; the path is absolute, so that it says nothing
	var st syscall.Stat_t
	for {
		_, _, failed := syscall.Syscall6(number, uintptr(atCWD), uintptr(unsafe.Pointer(&s.path[0])), uintptr(unsafe.Pointer(&st)), 0, 0, 0)
		switch failed {
		case 0:
			return stamp{device: st.Dev, inode: st.Ino, size: st.Size, written: st.Mtim, changed: st.Ctim}
		case syscall.EINTR:
			continue
		}
		return stamp{failed: failed}
	}
}
