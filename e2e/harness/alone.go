package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// aloneEnv names the one test that a re-executed test binary is to run.
const aloneEnv = "E2E_ALONE"

// scratch is where every test has a file system in memory.
const scratch = "/tmp"

// slots bounds the tests that run at one time: the suite's target machine has
// two cores, and clients that are starved of CPU hit their own timeouts.
var slots = make(chan struct{}, 2)

// Main is the TestMain of the suite. In the outer process it builds the server
// under test; in the inner one, which Alone started, it furnishes the
// namespaces.
func Main(m *testing.M) {
	log.SetFlags(0)
	var err error
	if os.Getenv(aloneEnv) == "" {
		err = prepare()
	} else {
		err = furnish()
	}
	if err != nil {
		log.Fatalf("e2e: %v", err)
	}
	os.Exit(m.Run())
}

// prepare checks the machine and builds the server, before any test runs.
func prepare() error {
	if os.Geteuid() != 0 {
		return errors.New("the suite makes network and mount namespaces: run it as root")
	}
	return buildServer()
}

// World is what one test has to itself.
type World struct {
	*testing.T
	// Dir is an empty scratch folder in memory, gone when the test ends.
	Dir string

	bin string
}

// Alone runs f, the body of test t, in namespaces of its own, at most limit
// long. It starts this test binary again for that one test, shows what it
// printed, and fails as it fails. It must be the only statement of the test.
func Alone(t *testing.T, limit time.Duration, f func(w *World)) {
	t.Helper()
	if os.Getenv(aloneEnv) == t.Name() {
		bin, err := filepath.Abs("bin")
		if err != nil {
			t.Fatal(err)
		}
		f(&World{T: t, Dir: newDir(t), bin: bin})
		return
	}
	if os.Getenv(aloneEnv) != "" {
		t.Skip("another test runs in these namespaces")
	}
	t.Parallel()
	slots <- struct{}{}
	defer func() { <-slots }()

	// The inner process ends itself at limit, with a dump of its goroutines;
	// the outer one kills it, and with it its whole process namespace, only
	// when that fails.
	ctx, cancel := context.WithTimeout(t.Context(), limit+10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.v", "-test.run="+selection(t.Name()), "-test.timeout="+limit.String())
	cmd.Env = append(os.Environ(), aloneEnv+"="+t.Name(), "TMPDIR="+scratch, "HOME="+scratch)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// The death signal is bound to the thread that started the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	t.Logf("\n%s", out.Bytes())
	switch {
	case err != nil:
		t.Errorf("in its own namespaces: %v", err)
	case Pebble && bytes.Contains(out.Bytes(), []byte("--- SKIP: "+t.Name()+" ")):
		t.Skip("not for Pebble")
	case !bytes.Contains(out.Bytes(), []byte("--- PASS: "+t.Name()+" ")):
		t.Error("the inner process did not run the test")
	}
}

// selection is the -test.run pattern for the named test that keeps the
// subtests the caller asked for: all of them where he asked for alternatives.
func selection(name string) string {
	for _, a := range os.Args {
		if pattern, ok := strings.CutPrefix(a, "-test.run="); ok && !strings.Contains(pattern, "|") {
			if _, sub, ok := strings.Cut(pattern, "/"); ok {
				return "^" + name + "$/" + sub
			}
		}
	}
	return "^" + name + "$"
}

// furnish makes the new namespaces a machine of their own: loopback up, names
// asked of 127.0.0.1, an empty trust store, scratch files in memory, and the
// rest of the file system read-only.
func furnish() error {
	if err := loopbackUp(); err != nil {
		return err
	}
	names, err := filepath.EvalSymlinks("/etc/resolv.conf") // often one into /run
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	// What a client wants to leave on the machine, it can't.
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("making / read-only: %w", err)
	}
	if err := mountEmpty(); err != nil {
		return err
	}
	return errors.Join(cover(names, "nameserver 127.0.0.1\n"), cover("/etc/hosts", "127.0.0.1 localhost\n"))
}

