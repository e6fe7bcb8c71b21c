package pin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pty returns both ends of a new terminal.
func pty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// echo waits until the terminal shows what is typed, or doesn't.
func echo(t *testing.T, slave *os.File, want bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		if (s.Lflag&unix.ECHO != 0) == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("echo isn't %v", want)
		}
	}
}

// What is typed isn't shown, and the terminal is as before, also where nobody
// types anything.
func TestTyped(t *testing.T) {
	master, slave := pty(t)
	type answer struct {
		pin []byte
		err error
	}
	got := make(chan answer, 1)
	ask := func(ctx context.Context) {
		pin, err := typed(ctx, slave, slave, "PIN of YubiKey 1001")
		got <- answer{pin, err}
	}
	go ask(t.Context())
	echo(t, slave, false)
	if _, err := master.WriteString("123456\n"); err != nil {
		t.Fatal(err)
	}
	if a := <-got; a.err != nil || string(a.pin) != "123456" {
		t.Fatalf("%q, %v", a.pin, a.err)
	}
	echo(t, slave, true)
	shown := make([]byte, 1024)
	n, err := master.Read(shown)
	if text := string(shown[:n]); err != nil || !strings.HasPrefix(text, "PIN of YubiKey 1001: ") || strings.Contains(text, "123456") {
		t.Errorf("%q, %v", text, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go ask(ctx)
	echo(t, slave, false)
	cancel()
	if a := <-got; !errors.Is(a.err, context.Canceled) {
		t.Errorf("%q, %v", a.pin, a.err)
	}
	echo(t, slave, true)
	if _, err := master.WriteString("\n"); err != nil { // ends the reader that was left
		t.Fatal(err)
	}
}
