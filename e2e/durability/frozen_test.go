package durability

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// A PostgreSQL that takes requests and doesn't answer, as behind a dead
// network: clients are told so in bounded time, and it recovers by itself.
func TestDatabaseFrozen(t *testing.T) {
	harness.Alone(t, 2*time.Minute, func(w *harness.World) {
		w.Names()
		pg := newPostgres(w, w.Path("pg"))
		pg.start()
		s := newServer(w, w.Path("ca"), pg.dsn())
		s.start()
		r := w.Responder()
		h := s.client("")
		h.Timeout = 0 // its own limit is what is looked for
		h.Transport.(*http.Transport).ResponseHeaderTimeout = 90 * time.Second
		c := s.register(h, "servers", nil)
		obtain(w, c, r, "before.load.test")
		// Connections to spare: each of them may be tried, and is dead.
		var many sync.WaitGroup
		for i := range 16 {
			many.Go(func() { newOrder(w, through(c, h), fmt.Sprintf("many%d.load.test", i)) })
		}
		many.Wait()
		o := newOrder(w, c, "frozen.load.test")
		ch := challenge(w, c, r, o.Authorizations[0])

		// It freezes while requests are under way (their validations take a
		// while), and before others come.
		var family []int
		r.Slow(func() { time.Sleep(300 * time.Millisecond) })
		asks := map[string]func() error{
			"a request under way": func() error {
				_, err := c.Accept(w.Context(), ch, nil)
				return err
			},
			"a new request": func() error {
				time.Sleep(200 * time.Millisecond)
				_, err := through(c, h).NewOrder(w.Context(), acme.OrderRequest{Identifiers: acme.Identifiers("new.load.test")})
				return err
			},
		}
		var answered sync.WaitGroup
		for what, ask := range asks {
			answered.Go(func() {
				begun := time.Now()
				err := ask()
				w.Logf("%s: %v after %v", what, err, time.Since(begun))
				if p, ok := errors.AsType[*acme.Problem](err); !ok || p.Type != acme.ErrServerInternal || p.RetryAfter <= 0 {
					w.Errorf("%s: %v, want serverInternal with Retry-After", what, err)
				}
				if took := time.Since(begun); took > frozenLimit {
					w.Errorf("%s took %v, more than %v", what, took, frozenLimit)
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		family = pg.family()
		for _, pid := range family {
			_ = syscall.Kill(pid, syscall.SIGSTOP)
		}
		answered.Wait()
		for _, pid := range family {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
		r.Slow(nil)
		until(w, 15*time.Second, "the server recovers", func() bool {
			_, err := c.Account(w.Context())
			return err == nil
		})
		obtain(w, c, r, "after.load.test")
	})
}

// frozenLimit is how long the server may bear with a silent database, and room
// for a busy machine.
const frozenLimit = 25 * time.Second

// family is the postmaster and its children.
func (p *postgres) family() []int {
	p.w.Helper()
	all := []int{p.cmd.Process.Pid}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		p.w.Fatal(err)
	}
	for _, e := range entries {
		var pid, parent int
		if _, err := fmt.Sscan(e.Name(), &pid); err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// The name in parentheses may have spaces; then state and parent.
		_, after, _ := strings.Cut(string(stat), ") ")
		var state string
		if _, err := fmt.Sscan(after, &state, &parent); err == nil && parent == p.cmd.Process.Pid {
			all = append(all, pid)
		}
	}
	return all
}
