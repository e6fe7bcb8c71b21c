package sshhost_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/api"
	"github.com/chancery-pki/chancery/internal/sshagent/sshdtest"
	"github.com/chancery-pki/chancery/internal/sshhost"
)

const (
	printA      = "SHA256:aUJn6QbjwFW1yAg+7iXM/q3D/CUmY2j5sBNUX+iHdoA"
	printMarker = "SHA256:mgk729INp3lYaOa6eBUXivNrWcPaGNh8fflLtmsqdYA"
	printB      = "SHA256:hgk729INp3lYaOa6eBUXivNrWcPaGNh8fflLtmsqdYA"
)

func TestReadLine(t *testing.T) {
	plain := "Accepted publickey for root from 127.0.0.1 port 57030 ssh2: ED25519 " + printA
	cert := "Accepted publickey for root from fe80::1%eth0 port 22 ssh2: ED25519-CERT " + printA + " ID alice/1-9a (serial 1) CA ED25519 " + printB
	for line, want := range map[string]string{
		plain: "root 127.0.0.1 " + printA,
		cert:  "root fe80::1%eth0 " + printA + " " + printB,
		"Nov 21 19:13:38 web sshd[123]: " + plain:                            "root 127.0.0.1 " + printA,
		"2026-11-21T19:13:38.1+00:00 web sshd-session[123]: " + plain + "\r": "root 127.0.0.1 " + printA,
		// Others' words: no fingerprint is missed, and none is believed about whom.
		"Accepted publickey for a from 1.1.1.1 port 1 ssh2: RSA " + printB + " from 2.2.2.2 port 2 ssh2: RSA " + printA: "? ? " + printB + " " + printA,
		strings.Replace(cert, "alice/1-9a", "x from 9.9.9.9 port 9 ssh2: ED25519 "+printB, 1):                           "? ? " + printA + " " + printB + " " + printB,
		strings.Replace(plain, "root", "a b", 1):                                                                        "a b 127.0.0.1 " + printA,
		strings.Replace(plain, "root", `\033x`, 1):                                                                      `\033x 127.0.0.1 ` + printA,
		strings.Replace(plain, "root", "\xff", 1):                                                                       "? 127.0.0.1 " + printA,
		// No logins.
		"": "",
		"Failed" + strings.TrimPrefix(plain, "Accepted"):                                  "",
		"Failed publickey for invalid user " + plain:                                      "",
		"Nov 21 19:13:38 web sshd[123]: Failed password for x" + plain:                    "",
		"Nov 21 19:13:38 web sudo[123]: " + plain:                                         "",
		"Accepted password for root from 127.0.0.1 port 57030 ssh2":                       "",
		"Accepted publickey for root from 127.0.0.1 port 1 ssh2: ED25519 SHA256:short":    "",
		"Accepted publickey for root from 127.0.0.1 port 1 ssh2: ED25519 x" + printA:      "",
		"Accepted publickey for root from 127.0.0.1 port 1 ssh2: ED25519 " + printA + "A": "",
	} {
		login, ok := sshhost.ReadLine(line)
		got := ""
		if ok {
			got = login.User + " " + login.From + " " + strings.Join(login.Fingerprints, " ")
		}
		if got != want {
			t.Errorf("%q\ngot  %q\nwant %q", line, got, want)
		}
	}
}

// Whatever user and key ID are, the key is seen.
func FuzzReadLine(f *testing.F) {
	f.Add("root", "alice/1-9a")
	f.Add("x from 1.1.1.1 port 1 ssh2: RSA "+printB, printB+" "+printB)
	f.Add("sshd[1]: Accepted publickey for ", "\xff SHA256:")
	f.Fuzz(func(t *testing.T, user, id string) {
		if strings.ContainsAny(user+id, "\n") || len(user)+len(id) > 4096 {
			return // sshd escapes those (VIS_SAFE), and cuts
		}
		line := "Accepted publickey for " + user + " from 127.0.0.1 port 1 ssh2: RSA-CERT " + printA + " ID " + id + " (serial 1) CA RSA " + printB
		login, ok := sshhost.ReadLine(line)
		if !ok || !strings.Contains(strings.Join(login.Fingerprints, " "), printA) || login.Fingerprints[len(login.Fingerprints)-1] != printB {
			t.Fatalf("%q: %v, %v", line, login, ok)
		}
		sshhost.ReadLine(user + id) // any line at all
	})
}

