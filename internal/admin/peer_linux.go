package admin

import "syscall"

// peer is the user of the process at the other end of a unix socket.
func peer(raw syscall.RawConn) (uid uint32, ok bool) {
	err := raw.Control(func(fd uintptr) {
		cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		if err == nil {
			uid, ok = cred.Uid, true
		}
	})
	return uid, ok && err == nil
}