// mountEmpty mounts a /proc of the new process namespace, and empty folders in
// memory, and keeps the working tree in sight if it is below one of these.
func mountEmpty() error {
	tree, err := moduleFolder()
	if err != nil {
		return err
	}
	open, err := os.Open(tree)
	if err != nil {
		return err
	}
	defer open.Close()
	mounts := []struct{ fstype, dir, data string }{
		{"proc", "/proc", ""},
		{"tmpfs", scratch, "mode=1777"},
		{"tmpfs", "/run", "mode=755"},
		{"tmpfs", systemCerts, "mode=755"},
	}
	for _, m := range mounts {
		if err := unix.Mount(m.fstype, m.dir, m.fstype, 0, m.data); err != nil {
			return fmt.Errorf("mounting %s: %w", m.dir, err)
		}
	}
	if !strings.HasPrefix(tree, scratch+"/") {
		return nil
	}
	if err := os.MkdirAll(tree, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(int(open.Fd())), tree, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", tree, err)
	}
	return nil
}

// moduleFolder is where this module lies, with its bin and all packages; tests
// run in a folder of it.
func moduleFolder() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working folder")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}

// cover mounts a file of the given text over another.
func cover(name, text string) error {
	ours := filepath.Join(scratch, "etc-"+filepath.Base(name))
	if err := os.WriteFile(ours, []byte(text), 0o644); err != nil {
		return err
	}
	if strings.HasPrefix(name, "/run/") { // which is empty now
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		return os.WriteFile(name, []byte(text), 0o644)
	}
	if err := unix.Mount(ours, name, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", name, err)
	}
	return nil
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
		return fmt.Errorf("bringing lo up: %w", err)
	}
	return nil
}

// Sub runs f as a subtest in a folder of its own below the same world.
func (w *World) Sub(name string, f func(w *World)) {
	w.Helper()
	w.T.Run(name, func(t *testing.T) {
		f(&World{T: t, Dir: newDir(t), bin: w.bin})
	})
}

// newDir makes a folder with a short and plain name, which t.TempDir doesn't:
// socket paths are bounded, and not every client quotes what it is given.
func newDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Path is a path below the scratch folder.
func (w *World) Path(elem ...string) string {
	return filepath.Join(append([]string{w.Dir}, elem...)...)
}

// Mkdir makes a folder below the scratch folder and returns its path.
func (w *World) Mkdir(elem ...string) string {
	w.Helper()
	dir := w.Path(elem...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.Fatal(err)
	}
	return dir
}

// Write puts a file below the scratch folder and returns its path. A text that
// starts with "#!" becomes executable.
func (w *World) Write(name, text string) string {
	w.Helper()
	file := w.Path(name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		w.Fatal(err)
	}
	mode := os.FileMode(0o644)
	if strings.HasPrefix(text, "#!") {
		mode = 0o755
	}
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		w.Fatal(err)
	}
	return file
}

// Read returns a file's text; the test ends where there is none.
func (w *World) Read(file string) string {
	w.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		w.Fatal(err)
	}
	return string(b)
}

// Resolve follows symbolic links.
func (w *World) Resolve(file string) string {
	w.Helper()
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		w.Fatal(err)
	}
	return real
}

// Glob returns the one file that matches the pattern.
func (w *World) Glob(pattern string) string {
	w.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		w.Fatalf("%s: %d files match, want 1 (%v): %q", pattern, len(found), err, found)
	}
	return found[0]
}

// Tool is the path of a program that e2e/install built into bin.
func (w *World) Tool(name string) string {
	w.Helper()
	file := filepath.Join(w.bin, name)
	if _, err := os.Stat(file); err != nil {
		w.Fatalf("%v: run e2e/install", err)
	}
	return file
}

// Testdata is the path of a file of testdata.
func (w *World) Testdata(name string) string {
	w.Helper()
	file, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		w.Fatal(err)
	}
	return file
}
