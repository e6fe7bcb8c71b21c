//go:build unix

package place_test

import "syscall"

func umask(mask int) int { return syscall.Umask(mask) }
