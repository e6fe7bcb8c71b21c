package reader

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace, and the one thread that is in it: the
// thread must live as long as pcscd, whose death signal is bound to it.
type namespace struct {
	work chan func()
}

// newNamespace makes a network namespace with loopback up.
func newNamespace() (*namespace, error) {
	s := &namespace{work: make(chan func())}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = loopbackUp()
		}
		made <- err
		for f := range s.work {
			f()
		}
	}()
	if err := <-made; err != nil {
		close(s.work)
		return nil, err
	}
	return s, nil
}

// do runs f on the namespace's thread.
func (s *namespace) do(f func() error) error {
	done := make(chan error)
	s.work <- func() { done <- f() }
	return <-done
}

// close ends the thread; the namespace ends with the last process in it.
func (s *namespace) close() error {
	close(s.work)
	return nil
}

// dial connects to a port of the namespace. The connection may be used
// anywhere.
func (s *namespace) dial(port int) (*net.TCPConn, error) {
	var conn net.Conn
	err := s.do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "vpcd")
		defer f.Close()
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return fmt.Errorf("connecting to vpcd: %w", err)
		}
		conn, err = net.FileConn(f)
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// listens reports whether somebody listens on a port: asking by a connection
// would be a card.
func (s *namespace) listens(port int) (bool, error) {
	found := false
	err := s.do(func() error {
		f, err := os.Open("/proc/thread-self/net/tcp")
		if err != nil {
			return err
		}
		defer f.Close()
		// "  0: 00000000:9C40 00000000:0000 0A …": local, remote, state LISTEN.
		want := fmt.Sprintf("00000000:%04X 00000000:0000 0A", port)
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			found = found || strings.Contains(lines.Text(), want)
		}
		return lines.Err()
	})
	return found, err
}

// loopbackUp brings up lo, which a new network namespace has down.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r); err != nil {
		return errors.Join(errors.New("bringing lo up"), err)
	}
	return nil
}
