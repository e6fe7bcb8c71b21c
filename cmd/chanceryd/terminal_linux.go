package main

import "golang.org/x/sys/unix"

// The calls that read and write a terminal's settings (ioctl_tty(2)).
const (
	readTermios  = unix.TCGETS
	writeTermios = unix.TCSETS
)
