package roots

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a CA certificate unless mod changes that; by nil: it signs itself.
func issue(t testing.TB, by *ca, name string, mod func(*x509.Certificate)) *ca {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if mod != nil {
		mod(c)
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &ca{cert, key}
}

func pemOf(cas ...*ca) []byte {
	var out bytes.Buffer
	for _, c := range cas {
		pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})
	}
	return out.Bytes()
}

type wallClock struct{}

func (wallClock) Now() time.Time                         { return time.Now() }
func (wallClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

func newKeeper(t testing.TB, cfg Config, lists ...List) (*Keeper, error) {
	t.Helper()
	cfg.Clock = wallClock{}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	k, err := New(cfg, lists...)
	if err == nil {
		t.Cleanup(k.Close)
	}
	return k, err
}

func start(t testing.TB, cfg Config, sources ...Source) *Keeper {
	t.Helper()
	k, err := newKeeper(t, cfg, List{"Servers", sources})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// trusts compares a list with what it should be.
func trusts(t testing.TB, k *Keeper, want ...*ca) {
	t.Helper()
	pool := x509.NewCertPool()
	for _, c := range want {
		pool.AddCert(c.cert)
	}
	if !k.Today(0).Pool.Equal(pool) {
		t.Errorf("not these %d roots: %+v", len(want), k.Health())
	}
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// What a PEM text may hold.
func TestParse(t *testing.T) {
	a, b := issue(t, nil, "a", nil), issue(t, nil, "b", nil)
	both := pemOf(a, b)
	if certs, err := parse(append([]byte("# the old one and the new one\n"), both...)); err != nil || len(certs) != 2 {
		t.Errorf("%d, %v", len(certs), err)
	}
	leaf := issue(t, a, "leaf", func(c *x509.Certificate) { c.IsCA = false })
	v1 := issue(t, a, "no constraints", func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = false, false })
	mute := issue(t, nil, "mute", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":           {nil, "no PEM certificate"},
		"something else":    {[]byte("<html>log in</html>"), "no PEM certificate"},
		"DER":               {a.cert.Raw, "no PEM certificate"},
		"a private key":     {append(pemOf(a), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}})...), `"PRIVATE KEY"`},
		"a leaf":            {pemOf(a, leaf), `"CN=leaf": it isn't a CA`},
		"no constraints":    {pemOf(v1), "it isn't a CA"},
		"may not sign":      {pemOf(mute), "may not sign"},
		"half a file":       {both[:len(both)-50], "of 2 PEM blocks only 1"},
		"damage in between": {bytes.Replace(both, []byte("-----END CERTIFICATE-----"), []byte("-----END-----"), 1), "PEM blocks only"},
		"not a certificate": {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{0x30, 0}}), "certificate 1: x509"},
	} {
		if certs, err := parse(test.data); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %d, error %v, want %q", name, len(certs), err, test.want)
		}
	}
}

