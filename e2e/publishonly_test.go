package e2e_test

import (
	"bytes"
	"crypto"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/chancery-pki/chancery/e2e/harness"
	"github.com/chancery-pki/chancery/mtls/acme"
)

// sharedSite is a site whose replicas share a PostgreSQL database.
func sharedSite(w *harness.World, edits ...string) *site {
	w.Helper()
	return newSite(w, append([]string{`dsn: "chancery.db"`, `dsn: "` + w.Postgres() + `"`}, edits...)...)
}

// certificatesOnly copies the CA's certificates, and none of its keys, to
// another folder.
func (s *site) certificatesOnly(name string) string {
	s.w.Helper()
	dir := s.w.Path(name)
	for _, sub := range []string{"ca", "root"} {
		s.w.Mkdir(name, sub)
		files, err := filepath.Glob(filepath.Join(s.dir, sub, "*.pem"))
		if err != nil || len(files) == 0 {
			s.w.Fatalf("no certificates in %s: %v", sub, err)
		}
		for _, f := range files {
			s.w.Write(filepath.Join(name, sub, filepath.Base(f)), s.w.Read(f))
		}
	}
	return dir
}

// startPublishing starts the replica as one that publishes only.
func (r *replica) startPublishing() *replica {
	r.w.Helper()
	r.Proc = r.w.Cmd(r.w.Tool("chanceryd"), "serve", "--publish-only", r.conf).Start().Listens(r.publish)
	return r
}

// wantStatus asks and wants OCSP's own status; it returns the answer and how
// long it took.
func (r *replica) wantStatus(w *harness.World, h *http.Client, i *issued, hash crypto.Hash, want ocsp.ResponseStatus) (ocspAnswer, time.Duration) {
	w.Helper()
	start := time.Now()
	a, err := postOCSP(h, r.ocspURL(), ocspRequest(w, i, hash))
	if err != nil {
		w.Fatal(err)
	}
	if a.status() != want {
		w.Errorf("%s is answered by %d, OCSP status %d, want %d", i.serial(), a.code, a.status(), want)
	}
	return a, time.Since(start)
}

// becomes asks until the answer is signed and says so, and wants none before
// that says something else: what isn't known yet gets tryLater.
func (r *replica) becomes(w *harness.World, h *http.Client, i *issued, status int) time.Duration {
	w.Helper()
	start := time.Now()
	for end := start.Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		a, err := postOCSP(h, r.ocspURL(), ocspRequest(w, i, crypto.SHA1))
		switch {
		case err != nil:
			w.Fatal(err)
		case a.status() == ocsp.Success:
			if o := verified(w, a, i); o.Status != status {
				w.Fatalf("status %d, want %d", o.Status, status)
			}
			return time.Since(start)
		case a.status() != ocsp.TryLater || time.Now().After(end):
			w.Fatalf("answered %d, OCSP status %d", a.code, a.status())
		}
	}
}

// listAt is a list as a replica serves it, nil while it has none.
func (r *replica) listAt(w *harness.World, h *http.Client, i *issued, shard int) []byte {
	w.Helper()
	res, err := h.Get(strings.Replace(listURL(i, shard), "crl.ca.test:8080", r.publish, 1))
	a, err := readOCSP(res, err)
	if err != nil {
		w.Fatal(err)
	}
	if a.code != http.StatusOK {
		return nil
	}
	return a.body
}

