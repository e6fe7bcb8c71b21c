package durability

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// SIGTERM under load: requests that are being worked on are answered, the
// process ends by itself, and nothing is left half done.
func TestGracefulStop(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Names()
		s := newServer(w, w.Path("ca"), "")
		s.start()
		l := newLoad(w, s)
		l.start(4, 1)
		l.resume()

		// Validations whose targets take their time hold their requests.
		const many = 8
		c := s.register(s.client(""), "servers", nil)
		var held []acme.Challenge
		for i := range many {
			o := newOrder(w, c, slowName(i))
			held = append(held, challenge(w, c, l.responder, o.Authorizations[0]))
		}
		proceed := make(chan struct{})
		l.responder.Slow(func() { <-proceed })
		var answered sync.WaitGroup
		for _, ch := range held {
			answered.Go(func() {
				got, err := c.Accept(w.Context(), ch, nil)
				if err != nil { // it may be valid, or processing if that took a second
					w.Errorf("a challenge that was being validated when SIGTERM came (%s now): %v", got.Status, err)
				}
			})
		}
		until(w, 10*time.Second, "all are being validated", func() bool {
			hosts := l.responder.Hosts()
			for i := range many {
				if !slices.Contains(hosts, slowName(i)) {
					return false
				}
			}
			return true
		})
		l.losing()
		begun := time.Now()
		s.signal(syscall.SIGTERM)
		time.AfterFunc(200*time.Millisecond, func() { close(proceed) })
		answered.Wait()
		if code := s.wait(stopLimit); code != 0 {
			w.Errorf("SIGTERM: exit code %d\n%s", code, s.output())
		}
		w.Logf("it took %v to stop", time.Since(begun))
		l.responder.Slow(nil)
		l.settle()
		s.start()
		l.verify(true)
		for _, o := range l.orders {
			if o.told.Status == acme.StatusProcessing {
				w.Errorf("order %s is processing after a graceful stop", o.told.URL)
			}
		}
		l.finish()
		l.compare()
	})
}

func slowName(i int) string { return fmt.Sprintf("slow%d.load.test", i) }

// A validation that a client was told goes on does so after a restart: the
// client is not asked for anything again.
func TestValidationGoesOn(t *testing.T) {
	for name, end := range map[string]func(*server){"Stopped": (*server).stop, "Killed": func(s *server) { s.kill() }} {
		t.Run(name, func(t *testing.T) {
			harness.Alone(t, time.Minute, func(w *harness.World) {
				w.Names()
				s := newServer(w, w.Path("ca"), "")
				s.edit(`      http_port: 80`, "      http_port: 80\n      timeout: 3s")
				s.start()
				r := w.Responder()
				hang, answer := context.WithCancel(w.Context())
				defer answer()
				r.Slow(func() { <-hang.Done() })
				c := s.register(s.client(""), "servers", nil)
				o := newOrder(w, c, "hangs.load.test")
				ch, err := c.Accept(w.Context(), challenge(w, c, r, o.Authorizations[0]), nil)
				if err != nil || ch.Status != acme.StatusProcessing {
					w.Fatalf("a challenge whose target hangs is %s, %v", ch.Status, err)
				}
				end(s)
				answer()
				s.start()
				becomes(w, c, o.Authorizations[0], acme.StatusValid, 20*time.Second)
			})
		})
	}
}

// SIGHUP puts a good configuration into service, and a bad one nowhere.
func TestReload(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Names()
		s := newServer(w, w.Path("ca"), "")
		s.start()
		r := w.Responder()
		c := s.register(s.client(""), "servers", nil)
		good := w.Read(s.config())
		for what, bad := range map[string]string{
			"no YAML":              "directories: [",
			"an unknown key":       good + "\nsurprise: true\n",
			"a name that is none":  strings.Replace(good, `allow: ["*"]`, `allow: ["..."]`, 1),
			"a key that is absent": strings.Replace(good, "file:ca/servers.key", "file:ca/absent.key", 1),
			"no profile":           strings.Replace(good, `profiles: ["server"]`, `profiles: ["serfer"]`, 1),
		} {
			complaints := strings.Count(w.Read(s.log), "the new configuration is bad")
			if err := os.WriteFile(s.config(), []byte(bad), 0o600); err != nil {
				w.Fatal(err)
			}
			s.signal(syscall.SIGHUP)
			until(w, 10*time.Second, "the server complains about "+what, func() bool {
				return strings.Count(w.Read(s.log), "the new configuration is bad") > complaints
			})
			obtain(w, c, r, "still.load.test")
		}
		text := strings.Replace(good, `allow: ["*"]`, `allow: ["*.after.test"]`, 1)
		if text == good {
			w.Fatal("the configuration has no names.allow")
		}
		if err := os.WriteFile(s.config(), []byte(text), 0o600); err != nil {
			w.Fatal(err)
		}
		s.signal(syscall.SIGHUP)
		until(w, 10*time.Second, "names.allow applies", func() bool {
			_, err := c.NewOrder(w.Context(), acme.OrderRequest{Identifiers: acme.Identifiers("late.load.test")})
			if err != nil {
				refused(w, err, acme.ErrRejectedIdentifier, "a name that isn't allowed any more")
			}
			return err != nil
		})
		obtain(w, c, r, "x.after.test")
	})
}
