//go:build darwin || freebsd || netbsd || openbsd

package main

import "golang.org/x/sys/unix"

// The calls that read and write a terminal's settings (termios(4)).
const (
	readTermios  = unix.TIOCGETA
	writeTermios = unix.TIOCSETA
)