// reported is a CA that can be away.
type reported struct {
	mu   sync.Mutex
	away error
	keys []api.WatchedKey
	got  []string
}

func (r *reported) reporter(name string) sshhost.Reporter {
	return sshhost.Reporter{
		Name: name,
		List: func(context.Context) ([]api.WatchedKey, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.keys, r.away
		},
		Report: func(_ context.Context, fingerprint string, s api.Sighting) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.away == nil {
				r.got = append(r.got, fmt.Sprintf("%s %s %s %s", fingerprint, s.Host, s.User, s.From))
			}
			return r.away
		},
	}
}

func (r *reported) set(away error) { r.mu.Lock(); defer r.mu.Unlock(); r.away = away }

func (r *reported) wait(t *testing.T, n int) []string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		r.mu.Lock()
		got := r.got
		r.mu.Unlock()
		if len(got) >= n {
			return got
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d reports, want %d", len(got), n)
		}
	}
}

// watch runs a watcher; stop ends it.
func watch(t *testing.T, w *sshhost.Watcher) (lines chan sshhost.Line, stop func()) {
	t.Helper()
	lines = make(chan sshhost.Line)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, lines) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return lines, stop
}

func accepted(print string) string {
	return "Accepted publickey for root from 127.0.0.1 port 1 ssh2: ED25519 " + print
}

// A CA that is away hears of it later, also after a restart; one that is there at
// once; a key that only a CA names is watched, too.
func TestWatch(t *testing.T) {
	here, away := new(reported), new(reported)
	here.keys = []api.WatchedKey{{Fingerprint: printB, Label: "break glass"}}
	away.away = errors.New("away")
	out := filepath.Join(t.TempDir(), "out")
	w := &sshhost.Watcher{
		Host: "web", Keys: map[string]string{printA: "safe\nbox"}, Spool: t.TempDir(), Logger: logger(t),
		Exec: fmt.Sprintf(`echo "$CHANCERY_KEY $CHANCERY_USER $CHANCERY_FROM $CHANCERY_HOST" >>%s`, out),
		CAs:  []sshhost.Reporter{here.reporter("here"), away.reporter("away")},
	}
	lines, stop := watch(t, w)
	lines <- sshhost.Line{Text: accepted("SHA256:zgk729INp3lYaOa6eBUXivNrWcPaGNh8fflLtmsqdYA")}
	lines <- sshhost.Line{Text: accepted(printA), Position: "one"}
	lines <- sshhost.Line{Text: accepted(printB), Position: "two"}
	got := here.wait(t, 2)
	if got[0] != printA+" web root 127.0.0.1" || got[1] != printB+" web root 127.0.0.1" {
		t.Errorf("reported: %q", got)
	}
	stop()
	if p := w.Position(); p != "two" {
		t.Errorf("the position is %q", p)
	}
	if text := string(must(os.ReadFile(out))); text != printA+" root 127.0.0.1 web\n"+printB+" root 127.0.0.1 web\n" {
		t.Errorf("the command saw %q", text)
	}
	if len(away.got) != 0 {
		t.Error("heard while away")
	}

	away.set(nil)
	again := *w
	watch(t, &again)
	if got := away.wait(t, 2); got[0] != printA+" web root 127.0.0.1" {
		t.Errorf("reported late: %q", got)
	}
	if left := must(filepath.Glob(filepath.Join(w.Spool, "*", "*.report"))); len(left) > 1 {
		t.Errorf("%v are left", left)
	}
}

// What a CA named last is watched while it is away; a key that it doesn't know
// isn't reported for ever; with nothing to watch nobody waits in vain.
func TestWatchedKeysAreKept(t *testing.T) {
	ca := &reported{keys: []api.WatchedKey{{Fingerprint: printB}}}
	w := &sshhost.Watcher{Host: "web", Spool: t.TempDir(), Logger: logger(t), CAs: []sshhost.Reporter{ca.reporter("ca")}}
	_, stop := watch(t, w)
	stop()
	if _, err := os.Stat(filepath.Join(w.Spool, "ca", "watched.json")); err != nil {
		t.Fatal(err)
	}
	ca.set(&api.Problem{Status: 404, Detail: "no such key"})
	again := *w
	lines, stop := watch(t, &again)
	lines <- sshhost.Line{Text: accepted(printB)}
	stop()
	if left := must(filepath.Glob(filepath.Join(w.Spool, "*", "*.report"))); len(left) != 0 {
		t.Errorf("%v are left", left)
	}
	none := &sshhost.Watcher{Host: "web", Spool: t.TempDir()}
	if err := none.Run(t.Context(), make(chan sshhost.Line)); err == nil {
		t.Error("it watches nothing, and says nothing")
	}
}

