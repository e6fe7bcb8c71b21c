package setup_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chancery-pki/chancery/internal/config"
	"github.com/chancery-pki/chancery/internal/setup"
)

// quiet is a demo that ends by itself.
func quiet(dir string, out io.Writer) setup.Demo {
	return setup.Demo{Dir: dir, Listen: "127.0.0.1:0", Once: true, Out: out, Logger: slog.New(slog.DiscardHandler), HTTPPort: freePort(), TLSPort: freePort()}
}

func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// The demo's transcript: certificates for both, mutual TLS, and two refusals.
func TestDemoOnce(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	if err := quiet(dir, &out).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`a server, web.demo.internal .* ms   6 POSTs, good for 24h, by "Demo Server CA"`,
		`a client, batch.demo.internal .* ms   6 POSTs, good for 24h, by "Demo Client CA"`,
		`batch.demo.internal calls .* 200 "hello batch.demo.internal"`,
		`somebody without a certificate calls .* refused: certificate required`,
		`intruder.demo.internal calls .* refused: bad certificate`,
	} {
		if !regexp.MustCompile(want).Match(out.Bytes()) {
			t.Errorf("the transcript lacks %q", want)
		}
	}
	if strings.Contains(out.String(), "Ctrl-C") {
		t.Error("it speaks of staying up")
	}
	root, err := os.ReadFile(filepath.Join(dir, "root", "root.pem"))
	if err != nil {
		t.Fatal(err)
	}

	// Again in the same folder: the same CA goes on, under other ports.
	if err := quiet(dir, io.Discard).Run(t.Context()); err != nil {
		t.Fatal("again:", err)
	}
	if again, _ := os.ReadFile(filepath.Join(dir, "root", "root.pem")); !bytes.Equal(root, again) {
		t.Error("another root")
	}
	d := startDemo(t, func(d *setup.Demo) { d.Dir = dir })
	d.issue(t, "a.demo.internal")
}

// Without --once it stays, tells what to try, and ends at Ctrl-C.
func TestDemoStays(t *testing.T) {
	t.Parallel()
	read, write := io.Pipe()
	d := quiet(t.TempDir(), write)
	d.Once = false
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx); write.Close() }()
	var said []byte
	for buf := make([]byte, 4096); !bytes.Contains(said, []byte("metrics   curl")); {
		n, err := read.Read(buf)
		if err != nil {
			t.Fatal(err, string(said))
		}
		said = append(said, buf[:n]...)
	}
	cancel()
	go io.Copy(io.Discard, read)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, want := range []string{"certbot", "--http-01-port ", "lego", "acme_ca_root", "curl --cacert", "chancery admin --socket"} {
		if !strings.Contains(string(said), want) {
			t.Errorf("nothing is said of %q", want)
		}
	}
}

