//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package main

import "errors"

// hideTyping fails: on this system a secret can only come from a file.
func hideTyping(int) (restore func(), err error) {
	return nil, errors.New("not on this system")
}
