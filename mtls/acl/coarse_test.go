package acl

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// coarse opens a file whose stamp changes only when the test says so, as on
// file systems with coarse times.
func coarse(t *testing.T, text string) (f *File, write func(string), stamped *stamp) {
	path := filepath.Join(t.TempDir(), "rules.acl")
	write = func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(text)
	f, err := Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	stamped = &stamp{size: 1}
	f.stamp = func() stamp { return *stamped }
	return f, write, stamped
}

func (f *File) letsIn(name string) bool { return f.Allow(&Peer{DNSNames: []string{name}}) == nil }

// Changes that the stamp doesn't show are seen while they can be, and the
// file is let be afterwards.
func TestCoarseTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, write, stamped := coarse(t, "allow a\n")
		for i, name := range []string{"a", "b", "c", "d"} {
			write("allow " + name + "\n")
			if in, again := f.letsIn(name), f.letsIn(name); !in || !again {
				t.Errorf("version %d, in the same tick of the clock, is not seen", i)
			}
			time.Sleep(settling - time.Millisecond)
		}
		write("allow e\n") // the last that the stamp may hide; nobody asks until it is old
		time.Sleep(time.Hour)
		if !f.letsIn("e") {
			t.Error("the last version of a tick is not seen, because nobody had asked for long")
		}
		time.Sleep(settling)
		if !f.letsIn("e") || !f.current.Load().settled {
			t.Error("the file never settles")
		}
		write("allow f\n")
		if !f.letsIn("e") {
			t.Error("a settled file is read though its stamp is the same: slow")
		}
		stamped.size++
		if !f.letsIn("f") || f.current.Load().settled {
			t.Error("a new stamp is not seen, or settles at once")
		}
		write("bad..\n")
		if !f.letsIn("f") || f.Err() == nil {
			t.Error("a bad version in the same tick is obeyed or not told of")
		}
		time.Sleep(settling)
		if !f.letsIn("f") || !f.current.Load().settled || f.Err() == nil {
			t.Error("a bad version doesn't settle")
		}
	})
}

// A file that changes while it is read is not obeyed, but looked at again.
func TestChangedWhileRead(t *testing.T) {
	f, write, stamped := coarse(t, "allow a\ndeny b\n")
	f.letsIn("a")
	stamped.size++
	write("allow b\n") // its second half would take that back
	writing := true
	f.stamp = func() stamp {
		if writing {
			stamped.size++
		}
		return *stamped
	}
	for range 3 {
		if !f.letsIn("a") || f.letsIn("b") {
			t.Error("half a file is obeyed")
		}
	}
	writing = false
	if !f.letsIn("b") {
		t.Error("the whole file is not obeyed")
	}
}