// What New refuses: it says which source, and what would be right.
func TestNewRefuses(t *testing.T) {
	root := PEM(pemOf(issue(t, nil, "a", nil)))
	some := x509.NewCertPool()
	some.AddCert(issue(t, nil, "b", nil).cert)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "empty"), nil)
	write(t, filepath.Join(dir, "huge"), make([]byte, maxFile+1))
	for name, test := range map[string]struct {
		sources []Source
		want    string
	}{
		"zero":            {[]Source{root, {}}, "Servers[1] (nothing): it is the zero value; use RootsFile"},
		"no file":         {[]Source{File(filepath.Join(dir, "missing"))}, "no such file"},
		"a directory":     {[]Source{File(dir)}, "regular file"},
		"empty file":      {[]Source{File(filepath.Join(dir, "empty"))}, "no PEM certificate"},
		"huge file":       {[]Source{File(filepath.Join(dir, "huge"))}, "more than"},
		"empty text":      {[]Source{PEM(nil)}, "Servers[0] (PEM text): there is no"},
		"no pool":         {[]Source{Pool(nil)}, "the pool is empty"},
		"empty pool":      {[]Source{Pool(x509.NewCertPool())}, "the pool is empty"},
		"two pools":       {[]Source{Pool(some), Pool(some)}, "Servers[1] (pool): pools can't be merged"},
		"bundle alone":    {[]Source{URL("https://ca.test/roots.pem")}, "name their source beside it"},
		"bundle on http":  {[]Source{root, URL("http://ca.test/roots.pem")}, `(URL "http://ca.test/roots.pem"): it must be an https URL`},
		"bundle of user":  {[]Source{root, URL("https://me:secret@ca.test/")}, "without a user"},
		"bundle nowhere":  {[]Source{root, URL("https:///roots.pem")}, "https URL"},
		"bundle, garbage": {[]Source{root, URL("://")}, "https URL"},
	} {
		if _, err := newKeeper(t, Config{}, List{"Servers", test.sources}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}

// A pool and PEM beside it; a list without sources; nothing that runs.
func TestStill(t *testing.T) {
	a, b := issue(t, nil, "a", nil), issue(t, nil, "b", nil)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	before := runtime.NumGoroutine()
	source := Pool(pool)
	pool.AddCert(issue(t, nil, "later", nil).cert) // isn't ours
	k, err := newKeeper(t, Config{FilesEvery: time.Minute, URLsEvery: time.Hour}, List{"Servers", []Source{source, PEM(pemOf(b))}}, List{Name: "Clients"})
	if err != nil {
		t.Fatal(err)
	}
	trusts(t, k, a, b)
	if !k.Today(1).Pool.Equal(x509.NewCertPool()) {
		t.Error("roots of nothing")
	}
	if err := k.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	if k.Today(0).Generation == k.Today(1).Generation {
		t.Error("two lists with one generation")
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines more", n-before)
	}
}

// A CA's rotation by file: the old root, both, the new one; and all that may go
// wrong with the file leaves what was there.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		old, young := issue(t, nil, "old", nil), issue(t, nil, "young", nil)
		path := filepath.Join(dir, "roots.pem")
		write(t, path, pemOf(old))
		var log bytes.Buffer
		k := start(t, Config{FilesEvery: time.Minute, Log: slog.New(slog.NewTextHandler(&log, nil))}, File(path))
		defer k.Close()
		trusts(t, k, old)
		generation := k.Today(0).Generation
		minute := func() { time.Sleep(time.Minute + time.Second); synctest.Wait() }
		minute()
		if k.Today(0).Generation != generation {
			t.Error("another generation of the same roots")
		}
		steps := []struct {
			do   func()
			want []*ca
			err  string
		}{
			{func() { write(t, path, pemOf(old, young)) }, []*ca{old, young}, ""},
			{func() { write(t, path, pemOf(young)[:100]) }, []*ca{old, young}, "PEM"},
			{func() { write(t, path, nil) }, []*ca{old, young}, "no PEM certificate"},
			{func() { os.Remove(path) }, []*ca{old, young}, "no such file"},
			{func() { write(t, path, pemOf(young)) }, []*ca{young}, ""},
			{func() { // as Kubernetes does
				write(t, path+".1", pemOf(old))
				os.Remove(path)
				os.Symlink(path+".1", path)
			}, []*ca{old}, ""},
		}
		for i, step := range steps {
			step.do()
			minute()
			minute()
			trusts(t, k, step.want...)
			h := k.Health()[0]
			if text := ""; h.Err != nil {
				text = h.Err.Error()
				if step.err == "" || !strings.Contains(text, step.err) {
					t.Errorf("step %d: %v", i, h.Err)
				}
			} else if step.err != "" {
				t.Errorf("step %d: no error", i)
			}
		}
		for _, want := range []string{`new="[CN=young (serial 1)]"`, `gone="[CN=old (serial 1)]"`, "the former ones stay"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log lacks %s:\n%s", want, &log)
			}
		}
		if n := strings.Count(log.String(), "no such file"); n != 1 {
			t.Errorf("the log says it %d times", n)
		}
	})
}

