package durability

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

func TestPowerCutSQLite(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		d := newDisk(w, w.Path("disk"), 64)
		s := newServer(w, filepath.Join(d.at, "ca"), "")
		d.sync()
		unpowered(w, s, 24, d.cut, d.repower)
		// What is in the database was folded back from the log under load.
		for _, name := range []string{"chancery.db", "chancery.db-wal"} {
			info, err := os.Stat(s.path(name))
			if err != nil {
				w.Fatal(err)
			}
			w.Logf("%s has %d KiB", name, info.Size()>>10)
		}
	})
}

// The database is what is on the disk here: the server keeps nothing of its
// own beside it.
func TestPowerCutPostgres(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		d := newDisk(w, w.Path("disk"), 256)
		pg := newPostgres(w, filepath.Join(d.at, "pg"))
		settings := []string{"max_wal_size=64MB", "min_wal_size=32MB", "log_min_messages=fatal"}
		pg.start(settings...)
		s := newServer(w, w.Path("ca"), pg.dsn())
		d.sync()
		unpowered(w, s, 8, d.cut, func() {
			pg.kill()
			d.repower()
			pg.start(settings...)
		})
	})
}

// unpowered cuts the power under load, again and again, and looks each time
// whether what the server had answered is still there. The server itself runs
// a moment longer, as one whose disk fails does: it may say that it can't
// serve, and may not say that something is done which isn't.
func unpowered(w *harness.World, s *server, times int, cut, repower func()) {
	rng, seed := seeded(w)
	l := newLoad(w, s)
	l.tolerate = func(p *acme.Problem) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.down && p.Type == acme.ErrServerInternal
	}
	l.start(6, seed)
	s.start()
	for range times {
		l.resume()
		l.moment(rng)
		l.losing()
		cut()
		time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
		s.kill()
		l.settle()
		repower()
		s.start()
		l.verify(false)
		if w.Failed() {
			break
		}
	}
	l.finish()
	l.compare()
	w.Logf("%d accounts, %d orders", len(l.accounts), len(l.orders))
}

// What init has made is on the disk when it returns: the keys of a CA whose
// root is trusted by then can't be made again.
func TestPowerCutAfterInit(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		d := newDisk(w, w.Path("disk"), 64)
		d.sync()
		for range 3 {
			dir := filepath.Join(d.at, "ca"+rand.Text())
			run(w, program("chanceryd"), "init", dir, "--name", "Test", "--dns", "ca.test.internal")
			d.cut()
			made := files(w, dir)
			d.repower()
			left := files(w, dir)
			for name, text := range made {
				if left[name] != text {
					w.Errorf("%s had %d bytes before the power cut, and has %d", name, len(text), len(left[name]))
				}
			}
			if len(made) < 5 {
				w.Errorf("init made %d files", len(made))
			}
		}
	})
}

// files reads all files below a folder.
func files(w *harness.World, dir string) map[string]string {
	w.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.Fatal(err)
	}
	return all
}