// --json prints one line, and nothing else.
func TestDemoJSON(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := quiet(t.TempDir(), &out)
	d.JSON = true
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^\{"directories":\{"clients":"https://127\.0\.0\.1:\d+/acme/clients/directory","servers":"https://[^"]+/directory","workloads":"https://[^"]+/directory"\},"root":"[^"]+/root\.pem","admin":"[^"]+/admin\.sock","metrics":"http://[^"]+/metrics","env":"[^"]+/env","pid":\d+\}\n$`)
	if !line.Match(out.Bytes()) {
		t.Errorf("%s", out.String())
	}
}

// What the library's examples are started with.
func TestDemoEnv(t *testing.T) {
	t.Parallel()
	d := quiet(t.TempDir(), io.Discard)
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile(filepath.Join(d.Dir, "env"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`export CHANCERY_DIRECTORY='https://127\.0\.0\.1:\d+/acme/workloads/directory'`, `export CHANCERY_ROOTS='.*/roots\.pem'`,
		`export DEMO_LISTEN='127\.0\.0\.1:\d+'`, `export DEMO_EAB='.*/outside\.eab'`,
	} {
		if !regexp.MustCompile("(?m)^" + want + "$").Match(env) {
			t.Errorf("env lacks %s: %s", want, env)
		}
	}
	eab, err := os.ReadFile(filepath.Join(d.Dir, "outside.eab"))
	if err != nil || !regexp.MustCompile(`^\S+ [A-Za-z0-9_-]{40,}\n$`).Match(eab) {
		t.Errorf("%s, %v", eab, err)
	}
}

func TestDemoMistakes(t *testing.T) {
	t.Parallel()
	d := quiet(t.TempDir(), io.Discard)
	d.Listen = "nonsense"
	if err := d.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Error(err)
	}
	d = quiet(t.TempDir(), io.Discard)
	d.Allow = []string{"nonsense"}
	if err := d.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Error(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d = quiet(t.TempDir(), io.Discard)
	d.Listen = l.Addr().String()
	if err := d.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Error(err)
	}
}

// load reads the configuration that the demo wrote.
func load(t *testing.T, dir string) *config.Config {
	t.Helper()
	c, err := config.Load(filepath.Join(dir, "chancery.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Not in parallel, as TestDemoOnce: a child that another test starts holds the
// database's lock for a moment longer than we do.
//
// A backup made while the server runs, restored: what was issued since is
// reported, what was known then is known again.
func TestBackupAndRestore(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "backup")
	d := startDemo(t, func(d *setup.Demo) { d.Dir = dir })
	known := d.issue(t, "known.demo.internal")
	c := load(t, dir)
	size, err := setup.Backup(t.Context(), c, file)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Size() != size || info.Mode() != 0o600 {
		t.Errorf("%d bytes, mode %v, %v", size, info.Mode(), err)
	}
	if _, err := setup.Backup(t.Context(), c, file); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a file that is there: %v", err)
	}
	lost := d.issue(t, "lost.demo.internal")
	if _, err := setup.Restore(t.Context(), c, file); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("under a running server: %v", err)
	}
	d.stop()

	offline := filepath.Join(dir, "offline")
	if _, err := setup.Backup(t.Context(), c, offline); err != nil {
		t.Error("without a server:", err)
	}
	report, err := setup.Restore(t.Context(), c, file)
	if err != nil {
		t.Fatal(err)
	}
	serials := map[string]bool{}
	for _, m := range report.Missing {
		serials[strings.TrimLeft(string(m.Serial), "0")] = true
	}
	if !serials[lost.SerialNumber.Text(16)] || serials[known.SerialNumber.Text(16)] || !report.Known {
		t.Errorf("%+v", report)
	}
	var said bytes.Buffer
	report.Print(&said)
	if !strings.Contains(said.String(), "lost.demo.internal") || !strings.Contains(said.String(), report.MovedAside) || strings.Contains(said.String(), "known.demo") {
		t.Errorf("%s", said.String())
	}

	// A file that is no backup, or one that was cut off, changes nothing.
	whole, err := os.ReadFile(offline)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, []byte("hello\n"), whole[:len(whole)/2]} {
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := setup.Restore(t.Context(), c, file); err == nil || !strings.Contains(err.Error(), "restore") {
			t.Errorf("%d bytes were taken: %v", len(bad), err)
		}
	}
	if _, err := setup.Restore(t.Context(), c, filepath.Join(dir, "gone")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	// The CA goes on with what was restored, and the backup of all else.
	d = startDemo(t, func(d *setup.Demo) { d.Dir = dir })
	d.issue(t, "after.demo.internal")
	d.stop()
	if report, err = setup.Restore(t.Context(), c, offline); err != nil {
		t.Fatal(err)
	}
	said.Reset()
	report.Print(&said)
	if !strings.Contains(said.String(), "after.demo.internal") || strings.Contains(said.String(), "lost.demo") {
		t.Errorf("%s", said.String())
	}
	// Into a folder that has no database there is nothing to compare with.
	if err := os.Remove(filepath.Join(dir, "chancery.db")); err != nil {
		t.Fatal(err)
	}
	if report, err = setup.Restore(t.Context(), c, offline); err != nil || report.Known {
		t.Fatalf("%+v, %v", report, err)
	}
	said.Reset()
	if report.Print(&said); !strings.Contains(said.String(), "not known here") {
		t.Errorf("%s", said.String())
	}
}
