package mtls

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-pki/chancery/mtls/internal/fakeca"
	"github.com/chancery-pki/chancery/mtls/internal/memkey"
)

// world is some CAs in memory and a Config for them.
type world struct {
	t    testing.TB
	cas  []*fakeca.CA
	cfg  Config
	log  *record
	stop []func()
}

// newWorld makes n CAs of one name each, ca0.test and so on, all asked in
// order. The identity's name is a.test.
func newWorld(t testing.TB, n int) *world {
	w := &world{t: t, log: &record{}}
	roots := x509.NewCertPool()
	for i := range n {
		ca := fakeca.New(time.Now)
		ca.Name, ca.PreApproved = fmt.Sprintf("ca%d.test", i), true
		client, stop := ca.Client()
		roots.AddCert(ca.Root)
		w.cas, w.stop = append(w.cas, ca), append(w.stop, stop)
		w.cfg.CAs = append(w.cfg.CAs, CA{Directory: ca.Directory(), HTTPClient: client})
	}
	w.cfg.Pick, w.cfg.Names, w.cfg.Trust = PickOrdered, []string{"a.test"}, believing(t, roots)
	w.cfg.Logger = slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	return w
}

// believing believes servers and clients of the same roots.
func believing(t testing.TB, roots *x509.CertPool) *Trust {
	list := []Roots{RootsPool(roots)}
	trust, err := NewTrust(TrustConfig{Servers: list, Clients: list})
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

// end stops the CAs; in a bubble nothing may be left.
func (w *world) end() {
	for _, stop := range w.stop {
		stop()
	}
}

func (w *world) start() *Identity {
	w.t.Helper()
	id, err := Start(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// ready is start and Ready.
func (w *world) ready() *Identity {
	w.t.Helper()
	id := w.start()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := id.Ready(ctx); err != nil {
		w.t.Fatalf("%v\n%s", err, w.log)
	}
	return id
}

// issued are all leaves so far, of all CAs.
func (w *world) issued() (all []fakeca.Issued) {
	for _, ca := range w.cas {
		all = append(all, ca.Issued()...)
	}
	return all
}

// record is a log that tests read.
type record struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

func (r *record) count(substring string) int { return strings.Count(r.String(), substring) }

func hello(name string) *tls.ClientHelloInfo { return &tls.ClientHelloInfo{ServerName: name} }

// serverLeaf is what a handshake gets, nil after an error.
func serverLeaf(t testing.TB, id *Identity, name string) *tls.Certificate {
	t.Helper()
	cert, err := id.serverCertificate(hello(name))
	if err != nil {
		t.Errorf("server %q: %v", name, err)
		return nil
	}
	signWith(t, cert)
	return cert
}

func clientLeaf(t testing.TB, id *Identity) *tls.Certificate {
	t.Helper()
	cert, err := id.clientCertificate(new(tls.CertificateRequestInfo))
	if err != nil || cert.Leaf == nil {
		t.Errorf("client: %v", err)
		return nil
	}
	signWith(t, cert)
	return cert
}

// signWith holds a certificate's key to what a handshake does with it.
func signWith(t testing.TB, cert *tls.Certificate) {
	t.Helper()
	if _, err := cert.PrivateKey.(crypto.Signer).Sign(nil, make([]byte, 32), crypto.SHA256); err != nil {
		t.Errorf("the key does not sign: %v", err)
	}
}

func erased(cert *tls.Certificate) bool {
	_, err := cert.PrivateKey.(crypto.Signer).Sign(nil, make([]byte, 32), crypto.SHA256)
	return err == memkey.ErrErased
}

// settled waits until no more than n goroutines run.
func settled(t testing.TB, n int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if got := runtime.NumGoroutine(); got <= n {
			return
		} else if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, want %d\n%s", got, n, buf[:runtime.Stack(buf, true)])
		}
	}
}

// manual is a clock whose timers never fire: a machine asleep.
type manual struct {
	mu  sync.Mutex
	now time.Time
}

// Now is what it was set to.
func (m *manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// After never fires.
func (m *manual) After(time.Duration) <-chan time.Time { return nil }

func (m *manual) jump(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
}