// What looks like the same file from outside, and isn't: replaced by another of
// the same size and time, which is seen; written over in place, which Reload sees.
func TestFileInDisguise(t *testing.T) {
	a, b := issue(t, nil, "a", nil), issue(t, nil, "b", nil)
	size := len(pemOf(a)) + len(pemOf(b))
	path, at := filepath.Join(t.TempDir(), "roots.pem"), time.Now().Add(-time.Hour)
	put := func(path string, c *ca) {
		t.Helper()
		write(t, path, append(pemOf(c), bytes.Repeat([]byte{'\n'}, size-len(pemOf(c)))...))
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	put(path, a)
	k := start(t, Config{FilesEvery: -1}, File(path))
	before := k.lists[0].places[0].stat
	if l, err := File(path).loadFile(before); err != nil || !l.same {
		t.Errorf("the same file: %+v, %v", l, err)
	}
	put(path+".new", b)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if l, err := File(path).loadFile(before); err != nil || l.same || !l.certs[0].Equal(b.cert) {
		t.Errorf("another file: %+v, %v", l, err)
	}
	for _, c := range []*ca{b, a} {
		put(path, c)
		if err := k.Reload(t.Context()); err != nil {
			t.Error(err)
		}
		trusts(t, k, c)
	}
}

// bundleServer serves what say says with a certificate below by.
func bundleServer(t testing.TB, by *ca, say http.HandlerFunc) string {
	t.Helper()
	leaf := issue(t, by, "ca.test", func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.IPAddresses = false, x509.KeyUsageDigitalSignature, []net.IP{net.IPv4(127, 0, 0, 1)}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	srv := httptest.NewUnstartedServer(say)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.cert.Raw, by.cert.Raw}, PrivateKey: leaf.key}}}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.URL
}

// A CA's rotation by bundle: what it brings is added, and taken away when the
// bundle no longer has it; the configured root stays whatever it says.
func TestBundle(t *testing.T) {
	old, young, third := issue(t, nil, "old", nil), issue(t, nil, "young", nil), issue(t, nil, "third", nil)
	gone := issue(t, nil, "gone", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	var body []byte
	serve := func(w http.ResponseWriter, r *http.Request) { w.Write(body) }
	k := start(t, Config{URLsEvery: -1}, PEM(pemOf(old)), URL(bundleServer(t, old, serve)), URL(bundleServer(t, young, serve)))
	reload := func(ok bool, want ...*ca) {
		t.Helper()
		if err := k.Reload(t.Context()); (err == nil) != ok {
			t.Errorf("reload: %v", err)
		}
		trusts(t, k, want...)
	}
	trusts(t, k, old) // the URLs aren't waited for
	body = pemOf(old, gone)
	reload(false, old) // the second server's CA isn't trusted yet
	body = pemOf(old, young, gone)
	reload(false, old, young)
	reload(true, old, young) // now it is
	body = pemOf(young, third)
	reload(true, old, young, third)
	body = pemOf(young)
	reload(true, old, young)
	body = pemOf(gone)
	reload(false, old, young)
	body = nil
	reload(false, old, young)
}

// The attacks on a bundle: nothing changes.
func TestBundleRefused(t *testing.T) {
	root, evil := issue(t, nil, "root", nil), issue(t, nil, "evil", nil)
	leaf := issue(t, root, "leaf", func(c *x509.Certificate) { c.IsCA = false })
	serve := func(body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.Write(body) }
	}
	elsewhere := bundleServer(t, root, serve(pemOf(evil)))
	many := []*ca{}
	for i := range maxRoots + 1 {
		many = append(many, issue(t, nil, strings.Repeat("x", i+1), nil))
	}
	clientOnly := issue(t, root, "middle", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	for name, test := range map[string]struct {
		by   *ca
		say  http.HandlerFunc
		want string
	}{
		"unknown server":      {evil, serve(pemOf(evil)), "unknown authority"},
		"server below a name": {issue(t, nil, "root", nil), serve(pemOf(evil)), "unknown authority"},
		"a client's CA":       {clientOnly, serve(pemOf(evil)), "key usage"},
		"garbage":             {root, serve([]byte("<html>log in</html>")), "no PEM certificate"},
		"empty":               {root, serve(nil), "no PEM certificate"},
		"a leaf among them":   {root, serve(pemOf(evil, leaf)), "isn't a CA"},
		"too many":            {root, serve(pemOf(many...)), "65 certificates"},
		"huge":                {root, serve(bytes.Repeat([]byte{'\n'}, maxBundle+1)), "more than"},
		"endless": {root, func(w http.ResponseWriter, r *http.Request) {
			for chunk := make([]byte, 32<<10); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, "more than"},
		"redirect":    {root, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere, http.StatusFound) }, "HTTP status 302"},
		"not found":   {root, http.NotFound, "HTTP status 404"},
		"long header": {root, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, "header"},
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, Config{URLsEvery: -1}, PEM(pemOf(root)), URL(bundleServer(t, test.by, test.say)))
			if err := k.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			trusts(t, k, root)
		})
	}
}

