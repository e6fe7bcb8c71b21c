package durability

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// patience is how long any request may take while the database is away: the
// clients have to hear that they should come back.
const patience = 10 * time.Second

// ailing is a load on a server that can't keep its records at times. What it
// is told then must be a problem of type serverInternal with a Retry-After.
type ailing struct {
	*load
	refusals atomic.Int64
	slowest  atomic.Int64 // request, in nanoseconds
}

func newAiling(w *harness.World, s *server) *ailing {
	a := &ailing{load: newLoad(w, s)}
	a.tolerate = func(p *acme.Problem) bool {
		if p.Type != acme.ErrServerInternal || p.Status != http.StatusServiceUnavailable || p.RetryAfter <= 0 {
			return false
		}
		a.refusals.Add(1)
		return true
	}
	a.http = func() *http.Client {
		c := s.client("")
		c.Transport = timed{c.Transport, &a.slowest}
		return c
	}
	return a
}

// timed keeps the time of the slowest request.
type timed struct {
	http.RoundTripper
	slowest *atomic.Int64
}

func (t timed) RoundTrip(r *http.Request) (*http.Response, error) {
	begun := time.Now()
	res, err := t.RoundTripper.RoundTrip(r)
	for took := int64(time.Since(begun)); ; {
		was := t.slowest.Load()
		if took <= was || t.slowest.CompareAndSwap(was, took) {
			return res, err
		}
	}
}

// suffers lets the load run while the database is away, and checks that the
// clients were told so, in time.
func (a *ailing) suffers(what string, d time.Duration) {
	a.w.Helper()
	before := a.refusals.Load()
	time.Sleep(d)
	if a.s.ended() {
		a.w.Fatalf("%s: the server ended: %v\n%s", what, a.s.err, a.s.output())
	}
	if a.refusals.Load() == before {
		a.w.Errorf("%s: nobody was refused in %v", what, d)
	}
}

// end finishes the load and compares.
func (a *ailing) end() {
	a.w.Helper()
	a.finish()
	if slowest := time.Duration(a.slowest.Load()); slowest > patience {
		a.w.Errorf("a request took %v, more than %v", slowest, patience)
	}
	a.w.Logf("%d orders, %d requests refused, the slowest request took %v", len(a.orders), a.refusals.Load(), time.Duration(a.slowest.Load()))
}

func TestDiskFull(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Names()
		d := newDisk(w, w.Path("disk"), 32)
		s := newServer(w, filepath.Join(d.at, "ca"), "")
		s.start()
		a := newAiling(w, s)
		a.start(4, 1)
		a.resume()
		for range 2 {
			time.Sleep(500 * time.Millisecond)
			ballast := filepath.Join(d.at, "ballast")
			fill(w, ballast)
			a.suffers("with a full disk", 2*time.Second)
			// What was answered before can be read all the same.
			a.settle()
			a.verify(true)
			a.resume()
			if err := os.Remove(ballast); err != nil {
				w.Fatal(err)
			}
			until(w, 15*time.Second, "the server recovers", a.works)
		}
		a.end()
		a.compare()
	})
}

// works tries to make an account.
func (a *ailing) works() bool {
	c := &acme.Client{DirectoryURL: a.s.directory("servers"), HTTPClient: a.s.client(""), Key: newKey(a.w)}
	_, err := c.Register(a.w.Context(), acme.Registration{TermsAgreed: true})
	if err == nil {
		return true
	}
	if p, ok := errors.AsType[*acme.Problem](err); !ok || !a.tolerate(p) {
		a.w.Errorf("while it recovers: %v", err)
	}
	return false
}

// fill writes to a file until the file system has no room left.
func fill(w *harness.World, file string) {
	w.Helper()
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		w.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			w.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.ENOSPC) { // what was only promised room is given it
		w.Fatal(err)
	}
}

func TestDatabaseAway(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		pg := newPostgres(w, w.Path("pg"))
		pg.start()
		s := newServer(w, w.Path("ca"), pg.dsn())
		s.start()
		a := newAiling(w, s)
		a.start(4, 1)
		a.resume()
		for _, end := range []func(){pg.stop, pg.kill} {
			time.Sleep(time.Second)
			end()
			a.suffers("without PostgreSQL", 2*time.Second)
			if !strings.Contains(health(w, s), "503") {
				w.Errorf("health says %s", health(w, s))
			}
			pg.start()
			until(w, 15*time.Second, "the server recovers", a.works)
		}
		a.end()
		a.compare()
	})
}

// health is what the health check answers.
func health(w *harness.World, s *server) string {
	w.Helper()
	c := &http.Client{Timeout: requestLimit}
	res, err := c.Get("http://" + s.metrics() + "/healthz")
	if err != nil {
		w.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.Fatal(err)
	}
	return res.Status + ": " + string(b)
}

// A PostgreSQL that says "committed" before it is on disk is refused.
func TestUnsafeSync(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Names()
		pg := newPostgres(w, w.Path("pg"))
		pg.start()
		s := newServer(w, w.Path("ca"), pg.dsn())
		safe := w.Read(s.config())
		for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
			pg.stop()
			pg.start(setting + "=off")
			if err := os.WriteFile(s.config(), []byte(safe), 0o600); err != nil {
				w.Fatal(err)
			}
			said := w.Cmd(program("chanceryd"), "serve", s.config()).Fails()
			if !strings.Contains(said, setting+" is off") || !strings.Contains(said, "unsafe_sync") {
				w.Errorf("with %s=off: %s", setting, said)
			}
			s.edit("database:", "database:\n  allow_unsafe_sync: true")
			s.start()
			s.stop()
		}
	})
}
