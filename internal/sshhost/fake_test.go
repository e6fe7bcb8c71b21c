package sshhost_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/chancery-pki/chancery/internal/sshagent/sshdtest"
	"github.com/chancery-pki/chancery/internal/sshca"
	"github.com/chancery-pki/chancery/internal/sshhost"
)

// A fakeCA has a directory and a KRL, and says what a test wants it to.
type fakeCA struct {
	sshhost.CA
	user ed25519.PrivateKey

	mu       sync.Mutex
	keys     []string // of users
	krl, sig []byte   // nil: not there
	hide     bool     // the meta member ssh
	version  uint64
}

func newFake(t *testing.T, name string) *fakeCA {
	t.Helper()
	f := &fakeCA{}
	_, f.user, _ = ed25519.GenerateKey(rand.Reader)
	f.keys = []string{line(must(ssh.NewPublicKey(f.user.Public())))}
	mux := http.NewServeMux()
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	mux.HandleFunc("/directory", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		meta := map[string]any{"ssh": map[string]any{"userKeys": f.keys, "krl": server.URL + "/krl"}}
		if f.hide {
			meta = nil
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"newNonce": server.URL + "/n", "newAccount": server.URL + "/a", "newOrder": server.URL + "/o", "meta": meta})
	})
	file := func(which *[]byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if *which == nil {
				http.NotFound(w, r)
				return
			}
			w.Write(*which)
		}
	}
	mux.HandleFunc("/krl", file(&f.krl))
	mux.HandleFunc("/krl.sig", file(&f.sig))
	f.CA = sshhost.CA{Name: name, Directory: server.URL + "/directory", HTTP: server.Client()}
	return f
}

// publish makes a new KRL, signed by a key.
func (f *fakeCA) publish(t *testing.T, by ed25519.PrivateKey, made time.Time, r sshca.Revocations) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Version == 0 {
		f.version++
		r.Version = f.version
	}
	r.Generated = made.Truncate(time.Second)
	f.krl = must(sshca.BuildKRL(r))
	f.sig = must(must(sshca.NewAuthority(by.Public())).SignKRL(f.krl, signWith(by)))
}

func (f *fakeCA) set(change func()) { f.mu.Lock(); defer f.mu.Unlock(); change() }

func (f *fakeCA) public() ssh.PublicKey { return must(ssh.NewPublicKey(f.user.Public())) }

func serials(ca ssh.PublicKey, n ...uint64) sshca.Revocations {
	return sshca.Revocations{Certificates: []sshca.RevokedCertificates{{CA: ca, Serials: n}}}
}

// hostOf looks after the sshd for users only.
func hostOf(t *testing.T, s *sshdtest.Server, cas ...*fakeCA) *sshhost.Host {
	t.Helper()
	h := newHost(t, s, nil)
	h.Names, h.Solvers, h.Principals = nil, nil, nil
	for _, ca := range cas {
		h.CAs = append(h.CAs, ca.CA)
	}
	return h
}

func once(t *testing.T, h *sshhost.Host, wants ...string) {
	t.Helper()
	_, err := h.Once(t.Context())
	if len(wants) == 0 && err != nil {
		t.Fatal(err)
	}
	for _, want := range wants {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwants %q", err, want)
		}
	}
}

// Two CAs' lists in one, before a real sshd.
func TestRevokedAtSSHD(t *testing.T) {
	one, two := newFake(t, "one"), newFake(t, "two")
	one.publish(t, one.user, time.Now(), serials(one.public(), 5))
	two.publish(t, two.user, time.Now(), serials(two.public(), 6))
	s := sshdtest.Start(t, "Include %D/conf.d/*.conf")
	h := hostOf(t, s, one, two)
	once(t, h)
	s.Listening(t, 2)
	known := s.KnownHosts(t)
	for _, c := range []struct {
		ca     *fakeCA
		serial uint64
		in     bool
	}{{one, 5, false}, {one, 6, true}, {two, 5, true}, {two, 6, false}} {
		id, _ := login(t, c.ca.user, c.serial, "root")
		if out, err := s.SSH(t, nil, append(known, id...)...); (err == nil) != c.in {
			t.Errorf("CA %s, serial %d: %v\n%s", c.ca.Name, c.serial, err, out)
		}
	}
	// A revocation reaches it without a reload.
	one.publish(t, one.user, time.Now(), serials(one.public(), 5, 6))
	once(t, h)
	id, _ := login(t, one.user, 6, "root")
	if out, err := s.SSH(t, nil, append(known, id...)...); err == nil {
		t.Errorf("revoked, and gets in: %s", out)
	}
	if s.Listened() != 2 {
		t.Error("reloaded for a KRL")
	}
}