// A server that hangs is left after a while, keeps nobody from closing, and a
// reload can be given up.
func TestBundleHangs(t *testing.T) {
	root := issue(t, nil, "root", nil)
	asked := make(chan bool, 10)
	k := start(t, Config{URLsEvery: time.Hour}, PEM(pemOf(root)), URL(bundleServer(t, root, func(w http.ResponseWriter, r *http.Request) {
		asked <- true
		<-r.Context().Done()
	})))
	<-asked // at once, in the background
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Reload(ctx); err == nil {
		t.Error("no error")
	}
	k.Close()
	trusts(t, k, root)
}

// When sources are looked at again.
func TestNext(t *testing.T) {
	now := time.Now()
	k := &Keeper{cfg: Config{FilesEvery: time.Minute, URLsEvery: time.Hour}}
	never := &Keeper{cfg: Config{FilesEvery: -1, URLsEvery: -1}}
	fault := os.ErrInvalid
	for i, test := range []struct {
		k        *Keeper
		s        Source
		first    bool
		err      error
		min, max time.Duration
	}{
		{k, File("x"), true, nil, time.Minute, time.Minute},
		{k, File("x"), false, fault, time.Minute, time.Minute},
		{k, URL("x"), true, nil, 0, 0},
		{k, URL("x"), false, nil, 54 * time.Minute, time.Hour},
		{k, URL("x"), false, fault, 54 * time.Second, time.Minute},
	} {
		if got := test.k.next(test.s, test.first, test.err, now).Sub(now); got < test.min || got > test.max {
			t.Errorf("%d: %v", i, got)
		}
	}
	for _, s := range []Source{PEM(nil), System(), Pool(nil)} {
		if !k.next(s, false, nil, now).IsZero() {
			t.Errorf("%v is looked at again", s)
		}
	}
	for _, s := range []Source{File("x"), URL("x")} {
		if !never.next(s, true, nil, now).IsZero() {
			t.Errorf("%v is looked at again", s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(pemOf(issue(f, nil, "a", nil), issue(f, nil, "b", nil)))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := parse(data)
		if (err == nil) != (len(certs) > 0) {
			t.Errorf("%d certificates, %v", len(certs), err)
		}
		for _, c := range certs {
			if !c.IsCA {
				t.Error("not a CA")
			}
		}
	})
}

// The system's roots, in processes that have none and one.
func TestSystem(t *testing.T) {
	if want, child := os.LookupEnv("ROOTS_TEST_SYSTEM"); child {
		k, err := newKeeper(t, Config{}, List{"Servers", []Source{System()}})
		if want == "" && (err == nil || !strings.Contains(err.Error(), "ca-certificates")) {
			t.Errorf("without roots: %v", err)
		}
		if want != "" && (err != nil || k.Today(0).Pool.Equal(x509.NewCertPool()) || k.Health()[0].Roots != -1) {
			t.Errorf("with a root: %v", err)
		}
		return
	}
	if runtime.GOOS != "linux" {
		t.Skip("the environment names the system's roots on Linux")
	}
	path := filepath.Join(t.TempDir(), "roots.pem")
	for _, body := range [][]byte{nil, pemOf(issue(t, nil, "a", nil))} {
		write(t, path, body)
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSystem$")
		cmd.Env = append(os.Environ(), "ROOTS_TEST_SYSTEM="+string(body[:min(len(body), 1)]), "SSL_CERT_FILE="+path, "SSL_CERT_DIR="+filepath.Dir(path)+"/none")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}
