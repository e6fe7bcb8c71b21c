//go:build linux && pcsc

package reader_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/internal/yubikey/softcard"
	"github.com/chancery-pki/chancery/internal/yubikey/softcard/reader"
)

// start runs a pcscd with some readers until the test ends.
func start(t *testing.T, readers int) *reader.Reader {
	t.Helper()
	dir, err := os.MkdirTemp("", "reader") // not t.TempDir: a socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r, err := reader.Start(dir, readers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func newCard(t *testing.T, serial uint32) *softcard.Card {
	t.Helper()
	c, err := softcard.New(softcard.Options{Serial: serial})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// status asks for the card in a reader, as a program of its own does.
func status(t *testing.T, r *reader.Reader, place int) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "yubico-piv-tool", "-r", fmt.Sprintf("#%d", place), "-a", "status")
	cmd.Env = append(os.Environ(), r.Env()...)
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatalf("%v: apt-get install yubico-piv-tool", err)
	}
	return string(out)
}

// Two of them run side by side, on the same ports, and each shows its cards
// only; cards go and come.
func TestReaders(t *testing.T) {
	a, b := start(t, 3), start(t, 1)
	cards := []*softcard.Card{newCard(t, 42), newCard(t, 43), newCard(t, 13371337)}
	for i, c := range cards {
		r, place := a, 2*i // 0 and 2
		if i == 2 {
			r, place = b, 0
		}
		if err := r.Insert(place, c); err != nil {
			t.Fatal(err)
		}
		if got, want := status(t, r, place), fmt.Sprintf("Serial Number:\t%d\n", c.Serial()); !strings.Contains(got, want) {
			t.Errorf("want %q:\n%s", want, got)
		}
	}
	if got := status(t, a, 1); strings.Contains(got, "Serial") {
		t.Errorf("a card in the empty reader:\n%s", got)
	}
	if err := a.Insert(0, newCard(t, 44)); err == nil {
		t.Error("two cards in one reader")
	}
	if err := a.Remove(0); err != nil {
		t.Fatal(err)
	}
	if got := status(t, a, 0); strings.Contains(got, "Serial") {
		t.Errorf("the card is still there:\n%s", got)
	}
	if err := a.Remove(0); err != nil {
		t.Errorf("removing nothing: %v", err)
	}
	if err := a.Insert(0, cards[2]); err == nil {
		if got := status(t, a, 0); !strings.Contains(got, "13371337") {
			t.Errorf("another card in the same reader:\n%s", got)
		}
	} else {
		t.Error(err)
	}
}

// vpcd listens on all addresses; none of them may be this machine's.
func TestIsolation(t *testing.T) {
	start(t, 1)
	conn, err := net.DialTimeout("tcp", "127.0.0.1:40000", time.Second)
	if err == nil {
		conn.Close()
		t.Error("vpcd can be reached from outside its namespace")
	}
}

func TestStartRefuses(t *testing.T) {
	for _, n := range []int{0, 9} {
		if r, err := reader.Start(t.TempDir(), n); err == nil {
			r.Close()
			t.Errorf("%d readers", n)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := reader.Start(file, 1); err == nil {
		r.Close()
		t.Error("a folder that is a file")
	}
}

// Close leaves nothing running.
func TestClose(t *testing.T) {
	dir := t.TempDir()
	if len(dir) > 80 {
		t.Fatalf("%s is too long for a socket", dir)
	}
	r, err := reader.Start(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Insert(0, newCard(t, 42)); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	out, err := exec.Command("ps", "-eo", "args").Output()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(out, []byte(dir)) {
		t.Errorf("still running:\n%s", out)
	}
}