// Two directories of one CA publish one list.
func TestOneCATwice(t *testing.T) {
	ca := newFake(t, "ca")
	ca.publish(t, ca.user, time.Now(), serials(ca.public(), 5))
	h := hostOf(t, sshdtest.Start(t, "Include %D/conf.d/*.conf"), ca, ca)
	h.CAs[1].Name = "again"
	once(t, h)
}

// What a bad CA, or whoever is between, may try with the KRL.
func TestKRLAttacks(t *testing.T) {
	ca, other := newFake(t, "ca"), newFake(t, "other")
	other.publish(t, other.user, time.Now(), sshca.Revocations{})
	s := sshdtest.Start(t, "Include %D/conf.d/*.conf")
	h := hostOf(t, s, ca, other)
	revoked := func(serial uint64) bool {
		t.Helper()
		k := must(sshca.ParseKRL(must(os.ReadFile(filepath.Join(h.Dir, "revoked.krl")))))
		_, cert := login(t, ca.user, serial, "root")
		return k.Revoked(cert)
	}
	trusted := func(f *fakeCA) bool {
		t.Helper()
		return strings.Contains(string(must(os.ReadFile(filepath.Join(h.Dir, "user_ca.pub")))), line(f.public()))
	}

	// Without its list a CA isn't trusted yet; the other one is.
	once(t, h, "CA ca: ", "404")
	if trusted(ca) || !trusted(other) {
		t.Error("trusted before its KRL is known")
	}
	ca.publish(t, ca.user, time.Now(), serials(ca.public(), 5))
	once(t, h)
	if !trusted(ca) || !revoked(5) {
		t.Error("its KRL was not taken")
	}

	_, stranger, _ := ed25519.GenerateKey(rand.Reader)
	for name, c := range map[string]struct {
		do    func()
		wants string
	}{
		"a stranger's signature":   {func() { ca.publish(t, stranger, time.Now(), serials(ca.public(), 7)) }, "not a CA key that is trusted here"},
		"the other CA's signature": {func() { ca.publish(t, other.user, time.Now(), serials(ca.public(), 7)) }, "not a CA key that is trusted here"},
		"an older version": {func() {
			r := serials(ca.public(), 7)
			r.Version = 0
			ca.version = 0
			ca.publish(t, ca.user, time.Now().Add(-time.Minute), r)
		}, ""},
		"held back": {func() {
			ca.version += 10
			ca.publish(t, ca.user, time.Now().Add(-2*time.Hour), serials(ca.public(), 7))
		}, "more than 1h0m0s ago"},
		"from the future": {func() { ca.version += 10; ca.publish(t, ca.user, time.Now().Add(time.Hour), serials(ca.public(), 7)) }, "still to come"},
		"revokes the other CA": {func() {
			ca.version += 10
			ca.publish(t, ca.user, time.Now(), sshca.Revocations{Keys: []ssh.PublicKey{other.public()}})
		}, "a key of another CA"},
		"revokes what the other CA signed": {func() {
			ca.version += 10
			ca.publish(t, ca.user, time.Now(), serials(other.public(), 8))
		}, "a key of another CA"},
		"revokes key IDs of any CA": {func() {
			ca.version += 10
			ca.publish(t, ca.user, time.Now(), sshca.Revocations{Certificates: []sshca.RevokedCertificates{{KeyIDs: []string{"alice"}}}})
		}, "a key of another CA"},
		"no signature":    {func() { ca.set(func() { ca.sig = nil }) }, "404"},
		"no list":         {func() { ca.set(func() { ca.krl = nil }) }, "404"},
		"nonsense":        {func() { ca.set(func() { ca.krl = []byte("hello") }) }, ""},
		"no SSH any more": {func() { ca.set(func() { ca.hide = true }) }, "offers no SSH certificates"},
	} {
		t.Run(name, func(t *testing.T) {
			version := ca.version
			before := [][]byte{ca.krl, ca.sig}
			c.do()
			if c.wants != "" {
				once(t, h, "CA ca: ", c.wants)
			} else {
				once(t, h, "CA ca: ")
			}
			if !revoked(5) || revoked(7) || !trusted(ca) || !trusted(other) {
				t.Error("the last good state is not kept")
			}
			ca.set(func() { ca.krl, ca.sig, ca.hide, ca.version = before[0], before[1], false, version })
		})
	}
	once(t, h)

	// A new CA key; the old one is withdrawn.
	_, next, _ := ed25519.GenerateKey(rand.Reader)
	old := ca.public()
	ca.set(func() { ca.keys = []string{line(must(ssh.NewPublicKey(next.Public())))} })
	ca.publish(t, next, time.Now(), sshca.Revocations{Keys: []ssh.PublicKey{old}, Certificates: []sshca.RevokedCertificates{{CA: old, Serials: []uint64{5}}}})
	once(t, h)
	if trusted(ca) || !revoked(6) {
		t.Error("the old key is still trusted")
	}
}