// The real sshd's log, in a file that is rotated and emptied.
func TestFollowRealLog(t *testing.T) {
	s := sshdtest.Start(t, "TrustedUserCAKeys %D/ca.pub", "AuthorizedKeysFile %D/authorized")
	ca := newFake(t, "ca")
	id, cert := login(t, ca.user, 1, "root")
	write(t, filepath.Join(s.Dir, "ca.pub"), []byte(line(ca.public())+"\n"))
	write(t, filepath.Join(s.Dir, "authorized"), nil)
	if out, err := s.SSH(t, nil, append(s.KnownHosts(t), id...)...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.Wait(t, "Accepted publickey")
	write(t, filepath.Join(s.Dir, "authorized"), []byte(line(cert.Key)+"\n"))
	if out, err := s.SSH(t, nil, append(s.KnownHosts(t), append(id, "-o", "CertificateFile=none")...)...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	log := filepath.Join(t.TempDir(), "auth.log")
	write(t, log, []byte(accepted(printA)+"\n")) // from before
	to, got := make(chan sshhost.Line), make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- sshhost.FollowFile(ctx, log, "", to) }()
	position, begun, started := "", make(chan struct{}), sync.Once{}
	go func() {
		for l := range to {
			if login, ok := sshhost.ReadLine(l.Text); ok {
				position = l.Position
				if login.Fingerprints[0] == printMarker {
					started.Do(func() { close(begun) })
					continue
				}
				got <- login.Fingerprints[0]
			}
		}
	}()
	append_ := func(text string) {
		t.Helper()
		f := must(os.OpenFile(log, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600))
		defer f.Close()
		must(f.WriteString(text))
	}
	wait := func(want string) {
		t.Helper()
		select {
		case print := <-got:
			if print != want {
				t.Errorf("%s, want %s", print, want)
			}
		case <-time.After(time.Minute):
			t.Fatal("waited a minute for a line")
		}
	}
	for deadline := time.Now().Add(time.Minute); ; { // until it has passed over what was there
		append_(accepted(printMarker) + "\n")
		select {
		case <-begun:
		case <-time.After(50 * time.Millisecond):
			if time.Now().Before(deadline) {
				continue
			}
			t.Fatal("it doesn't begin")
		}
		break
	}
	key := ssh.FingerprintSHA256(cert.Key)
	append_(s.Log())
	wait(key)
	wait(key)
	half := accepted(printB)
	append_(half[:40])
	append_(half[40:] + "\n")
	wait(printB)
	append_(accepted(printA) + "\n")
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	append_(strings.Repeat("x", 1<<20) + "\n" + accepted(printB) + "\n")
	wait(printA)
	wait(printB)
	if err := os.Truncate(log, 0); err != nil {
		t.Fatal(err)
	}
	append_(accepted(printA) + "\n")
	wait(printA)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	close(to)

	// What was logged meanwhile is seen at the next start.
	append_(accepted(printB) + "\n")
	to2 := make(chan sshhost.Line)
	go sshhost.FollowFile(t.Context(), log, position, to2)
	select {
	case l := <-to2:
		if l.Text != accepted(printB) {
			t.Errorf("goes on with %.80q", l.Text)
		}
	case <-time.After(time.Minute):
		t.Fatal("goes on nowhere")
	}
}

func TestReadWatched(t *testing.T) {
	key := line(newSigner().PublicKey())
	keys, err := sshhost.ReadWatched([]byte("# break glass\n\n" + printA + " the safe\n" + key + " in the drawer\n"))
	if err != nil || len(keys) != 2 || keys[printA] != "the safe" {
		t.Errorf("%v, %v", keys, err)
	}
	for _, bad := range []string{"SHA256:x", "hello", printA + "x", "SHA256:" + strings.Repeat("!", 43)} {
		if _, err := sshhost.ReadWatched([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