// A replica without keys, near those who ask, answers what the replica with
// the keys signs, and hears of revocations at once.
func TestPublishOnly(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no OCSP")
		s := sharedSite(w)
		holder := s.start1()
		front := s.replica(1, s.certificatesOnly("front")).startPublishing()
		c, h := holder.account(), relying(w)
		a, never := s.obtain(c, "a.test"), s.obtain(c, "never.test")
		w.Sub("nothing else", func(w *harness.World) { publishesOnly(w, front) })
		w.Sub("OCSP", func(w *harness.World) {
			first, took := front.wantStatus(w, h, a, crypto.SHA1, ocsp.Success)
			w.Logf("the first ask took %v", took)
			again, _ := front.wantStatus(w, h, a, crypto.SHA1, ocsp.Success)
			there, _ := holder.wantStatus(w, h, a, crypto.SHA1, ocsp.Success)
			if !bytes.Equal(first.body, again.body) || !bytes.Equal(first.body, there.body) {
				w.Error("the replicas give different answers")
			}
			if o := verified(w, first, a); o.Status != ocsp.Good {
				w.Errorf("status %d", o.Status)
			}
			if n := holder.signatures(); n != 1 {
				w.Errorf("%d signatures for one answer", n)
			}
			saidBy(w, opensslOCSP(w, s, a, front.ocspURL(), "-sha256"), a, "good")
		})
		w.Sub("lists", func(w *harness.World) {
			for shard := range 5 {
				w.Until("it serves the lists of the other", func() bool {
					l := front.listAt(w, h, a, shard)
					return l != nil && bytes.Equal(l, holder.listAt(w, h, a, shard))
				})
			}
		})
		w.Sub("strangers", func(w *harness.World) {
			jobs := front.metric("chancery_ocsp_wanted_total")
			thousands(w, h, front, a.issuer)
			if n := front.metric("chancery_ocsp_wanted_total") - jobs; n != 0 {
				w.Errorf("strangers made %v jobs", n)
			}
		})
		w.Sub("revocations", func(w *harness.World) { heardAtOnce(w, s, holder, front, c, h) })
		w.Sub("connections cut", func(w *harness.World) { unheard(w, s, front, c, h) })
		w.Sub("without the key", func(w *harness.World) { withoutHolder(w, s, holder, front, a, never, h) })
	})
}

// publishesOnly: no clients, no operators, no keys.
func publishesOnly(w *harness.World, r *replica) {
	w.Helper()
	if c, err := net.DialTimeout("tcp", r.acme, time.Second); err == nil {
		_ = c.Close()
		w.Error("it listens for ACME")
	}
	if _, err := os.Stat(r.socket); err == nil {
		w.Error("it listens for operators")
	}
	if r.metric("chancery_signing_rate") != 0 {
		w.Error("it has keys")
	}
	res, err := http.Get("http://" + r.metrics + "/healthz")
	if err != nil {
		w.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		w.Errorf("/healthz: %s", res.Status)
	}
}

// heardAtOnce measures how long the other replica says good after a revocation
// was answered.
func heardAtOnce(w *harness.World, s *site, holder, front *replica, c *acme.Client, h *http.Client) {
	w.Helper()
	var worst time.Duration
	for n := range 10 {
		i := s.obtain(c, fmt.Sprintf("r%d.test", n))
		front.becomes(w, h, i, ocsp.Good)
		front.wantStatus(w, h, i, crypto.SHA1, ocsp.Success) // from its cache
		if n%2 == 0 {
			s.revoke(c, i, acme.ReasonSuperseded)
		} else {
			holder.admin("certs", "revoke", i.serial(), "--reason", "superseded")
		}
		worst = max(worst, front.hears(w, h, i))
		w.Until("the list shows it there", func() bool {
			return bytes.Contains(front.listAt(w, h, i, shardOf(w, i)), i.leaf.SerialNumber.Bytes())
		})
	}
	w.Logf("revoked on the other replica after %v at most", worst)
}

// hears asks until the answer is revoked, within a second, and returns how long
// that took.
func (r *replica) hears(w *harness.World, h *http.Client, i *issued) time.Duration {
	w.Helper()
	der := ocspRequest(w, i, crypto.SHA1)
	for start := time.Now(); ; {
		a, err := postOCSP(h, r.ocspURL(), der)
		if err != nil {
			w.Fatal(err)
		}
		took := time.Since(start)
		if a.status() == ocsp.Success {
			switch o := verified(w, a, i); {
			case o.Status == ocsp.Revoked:
				if took > time.Second {
					w.Errorf("revoked after %v", took)
				}
				return took
			case took > time.Second:
				w.Fatalf("still status %d after %v", o.Status, took)
			}
		}
		if took > 10*time.Second {
			w.Fatalf("OCSP status %d after %v", a.status(), took)
		}
	}
}

