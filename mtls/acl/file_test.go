package acl_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-pki/chancery/mtls/acl"
)

// exactStamps is where all that a file's inode says is looked at, and nothing
// allocated for it (stat_linux.go).
const exactStamps = runtime.GOOS == "linux" && (runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64")

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace puts a file in place as the documentation asks.
func replace(t testing.TB, path, text string) {
	t.Helper()
	write(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// open opens a file with a first text; the logger writes to the buffer.
func open(t testing.TB, text string) (f *acl.File, path string, log *bytes.Buffer) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "rules.acl")
	write(t, path, text)
	log = new(bytes.Buffer)
	f, err := acl.Open(path, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return f, path, log
}

// wants checks whom a file lets in: of "ab", a and b.
func wants(t testing.TB, f *acl.File, who string) {
	t.Helper()
	for _, name := range []string{"a", "b", "c"} {
		want := strings.Contains(who, name)
		if err := f.Allow(peer(t, name)); (err == nil) != want {
			t.Errorf("%s connects: %v, want %v", name, err, want)
		}
		if err := f.AllowRequest(peer(t, name), acl.Request{Method: "GET", Path: "/"}); (err == nil) != want {
			t.Errorf("%s asks: %v, want %v", name, err, want)
		}
	}
}

// The very next decision sees a change, however it came about. Versions of
// one length follow each other faster than the times of files can tell, both
// soon after the change and long after.
func TestFileIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, path, _ := open(t, "allow a\n")
		for i := range 200 {
			wants(t, f, "a")
			if i%10 == 0 {
				time.Sleep(time.Second)
				wants(t, f, "a")
			}
			write(t, path, "allow b\n")
			wants(t, f, "b")
			replace(t, path, "allow c\n")
			wants(t, f, "c")
			write(t, path, "allow a\n")
		}
	})
}

// The time of the last writing can be set back, as rsync does; the time of
// the last change of anything can't.
func TestFileWithItsTimeSetBack(t *testing.T) {
	if !exactStamps {
		t.Skip("elsewhere the time of the last writing is all that is looked at")
	}
	synctest.Test(t, func(t *testing.T) {
		f, path, _ := open(t, "allow a\n")
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		wants(t, f, "a")
		write(t, path, "allow b\n")
		if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
		wants(t, f, "b")
	})
}

// As Kubernetes mounts a ConfigMap: a symbolic link is turned.
func TestFileBehindALink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for _, name := range []string{"a", "b"} {
			if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, name, "rules.acl"), "allow "+name+"\n")
		}
		turn := func(to string) {
			if err := errors.Join(os.Symlink(to, filepath.Join(dir, "new")), os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "data"))); err != nil {
				t.Fatal(err)
			}
		}
		turn("a")
		f, err := acl.Open(filepath.Join(dir, "data", "rules.acl"), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			wants(t, f, "a")
			time.Sleep(time.Second)
			turn("b")
			wants(t, f, "b")
			turn("a")
		}
	})
}

// A bad version is not obeyed and told once; the next good one is obeyed.
func TestBadVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, path, log := open(t, "allow a\n")
		for i, bad := range []struct{ text, want string }{
			{"allow a\nallow b..c\n", "rules.acl:2:7: "},
			{"", "rules.acl:1:1: the last line has no end"},
			{"allow a\ndeny b", "rules.acl:2:7: the last line has no end"},
			{"allow a\x00\n", "rules.acl:1:8: "},
			{strings.Repeat("\n", 4<<20+1), "longer than 4 MiB"},
			{"missing", "no such file"},
			{"directory", "not a regular file"},
		} {
			write(t, path, "allow a\n")
			wants(t, f, "a")
			log.Reset()
			switch bad.text {
			case "missing":
				os.Remove(path)
			case "directory":
				os.Remove(path)
				os.Mkdir(path, 0o700)
			default:
				write(t, path, bad.text)
			}
			for range 5 {
				wants(t, f, "a")
				time.Sleep(time.Duration(i%3) * 60 * time.Millisecond)
			}
			if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=ERROR") || !strings.Contains(got, bad.want) {
				t.Errorf("%.30q is logged as\n%s", bad.text, got)
			}
			if err := f.Err(); err == nil || !strings.Contains(err.Error(), bad.want) {
				t.Errorf("%.30q: %v", bad.text, err)
			}
			if got := acl.Explain(f, peer(t, "a"), acl.Request{}); !strings.Contains(got, "not obeyed: ") || !strings.Contains(got, "allowed by") {
				t.Errorf("%.30q: %s", bad.text, got)
			}
			os.Remove(path)
		}
		write(t, path, "allow b\nallow b\n")
		log.Reset()
		wants(t, f, "b")
		if err := f.Err(); err != nil || !strings.Contains(log.String(), "rules=2") || !strings.Contains(log.String(), "stands in line 1 already") {
			t.Errorf("%v, %s", err, log)
		}
		replace(t, path, "# nobody\n")
		wants(t, f, "")
	})
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rules.acl")
	if _, err := acl.Open(path, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	write(t, path, "allow a\nallow ..\n")
	var where *acl.ParseError
	if _, err := acl.Open(path, nil); !errors.As(err, &where) || where.Line != 2 || where.Name != path {
		t.Errorf("a wrong file: %v", err)
	}
	if _, err := acl.Open(dir, nil); err == nil {
		t.Error("a directory is opened")
	}
	if _, err := acl.Open("", nil); err == nil {
		t.Error("no name is opened")
	}
	if _, err := acl.Open(path+"\x00", nil); err == nil {
		t.Error("a name with a NUL is opened")
	}
	// Another working directory makes no other file of it.
	write(t, path, "allow a\n")
	t.Chdir(dir)
	f, err := acl.Open("rules.acl", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	wants(t, f, "a")
	if err := f.Err(); err != nil {
		t.Error(err)
	}
}

// Many decide while one writes: each sees a whole version, and whoever asks
// after a change sees that one or a later one.
func TestRaces(t *testing.T) {
	f, path, _ := open(t, "allow a\nallow v0\n")
	const versions = 300
	var done, deciders = make(chan struct{}), new(sync.WaitGroup)
	for range 4 {
		deciders.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				rules := f.Rules()
				if (rules.Allow(peer(t, "a")) == nil) == (rules.Allow(peer(t, "b")) == nil) {
					t.Error("a version that never was:\n" + rules.String())
					return
				}
				f.Err()
			}
		})
	}
	for i := range versions {
		name := []string{"a", "b"}[i%2]
		text := fmt.Sprintf("allow %s\nallow v%d\n", name, i)
		switch i % 3 {
		case 0:
			write(t, path, text)
		case 1:
			write(t, path, "allow "+name+"\nallow ") // half, then all
			f.Allow(peer(t, "a"))
			write(t, path, text)
		default:
			replace(t, path, text)
		}
		if err := f.Allow(peer(t, fmt.Sprintf("v%d", i))); err != nil {
			t.Errorf("version %d is not seen: %v", i, err)
			break
		}
	}
	close(done)
	deciders.Wait()
}
