package cluster

import (
	"testing"

	"golang.org/x/sys/unix"
)

// reservePort finds a free TCP port of 127.0.0.1 and keeps it for this test: the
// socket that is bound to it here never listens, and shares the port
// (SO_REUSEPORT) with the API server only, which is told to share likewise. So
// nobody else gets the port before the API server has it, or while a test has
// the API server down.
func reservePort(t testing.TB) int {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(s) })
	if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(s, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(s)
	if err != nil {
		t.Fatal(err)
	}
	return name.(*unix.SockaddrInet4).Port
}
