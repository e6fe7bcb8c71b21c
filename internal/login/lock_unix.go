//go:build unix

package login

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFile locks a file for as long as it is open, or fails where another has it.
func lockFile(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