// unheard: where the news of a revocation can't come, for the connections to
// the database were cut, the old answer isn't given either.
func unheard(w *harness.World, s *site, front *replica, c *acme.Client, h *http.Client) {
	w.Helper()
	psql := w.Glob("/usr/lib/postgresql/*/bin/psql")
	for n := range 3 {
		i := s.obtain(c, fmt.Sprintf("u%d.test", n))
		front.becomes(w, h, i, ocsp.Good)
		front.wantStatus(w, h, i, crypto.SHA1, ocsp.Success) // from its cache
		w.Run(psql, "-h", "127.0.0.1", "-U", "ca", "-qAtc",
			"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'postgres'", "postgres")
		w.Until("it is revoked", func() bool { return c.Revoke(w.Context(), i.leaf.Raw, acme.ReasonSuperseded, nil) == nil })
		w.Logf("revoked on the other replica after %v", front.hears(w, h, i))
	}
}

// withoutHolder: what was signed is served as long as it lasts; what wasn't
// must wait.
func withoutHolder(w *harness.World, s *site, holder, front *replica, a, never *issued, h *http.Client) {
	w.Helper()
	revoked := s.obtain(holder.account(), "revoked.test")
	front.becomes(w, h, revoked, ocsp.Good)
	holder.admin("certs", "revoke", revoked.serial())
	front.becomes(w, h, revoked, ocsp.Revoked)
	before, _ := front.wantStatus(w, h, a, crypto.SHA1, ocsp.Success)
	w.Until("the list shows it there", func() bool {
		return bytes.Contains(front.listAt(w, h, a, 0), revoked.leaf.SerialNumber.Bytes())
	})
	list := front.listAt(w, h, a, 0)
	holder.Stop()
	look := func() {
		w.Helper()
		if !bytes.Equal(list, front.listAt(w, h, a, 0)) {
			w.Error("it serves another list, or none")
		}
		after, _ := front.wantStatus(w, h, a, crypto.SHA1, ocsp.Success)
		if !bytes.Equal(before.body, after.body) {
			w.Error("another answer, and nobody to sign it")
		}
		saidBy(w, opensslOCSP(w, s, revoked, front.ocspURL()), revoked, "revoked")
		_, took := front.wantStatus(w, h, never, crypto.SHA1, ocsp.TryLater)
		w.Logf("tryLater took %v", took)
		if took > 4*time.Second {
			w.Errorf("tryLater took %v", took)
		}
	}
	look()
	front.Stop()
	front.startPublishing()
	look() // at once: what it serves was in the database all the time
	holder.start()
	w.Logf("signed %v after the start of the key's holder", front.becomes(w, h, never, ocsp.Good))
}

// What such a replica can't do is refused at the start, with the line.
func TestPublishOnlyRefused(t *testing.T) {
	harness.Alone(t, time.Minute, func(w *harness.World) {
		w.Ours("it has no OCSP")
		s := newSite(w)
		for name, edits := range map[string][]string{
			"an SQLite file":  nil,
			"no publish list": {"dsn: \"chancery.db\"", `dsn: "postgres://ca@127.0.0.1:5432/postgres"`, "  listen: \"127.0.0.1:8080\"\n", "  {}\n"},
		} {
			r := s.replica(0, s.dir, edits...)
			out := w.Cmd(w.Tool("chanceryd"), "serve", "--publish-only", r.conf).Fails()
			if !strings.Contains(out, r.conf+":") || edits == nil && !strings.Contains(out, "PostgreSQL") || edits != nil && !strings.Contains(out, "publish.listen") {
				w.Errorf("%s is refused with %s", name, out)
			}
			if strings.Count(strings.TrimSpace(out), "\n") > 1 {
				w.Errorf("%s: more than a line or two:\n%s", name, out)
			}
			w.Logf("%s: %s", name, out)
		}
	})
}