// sshd refuses: everything is as before. The reload fails: it is tried again.
func TestSSHDRefuses(t *testing.T) {
	ca := newFake(t, "ca")
	ca.publish(t, ca.user, time.Now(), sshca.Revocations{})
	s := sshdtest.Start(t) // includes nothing
	h := hostOf(t, s, ca)
	if err := os.MkdirAll(filepath.Dir(h.Snippet), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, h.Snippet, []byte("# mine\n"))
	once(t, h, "doesn't include "+h.Snippet, "as they were before")
	if got := string(must(os.ReadFile(h.Snippet))); got != "# mine\n" {
		t.Errorf("the snippet is now %q", got)
	}
	if _, err := os.Stat(filepath.Join(h.Dir, "user_ca.pub")); err == nil {
		t.Error("new files are left")
	}

	config := must(os.ReadFile(s.Config))
	write(t, s.Config, append([]byte("Nonsense yes\nInclude "+h.Snippet+"\n"), config...))
	once(t, h, "sshd refuses its configuration", "Nonsense")
	write(t, s.Config, append([]byte("Include "+h.Snippet+"\n"), config...))
	reload := h.Reload
	h.Reload = "echo no way; exit 3"
	once(t, h, "not reloaded", "no way")
	if s.Listened() != 1 {
		t.Error("reloaded")
	}
	h.Reload = reload
	once(t, h)
	s.Listening(t, 2)
	once(t, h)
	if s.Listened() != 2 {
		t.Error("reloaded without need")
	}
}

// Names that would be other files, options or lines.
func TestRefusesNames(t *testing.T) {
	ca := newFake(t, "ca")
	ca.publish(t, ca.user, time.Now(), sshca.Revocations{})
	s := sshdtest.Start(t, "Include %D/conf.d/*.conf")
	for _, bad := range []map[string][]string{
		{"../root": {"x"}}, {"": {"x"}}, {".ssh": {"x"}}, {"-x": {"x"}}, {"a b": {"x"}}, {"%u": {"x"}},
		{"root": {""}}, {"root": {"a\nb"}}, {"root": {"# x"}}, {"root": {"command=\"x\" a"}}, {"root": {"a b"}},
	} {
		h := hostOf(t, s, ca)
		h.Principals = bad
		if _, err := h.Once(t.Context()); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
	for _, name := range []string{"", "..", "a/b", ".x", strings.Repeat("a", 65)} {
		h := hostOf(t, s, ca)
		h.CAs[0].Name = name
		if _, err := h.Once(t.Context()); err == nil {
			t.Errorf("a CA called %q is taken", name)
		}
	}
	// A list that nobody asks for any more goes away.
	h := hostOf(t, s, ca)
	h.Principals = map[string][]string{"root": {"root"}, "bob": {"bob"}}
	once(t, h)
	delete(h.Principals, "bob")
	once(t, h)
	if entries := must(os.ReadDir(filepath.Join(h.Dir, "principals"))); len(entries) != 1 {
		t.Errorf("%v are left", entries)
	}
}
